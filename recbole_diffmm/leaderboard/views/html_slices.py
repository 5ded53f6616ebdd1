"""Metrics of parts, because averages hide: by history, by popularity, without a modality, and of whole lists."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from recbole_diffmm.leaderboard.board import Group, Row
from recbole_diffmm.leaderboard.views import html_words as words
from recbole_diffmm.leaderboard.views.figure import MOST, Figure, axis, colour, dash, names, plain, rounded

_BEYOND = {"itemcoverage": "Item coverage", "giniindex": "Gini index", "averagepopularity": "Average popularity"}
_BEYOND_HINTS = {
    "itemcoverage": "share of the items that anyone gets",
    "giniindex": "0 is every item recommended equally often",
    "averagepopularity": "mean training interactions of what is recommended",
}


def slices(group: Group, metric: str) -> list[Figure]:
    """Return the pictures of one metric by users' history, items' popularity, and without each modality."""
    found = [
        _slices(
            group,
            metric,
            "users_by_history",
            "Users by their history",
            f"{metric} of users grouped by how many training interactions they have, mean over seeds.",
            "users",
        ),
        _slices(
            group,
            metric,
            "items_by_popularity",
            "Items by their popularity",
            f"{metric} when only the test items of a group count as found or missed, grouped by training interactions; "
            "0 is cold. They compete with all items.",
            "items",
        ),
        _without(group, metric),
    ]
    return [figure for figure in found if figure is not None]


def _slices(group: Group, metric: str, kind: str, title: str, about: str, of: str) -> Figure | None:
    """One metric over groups of users or items."""
    key = metric.lower()
    values = [row.groups(kind, key) for row in group.rows]
    sizes: dict[str, int] = {}
    for row, found in zip(group.rows, values, strict=True):
        for part in (part for record in row.records for part in getattr(record.slices, kind, ())):
            if part.group in found:
                sizes.setdefault(part.group, part.n_items if of == "items" and part.n_items else part.n_users)
    if not sizes:
        return None
    groups = sorted(sizes, key=_lower_end)
    ticks = [f"{plain(name.replace('-', '–'))}<br>{words.count(sizes[name])} {of}" for name in groups]
    means = [[found.get(name) for name in groups] for found in values]
    return Figure(
        kind.replace("_", "-"),
        title,
        about,
        _by_category(group.rows, ticks, means, "%{y:.4f}"),
        {
            "xaxis": {"type": "category", "showgrid": False},
            "yaxis": axis(metric, rangemode="tozero"),
            "barmode": "group",
            "bargap": {1: 0.6, 2: 0.4}.get(len(groups), 0.25),
            "height": 380,
        },
        ["Training interactions", *(f"{name.replace('-', '–')} ({words.count(sizes[name])} {of})" for name in groups)],
        [
            [row.label, *map(words.metric, of_row)]
            for row, of_row in zip(group.rows, means, strict=True)
            if any(value is not None for value in of_row)
        ],
    )


def _lower_end(name: str) -> tuple[float, str]:
    match = re.match(r"\D*(\d+)", name)
    return (float(match.group(1)) if match else math.inf, name)


def _by_category(
    rows: Sequence[Row], categories: Sequence[str], values: Sequence[Sequence[float | None]], number: str
) -> list[dict[str, Any]]:
    """Bars side by side; of more than eight rows, lines, since nobody finds the third of twenty bars."""
    data = []
    for index, (name, of_row) in enumerate(zip(names([row.label for row in rows]), values, strict=True)):
        if all(value is None for value in of_row):
            continue
        trace = {"row": index, "name": name, "x": list(categories), "y": rounded(of_row), "hovertemplate": number}
        if len(rows) > 8 and len(categories) > 1:
            line = {"color": colour(index), "width": 2, "dash": dash(index)}
            data.append({**trace, "type": "scatter", "mode": "lines+markers", "line": line})
        else:
            data.append({**trace, "type": "bar", "marker": {"color": colour(index)}})
    return data


def _without(group: Group, metric: str) -> Figure | None:
    """How much a trained model loses when it scores without one of its modalities."""
    key = metric.lower()
    scores = [row.without(key) for row in group.rows]
    modalities = list(dict.fromkeys(name for of_row in scores for name in of_row))
    if not modalities:
        return None
    changes: list[list[float | None]] = []
    told: list[list[str]] = []
    for row, without in zip(group.rows, scores, strict=True):
        mean = row.cells[key].mean
        changes.append(
            [None if not mean or (value := without.get(name)) is None else value / mean - 1 for name in modalities]
        )
        if any(change is not None for change in changes[-1]):
            cells = [
                f"{words.metric(without[name])} ({words.percent(change)})" if change is not None else words.NONE
                for name, change in zip(modalities, changes[-1], strict=True)
            ]
            told.append([row.label, words.metric(mean), *cells])
    percents = [[None if change is None else 100 * change for change in of_row] for of_row in changes]
    return Figure(
        "without-modality",
        "Scores without each modality",
        f"Relative change of {metric} when the trained model scores without one modality, mean over seeds. "
        "A bar to the right: it does better without.",
        _sideways(group.rows, [plain(f"without {name}") for name in modalities], percents),
        {
            "xaxis": axis(f"change of {metric}, %", zeroline=True),
            "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
            "barmode": "group",
            "bargap": 0.3,
            "height": max(200, 130 + 18 * len(modalities) * min(max(1, len(told)), MOST)),
        },
        ["", "With all", *(f"Without {name}" for name in modalities)],
        told,
        size="wide",
    )


def _sideways(
    rows: Sequence[Row], categories: Sequence[str], values: Sequence[Sequence[float | None]]
) -> list[dict[str, Any]]:
    return [
        {
            "row": index,
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": list(categories),
            "x": rounded(of_row),
            "marker": {"color": colour(index)},
            "hovertemplate": "%{x:+.2f} %",
        }
        for index, (name, of_row) in enumerate(zip(names([row.label for row in rows]), values, strict=True))
        if any(value is not None for value in of_row)
    ]


def beyond_accuracy(group: Group, metric: str) -> list[Figure]:
    """What the lists are made of: one small picture each, of the ranking metric's cut-off."""
    cut_off = metric.partition("@")[2]
    keys = list(dict.fromkeys(key for row in group.rows for record in row.records for key in record.beyond_accuracy))
    keys = [key for key in keys if key.partition("@")[2] == cut_off] or keys
    found: list[Figure] = []
    for key in keys:
        name, _, _ = key.partition("@")
        title = _BEYOND.get(name, key)
        spread = [_spread(row, key) for row in group.rows]
        if all(mean is None for mean, _ in spread):
            continue
        hint = _BEYOND_HINTS.get(name, "RecBole's metric")
        data = [
            {
                "row": index,
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": [name],
                "x": [round(mean, 6)],
                "error_x": {"array": [round(deviation or 0.0, 6)], "color": "--muted", "thickness": 1, "width": 3},
                "marker": {"color": colour(index)},
                "hovertemplate": "%{x:.4~g}",
            }
            for index, (name, (mean, deviation)) in enumerate(
                zip(names([row.label for row in group.rows]), spread, strict=True)
            )
            if mean is not None
        ]
        found.append(
            Figure(
                f"beyond-{len(found)}",
                title,
                f"Of lists of {cut_off} on test, mean ± deviation: {hint}."
                if cut_off
                else f"Mean ± deviation: {hint}.",
                data,
                {
                    "xaxis": {"rangemode": "tozero"},
                    "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
                    "barmode": "overlay",
                    "bargap": 0.35,
                    "showlegend": False,
                    "height": 110 + 22 * min(len(data), MOST),
                },
                ["", title, "Deviation"],
                [
                    [row.label, words.amount(mean), words.amount(deviation)]
                    for row, (mean, deviation) in zip(group.rows, spread, strict=True)
                    if mean is not None
                ],
                size="small",
            )
        )
    return found


def _spread(row: Row, key: str) -> tuple[float | None, float | None]:
    values = [value for record in row.records if (value := record.beyond_accuracy.get(key)) is not None]
    if len(values) < len(row.records):
        return None, None
    return fmean(values), stdev(values) if len(values) > 1 else None
