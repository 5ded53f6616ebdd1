"""Carries out the runs of a board on this machine, several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recbole_diffmm.leaderboard.plan import QUIET, Planned
from recbole_diffmm.leaderboard.progress import Progress
from recbole_diffmm.process import Job, Slot, carry_out
from recbole_diffmm.record import write_json

WORKER = "recbole_diffmm.leaderboard.worker"


def request(run: Planned, results_dir: Path) -> dict[str, Any]:
    """Return what a worker is told of a run; it continues one that was interrupted, unless that was another's code."""
    task = run.task
    return {
        "model": task.model,
        "dataset": task.dataset,
        "config_files": list(task.config_files),
        "settings": {**QUIET, "resume": run.known, **task.settings, "results_dir": str(results_dir)},
    }


class _Runs:
    """Watches the runs of a board."""

    def __init__(self, runs: Sequence[Planned], folder: Path, progress: Progress) -> None:
        self._runs = {run.name: run for run in runs}
        self._folder, self._progress = folder, progress
        self.failures: dict[str, str] = {}

    def started(self, job: Job) -> None:
        self._progress.start(self._runs[job.name])

    def told(self, job: Job, message: dict[str, Any]) -> None:
        self._progress.update(self._runs[job.name], message)

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        run = self._runs[job.name]
        reason = settle(run, self._folder, failed)
        if reason is not None:
            self.failures[run.name] = reason
        self._progress.end(run, reason)


def run_locally(runs: Sequence[Planned], folder: Path, places: Sequence[Slot], progress: Progress) -> dict[str, str]:
    """Carry out `runs` and return the reasons of those that failed, by name.

    A run that fails leaves its reason beside where its record would be, and the others go on. When this process is
    interrupted or killed, what was training ends with it, and the next call continues it from its last epoch.

    Args:
        runs: What to do, in this order.
        folder: Where records go.
        places: One a run at a time.
        progress: Told what happens.
    """
    watcher = _Runs(runs, folder, progress)
    carry_out([Job(run.name, WORKER, request(run, folder)) for run in runs], places, watcher)
    return watcher.failures


def settle(run: Planned, folder: Path, failed: dict[str, Any] | None) -> str | None:
    """Write down why a run failed and return it, or forget why it once did."""
    path = failure_path(folder, run.name)
    if failed is None and not (folder / f"{run.name}.json").is_file():
        failed = {"failed": f"its record has another name; delete {folder / 'board.json'}, which knows it by this one"}
    if failed is None:
        path.unlink(missing_ok=True)
        return None
    task = run.task
    write_json(
        path,
        {
            "name": run.name,
            "label": task.label,
            "model": task.model,
            "dataset": task.dataset,
            "seed": task.seed,
            "reason": failed["failed"],
            "details": failed.get("details", ""),
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    )
    return str(failed["failed"])


def failure_path(folder: Path, name: str) -> Path:
    """Return the file that says why a run failed."""
    return folder / f"{name}.failure.json"
