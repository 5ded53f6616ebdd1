"""Read a feature matrix and its raw item ids, and align the rows to a dataset's item ids.

A feature file is a two-dimensional ``.npy`` of any float type; the id file beside it names the item of each row, one
raw id a line. Ids are matched by their text, never by position in the dataset, so filtering and splitting cannot
shift a row.

Ids that the dataset does not have are counted and logged: features of a whole catalogue are normal where the
interactions were filtered. They are an error where no id is known at all, or where most ids are unknown and most
items are left without features, because then the file belongs to another dataset or was written with other ids.
``unknown_ids: allow`` in the modality's YAML lifts the second half of that rule, ``unknown_ids: refuse`` makes every
unknown id an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_diffmm.data.modality import ModalityFeatures
from recbole_diffmm.errors import UserError, nearest

_CHUNK_ROWS = 4096  # bounds the float32 copy made while checking, whatever the size of the file
_UNKNOWN_IDS = ("check", "allow", "refuse")


@dataclass(frozen=True)
class ModalitySpec:
    """What a dataset's YAML says about one modality.

    Attributes:
        name: The modality's key.
        features: Path of the ``.npy`` file.
        ids: Path of the id file, one raw item id a line.
        unknown_ids: ``check`` (the default), ``allow`` or ``refuse``; see the module's text.
    """

    name: str
    features: Path
    ids: Path
    unknown_ids: str = "check"


def select_modalities(
    modalities: Any, use_modalities: Any, folder: Path, dataset: str, places: Mapping[str, str] | None = None
) -> list[ModalitySpec]:
    """Turn the keys ``modalities`` and ``use_modalities`` into specs, in the order they are used in.

    Args:
        modalities: Mapping name -> ``{features, ids[, unknown_ids]}`` or None; paths relative to ``folder``.
            Without ``ids`` the file ``<features without .npy>.ids`` is used.
        use_modalities: Names to keep, in this order; None keeps all, in the mapping's order.
        folder: The dataset's folder.
        dataset: The dataset's name, for messages.
        places: Where each of the two keys stands, such as `` in dataset/mine/mine.yaml``, for messages.

    Raises:
        UserError: the keys are mistyped, or a name is unknown.
    """
    in_modalities, in_use = ((places or {}).get(key, "") for key in ("modalities", "use_modalities"))
    declared = {} if modalities is None else modalities
    if not isinstance(declared, Mapping):
        raise UserError(
            f"modalities{in_modalities} of dataset {dataset} is {declared!r}, expected a mapping such as "
            "{text: {features: text.npy, ids: items.txt}}"
        )
    names = list(declared) if use_modalities is None else use_modalities
    if isinstance(names, str) or not isinstance(names, Sequence):
        example = f"[{', '.join(map(str, declared))}]"
        raise UserError(f"use_modalities{in_use} is {names!r}, expected a list such as {example}")
    for name in names:
        if name not in list(declared):  # a list: what is no name at all may have no hash
            raise UserError(
                f"use_modalities{in_use} names {name!r}, but dataset {dataset} has "
                f"{sorted(map(str, declared)) or 'none'}{in_modalities}{nearest(str(name), map(str, declared), 0.3)}"
            )
    if len(set(names)) != len(names):
        raise UserError(f"use_modalities{in_use} names a modality twice: {list(names)}")
    return [_spec(name, declared[name], folder, in_modalities) for name in names]


def check_name(name: Any, place: str) -> None:
    """Refuse what cannot name a modality: its name becomes part of the names of parameters and of log lines.

    Args:
        name: What it is called.
        place: Where it stands, such as `` in dataset/mine/mine.yaml``, for the message.

    Raises:
        UserError: It is no letter followed by letters, digits, ``_`` or ``-``.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise UserError(f"a modality{place} is called {name!r}; use a letter, then letters, digits, '_' or '-'")


def _spec(name: Any, entry: Any, folder: Path, place: str) -> ModalitySpec:
    check_name(name, place)
    known = ("features", "ids", "unknown_ids")
    for key in entry if isinstance(entry, Mapping) else ():
        if key not in known:
            raise UserError(
                f"modalities.{name}{place} has an unknown key {key!r}, known are {', '.join(known)}"
                f"{nearest(str(key), known, cutoff=0.3)}"
            )
    if not isinstance(entry, Mapping) or not isinstance(entry.get("features"), str) or not entry["features"]:
        raise UserError(f"modalities.{name}{place} is {entry!r}, expected {{features: <file>.npy, ids: <file>}}")
    ids = entry.get("ids", str(Path(entry["features"]).with_suffix(".ids")))
    if not isinstance(ids, str):
        raise UserError(f"modalities.{name}.ids{place} is {ids!r}, expected a file of raw item ids, one a line")
    unknown_ids = entry.get("unknown_ids", "check")
    if unknown_ids not in _UNKNOWN_IDS:
        raise UserError(
            f"modalities.{name}.unknown_ids{place} is {unknown_ids!r}, expected one of {', '.join(_UNKNOWN_IDS)}"
            f"{nearest(str(unknown_ids), _UNKNOWN_IDS)}"
        )
    return ModalitySpec(name, folder / entry["features"], folder / ids, unknown_ids)


def load_modality(spec: ModalitySpec, tokens: Sequence[str] | np.ndarray, dataset: str) -> ModalityFeatures:
    """Read one modality and align it to the items of a dataset.

    Args:
        spec: Where the files are.
        tokens: Raw item ids in the order of RecBole's ids, ``n_items`` of them; the first is PAD.
        dataset: The dataset's name, for messages.

    Raises:
        UserError: a file is missing, damaged or does not fit; the message names file, row and remedy.
    """
    rows = open_matrix(spec.features)
    ids = read_ids(spec.ids)
    if len(ids) != len(rows):
        raise UserError(
            f"{spec.features} has {len(rows)} rows but {spec.ids} has {len(ids)} ids; write one id per row, in order"
        )
    position = pd.Index(np.asarray(tokens).astype(str)).get_indexer(pd.Index(ids))
    known = position > 0  # -1 is unknown; 0 is PAD, which no file may fill
    _check_overlap(spec, ids, known, n_items=len(tokens) - 1, dataset=dataset)

    matrix = np.zeros((len(tokens), rows.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = _finite_float32(spec.features, rows[start : start + _CHUNK_ROWS], ids, start)
        keep = known[start : start + _CHUNK_ROWS]
        matrix[position[start : start + _CHUNK_ROWS][keep]] = chunk[keep]
    observed = np.zeros(len(tokens), dtype=bool)
    observed[position[known]] = True
    first = matrix[observed.argmax()]
    if observed.sum() > 1 and all((matrix[item] == first).all() for item in np.flatnonzero(observed)):
        getLogger(__name__).warning(
            f"modality {spec.name}: all {observed.sum()} items have the same features, {_told(first)}, which tell no "
            f"item from another; look at how {spec.features} was made"
        )
    features = ModalityFeatures(spec.name, torch.from_numpy(matrix), torch.from_numpy(observed))
    getLogger(__name__).info(
        f"modality {spec.name}: {features.feat_dim} features, {features.n_observed} of {len(tokens) - 1} items "
        f"({features.coverage:.1%}), {int((~known).sum())} ids of the file are not in the dataset"
    )
    return features


def _told(row: np.ndarray) -> str:
    return "zeros" if not row.any() else f"such as {row[0]:.4g} in the first column"


def open_matrix(path: Path) -> np.ndarray:
    """Open a ``.npy`` of floats, shape ``(rows, feat_dim)``, memory-mapped and without unpickling anything.

    Raises:
        UserError: the file is missing, empty, truncated, or holds anything but a matrix of floats.
    """
    require_file(path, "features")
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise UserError(f"{path} is not a .npy file; write it with numpy.save")
        file.seek(0)
        try:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = read_header[version](file)
            if not all(type(size) is int and size >= 0 for size in shape):
                raise ValueError(f"shape {shape}")
        except Exception as error:  # NumPy parses the header as Python's tokens
            raise UserError(f"{path} has a damaged .npy header ({_one_line(error)}); write it again") from error
        data_bytes = path.stat().st_size - file.tell()
    if dtype.hasobject:
        raise UserError(f"{path} holds Python objects, which are never unpickled; save a plain float matrix")
    if dtype.kind in "SU":
        raise UserError(f"{path} holds text ({dtype}), expected numbers; extract features or save them as float32")
    if dtype.kind != "f":
        raise UserError(f"{path} holds {dtype}, expected a float type; save it with .astype('float32')")
    if len(shape) != 2 or 0 in shape:
        raise UserError(f"{path} has shape {shape}, expected (rows, features) with at least one of each")
    expected = math.prod(shape) * dtype.itemsize
    if data_bytes != expected:
        state = "is truncated" if data_bytes < expected else "has trailing bytes"
        raise UserError(f"{path} {state}: {data_bytes} bytes of data, its header announces {expected}; copy it again")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def read_ids(path: Path) -> np.ndarray:
    """Read raw item ids, one a line, as an array of text.

    Raises:
        UserError: the file is missing, empty, not UTF-8, or has a blank or a repeated line.
    """
    require_file(path, "item ids")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({_one_line(error)}); write one raw item id a line") from error
    ids = pd.Series(lines if lines[-1] else lines[:-1], dtype=object).str.rstrip("\r")
    blank = np.flatnonzero(ids == "")
    if blank.size:
        raise UserError(f"{path} line {blank[0] + 1} is blank; write one raw item id a line")
    repeated = np.flatnonzero(ids.duplicated())
    if repeated.size:
        second = repeated[0]
        first = np.flatnonzero(ids == ids[second])[0]
        raise UserError(
            f"{path} has the id {ids[second]!r} in lines {first + 1} and {second + 1} ({repeated.size} repeated in "
            "all); keep one row per item"
        )
    return ids.to_numpy()


def require_file(path: Path, what: str) -> None:
    """Check that a file is there and not empty.

    Raises:
        UserError: it is missing or empty.
    """
    if not path.is_file():
        others = [p.name for p in path.parent.glob("*")]
        raise UserError(f"{what} file {path} does not exist{nearest(path.name, others, cutoff=0.6)}")
    if path.stat().st_size == 0:
        raise UserError(f"{what} file {path} is empty; write or copy it again")


def _check_overlap(spec: ModalitySpec, ids: np.ndarray, known: np.ndarray, n_items: int, dataset: str) -> None:
    n_unknown, n_known = int((~known).sum()), int(known.sum())
    if not n_unknown:
        return
    example = f"for example {ids[~known][0]!r}"
    if not n_known:
        raise UserError(
            f"none of the {len(ids)} ids in {spec.ids} is an item of dataset {dataset}, {example}; "
            "use the raw ids of its .inter file"
        )
    foreign = n_unknown > n_known and n_known < n_items / 2
    if spec.unknown_ids == "refuse" or (spec.unknown_ids == "check" and foreign):
        raise UserError(
            f"{n_unknown} of the {len(ids)} ids in {spec.ids} are unknown to dataset {dataset}, {example}, and only "
            f"{n_known} of its {n_items} items have features; check the ids, or set unknown_ids: allow"
        )


def _finite_float32(path: Path, rows: np.ndarray, ids: np.ndarray, start: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        chunk = np.asarray(rows).astype(np.float32)
    bad = np.argwhere(~np.isfinite(chunk))
    if bad.size:
        row, column = bad[0]
        raise UserError(
            f"{path} row {start + row} (item {ids[start + row]}), column {column} is {rows[row, column]}, not a finite "
            "float32; mend the row, or leave it and its id out so that the item counts as unobserved"
        )
    return chunk


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
