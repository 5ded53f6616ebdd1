"""Fills the tables of the README from the records of the boards that ship.

python docs/render_readme.py
"""

from __future__ import annotations

import re
from pathlib import Path

from recbole_diffmm.leaderboard import manifest
from recbole_diffmm.leaderboard.board import gather
from recbole_diffmm.leaderboard.views.markdown import table

REPOSITORY = Path(__file__).resolve().parent.parent
REGION = re.compile(r"<!-- board: ([\w-]+) -->\n.*?<!-- end of board -->", re.DOTALL)


def filled(readme: str) -> str:
    """Return the README's text with every region between its markers as the records have it."""
    return REGION.sub(lambda found: _region(found[1]), readme)


def _region(name: str) -> str:
    folder = REPOSITORY / "results" / name
    made_of = manifest.read(folder)
    if made_of is None:
        raise FileNotFoundError(folder)
    board = gather(folder, made_of, Path("nowhere"))  # as it was when it was run
    tables = "\n\n".join(table(group, board.metrics) for group in board.groups)
    return f"<!-- board: {name} -->\n{tables}\n<!-- end of board -->"


if __name__ == "__main__":
    path = REPOSITORY / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
