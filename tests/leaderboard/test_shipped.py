"""The boards, search spaces and documents that ship."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from recbole_diffmm.config import Config
from recbole_diffmm.leaderboard import manifest
from recbole_diffmm.leaderboard.gather import gather
from recbole_diffmm.leaderboard.spec import find_spec, load_spec
from recbole_diffmm.registry import model_names
from recbole_diffmm.sources import properties_dir, read_yaml
from recbole_diffmm.tuning.pictures import reached
from recbole_diffmm.tuning.space import load_space

BOARDS = sorted(path.stem for path in (properties_dir() / "leaderboard").glob("*.yaml"))
SPACES = sorted(path.stem for path in (properties_dir() / "tune").glob("*.yaml"))


def test_the_boards_are_there():
    assert {"quick", "tiktok-all", "baby-unimodal", "table1"} <= set(BOARDS)


# Boards whose rows name their settings: what another board's searches found, or what is published.
UNTUNED = {"tiktok-paper"}


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_names_models_and_ranges_that_exist(name):
    spec = load_spec(find_spec(name))
    assert len(spec.seeds) >= 3
    for entry in spec.models:
        assert entry.model in model_names()
        assert entry.untuned or entry.model in SPACES
    assert (spec.tuning is None) == (name in UNTUNED)


@pytest.mark.parametrize("name", SPACES)
def test_every_range_is_of_a_setting_and_holds_what_is_shipped(name):
    space, _ = load_space(name)
    config = Config(name, "toy", config_dict={"use_gpu": False})
    for key, values in space.items():
        assert key in config._known_keys(), key
        assert values.encode(config[key]) is not None, key
        # A decay of zero, which no logarithmic range can hold, becomes one that does nothing.
        assert values.kind == "choice" or values.low <= config[key] <= values.high or key == "weight_decay"
        assert key != "weight_decay" or config[key] > 0 or values.low == 1e-8


def test_every_row_of_table1_is_run_and_published():
    spec = load_spec(find_spec("table1"))
    assert {entry.name for entry in spec.models} == {entry.model for entry in spec.published}
    assert all(entry.metrics.keys() == {"recall@20", "ndcg@20", "precision@20"} for entry in spec.published)
    assert not any(entry.untuned for entry in spec.models)


def test_table1_has_every_row_of_the_paper_on_every_dataset():
    spec = load_spec(find_spec("table1"))
    models = {entry.model for entry in spec.published}
    assert len(models) == 16
    assert len(spec.published) == 16 * 3
    assert {entry.protocol for entry in spec.published} == {spec.published[0].protocol}
    assert "best test epoch" in spec.published[0].protocol
    best = max((entry for entry in spec.published if entry.dataset == "tiktok"), key=lambda e: e.metrics["recall@20"])
    assert (best.model, best.metrics["recall@20"], best.metrics["ndcg@20"]) == ("DiffMM", 0.1129, 0.0456)


def test_the_document_of_the_schema_is_that_of_the_schema(repository):
    made = runpy.run_path(str(repository / "docs" / "records.py"))["text"]()
    assert (repository / "docs" / "records.md").read_text() == made, "run python docs/records.py"


def test_what_tuning_found_is_what_the_boards_read(repository):
    """Settings and report of a search come from one study."""
    for path in sorted((repository / "results" / "tuning").rglob("*.json")):
        report = json.loads(path.read_text())
        tuned = repository / "properties" / "tuned" / path.parent.name / f"{path.stem}.yaml"
        assert read_yaml(tuned) == report["best"]["settings"], tuned
        minutes = sum(trial["seconds"] or 0.0 for trial in report["trials"]) / 60
        spent = report["budget"]["minutes"] is not None and minutes >= report["budget"]["minutes"]
        assert spent or len(report["trials"]) == report["budget"]["trials"]
        scores = {trial["number"]: reached(report, trial) for trial in report["trials"]}
        assert report["best"]["score"] == scores[report["best"]["number"]]
        if "final" in report:
            means = {entry["number"]: entry["mean"] for entry in report["final"]["finalists"]}
            assert sorted(scores.values())[-len(means) :] == sorted(scores[number] for number in means)
            assert report["final"]["mean"] == means[report["best"]["number"]] == max(means.values())
        else:
            complete = [trial["score"] for trial in report["trials"] if trial["state"] == "complete"]
            assert report["best"]["score"] == max(complete)


def test_the_readme_shows_the_records(repository):
    readme = (repository / "README.md").read_text()
    filled = runpy.run_path(str(repository / "docs" / "render_readme.py"))["filled"]
    assert filled(readme) == readme, "run python docs/render_readme.py"
    assert readme.count("<!-- board: ") == 4


# Rows whose tuning takes hours and is still to come; the README names them.
WAITING: dict[str, set[str]] = {}


@pytest.mark.parametrize("name", ["quick", "tiktok-all", "tiktok-paper", "baby-unimodal"])
def test_a_board_that_ships_is_whole(name, repository):
    """Every row has all its runs, tuned with the stated budget, by committed code, and nothing failed."""
    folder = repository / "results" / name
    board = manifest.read(folder)
    assert board is not None
    spec = load_spec(find_spec(name))
    assert len(board.rows) == len(spec.models) * len(spec.datasets)
    waiting = WAITING.get(name, set())
    gathered = gather(folder, board, Path("nowhere"))
    assert {label for label, _, _ in gathered.empty} == waiting
    for row in gathered.groups[0].rows:
        assert sorted(row.seeds) == sorted(spec.seeds)
        assert not row.missing
        assert not row.failures
        assert {record.code.dirty for record in row.records} == {False}
    assert name in UNTUNED or {row.label for row in board.rows if not row.tuned} <= waiting


def test_the_records_that_ship_take_no_more_than_fourteen_megabytes(repository):
    files = [path for path in (repository / "results").rglob("*") if path.suffix in {".json", ".parquet"}]
    shipped = [path for path in files if "runs" not in path.relative_to(repository).parts]
    assert shipped
    assert sum(path.stat().st_size for path in shipped) < 14e6


def test_the_board_in_the_docs_is_a_board(repository):
    text = (repository / "docs" / "leaderboards.md").read_text()
    Path("mine.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    spec = load_spec(Path("mine.yaml"))
    assert [entry.name for entry in spec.models] == ["DiffMM", "LightGCN", "DiffMM without text", "Pop"]
