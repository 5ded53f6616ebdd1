"""Write a dataset's folder whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from recbole_diffmm.data.features import hash_files
from recbole_diffmm.errors import UserError


class CannotWriteError(UserError):
    """A folder that this process may not or cannot write."""


def write_folder(target: Path, fill: Callable[[Path], None], overwrite: bool = False) -> Path:
    """Let ``fill`` write into an empty folder and move that to ``target`` once it is complete.

    An interrupted run leaves no half-written dataset, and writing the same content twice changes nothing.

    Args:
        target: The folder to make.
        fill: Writes the files into the folder it is given.
        overwrite: Replace a target with other content; False by default.

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
                target.rename(Path(scratch) / "old")
            if not target.exists():
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
