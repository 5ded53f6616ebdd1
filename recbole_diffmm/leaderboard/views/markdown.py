"""A board as Markdown, for a README, an issue or a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_diffmm.leaderboard.board import Board, Cell, Group
from recbole_diffmm.leaderboard.views import words


def render(board: Board) -> str:
    """Return a board as Markdown: for every table its words, the table, what it says, and its slices."""
    parts = [f"# {_text(board.title)}", *([_text(board.about)] if board.about else [])]
    for group in board.groups:
        parts += [f"## {_text(group.dataset)}", table(group, board.metrics), *_slices(group, board.metrics[0])]
    if board.empty:
        parts.append("\n".join(f"- {_text(label)} on {_text(name)}: {_text(why)}" for label, name, why in board.empty))
    return "\n\n".join(parts) + "\n"


# Facts that a short caption leaves to the page.
_ASIDE = {"split", "modalities", "users tested", "smallest difference that shows"}


def table(group: Group, metrics: Sequence[str], more: str = "") -> str:
    """Return one table with the words that it cannot do without.

    Args:
        group: The table's rows.
        metrics: Its columns, such as ``Recall@20``.
        more: Where the other words stand, for a short form that names it; empty says all.
    """
    known = words.facts(group)
    if more:
        known = [(name, value) for name, value in known if name not in _ASIDE]
    facts = "; ".join(f"{name}: {_text(value)}" for name, value in known)
    header = ["", *metrics, "best epoch", "seconds to it", "peak MiB"]
    rows = [
        [
            _text(row.label) + ("¹" if row.notes else ""),
            *(_cell(row.cells[metric.lower()]) for metric in metrics),
            words.epochs(row),
            words.seconds(row),
            words.memory(row),
        ]
        for row in group.rows
    ]
    parts = [f"{facts}.", _pipe(header, rows), _legend(group, more)]
    selected = _test_selected(group, metrics)
    if selected:
        parts += [
            "Test-selected, the paper's protocol: the epoch that is best on *test*, which is no fair estimate.",
            selected,
        ]
    if group.published:
        parts += [
            "Published elsewhere, under the protocols named; not comparable row by row.",
            _published(group, metrics),
        ]
    return "\n\n".join(parts)


def _legend(group: Group, more: str) -> str:
    parts = [words.legend(group)]
    if more:
        told = words.reference(group)
        parts += [f"{_text(told[:1].upper() + told[1:])}."] if told else []
        parts.append(f"Modalities, tuning, where tests disagree, epochs, machines and code of the rows: {more}.")
    else:
        parts += [f"{_text(told[:1].upper() + told[1:])}." for told in words.remarks(group)]
        parts.append(f"Run on {_text(words.machines(group))}.")
    notes = [f"{_text(labels)}: {_text(note)}" for labels, note in words.notes(group)]
    if notes:
        parts.append(f"¹ {'. '.join(notes)}.")
    return " ".join(parts)


def _cell(cell: Cell) -> str:
    number = words.number(cell)
    if cell.best:
        return f"**{number}**"
    if cell.second:
        number = f"<u>{number}</u>"
    return number + (words.TIED if cell.tied else "")


def _test_selected(group: Group, metrics: Sequence[str]) -> str:
    rows = [[_text(label), *cells] for label, *cells in words.test_selected(group, metrics)]
    return _pipe(["", *metrics], rows) if rows else ""


def _published(group: Group, metrics: Sequence[str]) -> str:
    rows = [
        [
            _text(entry.model),
            *(f"{entry.metrics[m.lower()]:.4f}" if m.lower() in entry.metrics else "-" for m in metrics),
            _text(entry.protocol),
            _text(entry.source),
        ]
        for entry in group.published
    ]
    return _pipe(["", *metrics, "protocol", "source"], rows)


def _slices(group: Group, metric: str) -> list[str]:
    """Tables of the first metric by users' history, items' popularity and without each modality."""
    parts = []
    for title, kind in (
        ("users by training interactions", "users_by_history"),
        ("test items by training interactions (0: cold)", "items_by_popularity"),
    ):
        found = {row.label: row.groups(kind, metric.lower()) for row in group.rows}
        names = list(dict.fromkeys(name for of_row in found.values() for name in of_row))
        if names:
            rows = [[_text(label), *(_decimal(of_row.get(name)) for name in names)] for label, of_row in found.items()]
            sizes = _sizes(group, kind)
            header = ["", *(f"{name} ({sizes[name]})" if name in sizes else name for name in names)]
            parts += [f"{metric}, {title}, in brackets how many users it is a mean over:", _pipe(header, rows)]
    missing = {row.label: row.without(metric.lower()) for row in group.rows}
    names = list(dict.fromkeys(name for of_row in missing.values() for name in of_row))
    if names:
        rows = [
            [
                _text(row.label),
                _decimal(row.cells[metric.lower()].mean),
                *(_decimal(missing[row.label].get(n)) for n in names),
            ]
            for row in group.rows
            if missing[row.label]
        ]
        header = ["", "with all", *(f"without {_text(name)}" for name in names)]
        parts += [f"{metric} of the trained models when they score without one modality:", _pipe(header, rows)]
    beyond = _beyond(group)
    if beyond:
        parts += [
            "Beyond accuracy (RecBole's metrics, and the share of items with each modality that anyone gets):",
            beyond,
        ]
    return parts


def _sizes(group: Group, kind: str) -> dict[str, str]:
    """Users of each group of a slice, a range where the seeds have splits of their own."""
    found: dict[str, list[int]] = {}
    for row in group.rows:
        for record in row.records:
            for part in getattr(record.slices, kind, ()):
                found.setdefault(part.group, []).append(part.n_users)
    return {
        name: f"{min(of_name):,}" + (f" to {max(of_name):,}" if min(of_name) < max(of_name) else "")
        for name, of_name in found.items()
    }


def _beyond(group: Group) -> str:
    names = list(dict.fromkeys(name for row in group.rows for record in row.records for name in record.beyond_accuracy))
    longest = max((int(name.partition("@")[2] or 0) for name in names), default=0)
    names = [name for name in names if name.endswith(f"@{longest}")]
    covered = list(dict.fromkeys(name for row in group.rows for r in row.records for name in r.coverage_by_modality))
    if not names:
        return ""
    rows = []
    for row in group.rows:
        cells = [row.mean(lambda record, name=name: record.beyond_accuracy.get(name)) for name in names]
        cells += [
            row.mean(
                lambda record, name=name: (
                    record.coverage_by_modality.get(name, {}).get("observed", {}).get(f"itemcoverage@{longest}")
                )
            )
            for name in covered
        ]
        rows.append([_text(row.label), *(_decimal(cell) for cell in cells)])
    return _pipe(["", *names, *(f"coverage of {_text(name)}" for name in covered)], rows)


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _pipe(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: str) -> str:
    """`value` as text that cannot break a table or become markup."""
    for sign in "\\`*_[]<>|":
        value = value.replace(sign, f"\\{sign}")
    return " ".join(value.split())
