"""The pictures of a table as Plotly figures, plain dictionaries, each with its numbers as a table."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from recbole_diffmm.leaderboard.board import Group, Row
from recbole_diffmm.leaderboard.statistics import LEVEL, Comparison
from recbole_diffmm.leaderboard.views import html_words as words
from recbole_diffmm.leaderboard.views.figure import Figure, along, axis, plain, rounded
from recbole_diffmm.leaderboard.views.html_table import COLOURS, seconds_to_best
from recbole_diffmm.record import Metrics, Record

# What is readable: more rows than that are in the tables only. The learning curves' table shows that many epochs.
MOST = 40
_EPOCHS = 16
_DASHES = ("solid", "dash", "dot", "dashdot")
_BEYOND = {"itemcoverage": "Item coverage", "giniindex": "Gini index", "averagepopularity": "Average popularity"}
_BEYOND_HINTS = {
    "itemcoverage": "share of the items that anyone gets",
    "giniindex": "0: every item is recommended equally often",
    "averagepopularity": "mean training interactions of what is recommended",
}


def figures(group: Group, metric: str) -> list[Figure]:
    """Return the pictures that the records of a group allow.

    Args:
        group: The rows.
        metric: The one that ranks, such as ``Recall@20``.
    """
    found = [
        _curves(group),
        _cost(group, metric),
        _significance(group, metric),
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
        *_beyond(group, metric),
    ]
    return [figure for figure in found if figure is not None]


def _names(rows: Iterable[Row]) -> list[str]:
    """Labels short enough for a legend or an axis, still different from each other."""
    names: list[str] = []
    for row in rows:
        name = row.label if len(row.label) <= 26 else f"{row.label[:24]}…"
        names.append(plain(name if name not in names else f"{name[:22]}… ({len(names) + 1})"))
    return names


def _colour(index: int) -> str:
    return f"--c{index % COLOURS}"


def _dash(index: int) -> str:
    return _DASHES[index // COLOURS % len(_DASHES)]


def curve_of(record: Record) -> tuple[list[int], list[float | None]]:
    """Return the epochs of a run and the values of what its epoch was selected by."""
    key = record.selection.split()[-1].lower()
    epochs, values = [], []
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
    for index, (row, name, of_row) in enumerate(zip(group.rows, _names(group.rows), runs, strict=True)):
        line = {"color": _colour(index), "dash": _dash(index)}
        mine = {"row": index, "type": "scatter", "legendgroup": str(index)}
        by_epoch: dict[int, list[float]] = {}
        for epochs, values in of_row:
            for epoch, value in zip(epochs, values, strict=True):
                by_epoch.setdefault(epoch, []).append(value)  # type: ignore[arg-type]
            if len(of_row) > 1 and len(epochs) > 1:
                thin = {"mode": "lines", "line": {**line, "width": 1}, "opacity": 0.35, "hoverinfo": "skip"}
                data.append({**mine, **along(epochs, values), **thin, "showlegend": False})
        # Where a seed has stopped, the mean of the others would jump: the thick line ends there.
        mean = {epoch: fmean(values) for epoch, values in sorted(by_epoch.items()) if len(values) == len(of_row)}
        means.append(mean)
        hover = {"hovertemplate": "epoch %{x}: %{y:.4f}", "name": name}
        if len(mean) == 1 and last > 0:
            level = round(next(iter(mean.values())), 6)
            thick: dict[str, Any] = {"x": [0, last], "y": [level, level], "line": {**line, "width": 2, "dash": "dot"}}
            hover["hovertemplate"] = "one pass: %{y:.4f}"
        else:
            thick = {**along(list(mean), list(mean.values())), "line": {**line, "width": 2.5}}
        mode = "lines" if last > 0 else "markers"
        data.append({**mine, **thick, **hover, "mode": mode, "marker": {"color": _colour(index), "size": 9}})
        data += _selected(row, of_row, mine, index)
    shown = _thinned(sorted({epoch for mean in means for epoch in mean}))
    return Figure(
        "curves",
        "Learning curves",
        f"{group.selection[:1].upper()}{group.selection[1:]} by epoch: thick the mean over seeds, thin each seed, a dot "
        "the selected epoch. A dotted level is a model that learns in one pass.",
        data,
        {"xaxis": axis("epoch, from 0", rangemode="tozero"), "yaxis": axis(group.selection), "height": 440},
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
    marker = {"color": _colour(index), "size": 6, "line": {"color": "--paper", "width": 1}}
    hover = {"text": [f"seed {seed}" for seed in seeds], "hovertemplate": "%{text} selected epoch %{x}: %{y:.4f}"}
    name = _names([row])[0]
    return [
        {**mine, **hover, "x": x, "y": rounded(y), "mode": "markers", "marker": marker, "name": name, "showlegend": False}
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
    for index, (row, name) in enumerate(zip(group.rows, _names(group.rows), strict=True)):
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
        data.append({"type": "scatter", "mode": "lines", "x": x, "y": rounded(y), "line": line, "hoverinfo": "skip", "showlegend": False})
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
                "error_y": {"array": [round(cell.deviation or 0.0, 6)], "color": _colour(index), "thickness": 1, "width": 3},
                "marker": {"color": _colour(index), "size": round(size, 1), "opacity": 0.75, "line": {"width": 0}},
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
            "xaxis": axis("seconds to the selected epoch", type="log", dtick="D2", tickformat="~g"),
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


def _significance(group: Group, metric: str) -> Figure | None:
    """Every row against every other, by the Holm-corrected paired t-test."""
    tests = group.tests.get(metric.lower())
    if tests is None or not tests.pairs:
        return None
    rows = group.rows[:MOST]
    names = _names(rows)
    labels = [row.label for row in rows]
    compared = [[_against(tests.pairs, first, second) for second in labels] for first in labels]
    heat: dict[str, Any] = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [[None if found is None else _step(*found) for found in line] for line in compared],
        "customdata": [
            ["" if found is None else f"{words.difference(found[0])}, {plain(words.p_value(found[1]))}" for found in line]
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
    if len(rows) <= _WRITTEN:
        heat["text"] = [["" if found is None else words.difference(found[0]) for found in line] for line in compared]
        heat["texttemplate"] = "%{text}"
    names_along = {"showgrid": False, "type": "category"}
    cut = f" The best {MOST} of {len(group.rows)} rows." if len(group.rows) > MOST else ""
    return Figure(
        "significance",
        "Who can be told from whom",
        f"{metric} of the row at the left against the row below: paired t-test over users, Holm-corrected for all "
        f"{len(tests.pairs)} pairs.{cut}",
        [heat],
        {
            "xaxis": {**names_along, "tickangle": -35},
            "yaxis": {**names_along, "autorange": "reversed"},
            "height": max(420, 200 + 18 * len(rows)),
        },
        ["", "against", "Difference", "t, Holm", "Wilcoxon, Holm"],
        [
            [first, second, words.difference(found.difference), words.p_value(found.t_holm), words.p_value(found.wilcoxon_holm)]
            for (first, second), found in tests.pairs.items()
            if first in labels and second in labels
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


def _slices(group: Group, metric: str, kind: str, title: str, about: str, of: str) -> Figure | None:
    """One metric over groups of users or items."""
    key = metric.lower()
    sizes: dict[str, int] = {}
    values: list[dict[str, list[float]]] = []
    for row in group.rows:
        found: dict[str, list[float]] = {}
        for record in row.records:
            for part in getattr(record.slices, kind, ()):
                value = part.metrics.get(key)
                if value is not None:
                    found.setdefault(part.group, []).append(value)
                    sizes.setdefault(part.group, part.n_items if of == "items" and part.n_items else part.n_users)
        values.append(found)
    if not sizes:
        return None
    groups = sorted(sizes, key=_lower_end)
    ticks = [f"{plain(name.replace('-', '–'))}<br>{words.count(sizes[name])} {of}" for name in groups]
    means = [[_mean(found.get(name)) for name in groups] for found in values]
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


def _mean(values: Sequence[float] | None) -> float | None:
    return fmean(values) if values else None


def _by_category(
    rows: Sequence[Row], categories: Sequence[str], values: Sequence[Sequence[float | None]], number: str
) -> list[dict[str, Any]]:
    """Bars side by side; of more than eight rows, lines, since nobody finds the third of twenty bars."""
    data = []
    for index, (name, of_row) in enumerate(zip(_names(rows), values, strict=True)):
        if all(value is None for value in of_row):
            continue
        trace = {"row": index, "name": name, "x": list(categories), "y": rounded(of_row), "hovertemplate": number}
        if len(rows) > 8 and len(categories) > 1:
            line = {"color": _colour(index), "width": 2, "dash": _dash(index)}
            data.append({**trace, "type": "scatter", "mode": "lines+markers", "line": line})
        else:
            data.append({**trace, "type": "bar", "marker": {"color": _colour(index)}})
    return data


def _without(group: Group, metric: str) -> Figure | None:
    """How much a trained model loses when it scores without one of its modalities."""
    key = metric.lower()
    names = list(
        dict.fromkeys(
            name
            for row in group.rows
            for record in row.records
            for name in (record.slices.without_modality if record.slices else ())
        )
    )
    if not names:
        return None
    changes: list[list[float | None]] = []
    told: list[list[str]] = []
    for row in group.rows:
        without = {name: _over_records(row, lambda record, name=name: _left_out(record, name).get(key)) for name in names}
        mean = row.cells[key].mean
        changes.append([None if not mean or (value := without[name]) is None else value / mean - 1 for name in names])
        if any(change is not None for change in changes[-1]):
            cells = [
                f"{words.metric(without[name])} ({words.percent(change)})" if change is not None else words.NONE
                for name, change in zip(names, changes[-1], strict=True)
            ]
            told.append([row.label, words.metric(mean), *cells])
    percents = [[None if change is None else 100 * change for change in of_row] for of_row in changes]
    return Figure(
        "without-modality",
        "Scores without each modality",
        f"Relative change of {metric} when the trained model scores without one modality, mean over seeds. "
        "A bar to the right: it does better without.",
        _sideways(group.rows, [plain(f"without {name}") for name in names], percents),
        {
            "xaxis": axis(f"change of {metric}, %", zeroline=True),
            "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
            "barmode": "group",
            "bargap": 0.3,
            "height": max(260, 130 + 18 * len(names) * max(1, len(told))),
        },
        ["", "With all", *(f"Without {name}" for name in names)],
        told,
        size="wide",
    )


def _left_out(record: Record, name: str) -> Metrics:
    return record.slices.without_modality.get(name, {}) if record.slices else {}


def _over_records(row: Row, value: Callable[[Record], float | None]) -> float | None:
    return row.mean(value)


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
            "marker": {"color": _colour(index)},
            "hovertemplate": "%{x:+.2f} %",
        }
        for index, (name, of_row) in enumerate(zip(_names(rows), values, strict=True))
        if any(value is not None for value in of_row)
    ]


def _beyond(group: Group, metric: str) -> list[Figure]:
    """What the lists are made of: one small picture each, of the ranking metric's cut-off."""
    cut_off = metric.partition("@")[2]
    keys = list(dict.fromkeys(key for row in group.rows for record in row.records for key in record.beyond_accuracy))
    keys = [key for key in keys if key.partition("@")[2] == cut_off] or keys
    found = []
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
                "marker": {"color": _colour(index)},
                "hovertemplate": "%{x:.4~g}",
            }
            for index, (name, (mean, deviation)) in enumerate(zip(_names(group.rows), spread, strict=True))
            if mean is not None
        ]
        found.append(
            Figure(
                f"beyond-{name}",
                title,
                f"At {cut_off} on test, mean ± deviation: {hint}.",
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
