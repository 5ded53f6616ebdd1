"""A board as CSV, one line a row and metric, for whoever makes tables and pictures of their own."""

from __future__ import annotations

import csv
import io
from typing import Any

from recbole_diffmm.leaderboard.board import Board
from recbole_diffmm.leaderboard.statistics import Comparison

COLUMNS = (
    "board",
    "dataset",
    "split_hash",
    "protocol",
    "masking",
    "selection",
    "row",
    "model",
    "modalities",
    "tuned",
    "seeds",
    "metric",
    "mean",
    "deviation",
    "ci95_low",
    "ci95_high",
    "best",
    "tied_with_best",
    "best_row",
    *(f"vs_best_{name}" for name in ("difference", "t", "t_holm", "t_bh", "wilcoxon", "wilcoxon_holm", "wilcoxon_bh")),
    "reference_row",
    *(
        f"vs_reference_{name}"
        for name in ("difference", "t", "t_holm", "t_bh", "wilcoxon", "wilcoxon_holm", "wilcoxon_bh")
    ),
    "users_tested",
    "smallest_difference",
    "seconds_to_best_epoch",
    "peak_host_mib",
    "peak_device_mib",
    "energy_kwh",
    "notes",
)


def render(board: Board) -> str:
    """Return the board as CSV with the header :data:`COLUMNS`; what does not apply is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for group in board.groups:
        for row in group.rows:
            for metric, cell in row.cells.items():
                tests = group.tests.get(metric)
                line: dict[str, Any] = {
                    "board": board.name,
                    "dataset": group.dataset,
                    "split_hash": group.split_hash,
                    "protocol": group.protocol,
                    "masking": group.masking,
                    "selection": group.selection,
                    "row": row.label,
                    "model": row.model,
                    "modalities": " ".join(row.modalities),
                    "tuned": row.tuned,
                    "seeds": " ".join(map(str, row.seeds)),
                    "metric": metric,
                    "mean": cell.mean,
                    "deviation": cell.deviation,
                    "ci95_low": cell.low,
                    "ci95_high": cell.high,
                    "best": cell.best,
                    "tied_with_best": cell.tied,
                    "users_tested": group.n_tested,
                    "seconds_to_best_epoch": row.mean(lambda record: record.seconds.get("to_best_epoch")),
                    "peak_host_mib": row.mean(lambda record: record.peak_memory_mb.get("host")),
                    "peak_device_mib": row.mean(lambda record: record.peak_memory_mb.get("device")),
                    "energy_kwh": row.mean(lambda record: record.energy.get("kwh")),
                    "notes": "; ".join(row.notes),
                }
                if tests is not None:
                    line |= {
                        "best_row": tests.best,
                        **_comparison("vs_best", tests.against_best.get(row.label)),
                        "reference_row": tests.reference,
                        **_comparison("vs_reference", tests.against_reference.get(row.label)),
                        "smallest_difference": tests.smallest,
                    }
                writer.writerow({name: _written(value) for name, value in line.items()})
    return text.getvalue()


def _comparison(prefix: str, found: Comparison | None) -> dict[str, Any]:
    if found is None:
        return {}
    names = ("difference", "t", "t_holm", "t_bh", "wilcoxon", "wilcoxon_holm", "wilcoxon_bh")
    return {f"{prefix}_{name}": getattr(found, name) for name in names}


def _written(value: Any) -> Any:
    """A value as it stands in a cell; numbers to digits that every processor's sums agree in."""
    if isinstance(value, str):
        # A spreadsheet takes a cell that begins so for a formula.
        return f"'{value}" if value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
