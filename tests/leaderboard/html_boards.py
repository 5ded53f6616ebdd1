"""Boards made by hand, in memory: what a page shows of them is known without computing anything."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

from recbole_diffmm.leaderboard.board import Board, Cell, Group, Row, Tests
from recbole_diffmm.leaderboard.spec import Published
from recbole_diffmm.leaderboard.statistics import Comparison
from recbole_diffmm.record import Record
from tests.leaderboard.boards import digest, record

METRICS = ("Recall@20", "NDCG@20")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u2028"
LOSSES = ("elbo_text", "elbo_smell", "msi_text", "msi_smell", "bpr", "reg", "contrast")


def run(label: str, seed: int, mean: float, epochs: int = 5, **changes: Any) -> Record:
    """One run whose curve climbs to its validation value."""
    own = {f"{key}_{label}": value for key, value in (("width", 64), ("rate", 0.001))}
    values = {name: round(mean * (1 + 0.01 * seed) / (1 + i), 6) for i, name in enumerate(("recall@20", "ndcg@20"))}
    noise = random.Random(f"{label} {seed}")
    curve = [
        {
            "epoch": epoch,
            # Uneven as real ones are, or they would be packed far smaller.
            "losses": {name: (0.1 + noise.random() / 50) * (i + 1) / (1 + epoch) for i, name in enumerate(LOSSES)},
            "valid": {
                name: round(value * (1 - 0.9 ** (epoch + 1)) + noise.random() / 500, 6)
                for name, value in values.items()
            },
            "seconds": {"ranking": 0.5},
            "diagnostics": {},
        }
        for epoch in range(epochs)
    ]
    content = record(f"Model-toy-s{seed}-{digest(label)[:8]}")
    content |= {
        "model": label,
        "config": {**content["config"], **{f"key_{i}": i for i in range(100)}, **own},
        "metrics": {"valid": values, "test": values, "test_selected": None},
        "slices": {
            kind: [
                {"group": group, "n_users": 15, "n_items": 20, "metrics": values}
                for group in ("0", "1-4", "5-9", "50+")
            ]
            for kind in ("users_by_history", "items_by_popularity")
        }
        | {"without_modality": {}},
        "curve": curve,
        "best_epoch": epochs - 1,
        "epochs_run": epochs,
    }
    return Record.model_validate({"checksum": "0" * 64, **content, **changes})


def row(label: str, mean: float, seeds: int = 3, epochs: int = 5, **changes: Any) -> Row:
    """One row; its cells have no marks yet."""
    records = [run(label, seed, mean, epochs, **changes) for seed in range(1, seeds + 1)]
    cells = {
        name: Cell(mean / (1 + i), 0.0012, mean / (1 + i) - 0.01, mean / (1 + i) + 0.01)
        for i, name in enumerate(("recall@20", "ndcg@20"))
    }
    return Row(label, records[0].model, tuple(records[0].modalities), "8 trials", records, [], [], [], cells)


def comparison(difference: float, p: float) -> Comparison:
    return Comparison(difference, p, p, p, p, p, p)


def group(rows: list[Row], tied: tuple[str, ...] = (), **changes: Any) -> Group:
    """Rows, best first, as a table; `tied` cannot be told from the best."""
    for metric in ("recall@20", "ndcg@20"):
        for place, entry in enumerate(rows):
            cell = entry.cells[metric]
            entry.cells[metric] = Cell(
                cell.mean, cell.deviation, cell.low, cell.high, place == 0, place == 1, entry.label in tied
            )
    p = {entry.label: 0.2 if entry.label in tied else 0.0004 for entry in rows}
    tests = {
        metric: Tests(
            best=rows[0].label,
            against_best={
                entry.label: comparison(entry.cells[metric].mean - rows[0].cells[metric].mean, p[entry.label])
                for entry in rows[1:]
            },
            reference="",
            against_reference={},
            pairs={
                (a.label, b.label): comparison(a.cells[metric].mean - b.cells[metric].mean, p[b.label])
                for a, b in combinations(rows[:30], 2)
            },
            smallest=0.0123,
        )
        for metric in ("recall@20", "ndcg@20")
        if len(rows) > 1
    }
    first = rows[0].records[0]
    values: dict[str, Any] = {
        "dataset": "toy",
        "splits": {record.seed: record.data.split_hash for row in rows for record in row.records},
        "protocol": "recbole",
        "masking": "train+valid",
        "selection": first.selection,
        "modalities": ("smell", "text"),
        "seeds": "1, 2, 3",
        "n_users": 60,
        "n_items": 80,
        "n_inter": 1700,
        "n_tested": 60,
        "rows": rows,
        "tests": tests,
    }
    return Group(**{**values, **changes})


def board(groups: list[Group], empty: list[tuple[str, str, str]] | None = None, **changes: Any) -> Board:
    values: dict[str, Any] = {"name": "board", "title": "A board", "about": "", "metrics": METRICS}
    return Board(**{**values, **changes}, groups=groups, empty=empty or [])


def published(**changes: Any) -> Published:
    values = {
        "model": "Elsewhere",
        "dataset": "toy",
        "metrics": {"Recall@20": 0.9876, "MRR@10": 0.1234},
        "source": "Somebody 2024, Table 1",
        "protocol": "best test epoch",
    }
    return Published(**{**values, **changes})


def small_board() -> Board:
    """Four rows of which the second is tied, one has warnings and notes, and a published one."""
    modalities = {"modalities": ["smell", "text"]}
    without = {"without_modality": {"smell": {"recall@20": 0.31, "ndcg@20": 0.15}}}
    slices = record()["slices"]
    rows = [
        row("DiffMM", 0.4, **modalities, slices={**slices, **without}),
        row("VBPR", 0.39, **modalities),
        row("LightGCN", 0.2),
        row("Pop", 0.1, epochs=1, warnings=["a warning of this run"]),
    ]
    rows[2].notes = ["stale: the code of LightGCN has changed since"]
    return board([group(rows, tied=("VBPR",), published=(published(),))])


def hostile_board(text: str) -> Board:
    """Every string that others may write is `text`."""
    rows = [row(f"{text}{i}", 0.4 - 0.1 * i, warnings=[text], device=text) for i in range(2)]
    rows[0].notes, rows[0].tuned, rows[0].missing = [text], text, [text]
    rows[0].modalities = (text,)
    rows[0].records[0].config[text] = text
    entry = published(model=text, source=text, protocol=text)
    made = group(rows, published=(entry,), dataset=text, modalities=(text,))
    return board([made], empty=[(text, text, text)], title=text, about=text, name=text)


def large_board(n_rows: int, seeds: int, epochs: int = 100) -> Board:
    rows = [row(f"Model{i:03d}", 0.5 - 0.5 * i / n_rows, seeds, epochs) for i in range(n_rows)]
    return board([group(rows, tied=("Model001",))])
