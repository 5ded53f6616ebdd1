"""From records to rows: what may share a table, what is marked, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recbole_diffmm import UserError, provenance
from recbole_diffmm import record as records
from recbole_diffmm.leaderboard import manifest
from recbole_diffmm.leaderboard.board import Board
from recbole_diffmm.leaderboard.gather import gather
from recbole_diffmm.leaderboard.manifest import Manifest, Row, Run
from tests.leaderboard.boards import METRICS, digest, record, write_board, write_run

FOLDER = Path("results/board")


@pytest.fixture(autouse=True)
def _same_code(monkeypatch):
    monkeypatch.setattr(provenance, "code_hash", lambda model: digest("code"))


def _gather() -> Board:
    found = manifest.read(FOLDER)
    assert found is not None
    return gather(FOLDER, found)


def test_rows_are_ranked_by_the_first_metric_and_averaged_over_seeds():
    write_board(FOLDER, {"Pop": 0.0, "DiffMM": 0.3, "BPR": 0.1}, reference="BPR")
    (group,) = _gather().groups
    assert [row.label for row in group.rows] == ["DiffMM", "BPR", "Pop"]
    assert group.modalities == ("smell", "text")
    assert group.seeds == "1, 2, 3"
    assert group.n_tested == 300
    row = group.rows[1]
    values = [r.metrics.test["recall@20"] for r in row.records]
    cell = row.cells["recall@20"]
    assert cell.mean == pytest.approx(np.mean(values))
    assert cell.deviation == pytest.approx(np.std(values, ddof=1))
    assert cell.low < cell.mean < cell.high
    assert [r.cells["recall@20"].best for r in group.rows] == [True, False, False]
    assert [r.cells["recall@20"].second for r in group.rows] == [False, True, False]


def test_tests_take_each_users_average_over_seeds_and_mark_what_they_cannot_tell_apart():
    write_board(FOLDER, {"DiffMM": 0.1, "LightGCN": 0.0999, "BPR": 0.0}, reference="BPR")
    (group,) = _gather().groups
    tests = group.tests["recall@20"]
    tied = {row.label: row.cells["recall@20"].tied for row in group.rows}
    assert tests.best in {"DiffMM", "LightGCN"}
    other = "LightGCN" if tests.best == "DiffMM" else "DiffMM"
    assert tied == {tests.best: False, other: True, "BPR": False}
    assert tests.against_best["BPR"].distinguishable
    assert tests.against_reference.keys() == {"DiffMM", "LightGCN"}
    assert len(tests.pairs) == 3
    by_row = {row.label: row.cells["recall@20"].mean for row in group.rows}
    for (a, b), found in tests.pairs.items():
        assert found.difference == pytest.approx(by_row[a] - by_row[b])
    assert 0 < tests.smallest < 0.01


def test_rows_of_another_split_masking_or_protocol_get_a_table_of_their_own():
    board = write_board(FOLDER, {"DiffMM": 0.1, "BPR": 0.0})
    data = {**record()["data"], "split_hash": digest("another")}
    for number, changes in enumerate(
        [{"data": data}, {"masking": "train"}, {"selection": "validation NDCG@20"}, {"protocol": "paper"}]
    ):
        name = f"Pop-toy-s{number + 1}-{digest(str(number))[:8]}"
        write_run(FOLDER, name, **changes)
        row = Row(label="Pop", model="Pop", dataset="toy", tuned="", runs=(Run(name=name, fingerprint="f"),))
        groups = gather(FOLDER, Manifest(**{**dict(board), "rows": (*board.rows, row)})).groups
        assert [[r.label for r in group.rows] for group in groups] == [["DiffMM", "BPR"], ["Pop"]]


def test_runs_of_one_row_that_may_not_be_averaged_are_refused():
    board = write_board(FOLDER, {"BPR": 0.0}, seeds=[1, 2])
    write_run(FOLDER, board.rows[0].runs[1].name, masking="train")
    with pytest.raises(UserError, match=r"row BPR: its runs differ in .*masking"):
        _gather()


@pytest.fixture
def _split_by_seed():
    board = write_board(FOLDER, {"DiffMM": 0.1, "BPR": 0.0}, seeds=[1, 2])
    for row in board.rows:
        for run in row.runs:
            path = FOLDER / f"{run.name}.json"
            content = json.loads(path.read_text())
            content["data"]["split_hash"] = digest(f"split {content['seed']}")
            records.write(path, content)
    return board


def test_a_split_of_every_seed_is_told_and_must_be_the_same_for_every_row(_split_by_seed):
    (group,) = _gather().groups
    first, second = (digest(f"split {seed}") for seed in (1, 2))
    assert group.split == f"one per seed: {first[:12]} (1), {second[:12]} (2)"
    assert group.split_hash == f"{first} {second}"
    assert group.tests
    (path,) = FOLDER.glob("BPR-toy-s2-*.json")
    content = json.loads(path.read_text())
    content["data"]["split_hash"] = digest("another")
    records.write(path, content)
    assert [[row.label for row in group.rows] for group in _gather().groups] == [["DiffMM"], ["BPR"]]


@pytest.mark.parametrize("key", ["dataset", "selection", "masking", "protocol"])
def test_a_record_without_a_word_that_the_table_needs_is_refused(key):
    write_board(FOLDER, {"BPR": 0.0}, seeds=[1])
    (path,) = FOLDER.glob("BPR*.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, key: ""}))
    with pytest.raises(UserError, match=rf"{path.name}: {key}"):
        _gather()
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{path.name}: {key}"):
        _gather()


def test_changed_code_data_or_missing_runs_are_told_in_the_row(monkeypatch):
    Path("dataset/toy").mkdir(parents=True)
    Path("dataset/toy/toy.inter").write_text("one")
    files = {**record()["data"], "files": {"toy.inter": digest("one")}}
    board = write_board(FOLDER, {"BPR": 0.0}, changes={"data": files})
    assert _gather().groups[0].rows[0].notes == []
    Path("dataset/toy/toy.inter").write_text("two")
    (note,) = _gather().groups[0].rows[0].notes
    assert note == "stale: toy.inter of toy changed since"
    monkeypatch.setattr(provenance, "code_hash", lambda model: digest("newer"))
    assert any("the code of BPR has changed" in note for note in _gather().groups[0].rows[0].notes)
    monkeypatch.setattr(provenance, "code_hash", lambda model: digest("code"))
    Path("dataset/toy/toy.inter").write_text("one")
    name = board.rows[0].runs[0].name
    (FOLDER / f"{name}.json").unlink()
    records.write_json(FOLDER / f"{name}.failure.json", {"reason": "out of memory"})
    (note,) = _gather().groups[0].rows[0].notes
    assert note == "1 of 3 runs are missing: out of memory"


def test_a_row_whose_seeds_come_from_different_code_says_so():
    board = write_board(FOLDER, {"BPR": 0.0}, seeds=[1, 2])
    code = {"hash": digest("older"), "commit": None, "dirty": True}
    write_run(FOLDER, board.rows[0].runs[1].name, {m: np.ones(300) for m in METRICS}, code=code)
    notes = _gather().groups[0].rows[0].notes
    assert "its runs were made by different code" in notes
    assert "made by code that was not committed" in notes


def test_a_row_without_any_record_is_listed_with_its_reason():
    board = write_board(FOLDER, {"BPR": 0.0, "Pop": 0.1}, seeds=[1])
    name = board.rows[1].runs[0].name
    (FOLDER / f"{name}.json").unlink()
    assert _gather().empty == [("Pop", "toy", "no run yet")]
    records.write_json(FOLDER / f"{name}.failure.json", {"reason": "no such file"})
    assert _gather().empty == [("Pop", "toy", "no such file")]


def test_without_the_same_users_there_are_means_but_no_tests():
    board = write_board(FOLDER, {"BPR": 0.0, "Pop": 0.1}, seeds=[1])
    write_run(FOLDER, board.rows[1].runs[0].name, {m: np.ones(299) for m in METRICS})
    (group,) = _gather().groups
    assert group.tests == {}
    assert group.n_tested is None
    assert not any(cell.tied for row in group.rows for cell in row.cells.values())


def test_a_metric_that_was_not_measured_is_refused():
    write_board(FOLDER, {"BPR": 0.0}, metrics=["Recall@50"])
    with pytest.raises(UserError, match=r"row BPR has no recall@50 .*only recall@10"):
        _gather()


def test_a_missing_or_broken_per_user_file_is_told():
    board = write_board(FOLDER, {"BPR": 0.0, "Pop": 0.1}, seeds=[1])
    file = FOLDER / f"{board.rows[0].runs[0].name}.per_user.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"per-user values .* were edited since the run wrote them"):
        _gather()
    file.unlink()
    with pytest.raises(UserError, match=r"per-user values .* cannot be read"):
        _gather()


def test_runs_of_one_row_differ_in_their_seeds_alone():
    board = write_board(FOLDER, {"DiffMM": 0.0}, seeds=[1, 2])
    name = board.rows[0].runs[1].name
    kept = records.read(FOLDER / f"{name}.json")
    assert kept is not None
    data = {**kept["data"], "features": {"smell": {"hash": digest("other"), "coverage": 0.9}}}
    for change, what in (
        ({"config": {**kept["config"], "learning_rate": 0.5}}, "learning_rate"),
        ({"modalities": ["smell"]}, "modalities"),
        ({"data": data}, "features"),
    ):
        records.write(FOLDER / f"{name}.json", {**kept, **change})
        with pytest.raises(UserError, match=rf"row DiffMM: its runs .* differ in {what}; .* their seeds alone"):
            _gather()
    # where files lie and what is shown moves no number
    records.write(FOLDER / f"{name}.json", {**kept, "config": {**kept["config"], "show_progress": True}})
    assert len(_gather().groups[0].rows[0].records) == 2


def test_rows_that_read_other_features_of_a_modality_share_no_table():
    board = write_board(FOLDER, {"DiffMM": 0.1, "BPR": 0.0}, seeds=[1])
    path = FOLDER / f"{board.rows[1].runs[0].name}.json"
    kept = records.read(path)
    assert kept is not None
    data = {**kept["data"], "features": {"smell": {"hash": digest("other"), "coverage": 0.9}}}
    records.write(path, {**kept, "data": data})
    assert len(_gather().groups[0].rows) == 2  # it does not use them
    records.write(path, {**kept, "data": data, "modalities": ["smell"]})
    with pytest.raises(UserError, match=r"rows DiffMM and BPR read different features of the modality smell"):
        _gather()


def test_a_record_of_another_model_than_its_row_is_refused():
    board = write_board(FOLDER, {"BPR": 0.0}, seeds=[1])
    path = FOLDER / f"{board.rows[0].runs[0].name}.json"
    kept = records.read(path)
    assert kept is not None
    records.write(path, {**kept, "model": "Pop"})
    with pytest.raises(UserError, match=r"row BPR is of BPR on toy, and .* is of Pop on toy"):
        _gather()


def test_runs_with_other_versions_are_told_in_the_row():
    board = write_board(FOLDER, {"BPR": 0.0}, seeds=[1, 2])
    path = FOLDER / f"{board.rows[0].runs[0].name}.json"
    kept = records.read(path)
    assert kept is not None
    records.write(path, {**kept, "versions": {"python": "3.12.1", "torch": "2.13.0"}})
    assert _gather().groups[0].rows[0].notes == ["its runs were made with different versions of packages"]


def test_a_row_that_was_tuned_on_another_split_says_so():
    board = write_board(FOLDER, {"DiffMM": 0.1, "BPR": 0.0}, seeds=[1])
    words = (f"2 trials, on validation Recall@20 of split {digest(of)[:12]}" for of in ("split", "another"))
    rows = tuple(row.model_copy(update={"tuned": told}) for row, told in zip(board.rows, words, strict=True))
    manifest.write(FOLDER, board.model_copy(update={"rows": rows}))
    notes = {row.label: row.notes for row in _gather().groups[0].rows}
    assert notes == {"DiffMM": [], "BPR": [f"tuned on another split, {digest('another')[:12]}"]}
