"""A board as LaTeX for a paper: booktabs, best bold, second underlined, significance marks."""

from __future__ import annotations

from recbole_diffmm.leaderboard.board import Board, Cell, Group
from recbole_diffmm.leaderboard.statistics import LEVEL
from recbole_diffmm.leaderboard.views import words

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "°": r"$^{\circ}$",
}


def render(board: Board) -> str:
    """Return the board's tables, each a `table` environment; it needs the package booktabs."""
    return "\n\n".join(_table(board, group) for group in board.groups) + "\n"


def _table(board: Board, group: Group) -> str:
    facts = "; ".join(f"{name}: {value}" for name, value in words.facts(group))
    caption = (
        f"{board.title}. {facts}. Mean $\\pm$ standard deviation over seeds; best bold, second underlined; "
        f"$^{{\\circ}}$: not distinguishable from the best, $^{{*}}$: differs from the best "
        f"(paired $t$-test over users, Holm-corrected, ${LEVEL:g}$)."
    )
    protected = caption.replace("$\\pm$", "\0").replace("$^{\\circ}$", "\1").replace("$^{*}$", "\2")
    protected = protected.replace("$t$", "\3").replace(f"${LEVEL:g}$", "\4")
    text = escape(protected)
    for sign, macro in zip("\0\1\2\3\4", ("$\\pm$", "$^{\\circ}$", "$^{*}$", "$t$", f"${LEVEL:g}$"), strict=True):
        text = text.replace(sign, macro)
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{text}}}",
        rf"\label{{tab:{_label(board.name)}-{_label(group.dataset)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(board.metrics)}}}",
        r"\toprule",
        " & ".join(["", *map(escape, board.metrics)]) + r" \\",
        r"\midrule",
    ]
    for row in group.rows:
        cells = [_cell(row.cells[metric.lower()], metric.lower() in group.tests) for metric in board.metrics]
        mark = "$^{1}$" if row.notes else ""
        lines.append(" & ".join([escape(row.label) + mark, *cells]) + r" \\")
    selected = words.test_selected(group, board.metrics)
    if selected:
        lines += [r"\midrule", _across(board, "test-selected, the paper's protocol: no fair estimate")]
        lines += [" & ".join([escape(label), *(escape(cell) for cell in cells)]) + r" \\" for label, *cells in selected]
    if group.published:
        # What they are once above them: a name of that length would be a column wider than the page.
        kinds = dict.fromkeys((entry.source, entry.protocol) for entry in group.published)
        for source, protocol in kinds:
            lines += [r"\midrule", _across(board, f"published: {source}; {protocol}")]
            for entry in group.published:
                if (entry.source, entry.protocol) == (source, protocol):
                    cells = [
                        f"{entry.metrics[metric.lower()]:.4f}" if metric.lower() in entry.metrics else "--"
                        for metric in board.metrics
                    ]
                    lines.append(" & ".join([escape(entry.model), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    told = [escape(note[:1].upper() + note[1:]) for note in words.remarks(group)]
    told += [escape(f"{label} has no run: {why}") for label, name, why in board.empty if name == group.dataset]
    notes = "; ".join(f"{escape(labels)}: {escape(note)}" for labels, note in words.notes(group))
    told += [f"$^{{1}}$ {notes}"] if notes else []
    if told:
        lines.append(rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {'. '.join(told)}.}}")
    lines.append(r"\end{table}")
    return "\n".join(lines)


def _across(board: Board, text: str) -> str:
    """A line over all columns."""
    return rf"\multicolumn{{{1 + len(board.metrics)}}}{{p{{.9\linewidth}}}}{{\emph{{{escape(text)}}}}} \\"


def _cell(cell: Cell, tested: bool) -> str:
    number = f"{cell.mean:.4f}"
    deviation = f" {{\\scriptsize $\\pm$ {cell.deviation:.4f}}}" if cell.deviation is not None else ""
    if cell.best:
        return rf"\textbf{{{number}}}{deviation}"
    mark = "" if not tested else r"$^{\circ}$" if cell.tied else r"$^{*}$"
    return (rf"\underline{{{number}}}" if cell.second else number) + mark + deviation


def escape(text: str) -> str:
    """Return `text` as LaTeX prints it, whatever signs it has."""
    return "".join(_ESCAPES.get(sign, sign) for sign in text)


def _label(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text)
