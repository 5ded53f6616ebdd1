"""The page of a search, from its report alone."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from recbole_diffmm.tuning.pictures import figures, render, write_page

HOSTILE = "</script><img src=x onerror=alert(1)>"


def trial(number: int, state: str, score: float | None, curve: list[float], **changes: Any) -> dict[str, Any]:
    settings = {"learning_rate": 0.001 * (number + 1), "n_layers": 1 + number % 2, "mode": "full", "dropout": 0.1}
    ended = {"best_epoch": 2, "epochs_run": 3, "seconds": 1.5 + number, "error": None}
    return {"number": number, "state": state, "score": score, "settings": settings, "curve": curve, **ended, **changes}


def a_report(**changes: Any) -> dict[str, Any]:
    """Five trials: three complete, of which the third is best, a pruned one and a failed one."""
    unknown = {"best_epoch": None, "epochs_run": None}
    report = {
        "model": "BPR",
        "dataset": "toy",
        "objective": "validation Recall@20",
        "budget": {"trials": 5, "epochs": 100, "stopping_step": 10},
        "states": {"complete": 3, "fail": 1, "pruned": 1},
        "sampler": "TPESampler, the shipped settings first",
        "pruner": "MedianPruner on the validation curve",
        "sampler_seed": 0,
        "seed": 2026,
        "space": {
            "file": "BPR.yaml",
            "ranges": {
                "learning_rate": {"low": 0.0005, "high": 0.01, "log": True},
                "n_layers": [1, 2],
                "mode": ["full", "half"],
                "dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
            },
        },
        "settings": {"epochs": 100},
        "config_files": [],
        "best": {"number": 2, "score": 0.4, "settings": {"learning_rate": 0.003, "n_layers": 1}, "best_epoch": 2},
        "at_edge": ["learning_rate"],
        "importances": {"n_layers": 0.2, "learning_rate": 0.8},
        "trials": [
            trial(0, "complete", 0.3, [0.1, 0.2, 0.3]),
            trial(1, "pruned", 0.12, [0.15, 0.12], **unknown),
            trial(2, "complete", 0.4, [0.2, 0.3, 0.4]),
            trial(3, "fail", None, [], **{**unknown, "error": "CUDA out of memory", "seconds": None}),
            trial(4, "complete", 0.2, [0.1, 0.2, 0.1]),
        ],
        "split_hash": "0123456789abcdef" * 4,
        "code": {"hash": "c" * 64, "commit": "f" * 40, "dirty": False},
        "versions": {"python": "3.11.7"},
        "finished": "2026-01-02T03:04:05+00:00",
    }
    return {**report, **changes}


def by_key(report: dict[str, Any]) -> dict[str, Any]:
    return {figure.key: figure for figure in figures(report)}


def test_a_page_is_written_whole(tmp_path: Path):
    path = write_page(tmp_path / "new" / "BPR-toy.html", a_report())
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [file.name for file in path.parent.iterdir()] == ["BPR-toy.html"]
    assert path.stat().st_size < 2_500_000


def test_a_page_says_what_was_searched_and_found():
    text = " ".join(re.sub(r"<[^>]+>", " ", render(a_report()).partition('<script type="application/gzip"')[0]).split())
    for word in (
        "Trial 2 is the best of 5 by validation Recall@20: 0.4000.",
        "At an end of the searched range: learning_rate.",
        "5: 3 complete, 1 failed, 1 pruned",
        "at most 100, patience 10",
        "0123456789ab",
        "from 0.0005 to 0.01, uniform in its logarithm",
        "among full, half",
        "in steps of 0.1",
        "CUDA out of memory",
        "the test split is never ranked",
    ):
        assert word.lower() in text.lower(), word


def test_the_best_so_far_counts_complete_trials_alone():
    line, pruned, complete, best = by_key(a_report())["history"].data
    assert (line["x"], line["y"]) == ([0, 2, 4, 4], [0.3, 0.4, 0.4, 0.4])
    assert (pruned["x"], pruned["y"]) == ([1], [0.15]), "where it was when it was best, as a complete one is scored"
    assert complete["x"] == [0, 4] and best["x"] == [2]


def test_a_final_may_be_won_by_a_trial_that_was_given_up():
    finalists = [{"number": 2, "mean": 0.31, "runs": []}, {"number": 1, "mean": 0.35, "runs": []}]
    final = {"seeds": [2027, 2028], "mean": 0.35, "finalists": finalists}
    report = a_report(best={**a_report()["best"], "number": 1, "score": 0.15}, bigger_is_better=True, final=final)
    of = "2 finalists of 5 trials by mean validation Recall@20 over seeds 2027, 2028"
    assert f"Trial 1 is the best of {of}: 0.3500." in render(report)
    drawn = by_key(report)
    _, complete, best = drawn["history"].data
    assert (best["x"], best["y"]) == ([1], [0.15]) and complete["x"] == [0, 2, 4]
    (curve,) = [trace for trace in drawn["curves"].data if trace["name"] == "best"]
    assert curve["y"] == [0.15, 0.12]


def test_a_smaller_score_may_be_better():
    report = a_report(best={**a_report()["best"], "number": 4, "score": 0.2})
    line, pruned, *_ = by_key(report)["history"].data
    assert line["y"] == [0.3, 0.3, 0.2, 0.2]
    assert pruned["y"] == [0.12]


def test_pruned_curves_are_paler():
    looks = {trace["name"]: trace for trace in by_key(a_report())["curves"].data}
    assert looks["pruned"]["opacity"] < looks["complete"]["opacity"] < looks["best"].get("opacity", 1.0)
    assert looks["pruned"]["y"] == [0.15, 0.12]


def test_importances_come_sorted():
    assert by_key(a_report())["importances"].data[0]["y"] == ["learning_rate", "n_layers"]
    assert "importances" not in by_key(a_report(importances={}))


def test_every_setting_has_the_axis_that_it_was_searched_on():
    found = by_key(a_report())
    axes = [found[f"setting-{i}"].layout["xaxis"] for i in range(4)]
    assert [axis["type"] for axis in axes] == ["log", "category", "category", "linear"]
    assert axes[2]["categoryarray"] == ["full", "half"]
    assert axes[3]["range"] == pytest.approx([-0.03, 0.53])
    assert {trace["name"]: trace["x"] for trace in found["setting-1"].data} == {
        "pruned": ["2"],
        "complete": ["1", "1"],
        "best": ["1"],
    }


def test_all_numbers_of_pictures_stand_beside_them():
    found = by_key(a_report())
    assert found["history"].table[1] == ["1", "pruned", "0.1500", "0.3000"]
    assert found["curves"].table[0] == ["0", "0.1000", "0.2000", "0.3000"]
    assert found["curves"].table[1] == ["1", "0.1500", "0.1200", "–"]


def test_a_search_without_any_curve_still_makes_a_page():
    trials = [trial(2, "complete", 0.4, [])]
    report = a_report(trials=trials, importances={}, at_edge=[], states={"complete": 1})
    assert "curves" not in by_key(report)
    assert "At an end" not in render(report)


def test_hostile_text_stays_text():
    report = a_report(model=HOSTILE, dataset=HOSTILE, sampler=HOSTILE, settings={HOSTILE: HOSTILE})
    report["trials"][3]["error"] = HOSTILE
    report["space"]["ranges"]["mode"] = [HOSTILE]
    for entry in report["trials"]:
        entry["settings"]["mode"] = HOSTILE
    text = render(report)
    assert "<img" not in text
    packed = re.search(r'id="pictures-data">([^<]*)<', text).group(1)
    drawn = json.loads(gzip.decompress(base64.b64decode(packed)))["figures"]["setting-2"]
    assert all("<" not in value for trace in drawn["data"] for value in trace["x"])
