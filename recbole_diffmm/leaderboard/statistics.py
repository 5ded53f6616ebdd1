"""Paired tests over users, corrected for how many there are, and how sure the means are. One value a user, no more.

Users are the sample: a test asks whether the same users are served better on average by one trained model than by
another, each averaged over its seeds. How much training itself scatters is told by the deviation over seeds instead.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recbole_diffmm.errors import UserError

LEVEL = 0.05
POWER = 0.8
_RESAMPLES = 1000


@dataclass(frozen=True)
class Comparison:
    """One row against another on the same users.

    Attributes:
        difference: Mean of this row minus mean of the other.
        t: p-value of the paired t-test, two-sided.
        t_holm: The same after Holm's correction, which bounds the chance of any false finding; it decides the marks.
        t_bh: The same after Benjamini and Hochberg's, which bounds the expected share of false findings.
        wilcoxon: p-value of Wilcoxon's signed-rank test, users without a difference left out.
        wilcoxon_holm: After Holm's correction.
        wilcoxon_bh: After Benjamini and Hochberg's.
    """

    difference: float
    t: float
    t_holm: float
    t_bh: float
    wilcoxon: float
    wilcoxon_holm: float
    wilcoxon_bh: float

    @property
    def distinguishable(self) -> bool:
        """Whether the paired t-test after Holm's correction tells the two apart at :data:`LEVEL`."""
        return self.t_holm < LEVEL


def compare(values: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Comparison]:
    """Test every pair of rows, corrected for as many tests as there are pairs.

    Args:
        values: One value a user ``(n,)`` of every row, the users in the same order.
        pairs: Which rows to compare.
    """
    if not pairs:
        return {}
    try:
        from statsmodels.stats.multitest import multipletests
    except ImportError:
        raise UserError(
            'a leaderboard needs statsmodels, which is not installed; run: pip install "recbole-diffmm[leaderboard]"'
        ) from None
    differences = [values[a] - values[b] for a, b in pairs]
    raw = {"t": [_paired_t(d) for d in differences], "wilcoxon": [_wilcoxon(d) for d in differences]}
    # `multipletests` collects garbage at every call, which takes long with PyTorch or Plotly in memory: what is alive
    # now need not be looked through.
    gc.freeze()
    try:
        corrected = {
            (test, method): multipletests(p, alpha=LEVEL, method=method)[1].tolist()
            for test, p in raw.items()
            for method in ("holm", "fdr_bh")
        }
    finally:
        gc.unfreeze()
    return {
        pair: Comparison(
            float(differences[i].mean()),
            raw["t"][i],
            corrected["t", "holm"][i],
            corrected["t", "fdr_bh"][i],
            raw["wilcoxon"][i],
            corrected["wilcoxon", "holm"][i],
            corrected["wilcoxon", "fdr_bh"][i],
        )
        for i, pair in enumerate(pairs)
    }


def _paired_t(difference: np.ndarray) -> float:
    from scipy import stats

    if not difference.any() or len(difference) < 2:
        return 1.0
    if np.ptp(difference) == 0:  # every user gains the same: there is nothing left to chance
        return 0.0
    return float(stats.ttest_1samp(difference, 0.0).pvalue)


def _wilcoxon(difference: np.ndarray) -> float:
    from scipy import stats

    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference, zero_method="wilcox", method="approx").pvalue)


def intervals(values: np.ndarray, level: float = 1 - LEVEL, seed: int = 0) -> np.ndarray:
    """Return the bootstrap percentile intervals of the means of rows.

    All rows are resampled by the same draws of users, so that a thousand rows cost one product of matrices, where
    SciPy's `bootstrap` would draw anew for each.

    Args:
        values: ``(rows, n)`` one value a user.
        level: Coverage.
        seed: Of the draws.

    Returns:
        ``(rows, 2)`` lower and upper ends.
    """
    n = values.shape[1]
    generator = np.random.default_rng(seed)
    # In float32, whose rounding is far below what the draws scatter, and around the means, so that it stays so.
    centre = values.mean(axis=1, keepdims=True)
    deviations = (values - centre).astype(np.float32)
    means = np.empty((values.shape[0], _RESAMPLES))
    block = max(1, min(_RESAMPLES, 20_000_000 // n))
    for start in range(0, _RESAMPLES, block):
        size = min(block, _RESAMPLES - start)
        # How often each user is drawn, as row numbers shifted apart and counted at once.
        drawn = generator.integers(0, n, (size, n)) + (np.arange(size) * n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float32)
        means[:, start : start + size] = centre + deviations @ counts.T / n
    tail = (1 - level) / 2
    # To the digits that float32 has everywhere: how a product is summed up differs from processor to processor.
    return np.round(np.quantile(means, [tail, 1 - tail], axis=1).T, 6)


def smallest_difference(differences: Sequence[np.ndarray]) -> float | None:
    """Return how small a true difference of means these users would show in four of five repetitions.

    From the paired t-test's normal approximation at :data:`LEVEL`, two-sided and uncorrected, with the median standard
    deviation of the given differences ``(n,)``; None without any.
    """
    from scipy import stats

    scatter = [float(d.std(ddof=1)) for d in differences if len(d) > 1]
    if not scatter:
        return None
    quantiles = stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER)
    return float(quantiles * np.median(scatter) / math.sqrt(len(differences[0])))
