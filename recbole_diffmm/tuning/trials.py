"""What the trials of a search's report reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_bigger_better(report: Mapping[str, Any]) -> bool:
    """Whether the trials with the bigger scores are the better ones."""
    if "bigger_is_better" in report:
        return bool(report["bigger_is_better"])
    # Earlier reports do not say it, and have no final, so that the best of the complete trials does.
    scores = [trial["score"] for trial in report["trials"] if trial["state"] == "complete"]
    return report["best"]["score"] >= max(scores, default=report["best"]["score"])


def reached(report: Mapping[str, Any], trial: Mapping[str, Any]) -> float | None:
    """Return the best of a trial's curve: what a complete one is scored by, what is comparable of a pruned one."""
    curve = [value for value in trial["curve"] if value is not None]
    if trial["state"] == "complete" or not curve:
        return trial["score"]
    return (max if is_bigger_better(report) else min)(curve)
