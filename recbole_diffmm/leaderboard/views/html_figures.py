"""The pictures of a table as Plotly figures, plain dictionaries, each with its numbers as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from recbole_diffmm.leaderboard.board import Group, Row
from recbole_diffmm.leaderboard.views import html_words as words
from recbole_diffmm.leaderboard.views.figure import (
    MOST,
    Figure,
    along,
    axis,
    colour,
    dash,
    log_axis,
    names,
    plain,
    rounded,
)
from recbole_diffmm.leaderboard.views.html_pairs import significance
from recbole_diffmm.leaderboard.views.html_slices import beyond_accuracy, slices
from recbole_diffmm.leaderboard.views.html_table import seconds_to_best
from recbole_diffmm.record import Record

_EPOCHS = 16  # columns of the learning curves' table


def figures(group: Group, metric: str) -> list[Figure]:
    """Return the pictures that the records of a group allow.

    Args:
        group: The rows.
        metric: The one that ranks, such as ``Recall@20``.
    """
    found = [
        _curves(group),
        _cost(group, metric),
        significance(group, metric),
        *slices(group, metric),
        *beyond_accuracy(group, metric),
    ]
    drawn = [figure for figure in found if figure is not None]
    if len(group.rows) <= MOST:
        return drawn
    told = f" The best {MOST} of the rows that the filter leaves are drawn."
    return [f if f.key == "significance" else replace(f, about=f.about + told) for f in drawn]


def curve_of(record: Record) -> tuple[list[int], list[float]]:
    """Return the epochs of a run and the values of what its epoch was selected by."""
    key = record.selection.split()[-1].lower()
    epochs: list[int] = []
    values: list[float] = []
    for entry in record.curve:
        value = (entry.get("valid") or {}).get(key)
        if value is not None:
            epochs.append(int(entry["epoch"]))
            values.append(value)
    return epochs, values


def _curves(group: Group) -> Figure | None:
    """One thick line a row, its seeds thin, what was selected as dots."""
    runs = [[curve_of(record) for record in row.records] for row in group.rows]
    last = max((epochs[-1] for of_row in runs for epochs, _ in of_row if epochs), default=None)
    if last is None:
        return None
    data: list[dict[str, Any]] = []
    means: list[dict[int, float]] = []
    for index, (row, name, of_row) in enumerate(
        zip(group.rows, names([row.label for row in group.rows]), runs, strict=True)
    ):
        line = {"color": colour(index), "dash": dash(index)}
        mine = {"row": index, "type": "scatter", "legendgroup": str(index)}
        by_epoch: dict[int, list[float]] = {}
        for epochs, values in of_row:
            for epoch, value in zip(epochs, values, strict=True):
                by_epoch.setdefault(epoch, []).append(value)
            if len(of_row) > 1 and len(epochs) > 1:
                thin = {"mode": "lines", "line": {**line, "width": 1}, "opacity": 0.35, "hoverinfo": "skip"}
                data.append({**mine, **along(epochs, values), **thin, "showlegend": False})
        # Where a seed has stopped, the mean of the others would jump: the thick line ends there.
        n_curves = sum(bool(epochs) for epochs, _ in of_row)
        mean = {epoch: fmean(values) for epoch, values in sorted(by_epoch.items()) if len(values) == n_curves}
        means.append(mean)
        hover = {"hovertemplate": "epoch %{x}: %{y:.4f}", "name": name}
        if last > 0 and mean and all(len(epochs) <= 1 for epochs, _ in of_row):
            level = round(next(iter(mean.values())), 6)
            thick: dict[str, Any] = {"x": [0, last], "y": [level, level], "line": {**line, "width": 2, "dash": "dot"}}
            hover["hovertemplate"] = "one pass: %{y:.4f}"
        else:
            thick = {**along(list(mean), list(mean.values())), "line": {**line, "width": 2.5}}
        mode = "lines" if last > 0 else "markers"
        data.append({**mine, **thick, **hover, "mode": mode, "marker": {"color": colour(index), "size": 9}})
        data += _selected(row, of_row, mine, index)
    shown = _thinned(sorted({epoch for mean in means for epoch in mean}))
    return Figure(
        "curves",
        "Learning curves",
        f"{group.selection[:1].upper()}{group.selection[1:]} by epoch: thick the mean over seeds, thin each seed, a "
        "dot the selected epoch. A dotted level is a model that learns in one pass.",
        data,
        {
            "xaxis": axis("epoch, from 0", rangemode="tozero", **({"dtick": 1} if last <= 10 else {})),
            "yaxis": axis(group.selection),
            "height": 440,
        },
        ["Mean over seeds, epoch", *map(str, shown)],
        [
            [row.label, *(words.metric(mean.get(epoch)) for epoch in shown)]
            for row, mean in zip(group.rows, means, strict=True)
        ],
        size="wide",
    )


def _selected(row: Row, runs: Sequence[Any], mine: dict[str, Any], index: int) -> list[dict[str, Any]]:
    points = []
    for record, (epochs, values) in zip(row.records, runs, strict=True):
        if record.best_epoch in epochs and len(epochs) > 1:
            points.append((record.best_epoch, values[epochs.index(record.best_epoch)], record.seed))
    if not points:
        return []
    x, y, seeds = zip(*points, strict=True)
    marker = {"color": colour(index), "size": 6, "line": {"color": "--paper", "width": 1}}
    hover = {"text": [f"seed {seed}" for seed in seeds], "hovertemplate": "%{text} selected epoch %{x}: %{y:.4f}"}
    name = names([row.label])[0]
    return [
        {
            **mine,
            **hover,
            "x": x,
            "y": rounded(y),
            "mode": "markers",
            "marker": marker,
            "name": name,
            "showlegend": False,
        }
    ]


def _thinned(epochs: Sequence[int]) -> list[int]:
    """At most as many epochs as a table has room for, evenly, first and last among them."""
    if len(epochs) <= _EPOCHS:
        return list(epochs)
    step = (len(epochs) - 1) / (_EPOCHS - 1)
    return [epochs[round(index * step)] for index in range(_EPOCHS)]


def _cost(group: Group, metric: str) -> Figure | None:
    """Quality against seconds, the rows that no other beats in both joined by a line."""
    key = metric.lower()
    points = []
    for index, (row, name) in enumerate(zip(group.rows, names([row.label for row in group.rows]), strict=True)):
        seconds = seconds_to_best(row)
        if seconds is not None:
            points.append((max(seconds, 1e-3), row.cells[key], index, row, name))
    if not points:
        return None
    memory = [_memory(row) for _, _, _, row, _ in points]
    low, high = (math.log(of(point[0] for point in points)) for of in (min, max))
    right = low + 0.6 * (high - low)
    most = max((value for value, _ in memory if value is not None), default=1.0)
    data: list[dict[str, Any]] = []
    edge, height = [], -math.inf
    for seconds, cell, _, row, _ in sorted(points, key=lambda point: (point[0], -point[1].mean)):
        if cell.mean > height:
            height = cell.mean
            edge.append((seconds, height, row.label))
    if len(edge) > 1:
        line = {"color": "--muted", "width": 1.5, "dash": "dot", "shape": "hv"}
        x, y, _ = zip(*edge, strict=True)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": rounded(y),
                "line": line,
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    for (seconds, cell, index, _, name), (used, where) in zip(points, memory, strict=True):
        size = 10 + 22 * math.sqrt((used or 0.0) / most)
        told = f"{words.amount(used)} MiB of {where}" if used is not None else "memory not known"
        data.append(
            {
                "row": index,
                "type": "scatter",
                "mode": "markers+text",
                "x": [round(seconds, 4)],
                "y": [round(cell.mean, 6)],
                "error_y": {
                    "array": [round(cell.deviation or 0.0, 6)],
                    "color": colour(index),
                    "thickness": 1,
                    "width": 3,
                },
                "marker": {"color": colour(index), "size": round(size, 1), "opacity": 0.75, "line": {"width": 0}},
                "text": [name],
                # Beside the disc, on the side where there is room.
                "textposition": "top left" if math.log(seconds) > right else "top right",
                "cliponaxis": False,
                "name": name,
                "customdata": [told],
                "hovertemplate": f"{plain(metric)} %{{y:.4f}}<br>%{{x:.3~f}} s to the best epoch<br>%{{customdata}}",
            }
        )
    on_edge = {label for _, _, label in edge}
    return Figure(
        "cost",
        "Quality against cost",
        f"{metric} (mean ± deviation) against seconds to the selected epoch, on a logarithmic axis. The larger a disc, "
        "the more memory. The dotted line joins the rows that no other beats in both.",
        data,
        {
            "xaxis": log_axis(math.exp(low), math.exp(high), "seconds to the selected epoch"),
            "yaxis": axis(metric),
            "height": 420,
            "showlegend": False,
        },
        ["", metric, "Seconds", "Memory, MiB", "On the frontier"],
        [
            [
                row.label,
                words.metric(cell.mean),
                words.amount(seconds_to_best(row)),
                words.amount(used) + (f" ({where})" if used is not None else ""),
                "yes" if row.label in on_edge else "no",
            ]
            for (_, cell, _, row, _), (used, where) in zip(points, memory, strict=True)
        ],
    )


def _memory(row: Row) -> tuple[float | None, str]:
    device = row.mean(lambda record: record.peak_memory_mb.get("device"))
    if device is not None:
        return device, "the device"
    return row.mean(lambda record: record.peak_memory_mb.get("host")), "the host"
