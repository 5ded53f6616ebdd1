"""The JSON record of a run: what was run, on what, and what came out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_diffmm.data.dataset import interaction_hash

SCHEMA_VERSION = 1

# What says where files lie, what is shown and how many users are scored at once cannot move a number: a run keeps its
# name when these change.
_NOT_IN_NAME = frozenset(
    {
        "checkpoint_dir",
        "config_files",
        "data_path",
        "eval_batch_size",
        "gpu_id",
        "log_dir",
        "log_wandb",
        "properties_dir",
        "results_dir",
        "resume",
        "resume_every",
        "show_progress",
        "state",
        "tensorboard",
        "verbose",
        "wandb_project",
    }
)


def plain(value: Any) -> Any:
    """Return `value` as JSON has it: keys as strings, NumPy and tensors as numbers and lists, no NaN or infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, torch.Tensor, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def plain_config(config: Any) -> dict[str, Any]:
    """Return the resolved configuration as JSON-able values, RecBole's own `Config` included."""
    if hasattr(config, "plain"):
        return dict(config.plain())
    scalars = (bool, int, float, str, list, tuple, dict, type(None))
    return {str(k): plain(v) for k, v in config.final_config_dict.items() if isinstance(v, scalars)}


def run_name(config: Any) -> str:
    """Return ``<Model>-<dataset>-s<seed>-<hash8>``: the same configuration always has the same name."""
    settings = {key: value for key, value in plain_config(config).items() if key not in _NOT_IN_NAME}
    text = json.dumps(plain(settings), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{config['model']}-{config['dataset']}-s{config['seed']}-{digest}"


def record_path(config: Any) -> Path:
    """Return the path of the run's record, in ``results_dir``."""
    return Path(config["results_dir"] or "results/runs") / f"{run_name(config)}.json"


def selection(config: Any) -> str:
    """Return what chooses the reported epoch, such as ``validation Recall@20``."""
    return f"validation {config['valid_metric']}"


def summarise_seconds(curve: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the total seconds of each phase, and under ``per_epoch`` their medians."""
    phases: dict[str, list[float]] = {}
    for entry in curve:
        for phase, seconds in entry["seconds"].items():
            phases.setdefault(phase, []).append(seconds)
    totals: dict[str, Any] = {phase: round(sum(values), 4) for phase, values in phases.items()}
    totals["per_epoch"] = {phase: round(statistics.median(values), 4) for phase, values in phases.items()}
    return totals


def peak_memory_mb(device: torch.device) -> dict[str, float | None]:
    """Return the highest memory so far: ``host`` of this whole process, ``device`` since its counter was reset."""
    on_device = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {"host": _host_peak_mb(), "device": on_device if on_device is None else round(on_device, 1)}


def _host_peak_mb() -> float | None:
    status = Path("/proc/self/status")
    if status.exists():
        # Not `ru_maxrss`: Linux hands that down to a started process, so that a small one shows its parent's peak.
        peaks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if peaks:
            return round(int(peaks[0].split()[1]) / 2**10, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def device_name(device: torch.device) -> str:
    """Return the accelerator's name, or ``cpu`` with the machine's architecture."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {platform.machine()}"


@lru_cache(maxsize=1)
def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that numbers depend on."""
    packages = ("torch", "numpy", "scipy", "pandas", "recbole", "recbole_diffmm")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        module = sys.modules.get(package)
        return getattr(module, "__version__", None)


@lru_cache(maxsize=1)
def commit() -> dict[str, Any] | None:
    """Return the hash of the checkout that the package runs from and whether it is `dirty`; None when installed."""
    package = Path(__file__).resolve().parent
    head = _git(package.parent, "rev-parse", "HEAD", "--show-toplevel")
    if head is None:
        return None
    digest, top = head.splitlines()
    if Path(top).resolve() != package.parent:  # an environment that lies inside some other repository
        return None
    changes = _git(package.parent, "status", "--porcelain", "--", package.name, "properties")
    return {"hash": digest, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def describe_data(whole: Any, splits: Iterable[Any]) -> dict[str, Any]:
    """Return sizes and fingerprints of a dataset and of its training, validation and test split.

    Counts are of real users and items, without PAD; hashes are over raw ids, whatever their order.
    """
    parts = [interaction_hash(split) for split in splits]
    hashes = whole.feature_hashes() if hasattr(whole, "feature_hashes") else {}
    modalities = getattr(whole, "modalities", {})
    return {
        "n_users": int(whole.user_num) - 1,
        "n_items": int(whole.item_num) - 1,
        "n_inter": int(whole.inter_num),
        "hash": interaction_hash(whole),
        "split_hash": hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        "features": {
            name: {"hash": hashes[name], "coverage": plain(features.coverage)} for name, features in modalities.items()
        },
    }


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(json.dumps(plain(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read(path: Path) -> dict[str, Any] | None:
    """Return a record of this schema, or None where there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("schema_version") == SCHEMA_VERSION else None
