"""A search's finalists are trained with seeds that did not choose them, once, and the best mean wins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_diffmm.cli import main
from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard.spec import load_spec
from recbole_diffmm.leaderboard.tuned import searches, tuning_words
from recbole_diffmm.process import Job, Watcher
from recbole_diffmm.quick_start import validate
from recbole_diffmm.tuning import final, tune, worker
from recbole_diffmm.tuning.pictures import render
from recbole_diffmm.tuning.report import write_report
from recbole_diffmm.tuning.search import QUIET, Search
from recbole_diffmm.tuning.study import drop_half_line
from tests.leaderboard.test_spec import write

_SETTINGS = {"epochs": 2, "train_batch_size": 256, "use_gpu": False, "seed": 5}
_SEARCH = Search("BPR", "toy", 4, settings=_SETTINGS, space=Path("space.yaml"), finalists=2)
_REPORT, _JOURNAL = Path("results/tuning/BPR-toy.json"), Path("results/tuning/BPR-toy.final.journal")
_SPLIT = "5" * 64


@pytest.fixture
def content() -> dict[str, Any]:
    """The report of four trials: the first and the third with the same settings, the last one given up."""
    rates = {0: 0.01, 1: 0.02, 2: 0.01, 3: 0.05}
    return {
        "model": "BPR",
        "dataset": "toy",
        "objective": "validation Recall@20",
        "budget": {"trials": 4, "minutes": None, "epochs": 2, "stopping_step": 3},
        "states": {"complete": 3, "pruned": 1},
        "seed": 5,
        "sampler": "TPESampler",
        "sampler_seed": 0,
        "pruner": "none",
        "space": {"file": "space.yaml", "ranges": {"learning_rate": {"low": 0.01, "high": 0.1, "log": True}}},
        "settings": _SETTINGS,
        "config_files": [],
        "config_hashes": [],
        "best": {"number": 0, "score": 0.4, "settings": {"learning_rate": 0.01}, "best_epoch": 1},
        "at_edge": ["learning_rate"],
        "importances": {},
        "trials": [
            {
                "number": number,
                "state": "pruned" if number == 3 else "complete",
                "score": [0.4, 0.3, 0.4, 0.2][number],
                "settings": {"learning_rate": rate},
                "curve": [0.35, 0.2] if number == 3 else [0.1, [0.4, 0.3, 0.4][number]],
                "best_epoch": None if number == 3 else 1,
                "epochs_run": 2,
                "seconds": 1.0,
                "error": None,
            }
            for number, rate in rates.items()
        ],
        "split_hash": _SPLIT,
        "code": {"hash": "c" * 64, "commit": "f" * 40, "dirty": False},
        "finished": "2026-11-27T12:00:00+00:00",
    }


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """The learning rates and seeds of all trainings, of which a final's score those two alone."""
    seen: list[tuple[float, int]] = []

    def training(asked: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        settings = asked["settings"]
        seen.append((settings["learning_rate"], settings["seed"]))
        tell({"epoch": 1, "score": 0.1})
        score = settings["learning_rate"] + 0.001 * settings["seed"]
        return {"score": score, "best_epoch": 0, "epochs_run": 2, "seconds": 0.5, "split_hash": _SPLIT}

    monkeypatch.setattr(worker, "training", training)
    in_this_process(monkeypatch)
    return seen


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def carry_out(jobs: Iterable[Job], places: Any, watcher: Watcher) -> None:
        for job in jobs:
            watcher.started(job)
            failed = None
            asked = json.loads(json.dumps(job.request))
            try:
                do = worker.trial if "study" in asked else worker.training
                watcher.told(job, {"done": do(asked, lambda message, job=job: watcher.told(job, message))})
            except Exception as error:
                failed = {"failed": worker._reason(error)}
            watcher.ended(job, failed)

    monkeypatch.setattr(final, "carry_out", carry_out)
    monkeypatch.setattr(tune, "carry_out", carry_out)


def held(content: dict[str, Any], search: Search = _SEARCH, bigger: bool = True) -> dict[str, Any]:
    _JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    return final.hold_final(search, content, bigger, _JOURNAL, 1, False)


def test_the_best_mean_over_the_next_seeds_wins(content: dict[str, Any], trained: list[tuple[float, int]]):
    after = held(content)
    assert trained == [(0.01, 6), (0.01, 7), (0.05, 6), (0.05, 7)], "one given up, no settings twice, not seed 5"
    assert after["best"] == {"number": 3, "score": 0.35, "settings": {"learning_rate": 0.05}, "best_epoch": 0}
    assert after["at_edge"] == [] and after["budget"]["finalists"] == 2 and after["trials"] == content["trials"]
    assert after["final"]["seeds"] == [6, 7] and after["final"]["mean"] == pytest.approx(0.0565)
    means = {entry["number"]: entry["mean"] for entry in after["final"]["finalists"]}
    assert means == {0: pytest.approx(0.0165), 3: pytest.approx(0.0565)}
    assert [run["seed"] for run in after["final"]["finalists"][0]["runs"]] == [6, 7]


def test_a_smaller_score_wins_where_it_is_better(content: dict[str, Any], trained: list[tuple[float, int]]):
    after = held(content, bigger=False)
    assert [rate for rate, _ in trained] == [0.05, 0.05, 0.02, 0.02], "the smallest in the search come first"
    assert after["best"]["number"] == 1


def test_what_is_trained_is_not_trained_again(content: dict[str, Any], trained: list[tuple[float, int]]):
    first = held(content)
    lines = _JOURNAL.read_text(encoding="utf-8").splitlines(keepends=True)
    _JOURNAL.write_text("".join(lines[:3]) + lines[3][:20], encoding="utf-8")  # killed while it wrote the last one
    drop_half_line(_JOURNAL)
    with _JOURNAL.open("a", encoding="utf-8") as file:
        file.write('[1]\n{"key": "no score"}\n\n')
    second = held(content)
    assert trained[4:] == [(0.05, 7)]
    assert {**second["final"], "finished": ""} == {**first["final"], "finished": ""}
    held(content, replace(_SEARCH, finalists=1))
    assert len(trained) == 5
    held({**content, "settings": {**_SETTINGS, "epochs": 3}})
    assert len(trained) == 9, "other settings are another final"


def test_a_finalist_that_fails_is_out(
    content: dict[str, Any], trained: list[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
):
    whole = worker.training

    def training(asked: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        if asked["settings"]["learning_rate"] == 0.05 and asked["settings"]["seed"] == 7:
            raise UserError("loss term loss became nan")
        return whole(asked, tell)

    monkeypatch.setattr(worker, "training", training)
    after = held(content)
    assert after["best"]["number"] == 0
    out = after["final"]["finalists"][1]
    assert out["mean"] is None and out["runs"][1] == {"seed": 7, "error": "loss term loss became nan"}
    monkeypatch.setattr(worker, "training", whole)
    assert held(content)["best"]["number"] == 0, "it is not tried again"
    with pytest.raises(UserError) as error:
        held({**content, "trials": content["trials"][3:]})
    assert str(error.value) == (
        "no finalist of BPR-toy could be trained: loss term loss became nan; delete "
        "results/tuning/BPR-toy.final.journal to try again"
    )


def test_data_that_change_during_a_final_end_it(
    content: dict[str, Any], trained: list[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
):
    held(content, replace(_SEARCH, finalists=1))
    whole = worker.training
    monkeypatch.setattr(worker, "training", lambda *given: {**whole(*given), "split_hash": "6" * 64})
    with pytest.raises(UserError, match=r"the data of toy changed while the final of BPR-toy was held; delete results"):
        held(content)


def test_a_search_ends_with_its_final_and_the_same_command_with_no_training(monkeypatch: pytest.MonkeyPatch):
    Path("space.yaml").write_text("learning_rate: [0.001, 0.01, 0.1]\n", encoding="utf-8")
    in_this_process(monkeypatch)
    found = tune.tune(_SEARCH, workers=1, progress=False)
    report = json.loads(_REPORT.read_text(encoding="utf-8"))
    entry = next(entry for entry in report["final"]["finalists"] if entry["number"] == report["best"]["number"])
    assert found.score == entry["mean"] == max(entry["mean"] for entry in report["final"]["finalists"])
    for run in entry["runs"]:  # what a final trains is what a run with that seed trains
        again = validate("BPR", "toy", None, {**QUIET, **_SETTINGS, **found.settings}, {"seed": run["seed"]})
        assert (again.score, again.best_epoch) == (run["score"], run["best_epoch"])
    text = Path("properties/tuned/BPR-toy.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == found.settings == report["best"]["settings"]
    assert "the best of 2 finalists of 4 trials by validation Recall@20" in text.splitlines()[0]
    assert text.splitlines()[1] == f"# Chosen by its mean over seeds 6, 7 ({found.score:.4f})."
    monkeypatch.setattr(worker, "training", lambda *_: pytest.fail("trained again"))
    assert tune.tune(_SEARCH, workers=1, progress=False).score == found.score
    assert tune.tune(_SEARCH, workers=1, progress=False, only_final=True).score == found.score
    alone = tune.tune(replace(_SEARCH, finalists=1), workers=1, progress=False)
    plain = json.loads(_REPORT.read_text(encoding="utf-8"))
    assert "final" not in plain and alone.score == max(trial["score"] or 0 for trial in plain["trials"])


def test_a_final_alone_needs_a_report_of_the_same_search(
    content: dict[str, Any], trained: list[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
):
    Path("space.yaml").write_text("learning_rate: [0.001, 0.01]\n", encoding="utf-8")  # ranges may have changed since

    def alone(search: Search = _SEARCH) -> tune.Found:
        return tune.tune(search, workers=1, progress=False, only_final=True)

    with pytest.raises(UserError, match=r"BPR-toy has no report results/tuning/BPR-toy.json to hold a final from"):
        alone()
    write_report(_REPORT.with_suffix(""), content)
    with pytest.raises(UserError, match=r"BPR-toy.json is of a search with other settings or config files"):
        alone(replace(_SEARCH, settings={**_SETTINGS, "epochs": 3}))
    with pytest.raises(UserError, match=r"--finalists is 1; give at least 2"):
        alone(replace(_SEARCH, finalists=1))
    assert not trained
    assert alone().settings == {"learning_rate": 0.05} and len(trained) == 4
    for broken in ("[]", "{}", '{"model": "BPR"}', json.dumps({**content, "trials": []})):
        _REPORT.write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match=r"BPR-toy.json is no report of recbole-diffmm tune"):
            alone()


def test_a_board_states_how_many_finalists_its_rows_had(
    trained: list[tuple[float, int]], capsys: pytest.CaptureFixture[str]
):
    Path("properties/tune").mkdir(parents=True)
    Path("properties/tune/BPR.yaml").write_text("learning_rate: [0.001, 0.01, 0.1]\n", encoding="utf-8")
    board = Path("b.yaml")
    settings = {key: value for key, value in _SETTINGS.items() if key != "seed"}
    without = load_spec(write(board, models=["BPR"], settings=settings, tuning={"trials": 3}))
    assert main(["tune", "--board", "b.yaml", "--workers", "1"]) == 0
    assert tuning_words(without)["BPR", "toy"].startswith("3 trials in under a minute, on validation")
    spec = load_spec(write(board, models=["BPR"], settings=settings, tuning={"trials": 3, "finalists": 2}))
    assert [search.finalists for search in searches(spec)] == [2]
    with pytest.raises(UserError, match=r"was tuned with no final, the board states a final of 2 .* --final_only"):
        tuning_words(spec)
    assert main(["tune", "--board", "b.yaml", "--final_only"]) == 0 and len(trained) == 4
    assert tuning_words(spec)["BPR", "toy"].startswith("3 trials and a final of 2 in under a minute, on validation")
    path = Path("results/tuning/b/BPR-toy.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    for entry, seconds in zip(report["final"]["finalists"], (55.0, None), strict=True):
        for run in entry["runs"]:
            run["seconds"] = seconds  # one that failed has none
    path.write_text(json.dumps(report), encoding="utf-8")
    assert tuning_words(spec)["BPR", "toy"].startswith("3 trials and a final of 2 in 2 minutes, on validation")
    with pytest.raises(UserError, match=r"a final of 2, the board states no final .* `finalists: 2` there, or tune it"):
        tuning_words(without)
    write(board, models=["BPR"], settings=settings, tuning={"trials": 3})
    assert main(["tune", "--board", "b.yaml", "--workers", "1"]) == 0, "as it advises"
    assert tuning_words(without)["BPR", "toy"].startswith("3 trials in under a minute, on validation")
    assert main(["tune", "--board", "b.yaml", "--finalists", "2"]) == 2
    assert "--board says everything but the row" in capsys.readouterr().err


def test_the_page_tells_the_final(content: dict[str, Any], trained: list[tuple[float, int]]):
    page = render(held(content))
    assert "0.0165 (trial 0), 0.0565 (trial 3)" in page and "means over seeds 6, 7" in page
    assert "Final" not in render(content)
