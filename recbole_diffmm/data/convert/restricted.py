"""Read pickled SciPy sparse matrices and NumPy arrays without running anything that a pickle names.

The published files name ``scipy.sparse.coo`` and ``numpy.core``, modules that are going away, and a pickle can name
any function at all. So no name is ever imported here: the few that such files need are mapped to inert records that
only remember what they were given, and the matrix is built afterwards from the records, checked field by field.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import scipy.sparse as sp

from recbole_diffmm.data.features import require_file
from recbole_diffmm.errors import UserError

_FORMATS = ("coo", "csr", "csc")
_NUMBERS = ("b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8")


class _Record:
    """What the pickle said about one object."""

    __slots__ = ("args", "kind", "state")

    def __init__(self, kind: str, args: tuple[Any, ...]) -> None:
        self.kind, self.args = kind, args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Maker:
    """A name of the pickle: calling it makes a record. An instance, so that the pickle has no class to alter."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, *args: Any) -> _Record:
        return _Record(self.kind, args)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("a pickle may not alter the names it uses")


def _sparse_class(kind: str) -> type:
    # NEWOBJ insists on a class; a fresh one per file keeps whatever a pickle does to it out of the next file
    class Sparse(_Record):
        __slots__ = ()

        def __new__(cls, *args: Any) -> Any:
            return super().__new__(cls)

        def __init__(self, *args: Any) -> None: ...

        def __setstate__(self, state: Any) -> None:
            self.kind, self.args, self.state = kind, (), state

    return Sparse


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        form, _, shape = name.partition("_")
        if form in _FORMATS and shape in ("matrix", "array"):
            if module in ("scipy.sparse", f"scipy.sparse.{form}", f"scipy.sparse._{form}"):
                return _sparse_class(form)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _Maker("array")
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _Maker("buffer")
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return _Maker(name)
        if (module, name) in (("_codecs", "encode"), ("__builtin__", "bytes")):  # how protocol 2 spells bytes
            return _Maker("encode")
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def restricted_load(path: str | Path) -> sp.coo_matrix | np.ndarray:
    """Read one sparse matrix (as COO) or one array of numbers from a pickle.

    Args:
        path: A pickle of a SciPy COO, CSR or CSC matrix, or of a NumPy array of booleans, integers or floats.

    Raises:
        UserError: the file is missing, empty or damaged, or names anything else; the message names what.
    """
    path = Path(path)
    require_file(path, "pickle")
    try:
        with path.open("rb") as file:
            # latin1: pickles of Python 2 keep bytes in text
            return _build(_Reader(file, encoding="latin1").load())
    except _Refused as error:
        raise UserError(f"{path} is refused: {error}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is refused: {' '.join(str(error).split())}; only SciPy sparse matrices and NumPy arrays are read"
        ) from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} is not a readable pickle ({type(error).__name__}); copy it again") from error


class _Refused(Exception):
    """The pickle is well-formed, but its content is not a matrix."""


def _build(record: Any) -> sp.coo_matrix | np.ndarray:
    if isinstance(record, _Record) and record.kind in _FORMATS:
        return _sparse(record)
    if isinstance(record, _Record) and record.kind in ("array", "buffer"):
        return _array(record)
    raise _Refused(f"it holds {type(record).__name__}, expected a SciPy sparse matrix or a NumPy array")


def _sparse(record: _Record) -> sp.coo_matrix:
    state = record.state
    if not isinstance(state, dict) or "_shape" not in state or "data" not in state:
        raise _Refused("its sparse matrix has no shape or no data")
    shape = tuple(int(n) for n in state["_shape"])
    if len(shape) != 2 or min(shape) < 0:
        raise _Refused(f"its sparse matrix has shape {shape}, expected two dimensions")
    data = _array(state["data"])
    if record.kind == "coo":
        # SciPy 1.13 and later keep both index arrays in one field
        row, col = (_array(part) for part in state.get("coords") or (state["row"], state["col"]))
    else:
        indices, indptr = _array(state["indices"]), _array(state["indptr"])
        major = shape[0] if record.kind == "csr" else shape[1]
        if len(indptr) != major + 1 or indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
            raise _Refused("its sparse matrix has inconsistent row pointers")
        outer = np.repeat(np.arange(major), np.diff(indptr))
        row, col = (outer, indices) if record.kind == "csr" else (indices, outer)
    for index, size, name in ((row, shape[0], "row"), (col, shape[1], "column")):
        if index.ndim != 1 or index.dtype.kind not in "iu" or len(index) != len(data):
            raise _Refused(f"its {name} indices do not fit its data")
        if len(index) and (index.min() < 0 or index.max() >= size):
            raise _Refused(f"a {name} index lies outside its shape {shape}")
    return sp.coo_matrix((data, (row.astype(np.int64), col.astype(np.int64))), shape=shape)


def _array(record: Any) -> np.ndarray:
    if not isinstance(record, _Record) or record.kind not in ("array", "buffer"):
        raise _Refused("its sparse matrix holds something else than arrays")
    if record.kind == "buffer":
        raw, dtype, shape, order = record.args
    else:
        _, shape, dtype, by_column, raw = record.state
        order = "F" if by_column else "C"
    raw = _bytes(raw)
    return np.frombuffer(raw, dtype=_dtype(dtype)).reshape([int(n) for n in shape], order=order)


def _bytes(raw: Any) -> bytes:
    if isinstance(raw, pickle.PickleBuffer):
        raw = raw.raw()
    if isinstance(raw, _Record) and raw.kind == "encode":
        raw = raw.args[0] if raw.args else ""
    if isinstance(raw, str):
        return raw.encode("latin1")
    if isinstance(raw, (bytes, bytearray, memoryview)):
        return bytes(raw)
    raise _Refused("an array holds Python objects, expected numbers")


def _dtype(record: Any) -> np.dtype:
    name = record.args[0] if isinstance(record, _Record) and record.kind == "dtype" else record
    if name not in _NUMBERS:
        raise _Refused(f"an array holds {name!r}, expected numbers")
    order = record.state[1] if isinstance(record, _Record) and record.state else "<"
    return np.dtype(name).newbyteorder(order if order in "<>" else "=")
