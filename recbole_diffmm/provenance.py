"""What a run's record says about where its numbers come from: code, data, machine and cost."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import platform
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recbole_diffmm.extras import require
from recbole_diffmm.record import plain

PACKAGE = Path(__file__).resolve().parent
# Modules that describe a run and cannot move its numbers.
_TELLING = frozenset({"errors", "doctor", "provenance", "record"})
# Makes files, which a record names by their content, whoever made them.
_MAKING_DATA = frozenset({"data.bundled"})


@cache
def code_hash(model: str) -> str:
    """Return the SHA-256 of the code that the numbers of `model` come from, without comments and docstrings.

    That is what a run imports of this package, the model's own files among it and other models' not, and the version
    of RecBole.
    """
    digest = hashlib.sha256(f"recbole {_version('recbole')}\n".encode())
    files = _files(model)
    for name in sorted(files):
        digest.update(f"{name}\n{_read(files[name])[1]}\n".encode())
    return digest.hexdigest()


@cache
def _files(model: str) -> dict[str, Path]:
    """The files of this package that the numbers of `model` come from, by the names of their modules."""
    start = ["quick_start", "on_import", "compat", "registry"]
    start += [f"{folder}.{model.lower()}" for folder in ("model", "builtin", "trainer")]
    files: dict[str, Path] = {}
    queue = [name for name in start if _file(name) is not None]
    while queue:
        name = queue.pop()
        path = _file(name)
        if path is None or name in files or name in _TELLING | _MAKING_DATA:
            continue
        files[name] = path
        queue += _read(path)[0]
    return files


@cache
def _file(module: str) -> Path | None:
    """The file of a module named below the package, such as ``model.base``."""
    path = PACKAGE.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _read(path: Path) -> tuple[tuple[str, ...], str]:
    """What a module of the package imports from it, and what of its text counts."""
    source = path.read_text(encoding="utf-8")
    return tuple(_imported(ast.parse(source))), _significant(source)


def _imported(tree: ast.AST) -> Iterator[str]:
    prefix = f"{PACKAGE.name}."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix(prefix) for alias in node.names if alias.name.startswith(prefix))
        elif isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith(prefix):
            module = node.module.removeprefix(PACKAGE.name).removeprefix(".")
            if module:
                yield module
            yield from (f"{module}.{alias.name}".removeprefix(".") for alias in node.names)


def _significant(source: str) -> str:
    """`source` without comments, docstrings and empty lines, the same on every version of Python."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                for row in range(first.lineno, (first.end_lineno or first.lineno) + 1):
                    lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def describe_files(folder: str | Path, dataset: Any, config: Any) -> dict[str, str]:
    """Return the SHA-256 of every file of `folder` that a dataset was read from, by name."""
    from recbole_diffmm.data.features import select_modalities

    suffixes = config["benchmark_filename"]
    names = [f"{dataset.dataset_name}.{part}.inter" for part in suffixes] if suffixes else []
    names = names or [f"{dataset.dataset_name}.inter"]
    names += [f"{dataset.dataset_name}.{kind}" for kind in ("user", "item")]
    # Those of all modalities, whether the model uses them or not; an id file need not be named in the YAML.
    for spec in select_modalities(config["modalities"], None, Path(folder), dataset.dataset_name):
        names += [os.path.relpath(path, folder) for path in (spec.features, spec.ids)]
    paths = {name: Path(folder) / name for name in dict.fromkeys(names)}
    return {name: hash_file(path) for name, path in paths.items() if path.is_file()}


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits; read again only where it has changed."""
    status = path.stat()
    return _hash_content(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _hash_content(path: Path, size: int, modified: int) -> str:
    return hash_files(path)


def hash_files(*paths: Path) -> str:
    """Return the SHA-256 of the contents of some files, one after the other, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def describe_data(whole: Any, splits: Iterable[Any]) -> dict[str, Any]:
    """Return sizes and fingerprints of a dataset and of its training, validation and test split.

    Counts are of real users and items, without PAD; hashes are over raw ids, whatever their order.
    """
    from recbole_diffmm.data.dataset import interaction_hash

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


def peak_memory_mb(device: Any) -> dict[str, float | None]:
    """Return the highest memory so far: ``host`` of this whole process, ``device`` since its counter was reset."""
    if device.type != "cuda":
        return {"host": _host_peak_mb(), "device": None}
    import torch

    return {"host": _host_peak_mb(), "device": round(torch.cuda.max_memory_allocated(device) / 2**20, 1)}


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


def device_name(device: Any) -> str:
    """Return the accelerator's name, or ``cpu`` with the machine's architecture."""
    if device.type == "cuda":
        import torch

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


def code(model: str) -> dict[str, Any]:
    """Return what a record says of the code that made the numbers of `model`."""
    checkout = _checkout()
    if checkout is None:
        return {"hash": code_hash(model), "commit": None, "dirty": None}
    digest, changed = checkout
    return {"hash": code_hash(model), "commit": digest, "dirty": not changed.isdisjoint(_files(model).values())}


def commit() -> dict[str, Any] | None:
    """Return the `hash` of the checkout that the package runs from and whether it is `dirty`; None when installed."""
    checkout = _checkout()
    return None if checkout is None else {"hash": checkout[0], "dirty": bool(checkout[1])}


@lru_cache(maxsize=1)
def _checkout() -> tuple[str, frozenset[Path]] | None:
    """The commit that the package runs from, and those of its files that are not as committed there."""
    head = _git(PACKAGE.parent, "rev-parse", "HEAD", "--show-toplevel")
    if head is None:
        return None
    digest, top = head.splitlines()
    if Path(top).resolve() != PACKAGE.parent:  # an environment that lies inside some other repository
        return None
    # Code alone: what a run is set to stands in its record, and `tune` itself writes into properties/.
    changes = _git(
        PACKAGE.parent, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", PACKAGE.name
    )
    return digest, frozenset(PACKAGE.parent / entry[3:] for entry in (changes or "").split("\0") if entry)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip("\n")


@contextmanager
def energy_meter(wanted: bool) -> Iterator[dict[str, float]]:
    """Measure the energy of what runs inside, in the yielded dict as ``kwh``, by CodeCarbon.

    Args:
        wanted: False measures nothing and yields an empty dict.

    Raises:
        UserError: CodeCarbon (the extra ``energy``) is not installed.
    """
    measured: dict[str, float] = {}
    if not wanted:
        yield measured
        return
    require("energy", "energy: true", "codecarbon")
    from codecarbon import OfflineEmissionsTracker

    # Offline: a run tells nobody that it runs. The country only sets the grams of CO2 to a kilowatt-hour, which are
    # not read. Only this process's share: other runs may be at work on the same machine.
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, log_level="error", tracking_mode="process"
    )
    tracker.start()
    try:
        yield measured
    finally:
        tracker.stop()
        measured["kwh"] = float(tracker.final_emissions_data.energy_consumed)
