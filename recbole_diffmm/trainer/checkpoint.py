"""Checkpoints of tensors and plain values only: written atomically, read with ``weights_only=True``.

RecBole pickles its `Config` object and whatever a model puts into `other_parameter` (SciPy matrices, NumPy arrays);
reading such a file runs code. Here arrays become tensors with a small description, and come back as they were.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_diffmm.errors import UserError

FORMAT = 1
_TYPE = "__type__"


def to_plain(value: Any) -> Any:
    """Replace SciPy matrices, NumPy arrays and scalars inside `value` by tensors and plain values.

    Raises:
        TypeError: A part of `value` has no plain form; the message names where it is.
    """
    return _to_plain(value, "checkpoint")


def _to_plain(value: Any, where: str) -> Any:
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, torch.nn.Parameter):
        return value.detach()
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.dtype.kind not in "biuf":
            raise TypeError(f"{where}: an array of {value.dtype} has no plain form")
        # from_numpy wants native byte order and writable, positive strides.
        tensor = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C", copy=True))
        return {_TYPE: "matrix" if isinstance(value, np.matrix) else "array", "data": tensor}
    if sp.issparse(value):
        rows = value if value.format in ("csr", "csc") else value.tocsr()
        return {
            _TYPE: "sparse",
            "layout": rows.format,
            "format": value.format,
            "new_style": isinstance(value, sp.sparray),
            "shape": [int(n) for n in value.shape],
            "data": _to_plain(rows.data, where),
            "indices": _to_plain(rows.indices, where),
            "indptr": _to_plain(rows.indptr, where),
        }
    if isinstance(value, Mapping):
        if not all(isinstance(key, (str, int)) for key in value):
            raise TypeError(f"{where}: a key that is neither a string nor a number")
        return {key: _to_plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    raise TypeError(f"{where}: a {type(value).__name__} has no plain form")


def from_plain(value: Any) -> Any:
    """Undo `to_plain`."""
    if isinstance(value, Mapping):
        kind = value.get(_TYPE)
        if kind == "array":
            return value["data"].cpu().numpy()
        if kind == "matrix":
            return np.asmatrix(value["data"].cpu().numpy())
        if kind == "sparse":
            family = "array" if value["new_style"] else "matrix"
            build = getattr(sp, f"{value['layout']}_{family}")
            parts = tuple(from_plain(value[name]) for name in ("data", "indices", "indptr"))
            return build(parts, shape=tuple(value["shape"])).asformat(value["format"])
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(item) for item in value)
    return value


def save(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write `content`, encoded, to `path` so that a reader finds the old file or the new one, never a part.

    Raises:
        TypeError: A value has no plain form.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A fixed name: what a killed process left behind is overwritten by the next one instead of piling up.
    partial = target.with_name(target.name + ".tmp")
    torch.save({"format": FORMAT, **to_plain(content)}, partial)
    os.replace(partial, target)


def load(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Read what `save` wrote; no code in the file is ever run.

    Raises:
        UserError: The file is missing, damaged, or not one of these checkpoints.
    """
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
        if isinstance(content, dict) and content.get("format") == FORMAT:
            return dict(from_plain(content))
    except FileNotFoundError:
        raise UserError(f"checkpoint {path}: no such file; give the path of a .pth file that a run wrote") from None
    except Exception as error:  # whatever comes of reading bytes that may be anything
        raise UserError(f"checkpoint {path}: {_unreadable(error)}; give a file that recbole-diffmm wrote") from None
    raise UserError(f"checkpoint {path}: not in format {FORMAT} of recbole-diffmm; give a file that this version wrote")


def _unreadable(error: Exception) -> str:
    # PyTorch's text is a page of advice about weights_only, which is not what helps here.
    named = re.search(r"Unsupported global: GLOBAL ([\w.]+)", str(error))
    if named:
        return f"holds {named[1]}, not only tensors and plain values, and is not read because it could run code"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror.lower()})"
    return "is damaged or no checkpoint"
