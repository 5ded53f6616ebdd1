"""Renders the reports of epoch.py and growth.py into the marked places of docs/speed.md.

python benchmarks/render_speed.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from render_table import insert

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
PHASES = ("denoisers", "generation", "ranking", "evaluation", "total", "test", "all_users")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def epoch(report: dict[str, Any]) -> str:
    """Seconds, ratios, products and memory of one epoch, by phase and variant."""
    variants, ratios, data = report["variants"], report["ratios"], report["data"]
    base = report["base"]
    gemm = ", ".join(f"{name} {value:,.0f}" for name, value in report["gemm_gflop_per_s"].items())
    users = report["ranked_users"]
    caption = (
        f"One epoch on {report['dataset']} ({data['users']:,} users, {data['items']:,} items, "
        f"{data['interactions']:,} interactions), {report['processor']}, {report['threads']} threads, commit "
        f"{report['commit']['hash'][:9]}: medians of {report['repeats'] * report['epochs']} epochs each, in turn. "
        f"GFLOP/s of square products measured in the same run: {gemm}. `total` is the sum of the first four; `test` "
        f"and `all_users` rank all items for {users['test']:,} and {users['all_users']:,} users through RecBole's "
        "evaluation."
    )
    header = ["phase"]
    for name in variants:
        header += [f"{name}, s", *([f"{base} / {name}"] if name in ratios else []), "GFLOP", "GFLOP/s"]
    rows = []
    for phase in PHASES:
        row = [phase]
        for name, v in variants.items():
            row.append(f"{v['seconds'][phase]:.2f}")
            row += [f"**{ratios[name]['seconds'][phase]:.1f}**"] if name in ratios else []
            row += [f"{v['gflop'][phase]:,.0f}", f"{v['gflop_per_s'][phase]:,.0f}"]
        rows.append(row)
    row = ["peak resident MB"]
    for name, v in variants.items():
        row.append(f"{v['peak_memory_mb']['host']:,.0f}")
        row += [f"**{ratios[name]['peak_memory_mb']['host']:.1f}**"] if name in ratios else []
        row += ["", ""]
    return f"{caption}\n\n{table(header, [*rows, row])}"


def growth(report: dict[str, Any]) -> str:
    """Fitted exponents of every phase along every axis."""
    rows = []
    for axis, entry in report["axes"].items():
        for phase, quantities in entry["exponents"].items():
            cells = [f"{quantities[q]['all']:.2f} / {quantities[q]['upper']:.2f}" for q in GROWTH_QUANTITIES]
            rows.append([axis, phase, *cells])
    header = ["axis", "phase", *(q.replace("_", " ") for q in GROWTH_QUANTITIES)]
    return table(header, rows)


GROWTH_QUANTITIES = ("step_seconds", "epoch_seconds", "added_bytes")
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"epoch-tiktok-cpu": epoch, "growth-cpu": growth}


def render(page: str) -> str:
    """The page with every table made anew from its report."""
    for name, make in TABLES.items():
        page = insert(page, name, make(json.loads((RESULTS / f"{name}.json").read_text())))
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
