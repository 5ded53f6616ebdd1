"""Trains the first epochs of stale runs once more, to tell whether changed code still gives their numbers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recbole_diffmm import provenance
from recbole_diffmm.leaderboard import confirmed
from recbole_diffmm.leaderboard.confirmed import Confirmation
from recbole_diffmm.leaderboard.earlier import Earlier
from recbole_diffmm.leaderboard.plan import Planned
from recbole_diffmm.leaderboard.progress import Progress
from recbole_diffmm.leaderboard.runner import WORKER, request
from recbole_diffmm.process import Job, Slot, carry_out
from recbole_diffmm.record import Code, Record, load

Curve = list[dict[str, Any]]
# What is told of a run besides that its code has changed.
_DIFFERENT = "and so have its numbers"
_UNKNOWN = "and whether its numbers have is not known"


class _Trainings:
    """Watches the trainings, and confirms at once: what an interruption leaves is kept."""

    def __init__(self, runs: Sequence[Planned], folder: Path, epochs: int, progress: Progress) -> None:
        self.runs = {run.name: run for run in runs}
        self._folder, self._epochs, self._progress = folder, epochs, progress
        self._curves: dict[str, Curve] = {}
        # By name of a run, what to compare with where it is not the record: other code's curve, and that code.
        self.expected: dict[str, tuple[Curve, Code]] = {}
        self.different: dict[str, str] = {}

    def record(self, run: Planned) -> Record:
        """What the run left."""
        return load(self._folder / f"{run.name}.json")

    def job(self, run: Planned) -> Job:
        """The training of a run's first epochs."""
        told = request(run, self._folder)
        settings = {**told["settings"], "epochs": self._allowed(self.record(run)), "resume": False}
        return Job(run.name, WORKER, {**told, "settings": settings, "validate": True})

    def started(self, job: Job) -> None:
        self._progress.start(self.runs[job.name])

    def told(self, job: Job, message: dict[str, Any]) -> None:
        if "curve" in message:
            self._curves[job.name] = message["curve"]
        self._progress.update(self.runs[job.name], message)

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        run = self.runs[job.name]
        record = self.record(run)
        epochs = min(self._allowed(record), len(record.curve))
        expected, against = self.expected.get(run.name, (record.curve, None))
        curve = self._curves.pop(job.name, [])
        reason = failed["failed"] if failed else confirmed.first_difference(expected, curve, epochs)
        if reason is None:
            found = Confirmation(
                checksum=record.checksum,
                code=Code(**provenance.code(record.model)),
                against=against,
                epochs=epochs,
                when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            )
            confirmed.write(self._folder, {**confirmed.read(self._folder), run.name: found})
        else:
            compared = failed is None and epochs > 0
            self.different[run.name] = f"{_DIFFERENT if compared else _UNKNOWN}: {reason}"
        self._progress.end(run, reason)

    def _allowed(self, record: Record) -> int:
        """As many epochs as asked for, up to the next validation: RecBole validates in the last one at the latest."""
        own = max(int(record.config["epochs"]), 1)
        step = min(int(record.config.get("eval_step") or 1), own)
        return min(math.ceil(self._epochs / step) * step, own)


class _EarlierTrainings:
    """Watches the same trainings by other code."""

    def __init__(self, trainings: _Trainings, progress: Progress, codes: dict[str, Code]) -> None:
        self._trainings, self._progress, self._codes = trainings, progress, codes
        self._curves: dict[str, Curve] = {}

    def started(self, job: Job) -> None:
        self._progress.start(self._trainings.runs[job.name])

    def told(self, job: Job, message: dict[str, Any]) -> None:
        if "curve" in message:
            self._curves[job.name] = message["curve"]

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        if failed is None and job.name not in self._curves:
            failed = {"failed": "it told no curve; it is too old"}
        if failed is None:
            self._trainings.expected[job.name] = self._curves.pop(job.name), self._codes[job.name]
            return
        reason = f"the earlier code failed: {failed['failed']}"
        self._trainings.different[job.name] = f"{_UNKNOWN}: {reason}"
        self._progress.end(self._trainings.runs[job.name], reason)


def confirm(
    runs: Sequence[Planned],
    folder: Path,
    epochs: int,
    places: Sequence[Slot],
    progress: Progress,
    earlier: Earlier | None = None,
) -> dict[str, str]:
    """Confirm the runs whose first epochs come out the same; of the others return what is told of them, by name.

    Losses, validation metrics and diagnostics are compared as they stand in the record, all digits; test is not looked
    at. Numbers can only come out the same on a machine and with packages like those of the record. Elsewhere `earlier`,
    the code that made a record or has confirmed it, trains the same epochs, and its numbers are compared with.

    Args:
        runs: Stale ones.
        folder: Where their records lie.
        epochs: How many to train, up to the next validation; a run that had fewer is trained as long.
        places: One a training at a time.
        progress: Told what happens.
        earlier: A checkout of that code.
    """
    watcher = _Trainings(runs, folder, epochs, progress)
    if earlier is None:
        carry_out([watcher.job(run) for run in runs], places, watcher)
        return watcher.different
    codes = _codes(runs, watcher, folder, earlier, progress)
    known = [run for run in runs if run.name in codes]
    # A few at a time, so that an interruption loses no more than these.
    for start in range(0, len(known), len(places)):
        some = known[start : start + len(places)]
        with tempfile.TemporaryDirectory() as elsewhere:  # code that is too old writes a record
            jobs = [watcher.job(run) for run in some]
            for job in jobs:
                job.request["settings"]["results_dir"] = elsewhere
            carry_out(jobs, [earlier.place(slot) for slot in places], _EarlierTrainings(watcher, progress, codes))
        carry_out([watcher.job(run) for run in some if run.name in watcher.expected], places, watcher)
    return watcher.different


def _codes(
    runs: Sequence[Planned], watcher: _Trainings, folder: Path, earlier: Earlier, progress: Progress
) -> dict[str, Code]:
    """The earlier code of each run that it made or has confirmed; the others differ."""
    there = earlier.codes(sorted({run.task.model for run in runs}))
    before = confirmed.read(folder)
    codes = {}
    for run in runs:
        record, code = watcher.record(run), there[run.task.model]
        found = before.get(run.name)
        known = {record.code.hash} | ({found.code.hash} if found and found.checksum == record.checksum else set())
        if code.hash in known:
            codes[run.name] = code
        else:
            reason = f"{earlier.folder} holds other code of {run.task.model} than made or confirmed it"
            watcher.different[run.name] = f"{_UNKNOWN}: {reason}"
            progress.start(run)
            progress.end(run, reason)
    return codes
