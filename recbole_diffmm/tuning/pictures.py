"""The page of a search: history, importances, every setting against the score, the trials' validation curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_diffmm.leaderboard.views import html_words as words
from recbole_diffmm.leaderboard.views.figure import Figure, along, axis, log_axis, plain
from recbole_diffmm.leaderboard.views.page import page
from recbole_diffmm.record import write_text
from recbole_diffmm.tuning.trials import is_bigger_better, reached

_CURVE_EPOCHS = 12
_STATES = {"complete": "complete", "pruned": "pruned", "fail": "failed"}


def write_page(path: Path, report: Mapping[str, Any]) -> Path:
    """Write the page of a search, whole or not at all, and return its path.

    Args:
        path: The file.
        report: What `recbole_diffmm.tuning.report.report` returns, or its JSON.

    Raises:
        UserError: Jinja2 is not installed.
    """
    write_text(path, render(report))
    return path


def render(report: Mapping[str, Any]) -> str:
    """Return the page of a search.

    Raises:
        UserError: Jinja2 is not installed.
    """
    drawn = figures(report)
    best = report["best"]
    names = list(report["space"]["ranges"])
    failed = any(trial["error"] for trial in report["trials"])
    return page(
        "study.html.j2",
        ["table.js", "pictures.js"],
        pictures={"figures": {figure.key: figure.drawn for figure in drawn}},
        model=report["model"],
        dataset=report["dataset"],
        finding=_finding(report),
        edge=", ".join(report["at_edge"]),
        told=_facts(report),
        best=[(name, words.setting(value)) for name, value in best["settings"].items()],
        fixed=[(name, words.setting(value)) for name, value in sorted(report["settings"].items())],
        figures=drawn,
        columns=[
            ("Trial", "number", "ascending"),
            ("State", "text", "ascending"),
            (report["objective"].removeprefix("validation "), "number", "descending"),
            *((name, "number" if _is_number(report, name) else "text", "ascending") for name in names),
            ("Selected epoch", "number", "ascending"),
            ("Epochs", "number", "ascending"),
            ("Seconds", "number", "ascending"),
            *([("Error", "text", "ascending")] if failed else []),
        ],
        trials=[_line(report, trial, failed) for trial in report["trials"]],
    )


def _finding(report: Mapping[str, Any]) -> str:
    best, trials = report["best"], len(report["trials"])
    if final := report.get("final"):
        seeds = ", ".join(map(str, final["seeds"]))
        of = f"{len(final['finalists'])} finalists of {trials} trials by mean {report['objective']} over seeds {seeds}"
        return f"Trial {best['number']} is the best of {of}: {words.metric(final['mean'])}."
    return f"Trial {best['number']} is the best of {trials} by {report['objective']}: {words.metric(best['score'])}."


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    budget, code = report["budget"], report["code"]
    states = ", ".join(f"{number} {_STATES.get(state, state)}" for state, number in report["states"].items())
    limits = [f"{budget[unit]:g} {unit}" for unit in ("trials", "minutes") if budget.get(unit) is not None]
    facts = [
        ("Objective", report["objective"], "the best of a trial's curve"),
        ("Budget", " or ".join(limits), "of the search"),
        ("Trials", f"{len(report['trials'])}: {states}", "how they ended"),
        ("Epochs", f"at most {budget['epochs']}, patience {budget['stopping_step']}", "of every trial"),
        ("Sampler", report["sampler"], f"seed {report['sampler_seed']}"),
        ("Pruner", report["pruner"], "ends trials that do worse than the others did by then"),
        ("Seed", str(report["seed"]), "of every trial's training"),
        ("Ranges", report["space"]["file"], ""),
        ("Config files", ", ".join(report["config_files"]), ""),
        *_final(report),
        ("Split", (report["split_hash"] or "")[:12], f"SHA-256 {report['split_hash']}"),
        ("Code", (code.get("commit") or "installed")[:9] + (" and changes" if code.get("dirty") else ""), ""),
        ("Finished", str(report["finished"])[:16].replace("T", " "), "UTC"),
    ]
    return [fact for fact in facts if fact[1]]


def _final(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    final = report.get("final")
    if not final:
        return []
    means = ", ".join(f"{words.metric(entry['mean'])} (trial {entry['number']})" for entry in final["finalists"])
    return [("Final", means, f"means over seeds {', '.join(map(str, final['seeds']))}; the best one is chosen")]


def _line(report: Mapping[str, Any], trial: Mapping[str, Any], failed: bool) -> dict[str, Any]:
    values = [trial["settings"].get(name) for name in report["space"]["ranges"]]
    score = reached(report, trial)
    cells: list[tuple[str, Any]] = [
        (str(trial["number"]), trial["number"]),
        (_STATES.get(trial["state"], trial["state"]), trial["state"]),
        (words.metric(score), score),
        *((_short(value), _key(value)) for value in values),
        *((words.amount(trial[key]), trial[key]) for key in ("best_epoch", "epochs_run", "seconds")),
        *([(trial["error"] or "", trial["error"])] if failed else []),
    ]
    chosen = trial["number"] == report["best"]["number"]
    return {"cells": cells, "chosen": chosen, "paler": trial["state"] != "complete"}


def _short(value: Any) -> str:
    """Four digits tell trials apart; all of them stand in the best settings and in the report."""
    if value is None:
        return words.NONE
    return f"{value:.4g}" if isinstance(value, float) else words.setting(value)


def _key(value: Any) -> Any:
    return value if _number(value) or value is None else words.setting(value)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_number(report: Mapping[str, Any], name: str) -> bool:
    return all(_number(value) for trial in report["trials"] if (value := trial["settings"].get(name)) is not None)


def figures(report: Mapping[str, Any]) -> list[Figure]:
    """Return the pictures that a report allows."""
    found = [_history(report), _importances(report), _curves(report)]
    found += [_setting(report, name) for name in report["space"]["ranges"]]
    return [figure for figure in found if figure is not None]


def _kind(report: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    # First, for a final may be won by a trial that was given up.
    if trial["number"] == report["best"]["number"]:
        return "best"
    return "complete" if trial["state"] == "complete" else "pruned"


def _by_state(report: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], list[tuple[Mapping[str, Any], float]]]]:
    """Trials with a score by `_kind`, the later ones drawn above, with how their dots look."""
    looks: dict[str, dict[str, Any]] = {
        "pruned": {"color": "--line-strong", "size": 8, "symbol": "circle-open", "line": {"width": 1.5}},
        "complete": {"color": "--c0", "size": 9},
        "best": {"color": "--c1", "size": 13, "symbol": "diamond"},
    }
    found: dict[str, list[tuple[Mapping[str, Any], float]]] = {name: [] for name in looks}
    for trial in report["trials"]:
        score = reached(report, trial)
        if score is None:
            continue
        found[_kind(report, trial)].append((trial, score))
    return [(name, looks[name], trials) for name, trials in found.items() if trials]


def _history(report: Mapping[str, Any]) -> Figure | None:
    data: list[dict[str, Any]] = []
    so_far: list[tuple[int, float]] = []
    better = max if is_bigger_better(report) else min
    rows = []
    for trial in report["trials"]:
        score = reached(report, trial)
        if trial["state"] == "complete" and score is not None:
            so_far.append((trial["number"], better(score, so_far[-1][1]) if so_far else score))
        best = so_far[-1][1] if so_far else None
        rows.append(
            [str(trial["number"]), _STATES.get(trial["state"], trial["state"]), *map(words.metric, (score, best))]
        )
    if not so_far:
        return None
    line = {"color": "--c1", "width": 1.5, "shape": "hv"}
    last = max(trial["number"] for trial in report["trials"])
    x, y = [number for number, _ in so_far] + [last], [score for _, score in so_far] + [so_far[-1][1]]
    hover = "best so far: %{y:.4f}"
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": y,
            "line": line,
            "name": "best so far",
            "hovertemplate": hover,
        }
    )
    for name, marker, trials in _by_state(report):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [trial["number"] for trial, _ in trials],
                "y": [round(score, 6) for _, score in trials],
                "marker": marker,
                "hovertemplate": "trial %{x}: %{y:.4f}",
            }
        )
    return Figure(
        "history",
        "History",
        "Score of every trial in the order they began; a pruned one stands at the best that it had reached.",
        data,
        {
            "xaxis": axis("trial", dtick=1) if last <= 20 else axis("trial"),
            "yaxis": axis(report["objective"]),
            "height": 360,
        },
        ["Trial", "State", report["objective"], "Best so far"],
        rows,
    )


def _importances(report: Mapping[str, Any]) -> Figure | None:
    shares = sorted(report["importances"].items(), key=lambda entry: -entry[1])
    if not shares:
        return None
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [plain(name) for name, _ in shares],
        "x": [round(share, 4) for _, share in shares],
        "marker": {"color": "--c0"},
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    return Figure(
        "importances",
        "Importance of the settings",
        "Share of the scores' variance that a setting explains (PED-ANOVA); rough with few trials.",
        [bars],
        {
            "xaxis": axis("share", rangemode="tozero"),
            "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
            "bargap": 0.4,
            "showlegend": False,
            "height": max(240, 130 + 30 * len(shares)),
        },
        ["Setting", "Share"],
        [[name, f"{share:.3f}"] for name, share in shares],
    )


def _curves(report: Mapping[str, Any]) -> Figure | None:
    looks: dict[str, dict[str, Any]] = {
        "pruned": {"line": {"color": "--muted", "width": 1}, "opacity": 0.45},
        "complete": {"line": {"color": "--c0", "width": 1.5}, "opacity": 0.75},
        "best": {"line": {"color": "--c1", "width": 3}},
    }
    kinds: dict[str, list[Mapping[str, Any]]] = {name: [] for name in looks}
    for trial in report["trials"]:
        if trial["curve"]:
            kinds[_kind(report, trial)].append(trial)
    data: list[dict[str, Any]] = []
    for kind, trials in kinds.items():
        for place, trial in enumerate(trials):
            values = trial["curve"]
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines" if len(values) > 1 else "markers",
                    **along(list(range(len(values))), values),
                    **looks[kind],
                    "marker": {"color": looks[kind]["line"]["color"]},
                    "name": kind,
                    "legendgroup": kind,
                    "showlegend": place == 0,
                    "hovertemplate": f"trial {trial['number']}, epoch %{{x}}: %{{y:.4f}}<extra></extra>",
                }
            )
    if not data:
        return None
    longest = max(len(trial["curve"]) for trials in kinds.values() for trial in trials)
    count = min(longest, _CURVE_EPOCHS)
    epochs = sorted({round(i * (longest - 1) / max(1, count - 1)) for i in range(count)})
    return Figure(
        "curves",
        "Validation curves",
        "Every trial by epoch; pruned ones end early and are paler.",
        data,
        {"xaxis": axis("epoch, from 0"), "yaxis": axis(report["objective"]), "height": 420},
        ["Trial, epoch", *map(str, epochs)],
        [
            [
                str(trial["number"]),
                *(words.metric(trial["curve"][epoch] if epoch < len(trial["curve"]) else None) for epoch in epochs),
            ]
            for trial in report["trials"]
            if trial["curve"]
        ],
        size="wide",
    )


def _setting(report: Mapping[str, Any], name: str) -> Figure | None:
    """One setting against the score, on the axis that it was searched on."""
    limits = report["space"]["ranges"][name]
    choice = isinstance(limits, list)

    def place(value: Any) -> Any:
        return plain(words.setting(value)) if choice else value

    data: list[dict[str, Any]] = []
    for kind, marker, trials in _by_state(report):
        known = [(trial, score) for trial, score in trials if trial["settings"].get(name) is not None]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": kind,
                "x": [place(trial["settings"][name]) for trial, _ in known],
                "y": [round(score, 6) for _, score in known],
                "customdata": [trial["number"] for trial, _ in known],
                "marker": marker,
                "hovertemplate": "trial %{customdata}: %{y:.4f}<br>%{x}<extra></extra>",
            }
        )
    if not any(trace["x"] for trace in data):
        return None
    along_x: dict[str, Any] = {"type": "linear"}
    if choice:
        along_x = {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [place(value) for value in limits],
            "range": [-0.5, len(limits) - 0.5],
        }
    else:
        # All of what was searched, not only where trials fell: then the ends are seen.
        ends = [limits["low"], limits["high"]]
        if limits.get("log"):
            along_x = log_axis(*ends)
            ends = [math.log10(end) for end in ends]
        room = 0.06 * (ends[1] - ends[0])
        along_x["range"] = [ends[0] - room, ends[1] + room]
    return Figure(
        f"setting-{list(report['space']['ranges']).index(name)}",
        name,
        f"Searched {_told(limits)}.",
        data,
        {"xaxis": along_x, "yaxis": axis(report["objective"]), "showlegend": False, "height": 260},
        ["Trial", name, report["objective"]],
        [
            [str(trial["number"]), words.setting(trial["settings"].get(name)), words.metric(reached(report, trial))]
            for trial in report["trials"]
        ],
        size="small",
    )


def _told(limits: Any) -> str:
    if isinstance(limits, list):
        return "among " + ", ".join(map(words.setting, limits))
    text = f"from {words.setting(limits['low'])} to {words.setting(limits['high'])}"
    if limits.get("step") is not None:
        text += f" in steps of {words.setting(limits['step'])}"
    return text + (", uniform in its logarithm" if limits.get("log") else "")
