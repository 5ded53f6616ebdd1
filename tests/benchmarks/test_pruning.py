"""When a trial may be pruned is what was counted over the searches that were made."""

from __future__ import annotations

import json
from pathlib import Path

from recbole_diffmm.tuning.search import PATIENCES, WORST
from tests.benchmarks.conftest import load_script


def test_the_rule_is_the_one_that_costs_little(repository: Path) -> None:
    report = json.loads((repository / "benchmarks" / "results" / "pruning.json").read_text(encoding="utf-8"))
    rules = {(rule.get("epochs"), rule.get("patiences"), rule["worst_per_cent"]): rule for rule in report["rules"]}
    ours, early = rules[None, PATIENCES, WORST], rules[5, None, 50]
    assert ours["best_pruned"] / ours["searches"] < 0.1 < early["best_pruned"] / early["searches"]
    text = " ".join((repository / "docs" / "leaderboards.md").read_text(encoding="utf-8").split())
    pruned, worst = (sum(c[key] for c in report["given_up"].values()) for key in ("pruned", "among_worst_quarter"))
    told = " ".join((repository / "docs" / "results.md").read_text(encoding="utf-8").split())
    assert (
        f"of {pruned} trials that they and other boards' gave up, {worst} were among the worst quarter of all" in told
    )
    assert f"in {early['best_pruned']} of {early['searches']} searches the best setting was below the median" in text


def test_what_was_given_up_is_held_against_all_that_had_ended(repository: Path) -> None:
    given_up = load_script(repository, "pruning").given_up
    ended = [{"state": "complete", "curve": [score] * 3} for score in (0.2, 0.3, 0.4, 0.9)]
    good, bad = ({"state": "pruned", "curve": [score] * 9} for score in (0.35, 0.1))
    assert given_up({"trials": [*ended, good]}) == {"pruned": 1, "among_worst_quarter": 0}
    assert given_up({"trials": [*ended, good, bad]}) == {"pruned": 2, "among_worst_quarter": 1}
