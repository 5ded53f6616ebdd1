"""What the values of single users say of a table: intervals, tests, and the marks of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from recbole_diffmm.leaderboard.board import Cell, Row, Tests
from recbole_diffmm.leaderboard.statistics import Comparison, compare, intervals, smallest_difference

MATRIX_ROWS = 30


def bound(rows: Sequence[Row], metric: str, values: Mapping[str, np.ndarray]) -> None:
    """Give the cells of a metric the ends of their bootstrap intervals.

    Args:
        rows: Of one table.
        metric: Such as ``recall@20``.
        values: One value a user by row, the same users for all.
    """
    ends = intervals(np.stack([values[row.label] for row in rows]))
    for row, (low, high) in zip(rows, ends.tolist(), strict=True):
        row.cells[metric] = Cell(row.cells[metric].mean, row.cells[metric].deviation, low, high)


def run_tests(
    rows: Sequence[Row], metric: str, values: Mapping[str, np.ndarray], reference: str, with_pairs: bool
) -> Tests | None:
    """Hold every row against the best one and against `reference`; None where there is nothing to hold.

    Args:
        rows: Of one table, best first.
        metric: Such as ``recall@20``.
        values: One value a user by row, the same users for all.
        reference: Label of a row, or an empty string.
        with_pairs: Whether to test every pair of the best rows too.
    """
    labels = [row.label for row in rows]
    if len(labels) < 2 or not values:
        return None
    # By what stands in the table, not by the per-user means that it was rounded from: one row is the best one.
    best = max(rows, key=lambda row: row.cells[metric].mean).label
    # Rows are sorted: these are the best ones. Nobody reads a matrix of more, and its tests grow with the square.
    every = list(combinations(labels[:MATRIX_ROWS], 2)) if with_pairs else []

    def against(label: str) -> dict[str, Comparison]:
        others = [other for other in labels if other != label]
        found = compare(values, [(other, label) for other in others])
        return {other: found[other, label] for other in others}

    return Tests(
        best,
        against(best),
        reference,
        against(reference) if reference else {},
        compare(values, every),
        smallest_difference([values[label] - values[best] for label in labels if label != best]),
    )


def mark(rows: Sequence[Row], metric: str, tests: Tests | None) -> None:
    """Mark the best and the second cell of a metric, and those that its tests do not tell from the best."""
    ranked = sorted({row.cells[metric].mean for row in rows}, reverse=True)
    for row in rows:
        cell = row.cells[metric]
        tied = tests is not None and row.label != tests.best and not tests.against_best[row.label].distinguishable
        row.cells[metric] = Cell(
            cell.mean,
            cell.deviation,
            cell.low,
            cell.high,
            best=cell.mean == ranked[0],
            second=len(ranked) > 1 and cell.mean == ranked[1],
            tied=tied,
        )
