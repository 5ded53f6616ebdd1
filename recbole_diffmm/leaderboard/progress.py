"""One display for a whole sweep."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from recbole_diffmm.leaderboard.plan import Planned


class Progress:
    """A bar in runs, moved by epochs, with what is done, running and failed.

    Args:
        done: Runs that were done before.
        pending: Runs to do.
        shown: False shows nothing.
    """

    def __init__(self, done: int, pending: int, shown: bool = True) -> None:
        self._done, self._failed, self._of = done, 0, done + pending
        self._epochs: dict[str, int] = {}
        self._share: dict[str, float] = {}
        self._running: dict[str, str] = {}
        self._ended: set[str] = set()
        self._bar = tqdm(
            total=pending,
            disable=not shown,
            dynamic_ncols=True,
            # Into a file, a line now and then, by time alone: tqdm learns long steps from a run that ends early.
            mininterval=0.2 if sys.stderr.isatty() else 30,
            miniters=0,
            bar_format="{percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left{postfix}",
        )
        self._show()

    def __str__(self) -> str:
        """`3 of 12 runs are done`, with how many have failed."""
        told = f"{self._done} of {self._of} runs are done"
        return told + (f", {self._failed} failed" if self._failed else "")

    def start(self, run: Planned) -> None:
        """A run has begun, or begun again where its worker died."""
        if run.name in self._ended:
            return  # from a cluster, messages may come late
        self._bar.update(-self._share.get(run.name, 0.0))
        self._share[run.name] = 0.0
        self._running[run.name] = f"{run.task.label} {run.task.dataset} s{run.task.seed}"
        self._show()

    def update(self, run: Planned, message: dict[str, Any]) -> None:
        """A run has told something: its number of epochs, or that one is over."""
        if run.name not in self._share:
            return
        if "epochs" in message:
            self._epochs[run.name] = message["epochs"]
        elif "epoch" in message:
            total = self._epochs.get(run.name, 0)
            # Early stopping may end it at any time: the last step is kept for the end.
            share = min(message["epoch"] / (total + 1), 1.0) if total else 0.0
            self._bar.update(share - self._share[run.name])
            self._share[run.name] = share
            place = f"{message['epoch']}/{total}"
            self._running[run.name] = f"{run.task.label} {run.task.dataset} s{run.task.seed} {place}"
            self._show()

    def end(self, run: Planned, reason: str | None) -> None:
        """A run is over, with the reason of its failure if it failed."""
        self._bar.update(1.0 - self._share.pop(run.name, 0.0))
        self._running.pop(run.name, None)
        self._ended.add(run.name)
        if reason is None:
            self._done += 1
        else:
            self._failed += 1
            if not self._bar.disable:
                self._bar.write(f"failed: {run.task}: {reason}", file=sys.stderr)
        self._show()

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.close()

    def _show(self) -> None:
        running = ", ".join(self._running.values())
        self._bar.postfix = f"{self._done} done, {self._failed} failed, {len(self._running)} running" + (
            f" ({running})" if running else ""
        )
        self._bar.refresh() if sys.stderr.isatty() else self._bar.update(0)
