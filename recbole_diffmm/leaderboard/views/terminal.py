"""A board for the terminal, short: its words and its tables."""

from __future__ import annotations

from tabulate import tabulate

from recbole_diffmm.leaderboard.board import Board, Cell, Group
from recbole_diffmm.leaderboard.statistics import LEVEL
from recbole_diffmm.leaderboard.views import words


def render(board: Board) -> str:
    """Return a board's tables as plain text."""
    parts = [board.title, *(_table(group, board.metrics) for group in board.groups)]
    parts += [f"{label} on {dataset}: {why}" for label, dataset, why in board.empty]
    return "\n\n".join(parts)


def _table(group: Group, metrics: tuple[str, ...]) -> str:
    facts = "; ".join(f"{name}: {value}" for name, value in words.facts(group))
    rows = [
        [
            row.label,
            *(_cell(row.cells[metric.lower()]) for metric in metrics),
            words.epochs(row),
            words.seconds(row),
            words.memory(row),
        ]
        for row in group.rows
    ]
    header = ["row", *metrics, "best epoch", "seconds to it", "peak MiB"]
    notes = [f"{labels}: {note}" for labels, note in words.notes(group)]
    table = tabulate(rows, headers=header, disable_numparse=True)
    tied = f"{words.TIED} not distinguishable from it (paired t-test over users, Holm, {LEVEL:g}); "
    legend = f"* best; {tied if group.tests else ''}mean ± deviation over seeds"
    return "\n".join([f"{facts}.", table, *notes, legend])


def _cell(cell: Cell) -> str:
    return words.number(cell) + ("*" if cell.best else words.TIED if cell.tied else "")
