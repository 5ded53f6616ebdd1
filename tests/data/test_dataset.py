"""MultimodalDataset on a handful of files, through the configuration that a user writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_diffmm import registry
from recbole_diffmm.cli import main
from recbole_diffmm.config import Config
from recbole_diffmm.data.dataset import MultimodalDataset, interaction_hash
from recbole_diffmm.errors import UserError
from recbole_diffmm.quick_start import load_splits

ITEMS = [f"i{number}" for number in range(12)]
ONE = {"modalities": {"smell": {"features": "smell.npy", "ids": "ids.txt"}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset" / "mini"
    folder.mkdir(parents=True)
    pairs = [(f"u{user}", item) for user in range(4) for item in ITEMS[user : user + 9]]
    write(folder / "mini.inter", pairs)
    np.save(folder / "smell.npy", np.arange(24, dtype="f4").reshape(12, 2) + 1)
    (folder / "ids.txt").write_text("\n".join(reversed(ITEMS)))
    return folder


def write(path: Path, pairs: list[tuple[str, str]]) -> None:
    path.write_text("user_id:token\titem_id:token\n" + "".join(f"{user}\t{item}\n" for user, item in pairs))


def load(folder: Path, **settings: Any) -> MultimodalDataset:
    values = {"data_path": str(folder.parent), "load_col": {"inter": ["user_id", "item_id"]}, "use_gpu": False}
    return MultimodalDataset(Config(model="DiffMM", dataset=folder.name, config_dict={**values, **settings}))


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        load(folder, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_aligned(dataset: MultimodalDataset) -> None:
    smell = dataset.modalities["smell"]
    assert smell.matrix.shape == (dataset.item_num, 2)
    for token, item_id in dataset.field2token_id["item_id"].items():
        row = 11 - ITEMS.index(token) if token != "[PAD]" else None
        expected = [0.0, 0.0] if row is None else [2 * row + 1.0, 2 * row + 2.0]
        assert smell.matrix[item_id].tolist() == expected


def test_features_are_aligned_and_travel_with_every_split(folder: Path) -> None:
    dataset = load(folder, **ONE)
    assert_aligned(dataset)
    train, valid, test = dataset.build()
    for split in (train, valid, test):
        assert split.modalities["smell"] is dataset.modalities["smell"]
    users, items = train.training_interactions()
    assert users.dtype == items.dtype == torch.int64
    assert len(users) == len(train) == 28
    assert users.min() == 1 and items.min() >= 1


def test_filtering_shifts_no_row_and_features_add_no_item(folder: Path) -> None:
    dataset = load(folder, item_inter_num_interval="[3,inf)", **ONE)
    assert dataset.item_num == 9
    assert_aligned(dataset)


def test_presplit_files_keep_their_split_and_join_their_vocabularies(folder: Path) -> None:
    write(folder / "mini.a.inter", [("u1", "i3"), ("u0", "i1")])
    write(folder / "mini.b.inter", [("u0", "i3")])
    write(folder / "mini.c.inter", [("u9", "i7"), ("u0", "i4"), ("u1", "i1")])
    dataset = load(folder, benchmark_filename=["a", "b", "c"], **ONE)
    assert list(dataset.field2id_token["item_id"]) == ["[PAD]", "i3", "i1", "i7", "i4"]
    assert [len(split) for split in dataset.build()] == [2, 1, 3]
    assert_aligned(dataset)
    (folder / "mini.b.inter").unlink()
    assert "mini.b.inter does not exist" in refusal(folder, benchmark_filename=["a", "b", "c"], **ONE)
    assert "expected three suffixes" in refusal(folder, benchmark_filename=["a", "c"], **ONE)


def test_use_modalities_selects_and_orders(folder: Path) -> None:
    np.save(folder / "look.npy", np.ones((12, 3), dtype="f2"))
    both = {"modalities": {**ONE["modalities"], "look": {"features": "look.npy", "ids": "ids.txt"}}}
    assert list(load(folder, **both).modalities) == ["smell", "look"]
    assert list(load(folder, use_modalities=["look", "smell"], **both).modalities) == ["look", "smell"]
    assert list(load(folder, use_modalities=["look"], **both).modalities) == ["look"]
    assert "use_modalities in config_dict names 'taste'" in refusal(folder, use_modalities=["taste"], **both)


@pytest.mark.parametrize("settings", [{}, {**ONE, "use_modalities": []}])
def test_no_modality_at_all(folder: Path, settings: dict[str, Any]) -> None:
    assert "needs at least one modality" in refusal(folder, **settings)


def test_missing_and_empty_interactions(folder: Path) -> None:
    path = folder / "mini.inter"
    path.write_text("user_id:token\titem_id:token\n")
    assert "mini.inter has no interactions" in refusal(folder, **ONE)
    path.write_text("user\titem\nu1\ti1\n")
    assert "no column user_id:token" in refusal(folder, **ONE)
    path.write_bytes(b"")
    assert "mini.inter is empty" in refusal(folder, **ONE)
    path.unlink()
    assert "mini.inter does not exist" in refusal(folder, **ONE)


def given_split(folder: Path) -> dict[str, Any]:
    for suffix in ("a", "b", "c"):
        write(folder / f"mini.{suffix}.inter", [("u1", "i3"), ("u0", "i1")])
    return {"benchmark_filename": ["a", "b", "c"], **ONE}


@pytest.mark.parametrize("suffix", ["a", "b", "c"])
@pytest.mark.parametrize(("row", "field"), [("u0\t", "item_id"), ("\ti2", "user_id"), ("u0", "item_id")])
def test_a_blank_id_in_a_given_split_is_refused(suffix: str, row: str, field: str, folder: Path) -> None:
    """RecBole would take it for PAD, which then is trained on and recommended."""
    settings = given_split(folder)
    with (folder / f"mini.{suffix}.inter").open("a") as file:
        file.write(f"{row}\nu1\ti4\n")
    assert f"mini.{suffix}.inter has no {field} in row 3 below its header" in refusal(folder, **settings)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("name", ["NA", "null", "nan", "None"])
def test_an_id_that_reads_like_a_missing_value_is_an_id(name: str, split: bool, folder: Path) -> None:
    settings = given_split(folder) if split else ONE
    with (folder / ("mini.a.inter" if split else "mini.inter")).open("a") as file:
        file.write(f"{name}\ti2\nu0\t{name}\n")
    dataset = load(folder, **settings)
    for field in ("user_id", "item_id"):
        assert dataset.field2token_id[field][name] >= 1
        assert int(dataset.inter_feat[field].min()) >= 1


def test_without_a_given_split_rows_without_ids_are_left_out_and_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(load(folder, **ONE))
    with (folder / "mini.inter").open("a") as file:
        file.write("u0\t\n\ti2\n")
    assert len(load(folder, **ONE)) == before
    assert "item_id do not exist, so they will be removed" in caplog.text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"user_id:token\titem_id:tokn\nu\ti\n", "'item_id:tokn' in its first line, whose type is none of"),
        (b"user_id:token\titem_id\nu\ti\n", "'item_id' in its first line, whose type is none of"),
        (b"user_id:token\titem_id:float\nu\ti\n", "ids are tokens, write item_id:token"),
        (b"user_id:token\titem_id:token\nu\xe9\ti\n", "is not utf-8 text (byte 0xe9)"),
        (b"user_id:token\titem_id:token\trating:float\nu\ti\tgood\n", "cannot be read: "),
        (b"user_id:token\titem_id:token\nu\ti\nu\tj\tk\n", "more cells in line 3 than columns in its header (2)"),
    ],
)
def test_interactions_that_cannot_be_read(content: bytes, told: str, folder: Path) -> None:
    (folder / "mini.inter").write_bytes(content)
    message = refusal(folder, **ONE, load_col=None, encoding="utf-8")
    assert "mini.inter" in message and told in message


def test_another_encoding_is_read(folder: Path) -> None:
    with (folder / "mini.inter").open("ab") as file:
        file.write(b"u\xe9\ti1\n")
    assert "u\u00e9" in load(folder, **ONE, encoding="latin-1").field2token_id["user_id"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"user_inter_num_interval": "[1000,inf)"}, "filtering by user_inter_num_interval: [1000,inf)"),
        ({"eval_args": {"order": "TO"}}, "config_dict asks for order: TO, but no column timestamp"),
        (
            {"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"},
            "config_dict asks for mode: labeled, but no column label",
        ),
        ({"val_interval": {"rating": "[3,inf)"}}, "Field [rating] not defined in dataset"),
        ({"threshold": {"rating": 3}}, "Field [rating] not in inter_feat"),
        ({"eval_args": {"split": None}}, "split_args in eval_args should not be None"),
        ({"numerical_features": ["x"]}, "Field [x] not defined in dataset"),
    ],
)
def test_settings_that_do_not_fit_the_data(settings: dict[str, Any], told: str, folder: Path) -> None:
    values = {"data_path": str(folder.parent), "load_col": {"inter": ["user_id", "item_id"]}, "use_gpu": False}
    values.update(topk=[5], valid_metric="Recall@5")
    with pytest.raises(UserError) as error:
        config = Config("DiffMM", "mini", config_dict={**values, **ONE, **settings})
        load_splits(config, registry.create_dataset(config))
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("interval", "left"), [("[3,inf)", 8), ("(0,1];[4,9]", 8), (None, 12)])
def test_intervals_are_read_as_recbole_does(interval: Any, left: int, folder: Path) -> None:
    assert load(folder, item_inter_num_interval=interval, **ONE).item_num == left + 1


def test_an_interval_of_values_is_one(folder: Path) -> None:
    """RecBole warns of another one, and then drops the last but one row."""
    (folder / "mini.inter").write_text("user_id:token\titem_id:token\trating:float\nu\ti1\t1\nu\ti2\t2\n")
    assert "'3 up' is no interval" in refusal(folder, **ONE, load_col=None, val_interval={"rating": "3 up"})


def test_filters_of_a_given_split_are_told_to_change_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = given_split(folder)
    load(folder, **settings)
    assert "changes nothing" not in caplog.text
    load(folder, **settings, user_inter_num_interval="[2,inf)")
    assert "user_inter_num_interval in config_dict is '[2,inf)', which changes nothing" in caplog.text


def test_a_missing_folder_is_never_downloaded(folder: Path) -> None:
    message = refusal(folder.parent / "mimi", **ONE)
    assert "mimi" in message and "did you mean mini?" in message


def test_hashes_follow_content_alone(folder: Path) -> None:
    before = load(folder, **ONE)
    header, *rows = (folder / "mini.inter").read_text().splitlines()
    (folder / "mini.inter").write_text("\n".join([header, *reversed(rows)]) + "\n")
    after = load(folder, **ONE)
    assert interaction_hash(before) == interaction_hash(after)
    assert before.feature_hashes() == after.feature_hashes()
    splits = after.build()
    assert interaction_hash(after) == interaction_hash(before), "RecBole shuffles in place"
    assert len({interaction_hash(split) for split in splits}) == 3

    (folder / "mini.inter").write_text("\n".join([header, *rows[1:]]) + "\n")
    (folder / "ids.txt").write_text("\n".join(ITEMS))
    changed = load(folder, **ONE)
    assert interaction_hash(changed) != interaction_hash(before)
    assert changed.feature_hashes() != before.feature_hashes()


@pytest.mark.parametrize("model", ["BPR", "DiffMM"])
def test_the_command_line_tells_any_model_s_user_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    (folder / "mini.inter").write_bytes(b"")
    arguments = ["run", f"--model={model}", "--dataset=mini", f"--data_path={folder.parent}"]
    assert main([*arguments, "--load_col={inter: [user_id, item_id]}"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: interactions file") and "mini.inter is empty" in error


@pytest.mark.parametrize("model", ["DiffMM", "BPR"])
def test_a_misspelt_column_is_told(folder: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    columns = "--load_col={inter: [user_id, item_id, usr_id]}"
    assert main(["run", f"--model={model}", "--dataset=mini", "--show_progress=false", columns]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "load_col in the command line names 'usr_id'" in line
    assert "mini.inter does not have; did you mean user_id?" in line


def test_another_separator_is_read(folder: Path) -> None:
    text = (folder / "mini.inter").read_text()
    (folder / "mini.inter").write_text(text.replace("\t", ","))
    assert load(folder, **ONE, field_separator=",").item_num == 13


def test_repeated_interactions_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "dataset" / "twice"
    folder.mkdir(parents=True)
    lines = [f"u{user}\ti{(user * 7 + step) % 30}" for user in range(20) for step in range(8)]
    text = "\n".join(["user_id:token\titem_id:token", *lines, *lines[:5]]) + "\n"
    (folder / "twice.inter").write_text(text, encoding="utf-8")
    settings = {"data_path": str(tmp_path / "dataset"), "load_col": {"inter": ["user_id", "item_id"]}}

    def warned(**more: str) -> bool:
        caplog.clear()
        registry.create_dataset(Config("BPR", "twice", config_dict={**settings, **more}))
        return "5 of 165 interactions repeat a user-item pair" in caplog.text

    assert warned()
    assert not warned(rm_dup_inter="first")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_the_header_is_read_in_the_files_encoding(encoding: str, folder: Path) -> None:
    path = folder / "mini.inter"
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert load(folder, **ONE, encoding=encoding).item_num == 13
