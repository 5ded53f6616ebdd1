"""Which trials are not worth going on with."""

from __future__ import annotations

import math

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

# So many have to have ended before one is given up.
_FEWEST = 3


class WorstOfAll(optuna.pruners.BasePruner):
    """Gives a trial up that is among the worst of all that have ended, each by the best it had reached by then.

    Optuna's percentile pruner holds a trial against those alone that got as far, and against what they had in that
    epoch: where patience ends most trials early, good ones are given up because of the one or two that are better.

    Args:
        worst: How many per cent of the trials are the worst.
        after: Epochs before which none is given up.
    """

    def __init__(self, worst: float, after: int) -> None:
        self._worst, self._after = worst, after

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial is to be given up after what it reported last."""
        step = trial.last_step
        if step is None or step < self._after:
            return False
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        reached = [_reached(other, step, sign) for other in ended if other.intermediate_values]
        if len(reached) < _FEWEST:
            return False
        return _reached(trial, step, sign) < float(np.percentile(reached, self._worst, method="lower"))


def _reached(trial: FrozenTrial, step: int, sign: float) -> float:
    """The best of a trial's epochs up to one of them, larger being better."""
    return max((sign * value for epoch, value in trial.intermediate_values.items() if epoch <= step), default=-math.inf)
