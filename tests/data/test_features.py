"""Feature files: alignment by raw id, and one line for everything that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_diffmm.data.features import ModalitySpec, load_modality, read_ids, select_modalities
from recbole_diffmm.errors import UserError

TOKENS = np.array(["[PAD]", "c", "a", "d", "b"])


def spec(folder: Path, matrix: np.ndarray, ids: list[str], **more: str) -> ModalitySpec:
    np.save(folder / "smell.npy", matrix)
    (folder / "smell.ids").write_text("".join(f"{name}\n" for name in ids))
    return ModalitySpec("smell", folder / "smell.npy", folder / "smell.ids", **more)


def refusal(spec: ModalitySpec) -> str:
    with pytest.raises(UserError) as error:
        load_modality(spec, TOKENS, "mini")
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "longdouble"])
def test_rows_follow_raw_ids_and_unobserved_items_stay_neutral(tmp_path: Path, dtype: str) -> None:
    matrix = np.arange(1, 7).reshape(3, 2).astype(dtype)
    features = load_modality(spec(tmp_path, matrix, ["b", "a", "c"]), TOKENS, "mini")
    expected = torch.tensor([[0, 0], [5, 6], [3, 4], [0, 0], [1, 2]], dtype=torch.float32)
    assert torch.equal(features.matrix, expected)
    assert features.matrix.dtype == torch.float32
    assert features.observed.tolist() == [False, True, True, False, True]
    assert features.coverage == 0.75
    assert features.feat_dim == 2


def test_extra_ids_of_a_whole_catalogue_are_counted_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = ["x1", "a", "x2", "b", "x3", "c", "x4", "d", "x5"]
    caplog.set_level("INFO")
    features = load_modality(spec(tmp_path, np.ones((9, 2), "f4"), ids), TOKENS, "mini")
    assert features.coverage == 1.0
    assert "4 of 4 items (100.0%), 5 ids of the file are not in the dataset" in caplog.text


def test_a_file_for_pad_fills_nothing(tmp_path: Path) -> None:
    features = load_modality(spec(tmp_path, np.ones((2, 2), "f4"), ["[PAD]", "a"]), TOKENS, "mini")
    assert features.observed.tolist() == [False, False, True, False, False]
    assert not features.matrix[0].any()


def test_a_chunk_border_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_diffmm.data.features._CHUNK_ROWS", 2)
    matrix = np.random.default_rng(0).standard_normal((4, 3)).astype("f4")
    features = load_modality(spec(tmp_path, matrix, ["d", "c", "b", "a"]), TOKENS, "mini")
    assert torch.equal(features.matrix[[3, 1, 4, 2]], torch.from_numpy(matrix))


def test_wrong_number_of_rows(tmp_path: Path) -> None:
    assert "has 3 rows but" in refusal(spec(tmp_path, np.ones((3, 2), "f4"), ["a", "b"]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_in_float32(tmp_path: Path, value: float) -> None:
    matrix = np.ones((3, 2))
    matrix[1, 1] = value
    message = refusal(spec(tmp_path, matrix, ["a", "b", "c"]))
    assert "row 1 (item b), column 1" in message


def test_duplicated_ids(tmp_path: Path) -> None:
    assert "'a' in lines 1 and 3" in refusal(spec(tmp_path, np.ones((3, 2), "f4"), ["a", "b", "a"]))


def test_no_id_in_common(tmp_path: Path) -> None:
    message = refusal(spec(tmp_path, np.ones((2, 2), "f4"), ["x", "y"], unknown_ids="allow"))
    assert "none of the 2 ids" in message and "'x'" in message


def test_mostly_unknown_ids_that_leave_most_items_bare(tmp_path: Path) -> None:
    message = refusal(spec(tmp_path, np.ones((3, 2), "f4"), ["x", "a", "y"]))
    assert "2 of the 3 ids" in message and "unknown_ids: allow" in message
    allowed = spec(tmp_path, np.ones((3, 2), "f4"), ["x", "a", "y"], unknown_ids="allow")
    assert load_modality(allowed, TOKENS, "mini").n_observed == 1


def test_a_single_unknown_id_is_refused_on_request(tmp_path: Path) -> None:
    ids = ["a", "b", "c", "d", "x"]
    assert load_modality(spec(tmp_path, np.ones((5, 2), "f4"), ids), TOKENS, "mini").coverage == 1.0
    assert "1 of the 5 ids" in refusal(spec(tmp_path, np.ones((5, 2), "f4"), ids, unknown_ids="refuse"))


def test_a_truncated_file(tmp_path: Path) -> None:
    cut = spec(tmp_path, np.ones((3, 200), "f4"), ["a", "b", "c"])
    cut.features.write_bytes(cut.features.read_bytes()[:-5])
    assert "is truncated: 2395 bytes of data, its header announces 2400" in refusal(cut)
    cut.features.write_bytes(cut.features.read_bytes()[:40])
    assert "damaged .npy header" in refusal(cut)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.array([["1", "2"], ["3", "4"]]), "holds text"),
        (np.array([[b"1", b"2"], [b"3", b"4"]]), "holds text"),
        (np.array([[1, "x"], [2, None]], dtype=object), "holds Python objects"),
        (np.ones((2, 2), dtype=np.int64), "holds int64"),
        (np.ones((2, 2), dtype=np.complex64), "holds complex64"),
        (np.ones(2, dtype=np.float32), "has shape (2,)"),
        (np.ones((2, 0), dtype=np.float32), "has shape (2, 0)"),
        (np.zeros(2, dtype=[("x", "f4")]), "holds [('x'"),
    ],
)
def test_anything_but_a_matrix_of_floats(tmp_path: Path, matrix: np.ndarray, words: str) -> None:
    assert words in refusal(spec(tmp_path, matrix, ["a", "b"]))


def test_text_instead_of_an_npy_file(tmp_path: Path) -> None:
    text = spec(tmp_path, np.ones((2, 2), "f4"), ["a", "b"])
    text.features.write_text("0.1,0.2\n0.3,0.4\n")
    assert "is not a .npy file" in refusal(text)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    good = spec(tmp_path, np.ones((2, 2), "f4"), ["a", "b"])
    near = ModalitySpec("smell", tmp_path / "smel.npy", good.ids)
    assert "does not exist; did you mean smell.npy?" in refusal(near)
    good.ids.write_bytes(b"")
    assert "smell.ids is empty" in refusal(good)
    good.ids.unlink()
    assert "item ids file" in refusal(good)
    good.features.write_bytes(b"")
    assert "smell.npy is empty" in refusal(good)


def test_ids_are_text_lines(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_bytes("\ufeff007\r\n7\r\nNA\r\né".encode())
    assert read_ids(path).tolist() == ["007", "7", "NA", "é"]
    path.write_bytes(b"a\n\nb\n")
    with pytest.raises(UserError, match="line 2 is blank"):
        read_ids(path)
    path.write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_ids(path)


MODALITIES = {"look": {"features": "look.npy", "ids": "i.txt"}, "smell": {"features": "smell.npy"}}


def test_modalities_are_chosen_in_the_order_they_are_asked_for(tmp_path: Path) -> None:
    everything = select_modalities(MODALITIES, None, tmp_path, "mini")
    assert [chosen.name for chosen in everything] == ["look", "smell"]
    assert everything[1].ids == tmp_path / "smell.ids"
    chosen = select_modalities(MODALITIES, ["smell", "look"], tmp_path, "mini")
    assert [one.name for one in chosen] == ["smell", "look"]
    assert select_modalities(None, None, tmp_path, "mini") == []


@pytest.mark.parametrize(
    ("modalities", "chosen", "words"),
    [
        (MODALITIES, ["smel"], "did you mean smell?"),
        ({}, ["smell"], "has none"),
        (MODALITIES, "smell", "expected a list"),
        (MODALITIES, ["look", "look"], "twice"),
        (["look"], None, "expected a mapping"),
        ({"look": "look.npy"}, None, "expected {features:"),
        ({"look": {"features": "look.npy", "idz": "x"}}, None, "did you mean ids?"),
        ({"look": {"feature": "look.npy", "ids": "x"}}, None, "unknown key 'feature'"),
        ({"look": {"feature": "look.npy", "ids": "x"}}, None, "did you mean features?"),
        ({"look": {"features": "look.npy", "ids": 3}}, None, "modalities.look.ids is 3"),
        ({"look": {"features": "look.npy", "unknown_ids": "no"}}, None, "unknown_ids is 'no'"),
        ({"a.b": {"features": "look.npy"}}, None, "called 'a.b'"),
        ({True: {"features": "look.npy"}}, None, "called True"),
    ],
)
def test_mistyped_modalities(tmp_path: Path, modalities: object, chosen: object, words: str) -> None:
    with pytest.raises(UserError) as error:
        select_modalities(
            modalities, chosen, tmp_path, "mini", {"modalities": " in mini.yaml", "use_modalities": " in my.yaml"}
        )
    message = str(error.value)
    assert words in message.replace(" in mini.yaml", "").replace(" in my.yaml", "") and "\n" not in message
    assert ("my.yaml" if message.startswith("use_modalities") else "mini.yaml") in message
