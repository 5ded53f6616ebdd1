"""A trial is given up where it is among the worst of all that have ended, and not of those alone that got as far."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
import pytest

from recbole_diffmm.tuning.pruner import WorstOfAll

_SHORT = [[0.3] * 4, [0.2] * 4, [0.4] * 4]  # patience ended them


def study(curves: Sequence[Sequence[float]], direction: str = "maximize") -> optuna.Study:
    made = optuna.create_study(direction=direction, pruner=WorstOfAll(25, 6))
    for curve in curves:
        trial = made.ask()
        for epoch, value in enumerate(curve):
            trial.report(value, epoch)
        made.tell(trial, max(curve) if direction == "maximize" else min(curve))
    return made


def given_up(made: optuna.Study, curve: Sequence[float]) -> int | None:
    """The epoch after which a trial with this curve is given up."""
    trial = made.ask()
    for epoch, value in enumerate(curve):
        trial.report(value, epoch)
        if trial.should_prune():
            made.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return epoch
    made.tell(trial, max(curve))
    return None


def test_one_long_and_good_trial_does_not_end_the_others():
    curves = [*_SHORT, [0.9] * 20]
    assert given_up(study(curves), [0.21] * 20) is None, "better than one of four"
    assert given_up(study(curves), [0.1] * 20) == 6, "the worst, and not before the seventh epoch"


def test_what_was_given_up_counts_among_the_worst():
    made = study([*_SHORT, [0.9] * 20])
    assert given_up(made, [0.1] * 20) == 6 and given_up(made, [0.1] * 20) == 6
    assert given_up(made, [0.15] * 20) is None, "two of the six before are worse"


def test_what_a_trial_reached_counts_and_what_others_reached_later_does_not():
    curves = [*_SHORT, [0.1] * 10 + [0.9] * 10]
    assert given_up(study(curves), [0.25, *[0.0] * 19]) is None
    assert given_up(study(curves), [0.15] * 20) == 10, "the late one was behind until then"


@pytest.mark.parametrize("curves", [[], _SHORT[:2]])
def test_nothing_is_given_up_before_three_have_ended(curves: list[list[float]]):
    assert given_up(study(curves), [0.0] * 20) is None


def test_smaller_may_be_better():
    made = study([[0.3] * 4, [0.2] * 4, [0.4] * 4, [0.1] * 20], "minimize")
    assert given_up(made, [0.35] * 20) is None and given_up(made, [0.5] * 20) == 6
