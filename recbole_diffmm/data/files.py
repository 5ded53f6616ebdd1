"""Write a dataset's folder whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from recbole_diffmm.errors import UserError
from recbole_diffmm.provenance import hash_files


class CannotWriteError(UserError):
    """A folder that this process may not or cannot write."""


def write_folder(target: Path, fill: Callable[[Path], None], overwrite: bool = False) -> Path:
    """Let ``fill`` write into an empty folder and move that to ``target`` once it is complete.

    An interrupted run leaves no half-written dataset, and writing the same content twice changes nothing.

    Args:
        target: The folder to make.
        fill: Writes the files into the folder it is given.
        overwrite: Replace files of a target with other content; False by default. Files that ``fill`` does not write,
            such as features that were put beside the data, stay.

    Raises:
        UserError: the target holds other content and ``overwrite`` is False.
        CannotWriteError: the target cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            fill(new)
            if target.exists() and not _holds(target, new):
                if not overwrite:
                    raise UserError(
                        f"{target} exists with other content; use --overwrite to replace it, or another --name or --out"
                    )
                _keep_others(target, new)
                _replace(target, new, Path(scratch) / "old")
            elif not target.exists():
                _move(new, target)
    except OSError as error:
        raise CannotWriteError(f"cannot write {target}: {error.strerror or error}; choose another folder") from error
    return target


def write_interactions(path: Path, **columns: object) -> None:
    """Write RecBole's atomic ``.inter`` file, every column a token."""
    frame = pd.DataFrame({f"{name}:token": values for name, values in columns.items()})
    frame.to_csv(path, sep="\t", index=False, lineterminator="\n")


def write_lines(path: Path, lines: object) -> None:
    """Write one value a line, with a newline at the end."""
    pd.Series(lines).to_csv(path, index=False, header=False, lineterminator="\n", sep="\t")


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file, and nothing else about it."""
    shutil.copyfile(source, target)


def _keep_others(target: Path, new: Path) -> None:
    for file in target.iterdir() if target.is_dir() else ():
        if not (new / file.name).exists():
            (shutil.copytree if file.is_dir() else shutil.copy2)(file, new / file.name)


def _replace(target: Path, new: Path, old: Path) -> None:
    target.rename(old)
    try:
        _move(new, target)
    except BaseException:
        if not target.exists():
            old.rename(target)  # or it would go with the scratch folder
        raise


def _move(new: Path, target: Path) -> None:
    try:
        new.rename(target)
    except OSError:
        # another process may have finished the same folder first, which is as good
        if not (target.exists() and _holds(target, new)):
            raise


def _holds(target: Path, new: Path) -> bool:
    return target.is_dir() and all(
        (target / file.name).is_file() and hash_files(target / file.name) == hash_files(file) for file in new.iterdir()
    )
