"""Checkpoints come back as they were, run no code, and are never half-written."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_diffmm.errors import UserError
from recbole_diffmm.trainer import checkpoint


def _round_trip(value):
    checkpoint.save("c.pth", {"value": value})
    return checkpoint.load("c.pth")["value"]


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil", "dok"])
@pytest.mark.parametrize("family", [sp.random, sp.random_array])
def test_sparse_matrices_keep_values_format_and_type(layout, family):
    shape = (7, 5)
    matrix = (family(*shape, density=0.4) if family is sp.random else family(shape, density=0.4)).asformat(layout)
    back = _round_trip(matrix)
    assert type(back) is type(matrix)
    assert back.dtype == matrix.dtype
    np.testing.assert_array_equal(back.toarray(), matrix.toarray())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
        np.asmatrix(np.eye(3)),
        np.array([True, False]),
        np.array(3.5),
        np.arange(4, dtype=">i8"),
        np.zeros((0, 3)),
    ],
)
def test_arrays_keep_values_and_type(array):
    back = _round_trip(array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back, array)


def test_plain_values_and_tensors_survive():
    value = {
        "a": [1, 2.5, None, "x", True, (np.float64(0.1), np.int64(3))],
        0: OrderedDict(w=torch.nn.Parameter(torch.ones(2))),
        "s": torch.eye(3).to_sparse(),
    }
    back = _round_trip(value)
    assert back["a"] == [1, 2.5, None, "x", True, (0.1, 3)]
    assert type(back["a"][5][0]) is float
    torch.testing.assert_close(back[0]["w"], torch.ones(2))
    torch.testing.assert_close(back["s"].to_dense(), torch.eye(3))


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.array(["a"]), {(1, 2): 3}, {1, 2}])
def test_what_has_no_plain_form_is_named_and_the_old_file_stays(value):
    checkpoint.save("c.pth", {"value": 1})
    with pytest.raises(TypeError, match=r"checkpoint\.value"):
        checkpoint.save("c.pth", {"value": value})
    assert checkpoint.load("c.pth")["value"] == 1


def test_a_killed_write_leaves_the_old_file(monkeypatch):
    checkpoint.save("c.pth", {"value": 1})

    def killed(content, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save("c.pth", {"value": 2})
    assert checkpoint.load("c.pth")["value"] == 1
    checkpoint.save("c.pth", {"value": 3})
    assert [path.name for path in Path().iterdir()] == ["c.pth"]


class _Malicious:
    def __reduce__(self):
        return (Path("ran").touch, ())


def test_code_in_a_checkpoint_is_refused_and_not_run():
    torch.save({"format": 1, "value": _Malicious()}, "c.pth")
    with pytest.raises(UserError, match=r"c\.pth: holds [\w.]+, not only tensors") as error:
        checkpoint.load("c.pth")
    assert len(str(error.value)) < 200 and "weights_only" not in str(error.value)
    Path("p.pth").write_bytes(pickle.dumps(_Malicious()))
    with pytest.raises(UserError, match=r"p\.pth: is damaged or no checkpoint") as error:
        checkpoint.load("p.pth")
    assert len(str(error.value)) < 200 and "PyTorch" not in str(error.value)
    assert not Path("ran").exists()


def _truncated(path: Path) -> None:
    checkpoint.save(path, {"value": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no checkpoint"),
        _truncated,
        lambda path: path.mkdir(),
        lambda path: torch.save({"state_dict": {}}, path),
        lambda path: torch.save([1], path),
    ],
    ids=["missing", "empty", "text", "truncated", "folder", "other format", "list"],
)
def test_unreadable_files_end_in_one_line(make):
    make(Path("c.pth"))
    with pytest.raises(UserError, match=r"c\.pth") as error:
        checkpoint.load("c.pth")
    assert "\n" not in str(error.value)
