"""What a bug report needs: versions, device, what was mended, and where things are looked for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path

import torch

from recbole_diffmm import __version__, compat, registry
from recbole_diffmm.errors import RecBoleMissingError
from recbole_diffmm.precision import resolve_precision

_PACKAGES = ("recbole", "torch", "numpy", "scipy", "pandas", "scikit-learn", "pydantic")
_OPTIONAL = {
    "faiss": "ncl",
    "kmeans_pytorch": "ldiffrec",
    "pyarrow": "leaderboard",
    "statsmodels": "leaderboard",
    "optuna": "tune",
    "distributed": "cluster",
    "codecarbon": "energy",
}


def report() -> str:
    """Return the whole report as lines of text."""
    sections = {
        "versions": _versions(),
        "device": _device(),
        "RecBole defects": _mends(),
        "optional packages": _optional(),
        "looked for in": _places(),
    }
    return "\n".join(f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections.items())


def _versions() -> list[str]:
    lines = [f"python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    lines.append(f"recbole-diffmm {__version__} in {Path(__file__).resolve().parent}")
    return lines + [f"{name} {_version(name)}" for name in _PACKAGES]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"


def _device() -> list[str]:
    native = resolve_precision("auto", torch.device("cpu"))
    lines = [
        f"cpu: {os.cpu_count()} cores, PyTorch uses {torch.get_num_threads()} threads; precision: auto is {native} here"
    ]
    if not torch.cuda.is_available():
        build = torch.version.cuda
        return [*lines, f"cuda: {'no GPU is visible' if build else 'this PyTorch is a CPU build'}; runs use the CPU"]
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        lines.append(f"cuda:{index}: {torch.cuda.get_device_name(index)}, {memory:.0f} GiB, CUDA {torch.version.cuda}")
    return lines


def _mends() -> list[str]:
    lines = []
    try:
        mends = compat.apply()
    except RecBoleMissingError as error:
        return [str(error)]
    for mend in mends:
        state = "mended" if mend.acted else "left alone"
        lines.append(f"{mend.name}: {state} ({mend.why}). {mend.defect} [{mend.upstream}]")
    return lines


def _optional() -> list[str]:
    lines = []
    for package, extra in _OPTIONAL.items():
        there = importlib.util.find_spec(package) is not None
        lines.append(f"{package}: installed" if there else f'{package}: pip install "recbole-diffmm[{extra}]"')
    return lines


def _places() -> list[str]:
    try:
        from recbole_diffmm.config import Config, dataset_names
    except RecBoleMissingError:
        return ["told with RecBole alone"]
    data_path = Path(Config(registry.own_model_names()[0], "ml-100k").final_config_dict["data_path"]).parent
    lines = [f"properties, weakest first: {', '.join(_property_places())}"]
    lines.append(f"datasets: {data_path.resolve()} (set data_path to change it)")
    lines += [
        f"  {name}: {'there' if (data_path / name).is_dir() else 'not made yet'}" for name in dataset_names(data_path)
    ]
    return lines


def _property_places() -> list[str]:
    from recbole_diffmm.config import RECBOLE_PROPERTIES
    from recbole_diffmm.sources import property_folders

    folders = [RECBOLE_PROPERTIES, *property_folders()]
    own = Path.cwd() / "properties"
    absent = [f"{own} (not there)"] if not own.is_dir() else []
    return [*map(str, folders), *absent]
