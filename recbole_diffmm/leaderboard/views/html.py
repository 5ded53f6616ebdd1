"""A board as one HTML file: a table to sort and filter, rows that open to their runs, pictures.

It opens from disk, loads nothing, and is a plain table without JavaScript.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from recbole_diffmm.leaderboard.board import Board, all_records
from recbole_diffmm.leaderboard.views import html_words as words
from recbole_diffmm.leaderboard.views.html_figures import figures
from recbole_diffmm.leaderboard.views.html_runs import runs
from recbole_diffmm.leaderboard.views.html_table import table
from recbole_diffmm.leaderboard.views.page import page
from recbole_diffmm.leaderboard.views.words import TIED


@dataclass(frozen=True)
class IndexEntry:
    """What the index says of a board.

    Attributes:
        name: Of its folder.
        title: What stands above it.
        href: Where its page is, from the index.
        datasets: Of its tables.
        n_rows: Rows with a result.
        n_runs: Runs that are done.
        best: The best row of the first table and its value, in words.
        finished: The day of the last run.
    """

    name: str
    title: str
    href: str
    datasets: tuple[str, ...]
    n_rows: int
    n_runs: int
    best: str
    finished: str


MADE_BY = "Made by recbole_diffmm"  # in the foot of every page


def render(board: Board) -> str:
    """Return the page of a board.

    Raises:
        UserError: Jinja2 is not installed.
    """
    metric = board.metrics[0]
    seen = Counter(group.dataset for group in board.groups)
    tables = [table(group, board.metrics, i, seen[group.dataset] == 1) for i, group in enumerate(board.groups)]
    drawn = [figures(group, metric) for group in board.groups]
    opened = [runs(group, board.metrics) for group in board.groups]
    records = [record for _, _, record in all_records(board)]
    return page(
        "board.html.j2",
        ["table.js", "pictures.js", "board.js"],
        pictures={
            "figures": {
                f"{shown.id}-{figure.key}": figure.drawn
                for shown, of_group in zip(tables, drawn, strict=True)
                for figure in of_group
            },
            "losses": [of_group.losses for of_group in opened],
        },
        board=board,
        parts=list(zip(tables, drawn, opened, strict=True)),
        n_rows=sum(len(group.rows) for group in board.groups),
        n_runs=len(records),
        finished=max((record.finished for record in records), default="")[:10],
        mixed=any(row.modalities for group in board.groups for row in group.rows),
        runs=[of_group.content for of_group in opened],
        setting=words.setting,
        tied=TIED,
    )


def render_index(boards: Sequence[IndexEntry]) -> str:
    """Return the page that lists boards, linking to each.

    Raises:
        UserError: Jinja2 is not installed.
    """
    entries = [{**asdict(entry), "datasets": list(dict.fromkeys(entry.datasets))} for entry in boards]
    return page("index.html.j2", boards=entries)
