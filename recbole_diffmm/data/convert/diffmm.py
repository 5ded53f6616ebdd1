"""The format the DiffMM paper published its datasets in.

A folder holds ``trnMat.pkl``, ``valMat.pkl`` and ``tstMat.pkl`` (pickled sparse matrices, users x items) and any
number of ``<modality>_feat.npy`` (one row per item). The raw id of a user or item is its row or column number.
"""

from __future__ import annotations

import re
from functools import partial
from logging import getLogger
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import yaml

from recbole_diffmm.data.convert.restricted import restricted_load
from recbole_diffmm.data.features import check_name, open_matrix
from recbole_diffmm.data.files import copy_file, write_folder, write_interactions, write_lines
from recbole_diffmm.errors import UserError

__all__ = ["convert", "restricted_load"]

SPLITS = {"train": "trnMat.pkl", "valid": "valMat.pkl", "test": "tstMat.pkl"}


def convert(folder: str | Path, name: str, out: str | Path, overwrite: bool = False) -> Path:
    """Write a published folder as RecBole's atomic files, with the authors' split and features.

    ``<out>/<name>`` gets ``<name>.<split>.inter`` for train, valid and test, the feature files as they are,
    ``item_ids.txt`` and ``<name>.yaml``, the dataset's configuration.

    Args:
        folder: The published folder.
        name: What the dataset is called from now on.
        out: Where datasets live; the dataset's own folder is made there.
        overwrite: Replace an existing dataset of that name that has other content.

    Returns:
        The dataset's folder.

    Raises:
        UserError: a file is missing, damaged, unsafe or does not fit the others; nothing is written then.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the one that holds {', '.join(SPLITS.values())}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UserError(f"--name is {name!r}, expected letters, digits, '-', '_' or '.'")
    matrices = {split: _interactions(folder / file) for split, file in SPLITS.items()}
    shapes = {split: matrix.shape for split, matrix in matrices.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"the matrices of {folder} differ in shape: {shapes}; they must come from one dataset")
    n_users, n_items = shapes["train"]
    features = {path.name[: -len("_feat.npy")]: path for path in sorted(folder.glob("*_feat.npy"))}
    for modality, path in features.items():
        check_name(modality, f" by its file {path}")
        rows = len(open_matrix(path))
        if rows != n_items:
            raise UserError(
                f"{path} has {rows} rows, but the matrices have {n_items} items; one row per item is needed"
            )
    _report(name, matrices, n_users, n_items, list(features))
    return write_folder(Path(out) / name, partial(_write, name, matrices, features, n_items), overwrite)


def _interactions(path: Path) -> sp.coo_matrix:
    matrix = restricted_load(path)
    if isinstance(matrix, np.ndarray):
        raise UserError(f"{path} holds an array, expected a sparse matrix, users x items")
    if not np.isfinite(matrix.data.astype(np.float64)).all():
        raise UserError(f"{path} holds values that are not finite; an interaction is any finite value but 0")
    kept = matrix.data != 0
    pairs = np.stack([matrix.row[kept], matrix.col[kept]])
    _, first = np.unique(pairs[0] * matrix.shape[1] + pairs[1], return_index=True)
    first.sort()  # the file's own order decides RecBole's ids
    if len(first) < matrix.nnz:
        getLogger(__name__).warning(
            f"{path}: {matrix.nnz} entries, {int((~kept).sum())} of them zeros and "
            f"{int(kept.sum()) - len(first)} repeated; {len(first)} interactions kept"
        )
    if not len(first):
        raise UserError(f"{path} holds no interaction")
    return sp.coo_matrix((np.ones(len(first)), pairs[:, first]), shape=matrix.shape)


def _report(name: str, matrices: dict[str, sp.coo_matrix], n_users: int, n_items: int, modalities: list[str]) -> None:
    log = getLogger(__name__)
    counts = " / ".join(str(matrix.nnz) for matrix in matrices.values())
    log.info(f"{name}: {n_users} users, {n_items} items, {counts} interactions ({' / '.join(matrices)})")
    log.info(f"{name}: modalities {', '.join(modalities) or 'none'}")
    rows, cols = (np.concatenate([getattr(m, axis) for m in matrices.values()]) for axis in ("row", "col"))
    for count, seen, what in ((n_users, rows, "users"), (n_items, cols, "items")):
        missing = count - len(np.unique(seen))
        if missing:
            log.warning(f"{name}: {missing} {what} occur in no split, so RecBole will not know them")


def _write(
    name: str, matrices: dict[str, sp.coo_matrix], features: dict[str, Path], n_items: int, folder: Path
) -> None:
    for split, matrix in matrices.items():
        write_interactions(folder / f"{name}.{split}.inter", user_id=matrix.row, item_id=matrix.col)
    settings: dict[str, object] = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": {"inter": ["user_id", "item_id"]},
        "benchmark_filename": list(matrices),
    }
    if features:
        write_lines(folder / "item_ids.txt", np.arange(n_items))
        settings["modalities"] = {key: {"features": path.name, "ids": "item_ids.txt"} for key, path in features.items()}
    for path in features.values():
        copy_file(path, folder / path.name)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
