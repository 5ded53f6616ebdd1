"""The datasets that need no download: ml-100k, from the copy inside RecBole's wheel, and a generated toy."""

from __future__ import annotations

import os
from collections.abc import Callable
from logging import getLogger
from pathlib import Path

from recbole_diffmm.data import ml_100k, toy
from recbole_diffmm.data.files import CannotWriteError, write_folder
from recbole_diffmm.errors import UserError

STAMP = ".made_by_recbole_diffmm"

# The number is the recipe's version: a folder made by another one is made again.
_RECIPES: dict[str, tuple[str, Callable[[Path], None]]] = {"ml-100k": ("3", ml_100k.write), "toy": ("1", toy.write)}

BUNDLED = tuple(_RECIPES)


def prepare(name: str, data_path: str | Path) -> Path | None:
    """Make a bundled dataset unless it is there already, whole or not at all.

    Args:
        name: ``ml-100k`` or ``toy``; any other name does nothing.
        data_path: Where datasets live. Where it cannot be written to, the user's cache folder
            (``$XDG_CACHE_HOME/recbole_diffmm/dataset``, by default below ``~/.cache``) takes its place.

    Returns:
        The dataset's folder, ``<data_path>/<name>`` or its stand-in in the cache; None for a name not bundled.

    Raises:
        UserError: the folder holds something else under this name.
    """
    if name not in _RECIPES:
        return None
    try:
        return _prepare(name, Path(data_path) / name)
    except CannotWriteError as error:
        cache = _cache_folder() / name
        getLogger(__name__).info(f"{error}; using {cache} instead")
        return _prepare(name, cache)


def _prepare(name: str, target: Path) -> Path:
    version, write = _RECIPES[name]
    if _version(target) == version:
        return target
    if target.exists() and _version(target) is None:
        raise UserError(
            f"{target} exists but was not made by recbole_diffmm, which keeps its bundled dataset {name} there; "
            "rename the folder or set another data_path"
        )

    def fill(folder: Path) -> None:
        write(folder)
        (folder / STAMP).write_text(version + "\n", encoding="utf-8")

    getLogger(__name__).info(f"making the bundled dataset {name} in {target}")
    return write_folder(target, fill, overwrite=True)


def _version(folder: Path) -> str | None:
    try:
        return (folder / STAMP).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "recbole_diffmm" / "dataset"
