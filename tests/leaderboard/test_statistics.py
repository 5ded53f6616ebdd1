"""Tests of significance against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from recbole_diffmm.leaderboard.statistics import compare, intervals, smallest_difference


def _values(n: int = 400) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    base = generator.random(n)
    return {
        "a": base,
        "b": base + 0.02 + generator.normal(0, 0.1, n),
        "c": base + generator.normal(0, 0.1, n),
        "d": base + 0.01 + generator.normal(0, 0.1, n),
    }


def test_p_values_are_scipys_and_corrected_for_every_pair():
    values = _values()
    pairs = [("b", "a"), ("c", "a"), ("d", "a")]
    found = compare(values, pairs)
    raw = np.array([stats.ttest_rel(values[x], values[y]).pvalue for x, y in pairs])
    assert [found[pair].t for pair in pairs] == pytest.approx(raw)
    signed = [stats.wilcoxon(values[x], values[y], method="approx").pvalue for x, y in pairs]
    assert [found[pair].wilcoxon for pair in pairs] == pytest.approx(signed)
    order = np.argsort(raw)
    holm = np.minimum(np.maximum.accumulate(raw[order] * [3, 2, 1]), 1)
    assert [found[pairs[i]].t_holm for i in order] == pytest.approx(holm)
    steps = raw[order] * 3 / np.array([1, 2, 3])
    assert [found[pairs[i]].t_bh for i in order] == pytest.approx(np.minimum.accumulate(steps[::-1])[::-1])
    for (x, y), comparison in found.items():
        assert comparison.difference == pytest.approx((values[x] - values[y]).mean())
        assert comparison.distinguishable == (comparison.t_holm < 0.05)
        assert comparison.t <= comparison.t_bh * (1 + 1e-12) <= comparison.t_holm * (1 + 1e-11)


def test_the_same_values_are_not_told_apart_and_a_constant_gain_is():
    ones = np.ones(50)
    found = compare({"a": ones, "b": ones, "c": ones + 0.25}, [("a", "b"), ("a", "c")])
    assert found["a", "b"].t == found["a", "b"].wilcoxon == 1.0
    assert not found["a", "b"].distinguishable
    assert found["a", "c"].t == 0.0
    assert found["a", "c"].distinguishable
    assert compare({"a": ones}, []) == {}


def test_without_a_true_difference_holm_marks_one_board_in_twenty():
    generator = np.random.default_rng(0)
    false = 0
    for _ in range(300):
        values = {name: generator.normal(size=60) for name in "abcd"}
        found = compare(values, [("b", "a"), ("c", "a"), ("d", "a")])
        false += any(comparison.distinguishable for comparison in found.values())
    assert false / 300 < 0.08  # 0.05 and the noise of 300 boards


def test_intervals_are_those_of_scipys_bootstrap_and_cover_the_mean():
    values = np.stack([_values()[name] for name in "ab"])
    ends = intervals(values)
    for row, (low, high) in zip(values, ends, strict=True):
        theirs = stats.bootstrap(
            (row,), np.mean, n_resamples=4000, method="percentile", random_state=1
        ).confidence_interval
        width = theirs.high - theirs.low
        assert (low, high) == pytest.approx(
            (theirs.low, theirs.high), abs=0.05 * width
        )  # a 90 % interval would differ by 0.08
    assert np.array_equal(ends, intervals(values))  # the same draws every time
    generator = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        ((low, high),) = intervals(generator.exponential(size=(1, 80)))
        inside += low <= 1.0 <= high
    assert 0.86 < inside / 200 < 0.99


def test_many_users_are_resampled_in_blocks(monkeypatch):
    values = np.random.default_rng(1).random((3, 500))
    whole = intervals(values)
    import recbole_diffmm.leaderboard.statistics as module

    monkeypatch.setattr(module, "_RESAMPLES", 999)  # no multiple of a block
    assert intervals(values) == pytest.approx(whole, abs=5e-3)


def test_the_smallest_difference_has_the_power_that_it_says():
    values = _values(2000)
    difference = values["b"] - values["a"]
    found = smallest_difference([difference])
    power = TTestPower().power(found / difference.std(ddof=1), len(difference), 0.05)
    assert power == pytest.approx(0.8, abs=0.005)
    assert smallest_difference([]) is None


def test_users_without_a_difference_say_nothing_in_wilcoxons_test():
    generator = np.random.default_rng(3)
    a = (generator.random(400) < 0.2).astype(float)
    b = np.where(generator.random(400) < 0.1, 1 - a, a) + np.where(np.arange(400) < 20, 0.5, 0.0)
    assert (a == b).sum() > 200
    found = compare({"a": a, "b": b}, [("b", "a")])["b", "a"]
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(b, a, zero_method="wilcox", method="approx").pvalue)
    assert found.wilcoxon != pytest.approx(stats.wilcoxon(b, a, zero_method="pratt", method="approx").pvalue)
