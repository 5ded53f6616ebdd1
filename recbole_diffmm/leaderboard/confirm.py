"""Trains the first epochs of stale runs once more, to tell whether changed code still gives their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recbole_diffmm import provenance
from recbole_diffmm.leaderboard import confirmed
from recbole_diffmm.leaderboard.confirmed import Confirmation
from recbole_diffmm.leaderboard.plan import Planned
from recbole_diffmm.leaderboard.progress import Progress
from recbole_diffmm.leaderboard.runner import WORKER, request
from recbole_diffmm.process import Job, Slot, carry_out
from recbole_diffmm.record import Code, Record, load


class _Trainings:
    """Watches the trainings, and confirms at once: what an interruption leaves is kept."""

    def __init__(self, runs: Sequence[Planned], folder: Path, epochs: int, progress: Progress) -> None:
        self._runs = {run.name: run for run in runs}
        self._folder, self._epochs, self._progress = folder, epochs, progress
        self._curves: dict[str, list[dict[str, Any]]] = {}
        self.different: dict[str, str] = {}

    def record(self, run: Planned) -> Record:
        """What the run left."""
        return load(self._folder / f"{run.name}.json")

    def job(self, run: Planned) -> Job:
        """The training of a run's first epochs, as many as it has."""
        told = request(run, self._folder)
        epochs = min(self._epochs, len(self.record(run).curve))
        settings = {**told["settings"], "epochs": max(1, epochs), "resume": False}
        return Job(run.name, WORKER, {**told, "settings": settings, "validate": True})

    def started(self, job: Job) -> None:
        self._progress.start(self._runs[job.name])

    def told(self, job: Job, message: dict[str, Any]) -> None:
        if "curve" in message:
            self._curves[job.name] = message["curve"]
        self._progress.update(self._runs[job.name], message)

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        run = self._runs[job.name]
        record = self.record(run)
        epochs = min(self._epochs, len(record.curve))
        reason = failed["failed"] if failed else None
        reason = reason or confirmed.first_difference(record, self._curves.pop(job.name, []), epochs)
        if reason is None:
            found = Confirmation(
                checksum=record.checksum,
                code=Code(**provenance.code(record.model)),
                epochs=epochs,
                when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            )
            confirmed.write(self._folder, {**confirmed.read(self._folder), run.name: found})
        else:
            self.different[run.name] = str(reason)
        self._progress.end(run, reason)


def confirm(
    runs: Sequence[Planned], folder: Path, epochs: int, places: Sequence[Slot], progress: Progress
) -> dict[str, str]:
    """Confirm the runs whose first epochs come out the same, and return where the others differ, by name.

    Losses, validation metrics and diagnostics are compared as they stand in the record, all digits; test is not looked
    at. Numbers can only come out the same on a machine and with packages like those of the record.

    Args:
        runs: Stale ones.
        folder: Where their records lie.
        epochs: How many to train; a run that had fewer is trained as long.
        places: One a training at a time.
        progress: Told what happens.
    """
    watcher = _Trainings(runs, folder, epochs, progress)
    carry_out([watcher.job(run) for run in runs], places, watcher)
    return watcher.different
