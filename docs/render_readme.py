"""Fills the tables of the README from the records of the boards that ship.

python docs/render_readme.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from recbole_diffmm.leaderboard import manifest
from recbole_diffmm.leaderboard.gather import gather
from recbole_diffmm.leaderboard.views.markdown import table
from recbole_diffmm.record import load

REPOSITORY = Path(__file__).resolve().parent.parent
REGION = re.compile(r"<!-- board: ([\w-]+) -->\n.*?<!-- end of board -->", re.DOTALL)
REFERENCE = re.compile(r"<!-- reference -->\n.*?<!-- end of reference -->", re.DOTALL)
AGAINST = REPOSITORY / "benchmarks" / "results" / "against_reference.json"
FIGURES = {
    "valid_mean": "validation, mean of epochs {epochs_averaged}",
    "test_mean": "test, mean of epochs {epochs_averaged}",
    "valid_scatter_of_epochs": "validation, deviation of those epochs",
    "test_scatter_of_epochs": "test, deviation of those epochs",
    "valid_best": "validation, best epoch",
    "test_at_best_valid": "test, epoch selected by validation",
    "test_best": "test, test-selected epoch",
}
EDGES = re.compile(r"<!-- edges: ([\w-]+) -->.*?<!-- end of edges -->", re.DOTALL)


def filled(readme: str) -> str:
    """Return the README's text with every region between its markers as the records have it."""
    readme = EDGES.sub(lambda found: _edges(found[1]), readme)
    readme = REFERENCE.sub(lambda _: _reference(), readme)
    return REGION.sub(lambda found: _region(found[1]), readme)


def _edges(name: str) -> str:
    """How few and how many items the generated edges of an epoch reached in DiffMM's runs of a board."""
    found = [
        of_modality["distinct_items"]
        for path in sorted((REPOSITORY / "results" / name).glob("DiffMM-*.json"))
        for epoch in load(path).curve
        for of_modality in epoch["diagnostics"].values()
    ]
    return f"<!-- edges: {name} -->between {min(found):.0f} and {max(found):,.0f}<!-- end of edges -->"


def _reference() -> str:
    """What `benchmarks/against_reference.py` reported, scored with the dropped graph."""
    report = json.loads(AGAINST.read_text(encoding="utf-8"))
    compared = report["scored_with_the_dropped_graph"]
    metrics = {"Recall@20": "recall@20", "NDCG@20": "ndcg@20"}
    lines = [
        "| | " + " | ".join(f"{title}, reference | here | p" for title in metrics) + " |",
        "|---" + "|---:|---:|---:" * len(metrics) + "|",
    ]
    for figure, words in FIGURES.items():
        cells = []
        for metric in metrics.values():
            x = compared[metric][figure]
            cells += [f"{x['reference']:.4f}", f"{x['mean']:.4f} ± {x['standard_deviation']:.4f}", f"{x['p']:.2f}"]
        lines.append("| " + " | ".join([words.format(**report), *cells]) + " |")
    return "<!-- reference -->\n" + "\n".join(lines) + "\n<!-- end of reference -->"


def _region(name: str) -> str:
    folder = REPOSITORY / "results" / name
    made_of = manifest.read(folder)
    if made_of is None:
        raise FileNotFoundError(folder)
    board = gather(folder, made_of, Path("nowhere"))  # as it was when it was run
    more = f"[board.md](results/{name}/board.md)"
    parts = [table(group, board.metrics, more) for group in board.groups]
    if board.empty:
        parts.append("Not in this table yet: " + "; ".join(f"{label} ({why})" for label, _, why in board.empty) + ".")
    text = "\n\n".join(parts)
    return f"<!-- board: {name} -->\n{text}\n<!-- end of board -->"


if __name__ == "__main__":
    path = REPOSITORY / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
