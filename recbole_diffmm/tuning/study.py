"""Optuna's study of one model on one dataset: where it is kept, what it counts, what it samples and prunes by."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from recbole_diffmm.errors import UserError
from recbole_diffmm.tuning.pruner import WorstOfAll
from recbole_diffmm.tuning.search import PATIENCES, WORST
from recbole_diffmm.tuning.space import Range

INTERRUPTED = "interrupted"


def storage(where: str) -> BaseStorage:
    """Return the storage that `where` names: a journal file, or the URL of a database that SQLAlchemy knows.

    Raises:
        UserError: It cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if "://" in where:
            return optuna.storages.RDBStorage(where)
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        # The lock that opens a file is the one that network file systems have too.
        return JournalStorage(JournalFileBackend(where, lock_obj=JournalFileOpenLock(where)))
    except Exception as error:
        raise _unopened(where, error, "give a file, or a URL such as sqlite:///study.db") from None


def _unopened(where: str, error: Exception, remedy: str) -> UserError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return UserError(f"storage {where} cannot be opened ({reason}); {remedy}")


def drop_half_line(journal: Path) -> None:
    """Cut off what a killed process, or a full disk, left of a journal's last line: the next would go on in it."""
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(journal, whole)


def open_study(where: str, name: str, bigger: bool, seed: int, trials: int, patience: int) -> optuna.Study:
    """Open a study, new or as it was left.

    Args:
        where: See :func:`storage`.
        name: The study's.
        bigger: Whether a bigger score is better.
        seed: Of the sampler of this process.
        trials: The budget.
        patience: Epochs without a better one after which a training ends.
    """
    kept = storage(where)
    try:
        return optuna.create_study(
            storage=kept,
            study_name=name,
            load_if_exists=True,
            direction="maximize" if bigger else "minimize",
            sampler=sampler(seed, trials),
            pruner=WorstOfAll(WORST, PATIENCES * patience),
        )
    except Exception as error:
        raise _unopened(where, error, "delete it to begin anew") from None


def sampler(seed: int, trials: int) -> optuna.samplers.TPESampler:
    """Return what draws settings: at random in the first third of a budget of `trials`, then learning from the past."""
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(3, trials // 3), multivariate=True)


def spent(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count against the budget: all that have ended and were not interrupted."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return [trial for trial in study.get_trials(states=states) if not trial.user_attrs.get(INTERRUPTED)]


def give_up_running(study: optuna.Study) -> int:
    """End trials that nobody works on any more, queue their settings again, and return how many there were."""
    lost = study.get_trials(states=(TrialState.RUNNING,))
    for trial in lost:
        study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    return len(lost)


def fail(study: optuna.Study, number: int, reason: str) -> None:
    """End a trial whose process has died; it counts, for another one with its settings might well die too."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if trial.number == number:
            study._storage.set_trial_user_attr(trial._trial_id, "error", reason)
            if trial.datetime_start is not None:
                seconds = round((datetime.now() - trial.datetime_start).total_seconds(), 2)
                study._storage.set_trial_user_attr(trial._trial_id, "seconds", seconds)
            study.tell(number, state=TrialState.FAIL)


def enqueue_starts(study: optuna.Study, space: Mapping[str, Range], *starts: Mapping[str, Any]) -> None:
    """Have settings tried first, one after the other, as far as the ranges hold them; nothing once a trial is there."""
    if study.get_trials():
        return
    for start in starts:
        values = {name: value.encode(start[name]) for name, value in space.items() if name in start}
        if start:
            known = {name: value for name, value in values.items() if value is not None}
            study.enqueue_trial(known, skip_if_exists=True)


def best(trials: Sequence[FrozenTrial], bigger: bool) -> FrozenTrial | None:
    """Return the complete trial with the best score, the first of equals."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    if not complete:
        return None
    return max(complete, key=lambda trial: ((trial.value or 0.0) * (1 if bigger else -1), -trial.number))
