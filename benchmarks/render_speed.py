"""Renders the reports of epoch.py, growth.py and others into the marked places of docs/speed.md.

python benchmarks/render_speed.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
PHASES = ("denoisers", "generation", "ranking", "evaluation", "total", "test", "all_users")


def insert(text: str, name: str, content: str) -> str:
    """Put `content` between the markers of `name` in a document."""
    start, end = f"<!-- table: {name} -->\n", "<!-- end of table -->"
    before, rest = text.split(start)
    return before + start + content + "\n" + end + rest.split(end, 1)[1]


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def epoch(report: dict[str, Any]) -> str:
    """Seconds, ratios, products and memory of one epoch on the CPU, by phase and variant."""
    gemm, users = _products(report), report["ranked_users"]
    caption = (
        f"{_one_epoch(report, report['processor'] + ', ' + str(report['threads']) + ' threads')} "
        f"GFLOP/s of square products measured in the same run: {gemm}. `total` is the sum of the first four; `test` "
        f"and `all_users` rank all items for {users['test']:,} and {users['all_users']:,} users through RecBole's "
        "evaluation."
    )
    more = {"GFLOP": "gflop", "GFLOP/s": "gflop_per_s"}
    return f"{caption}\n\n{_by_phase(report, 2, more, {'peak resident MiB': 'host'})}"


def epoch_on_gpu(report: dict[str, Any]) -> str:
    """Seconds, ratios and memory of one epoch on a GPU, by phase and variant."""
    caption = f"{_one_epoch(report, report['device'].removeprefix('cuda: '))} GFLOP/s of square products: "
    memory = {"peak MiB, host": "host", "peak MiB, device": "device"}
    return f"{caption}{_products(report)}.\n\n{_by_phase(report, 3, {}, memory)}"


def _one_epoch(report: dict[str, Any], machine: str) -> str:
    data, repeats = report["data"], report["repeats"]
    return (
        f"One epoch on {report['dataset']} ({data['users']:,} users, {data['items']:,} items, "
        f"{data['interactions']:,} interactions), {machine}, commit {report['commit']['hash'][:9]}: medians of "
        f"{repeats * report['epochs']} epochs each, {'in turn' if repeats > 1 else 'one variant after the other'}."
    )


def _products(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:,.0f}" for name, value in report["gemm_gflop_per_s"].items())


def _by_phase(report: dict[str, Any], places: int, more: dict[str, str], memory: dict[str, str]) -> str:
    """Seconds and ratios of each variant by phase, what `more` names beside them, and peak memory below."""
    variants, ratios, base = report["variants"], report["ratios"], report["base"]
    header, rows = ["phase"], [[phase] for phase in PHASES] + [[title] for title in memory]
    for name, v in variants.items():
        header += [f"{name}, s", *([f"{base} / {name}"] if name in ratios else []), *more]
        for phase, row in zip(PHASES, rows, strict=False):
            row.append(f"{v['seconds'][phase]:.{places}f}")
            row += [f"**{ratios[name]['seconds'][phase]:.1f}**"] if name in ratios else []
            row += [f"{v[key][phase]:,.0f}" for key in more.values()]
        for kind, row in zip(memory.values(), rows[len(PHASES) :], strict=True):
            row.append(f"{v['peak_memory_mb'][kind]:,.0f}")
            row += [f"**{ratios[name]['peak_memory_mb'][kind]:.1f}**"] if name in ratios else []
            row += [""] * len(more)
    return table(header, rows)


def growth(report: dict[str, Any]) -> str:
    """Fitted exponents of every phase along every axis."""
    header = ["axis", "phase", *GROWTH]
    rows = []
    for axis, entry in report["axes"].items():
        for phase, exponents in entry["exponents"].items():
            fits = [exponents[quantity] for quantity in GROWTH.values()]
            rows.append([axis, phase, *(f"{fit['all']:.2f} ({fit['upper_half']:.2f})" for fit in fits)])
    return table(header, rows)


def large(report: dict[str, Any]) -> str:
    """One large problem by variant and phase."""
    header = [
        "variant",
        "phase",
        "s / step",
        "GFLOP / step",
        "peak GiB",
        "epoch here, hours",
        "epoch on an H200, minutes",
    ]
    rows = []
    for name, entry in report["variants"].items():
        for phase, x in entry["phases"].items():
            h200 = entry["h200"]["epoch_seconds_by_phase"][phase]
            here = [f"{x['step_seconds']:.2f}", f"{x['step_work']['gflop']:,.0f}", f"{x['peak_bytes'] / 2**30:.1f}"]
            rows.append([name, phase, *here, f"{x['epoch_seconds'] / 3600:.2f}", f"{h200 / 60:.1f}"])
    return table(header, rows)


def variants(report: dict[str, Any]) -> str:
    """Accuracy of formats and options, against the first over the same seeds and epochs."""
    header = ["variant", "commit", "seeds", "epochs", *(f"{title}: mean, and difference" for title in FIGURES)]
    rows = []
    for name, entry in report["variants"].items():
        cells = []
        for figure in FIGURES.values():
            mean, difference = entry["figures"][figure], entry["difference_of_the_same_seeds"][figure]
            first = name == report["compared_with"]
            spread = "" if len(entry["seeds"]) == 1 else f" ± {mean['standard_deviation']:.4f}"
            cells.append(f"{mean['mean']:.4f}{spread}" + ("" if first else f", {difference['mean']:+.4f}"))
        rows.append([name, ", ".join(entry["commits"]), str(len(entry["seeds"])), str(entry["epochs"]), *cells])
    return table(header, rows)


def steps(report: dict[str, Any]) -> str:
    """Seconds of a training step, before and here."""
    header = ["model", "what was replaced", "batch", "before, s", "here, s", "before / here"]
    rows = []
    for x in report["models"]:
        seconds = [f"{x['before']:.3f}", f"{x['here']:.3f}", f"**{x['ratio']:.1f}**"]
        rows.append([x["model"], x["before_is"], f"{x['batch_size']:,}", *seconds])
    return table(header, rows)


GROWTH = {"seconds of a step": "step_seconds", "seconds of an epoch": "epoch_seconds", "added memory": "added_bytes"}
FIGURES = {
    "valid Recall@20, epochs from 10": "valid_mean_recall@20",
    "test Recall@20, epochs from 10": "test_mean_recall@20",
    "valid Recall@20, selected": "valid_selected_recall@20",
    "test Recall@20, selected": "test_selected_recall@20",
}
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "epoch-tiktok-cpu": epoch,
    "epoch-tiktok-h200": epoch_on_gpu,
    "epoch-sports-size-h200": epoch_on_gpu,
    "variants-tiktok": variants,
    "variants-tiktok-h100": variants,
    "growth-cpu": growth,
    "growth-large-cpu": large,
    "steps-tiktok-cpu": steps,
}


def render(page: str) -> str:
    """The page with every table made anew from its report."""
    for name, make in TABLES.items():
        page = insert(page, name, make(json.loads((RESULTS / f"{name}.json").read_text())))
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
