"""When a trial may be pruned is what was counted over the searches that were made."""

from __future__ import annotations

import json
from pathlib import Path

from recbole_diffmm.tuning.search import PATIENCES, WORST


def test_the_rule_is_the_one_that_costs_little(repository: Path) -> None:
    report = json.loads((repository / "benchmarks" / "results" / "pruning.json").read_text(encoding="utf-8"))
    rules = {(rule.get("epochs"), rule.get("patiences"), rule["worst_per_cent"]): rule for rule in report["rules"]}
    ours, early = rules[None, PATIENCES, WORST], rules[5, None, 50]
    assert ours["best_pruned"] / ours["searches"] < 0.1 < early["best_pruned"] / early["searches"]
    text = " ".join((repository / "docs" / "leaderboards.md").read_text(encoding="utf-8").split())
    assert f"in {early['best_pruned']} of {early['searches']} searches the best setting was below the median" in text
