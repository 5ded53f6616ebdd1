"""One bar for all that a search trains."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from recbole_diffmm.process import Job


class Bar:
    """Watches trainings with one bar on standard error, and keeps why some failed.

    Args:
        what: What stands before the bar.
        unit: What it counts.
        total: How many there are.
        done: How many of them are done already.
        shown: Whether to show it.
    """

    def __init__(self, what: str, unit: str, total: int, done: int, shown: bool) -> None:
        self.reasons: list[str] = []
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=what,
            unit=unit,
            disable=not shown,
            dynamic_ncols=True,
            # As in leaderboard/progress.py: into a file, a line now and then.
            mininterval=0.2 if sys.stderr.isatty() else 30,
            miniters=0,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def started(self, job: Job) -> None:
        """Nothing is worth a line yet."""

    def told(self, job: Job, message: dict[str, Any]) -> None:
        """An epoch is over."""
        if "score" in message:
            self._bar.set_postfix_str(f"epoch {message['epoch']}: {message['score']:.4f}", refresh=False)
            self._bar.update(0)

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        """A training is over."""
        self._bar.update()
        if failed is not None:
            self.reasons.append(failed["failed"])
            if not self._bar.disable:
                self._bar.write(f"failed: {job.name}: {failed['failed']}", file=sys.stderr)
