"""Every row against every other, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_diffmm.leaderboard.board import Group
from recbole_diffmm.leaderboard.statistics import LEVEL, Comparison
from recbole_diffmm.leaderboard.views import html_words as words
from recbole_diffmm.leaderboard.views.figure import Figure, names, plain

# Worse to better, as far as the corrected test tells: from -3 (p < 0.001) over 0 (not distinguishable) to 3.
_STEPS = ("--worse-3", "--worse-2", "--worse-1", "--same", "--better-1", "--better-2", "--better-3")
_P_LIMITS = (LEVEL, 0.01, 0.001)
_WRITTEN = 10  # rows whose differences are written into their cells


def _against(pairs: Mapping[tuple[str, str], Comparison], first: str, second: str) -> tuple[float, float] | None:
    """Difference and corrected p of one row against another, whichever way round the pair was tested."""
    if (first, second) in pairs:
        found = pairs[first, second]
        return found.difference, found.t_holm
    if (second, first) in pairs:
        found = pairs[second, first]
        return -found.difference, found.t_holm
    return None


def _step(difference: float, p: float) -> int:
    level = sum(p < limit for limit in _P_LIMITS)
    return level if difference > 0 else -level


def significance(group: Group, metric: str) -> Figure | None:
    """Every row against every other, by the Holm-corrected paired t-test."""
    tests = group.tests.get(metric.lower())
    if tests is None or not tests.pairs:
        return None
    # A board tests the pairs of its best rows alone where it has many.
    paired = {label for pair in tests.pairs for label in pair}
    labels = [row.label for row in group.rows if row.label in paired]
    short = names(labels)
    compared = [[_against(tests.pairs, first, second) for second in labels] for first in labels]
    heat: dict[str, Any] = {
        "type": "heatmap",
        "x": short,
        "y": short,
        "z": [[None if found is None else _step(*found) for found in line] for line in compared],
        "customdata": [
            [
                "" if found is None else f"{words.difference(found[0])}, {plain(words.p_value(found[1]))}"
                for found in line
            ]
            for line in compared
        ],
        "hovertemplate": "%{y} against %{x}<br>%{customdata} (Holm)<extra></extra>",
        "colorscale": [[place, colour] for i, colour in enumerate(_STEPS) for place in (i / 7, (i + 1) / 7)],
        "zmin": -3.5,
        "zmax": 3.5,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
    }
    if len(labels) <= _WRITTEN:
        heat["text"] = [["" if found is None else words.difference(found[0]) for found in line] for line in compared]
        heat["texttemplate"] = "%{text}"
    names_along = {"showgrid": False, "type": "category"}
    cut = f" of the best {len(labels)} of {len(group.rows)} rows" if len(labels) < len(group.rows) else ""
    return Figure(
        "significance",
        "Who can be told from whom",
        f"{metric} of the row at the left against the row below: paired t-test over users, Holm-corrected for all "
        f"{len(tests.pairs)} pairs{cut}. More pairs ask for more evidence: a row that the table, where all are tested "
        "against the best alone, tells from it may not be told from it here.",
        [heat],
        {
            "xaxis": {**names_along, "tickangle": -35},
            "yaxis": {**names_along, "autorange": "reversed"},
            "height": max(420, 200 + 18 * len(labels)),
        },
        ["", "against", "Difference", "t, Holm", "Wilcoxon, Holm"],
        [
            [
                first,
                second,
                words.difference(found.difference),
                words.p_value(found.t_holm),
                words.p_value(found.wilcoxon_holm),
            ]
            for (first, second), found in tests.pairs.items()
        ],
        swatches=[
            ("--worse-3", "worse, p < 0.001"),
            ("--worse-2", "< 0.01"),
            ("--worse-1", f"< {LEVEL:g}"),
            ("--same", "not distinguishable"),
            ("--better-1", f"better, p < {LEVEL:g}"),
            ("--better-2", "< 0.01"),
            ("--better-3", "< 0.001"),
        ],
    )
