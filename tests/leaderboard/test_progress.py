from __future__ import annotations

import pytest

from recbole_diffmm.leaderboard.plan import Planned
from recbole_diffmm.leaderboard.progress import Progress
from recbole_diffmm.leaderboard.spec import Task


def test_a_log_goes_on_after_a_run_that_ended_early(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar takes a step of nearly a run there, and steps of a thousandth of one after it."""
    first, second = (Planned(Task("LightGCN", "LightGCN", "toy", seed), f"s{seed}", "", "missing") for seed in (1, 2))
    progress = Progress(0, 2)
    progress._bar.mininterval = 0
    progress.start(first)
    progress.end(first, None)
    progress.start(second)
    progress.update(second, {"epochs": 1000})
    for epoch in range(1, 10):
        progress.update(second, {"epoch": epoch})
    assert "LightGCN toy s2 9/1000" in capsys.readouterr().err
