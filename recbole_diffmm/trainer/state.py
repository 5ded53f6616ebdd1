"""What a run consists of besides parameters and optimisers: random generators, and attributes that training changes."""

from __future__ import annotations

import ctypes
import hashlib
import random
import sys
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn


def random_state(loaders: Iterable[Any]) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and PyTorch's generators and of the loaders' own, as plain values."""
    version, numbers, spare = random.getstate()
    legacy: Any = np.random.get_state()  # noqa: NPY002 - RecBole samples from it
    name, keys, position, has_gauss, gauss = legacy
    return {
        "python": [version, list(numbers), spare],
        "numpy": [name, keys.astype(np.int64), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "loaders": [loader.generator.get_state() for loader in loaders],
    }


def set_random_state(state: dict[str, Any], loaders: Iterable[Any]) -> None:
    """Put every generator where `random_state` found it."""
    version, numbers, spare = state["python"]
    random.setstate((version, tuple(numbers), spare))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    for loader, generator in zip(loaders, state["loaders"], strict=True):
        loader.generator.set_state(generator)


def return_freed_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc, between larger blocks).

    Phases of an epoch need blocks of different sizes: without this, each adds what the last one left behind.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class AttributeWatch:
    """The plain values, tensors and arrays of a model outside its `state_dict` that changed since it was built.

    Some of RecBole's models count steps (MultiVAE's annealing), keep tensors (LightGCN's cached rows) or shuffle an
    array (LINE's users to draw from) in ordinary attributes; a resumed run needs them, and saving only what changed
    leaves out adjacency matrices and features.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._start = {place: _mark(value) for place, value in self._items()}

    def changed(self) -> list[dict[str, Any]]:
        """Return module path, name and value of every attribute that is not what it was."""
        return [
            {"module": place[0], "name": place[1], "value": value}
            for place, value in self._items()
            if place not in self._start or not _unchanged(self._start[place], value)
        ]

    def restore(self, attributes: Iterable[dict[str, Any]], device: torch.device) -> None:
        """Set the attributes that `changed` returned, tensors on `device`."""
        for attribute in attributes:
            value = attribute["value"]
            owner = self._model.get_submodule(attribute["module"])
            setattr(owner, attribute["name"], value.to(device) if isinstance(value, torch.Tensor) else value)

    def _items(self) -> Iterator[tuple[tuple[str, str], Any]]:
        for path, module in self._model.named_modules():
            for name, value in vars(module).items():
                plain = value is None or isinstance(value, (bool, int, float, str, torch.Tensor))
                if (plain or _is_numbers(value)) and name != "training" and not isinstance(value, nn.Parameter):
                    yield (path, name), value
            for name in module._non_persistent_buffers_set:
                yield (path, name), module._buffers[name]


def _mark(value: Any) -> Any:
    # A weak reference, so that a tensor which the model replaces is not kept alive here.
    if isinstance(value, np.ndarray):
        return _digest(value)  # an array does not count its changes
    return (weakref.ref(value), _version(value)) if isinstance(value, torch.Tensor) else value


def _unchanged(mark: Any, value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return isinstance(mark, tuple) and mark[0]() is value and mark[1] == _version(value)
    if isinstance(value, np.ndarray):
        return bool(mark == _digest(value))
    return type(mark) is type(value) and bool(mark == value)


def _is_numbers(value: Any) -> bool:
    # Other arrays, such as LINE's sets of users, have no plain form.
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def _digest(array: np.ndarray) -> tuple[Any, ...]:
    return array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
