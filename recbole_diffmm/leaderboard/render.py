"""Writes a board's views beside its records, and the page that lists all boards of a repository."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from recbole_diffmm.leaderboard import confirmed, manifest, plan
from recbole_diffmm.leaderboard.board import Board, all_records
from recbole_diffmm.leaderboard.gather import gather
from recbole_diffmm.leaderboard.views import html, latex, markdown, table_csv, words
from recbole_diffmm.provenance import PACKAGE
from recbole_diffmm.record import load, read_json, write_json, write_text

# Name of the file and what makes it.
VIEWS: dict[str, Callable[[Board], str]] = {
    "board.md": markdown.render,
    "board.csv": table_csv.render,
    "board.tex": latex.render,
    "index.html": html.render,
}
STAMP = ".rendered"
SUMMARY = "summary.json"


def render(folder: Path, data_path: Path = Path("dataset"), only_if_changed: bool = False) -> Board | None:
    """Write all views of the board in `folder` and the index beside it.

    Args:
        folder: Where its manifest and records lie.
        data_path: Where datasets lie, to tell which records are stale.
        only_if_changed: Write nothing where neither records nor code have changed since the last time.

    Returns:
        The board; None where nothing has changed, or there is no manifest.

    Raises:
        UserError: A record cannot be read, or lacks a word that a table needs.
    """
    board_manifest = manifest.read(folder)
    if board_manifest is None:
        return None
    stamp = _stamp(folder, board_manifest, data_path)
    written = all((folder / name).is_file() for name in VIEWS)
    if only_if_changed and written and _read(folder / STAMP) == stamp:
        return None
    board = gather(folder, board_manifest, data_path)
    for name, view in VIEWS.items():
        write_text(folder / name, view(board))
    write_json(folder / SUMMARY, asdict(_summary(board, folder)))
    _index(folder.parent)
    write_text(folder / STAMP, stamp)
    return board


def _stamp(folder: Path, board_manifest: manifest.Manifest, data_path: Path) -> str:
    """Fingerprint of what views are made from: records and failures, what has changed since, and this code."""
    digest = hashlib.sha256()
    confirmations = confirmed.read(folder)
    for entry in board_manifest.rows:
        for run in entry.runs:
            path = folder / f"{run.name}.json"
            if path.is_file():
                digest.update(f"{run.name} {plan.changed(load(path), data_path, confirmations)}\n".encode())
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.parquet")]):
        if file.name == SUMMARY:
            continue
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    for file in sorted(PACKAGE.rglob("*")):
        if file.suffix in {".py", ".j2", ".css", ".js"}:
            digest.update(f"{file.relative_to(PACKAGE)} {file.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _summary(board: Board, folder: Path) -> html.IndexEntry:
    """What the index says of a board: of its first table, by its first metric."""
    records = [record for _, _, record in all_records(board)]
    first = board.groups[0] if board.groups else None
    metric = board.metrics[0]
    best = ""
    if first is not None:
        best = f"{first.rows[0].label}, {metric} {words.number(first.rows[0].cells[metric.lower()])}"
    return html.IndexEntry(
        name=board.name,
        title=board.title,
        href=f"{folder.name}/index.html",
        datasets=tuple(dict.fromkeys(group.dataset for group in board.groups)),
        n_rows=sum(len(group.rows) for group in board.groups),
        n_runs=len(records),
        best=best,
        finished=max((record.finished for record in records), default="")[:10],
    )


def _index(parent: Path) -> None:
    """List every board below `parent` on one page, unless a page of somebody else's is there."""
    page = parent / "index.html"
    if page.exists() and html.MADE_BY not in _read(page):
        return
    entries = []
    for path in sorted(parent.glob(f"*/{SUMMARY}")):
        if not (path.parent / manifest.FILE).is_file():
            continue
        try:
            content = read_json(path)
            entries.append(html.IndexEntry(**{**content, "datasets": tuple(map(str, content["datasets"]))}))
        except (OSError, ValueError, TypeError, KeyError):
            continue  # of another version: the board writes it anew when it is rendered next
    write_text(page, html.render_index(entries))
