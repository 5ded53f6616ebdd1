"""The published DiffMM format: what it holds arrives whole, and its pickles run nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recbole_diffmm.cli import main
from recbole_diffmm.config import Config
from recbole_diffmm.data.convert.diffmm import convert, restricted_load
from recbole_diffmm.data.dataset import MultimodalDataset
from recbole_diffmm.errors import UserError
from recbole_diffmm.provenance import hash_files

N_USERS, N_ITEMS = 5, 6
SPLITS = {
    "trn": ([3, 0, 0, 1, 2, 4], [5, 1, 0, 2, 3, 4]),
    "val": ([0, 2], [2, 0]),
    "tst": ([1, 4], [0, 1]),
}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    for name, (rows, cols) in SPLITS.items():
        dump(folder / f"{name}Mat.pkl", sp.coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(N_USERS, N_ITEMS)))
    for name in ("image", "smell"):
        np.save(folder / f"{name}_feat.npy", np.arange(N_ITEMS * 2, dtype="f2").reshape(N_ITEMS, 2))
    return folder


def dump(path: Path, value: Any, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        convert(folder, "mini", folder.parent / "out", **options)
    assert "\n" not in str(error.value)
    assert not (folder.parent / "out" / "mini").exists()
    return str(error.value)


# Conversion --------------------------------------------------------------------------------------------------------


def test_split_and_features_arrive_and_load(published: Path, tmp_path: Path) -> None:
    folder = convert(published, "mini", tmp_path / "out")
    assert folder == tmp_path / "out" / "mini"
    assert (folder / "mini.train.inter").read_text() == (
        "user_id:token\titem_id:token\n3\t5\n0\t1\n0\t0\n1\t2\n2\t3\n4\t4\n"
    )
    config = Config("DiffMM", "mini", [folder / "mini.yaml"], {"data_path": str(tmp_path / "out"), "use_gpu": False})
    dataset = MultimodalDataset(config)
    assert [len(split) for split in dataset.build()] == [6, 2, 2]
    assert list(dataset.modalities) == ["image", "smell"]
    for token, item_id in dataset.field2token_id["item_id"].items():
        if token != "[PAD]":
            row = int(token)
            assert dataset.modalities["smell"].matrix[item_id].tolist() == [2 * row, 2 * row + 1]


def test_converting_again_changes_nothing_and_other_content_is_refused(published: Path, tmp_path: Path) -> None:
    folder = convert(published, "mini", tmp_path / "out")
    before = {file: (file.stat().st_mtime_ns, hash_files(file)) for file in folder.iterdir()}
    convert(published, "mini", tmp_path / "out")
    assert before == {file: (file.stat().st_mtime_ns, hash_files(file)) for file in folder.iterdir()}

    np.save(published / "smell_feat.npy", np.zeros((N_ITEMS, 3), dtype="f4"))
    with pytest.raises(UserError, match="exists with other content; use --overwrite"):
        convert(published, "mini", tmp_path / "out")
    assert before == {file: (file.stat().st_mtime_ns, hash_files(file)) for file in folder.iterdir()}
    convert(published, "mini", tmp_path / "out", overwrite=True)
    assert np.load(folder / "smell_feat.npy").shape == (N_ITEMS, 3)
    assert list((tmp_path / "out").iterdir()) == [folder]


def test_matrices_alone_are_a_dataset_without_modalities(published: Path, tmp_path: Path) -> None:
    for file in published.glob("*_feat.npy"):
        file.unlink()
    folder = convert(published, "mini", tmp_path / "out")
    assert sorted(file.suffix for file in folder.iterdir()) == [".inter", ".inter", ".inter", ".yaml"]
    assert "modalities" not in (folder / "mini.yaml").read_text()


def test_zeros_and_repetitions_are_no_interactions_and_are_told(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    twice = sp.coo_matrix(([1.0, 1.0, 0.0, 2.0], ([1, 1, 2, 0], [3, 3, 1, 0])), shape=(N_USERS, N_ITEMS))
    dump(published / "trnMat.pkl", twice)
    folder = convert(published, "mini", tmp_path / "out")
    assert (folder / "mini.train.inter").read_text().splitlines()[1:] == ["1\t3", "0\t0"]
    assert "4 entries, 1 of them zeros and 1 repeated; 2 interactions kept" in caplog.text
    assert "occur in no split" in caplog.text


def test_files_that_do_not_fit(published: Path) -> None:
    np.save(published / "smell_feat.npy", np.ones((N_ITEMS + 1, 2), dtype="f4"))
    assert "smell_feat.npy has 7 rows, but the matrices have 6 items" in refusal(published)
    np.save(published / "smell_feat.npy", np.array([[object()]], dtype=object), allow_pickle=True)
    assert "holds Python objects" in refusal(published)
    (published / "smell_feat.npy").unlink()
    dump(published / "valMat.pkl", sp.coo_matrix((N_USERS, N_ITEMS)))
    assert "valMat.pkl holds no interaction" in refusal(published)
    dump(published / "valMat.pkl", sp.coo_matrix(([1.0], ([0], [0])), shape=(N_USERS, N_ITEMS + 1)))
    assert "differ in shape" in refusal(published)
    dump(published / "valMat.pkl", sp.coo_matrix(([np.nan], ([0], [0])), shape=(N_USERS, N_ITEMS)))
    assert "not finite" in refusal(published)
    dump(published / "valMat.pkl", np.ones((N_USERS, N_ITEMS)))
    assert "holds an array" in refusal(published)
    (published / "valMat.pkl").unlink()
    assert "valMat.pkl does not exist" in refusal(published)
    assert "is not a folder" in refusal(published / "nowhere")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_names_that_are_no_names(published: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        convert(published, name, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "n_users", "n_items", "sizes", "modalities"),
    [
        ("tiktok", 9308, 6710, [59541, 3051, 6130], ["audio", "image"]),
        ("baby", 19445, 7050, [118551, 21682, 20559], []),
    ],
)
def test_the_published_datasets(
    shared: Path, tmp_path: Path, name: str, n_users: int, n_items: int, sizes: list[int], modalities: list[str]
) -> None:
    source = shared / "datasets" / name
    if not source.is_dir():
        pytest.skip(f"no {source}")
    folder = convert(source, name, tmp_path / "dataset")
    values = {"data_path": str(tmp_path / "dataset"), "use_gpu": False}
    dataset = MultimodalDataset(Config("DiffMM" if modalities else "BPR", name, config_dict=values))
    assert (dataset.user_num - 1, dataset.item_num - 1) == (n_users, n_items)
    assert list(dataset.modalities) == modalities
    for modality, features in dataset.modalities.items():
        assert features.coverage == 1.0
        original = np.load(source / f"{modality}_feat.npy").astype("f4")
        rows = np.array([int(token) for token in dataset.field2id_token["item_id"][1:]])
        assert np.array_equal(features.matrix[1:].numpy(), original[rows])
    train, valid, test = dataset.build()
    assert [len(split) for split in (train, valid, test)] == sizes
    matrix = restricted_load(source / "trnMat.pkl")
    users, items = (ids.numpy() for ids in train.training_interactions())
    user_tokens, item_tokens = (dataset.field2id_token[field].astype(str) for field in ("user_id", "item_id"))
    assert np.array_equal(user_tokens[users].astype(int), matrix.row)
    assert np.array_equal(item_tokens[items].astype(int), matrix.col)
    assert folder.is_dir()


def test_a_name_that_ships_has_the_modalities_of_the_folder(published: Path, tmp_path: Path) -> None:
    """What ships for TikTok must not hide a feature file that somebody has beside the published ones."""
    np.save(published / "text_feat.npy", np.ones((N_ITEMS, 3), "f4"))
    convert(published, "tiktok", tmp_path / "dataset")
    config = Config("BPR", "tiktok", config_dict={"data_path": str(tmp_path / "dataset"), "use_gpu": False})
    assert set(config["modalities"]) == {path.name.split("_")[0] for path in published.glob("*_feat.npy")}
    assert "text" in config["modalities"]


def test_a_file_that_names_no_modality_is_refused(published: Path) -> None:
    np.save(published / "odd name_feat.npy", np.ones((N_ITEMS, 3), "f4"))
    assert "odd name_feat.npy is called 'odd name'; use a letter" in refusal(published)


# Pickles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [sp.coo_matrix, sp.csr_matrix, sp.csc_matrix, sp.coo_array, sp.csr_array])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "?"])
def test_sparse_matrices_of_every_protocol(tmp_path: Path, protocol: int, kind: Any, dtype: str) -> None:
    dense = (np.random.default_rng(0).random((7, 9)) < 0.3).astype(dtype)
    for matrix in (dense, np.zeros((2, 3), dtype)):
        dump(tmp_path / "m.pkl", kind(matrix), protocol)
        assert np.array_equal(restricted_load(tmp_path / "m.pkl").toarray(), matrix)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["f8", ">f8", "f2", "u1", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_protocol(tmp_path: Path, protocol: int, dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
    dump(tmp_path / "a.pkl", array, protocol)
    assert np.array_equal(restricted_load(tmp_path / "a.pkl"), array)


class Runs:
    """A pickle that runs a command when it is read."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    for value, named in (
        (Runs(os.system, f"touch {trace}"), f"{os.name}.system"),
        (Runs(eval, f"open({str(trace)!r}, 'w')"), "eval"),
        ([np.ones(2), Runs(os.mkdir, str(trace))], f"{os.name}.mkdir"),
        (Runs(np.save, str(trace), 1), "save"),
    ):
        dump(tmp_path / "evil.pkl", value, protocol)
        with pytest.raises(UserError, match="is refused: it asks for") as error:
            restricted_load(tmp_path / "evil.pkl")
        assert named in str(error.value) and "\n" not in str(error.value)
        assert not list(tmp_path.glob("trace*"))


def test_the_oldest_way_to_write_code_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'touch trace'\ntR.")
    with pytest.raises(UserError, match=r"it asks for os\.system"):
        restricted_load(tmp_path / "evil.pkl")
    assert not Path("trace").exists()


def test_the_names_a_pickle_may_use_cannot_be_altered_or_called_into_numpy(tmp_path: Path) -> None:
    names = {
        b"cscipy.sparse\ncoo_matrix\n": "TypeError",
        b"cnumpy\ndtype\n": "may not alter",
        b"cnumpy.core.multiarray\n_reconstruct\n": "may not alter",
    }
    for name, words in names.items():
        (tmp_path / "evil.pkl").write_bytes(name + b"}S'x'\nI1\nsb.")  # BUILD: give the name itself a state
        with pytest.raises(UserError, match=words):
            restricted_load(tmp_path / "evil.pkl")
    dump(tmp_path / "good.pkl", sp.coo_matrix(np.eye(2)))
    assert restricted_load(tmp_path / "good.pkl").nnz == 2


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, None], dtype=object),
        np.array(["text"]),
        np.zeros(2, dtype=[("x", "f4")]),
        [1, 2],
        {"row": [1]},
        "text",
        None,
    ],
)
def test_other_content_is_refused(tmp_path: Path, value: Any) -> None:
    dump(tmp_path / "other.pkl", value)
    with pytest.raises(UserError) as error:
        restricted_load(tmp_path / "other.pkl")
    assert "refused" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"row": np.array([0, 7])}, {"col": np.array([-1, 0])}, {"row": np.array([0])}, {"data": np.ones((2, 1))}],
)
def test_indices_outside_the_matrix_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    matrix = sp.coo_matrix(np.eye(2))
    state = {"_shape": (2, 2), "row": matrix.row, "col": matrix.col, "data": matrix.data, **change}
    dump(tmp_path / "bad.pkl", Crafted(state))
    with pytest.raises(UserError):
        restricted_load(tmp_path / "bad.pkl")


class Crafted:
    """A COO matrix with a state of one's own."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return sp.coo_matrix.__new__, (sp.coo_matrix,), self.state


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"not a pickle at all\n", b"\x80\x04]\x94"])
def test_damaged_pickles(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cut.pkl").write_bytes(content)
    with pytest.raises(UserError) as error:
        restricted_load(tmp_path / "cut.pkl")
    assert "cut.pkl" in str(error.value) and "\n" not in str(error.value)


def test_every_truncation_of_a_good_pickle_is_told(tmp_path: Path) -> None:
    whole = pickle.dumps(sp.coo_matrix(np.eye(3)), protocol=3)
    for length in range(1, len(whole), 7):
        (tmp_path / "cut.pkl").write_bytes(whole[:length])
        with pytest.raises(UserError):
            restricted_load(tmp_path / "cut.pkl")


def test_the_command_line_converts_and_refuses(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", "diffmm", str(published), "--name", "mini", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    np.save(published / "smell_feat.npy", np.zeros((N_ITEMS, 3), dtype="f4"))
    assert main(arguments) == 2
    assert "error: " in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    dump(published / "trnMat.pkl", Runs(os.system, "touch trace"))
    assert main(arguments) == 2
    assert f"error: {published}/trnMat.pkl is refused: it asks for {os.name}.system" in capsys.readouterr().err
    assert not Path("trace").exists()
