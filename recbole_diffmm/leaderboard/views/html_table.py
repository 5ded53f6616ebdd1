"""A group of rows as the columns and cells of an HTML table, with the words that stand around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recbole_diffmm.leaderboard.board import Cell, Group, Row, Tests
from recbole_diffmm.leaderboard.statistics import Comparison
from recbole_diffmm.leaderboard.views import html_words as words
from recbole_diffmm.leaderboard.views import words as shared_words
from recbole_diffmm.leaderboard.views.figure import colour

NO_MODALITY = "interactions only"
_BEFORE = 3  # rank, name, modalities


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: What its cells hold; of a metric, ``metric `` and its name.
        title: Its header.
        hint: What it says, in a sentence.
        kind: ``text``, ``number``, ``label``, ``metric`` or ``interval``.
        first: The order that the first click sorts in.
        note: A second, smaller line of the header.
    """

    key: str
    title: str
    hint: str
    kind: str = "number"
    first: str = "ascending"
    note: str = ""


@dataclass(frozen=True)
class Value:
    """A cell.

    Attributes:
        main: What it says.
        sub: A second, smaller line.
        hint: What hovering tells.
        key: What it is sorted by: a number, a text, or None for what is always last.
        best: Bold.
        second: Underlined.
        tied: Marked as not told from the best.
        bar: Left end, middle and right end of an interval, in pixels.
    """

    main: str
    sub: str = ""
    hint: str = ""
    key: float | str | None = None
    best: bool = False
    second: bool = False
    tied: bool = False
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Line:
    """A row: its cells, its notes in a word or two, and what the filter looks at."""

    id: str
    label: str
    colour: str
    cells: list[Value]
    flags: list[str]
    multimodal: bool
    search: str


@dataclass(frozen=True)
class PublishedLine:
    """A row of a published table: one cell for every metric of the board."""

    model: str
    source: str
    protocol: str
    metrics: list[str]
    others: str


@dataclass(frozen=True)
class SelectedLine:
    """A row's test-selected epochs."""

    label: str
    metrics: list[Value]
    epochs: str
    criterion: str


@dataclass(frozen=True)
class Table:
    """All that the template shows of a group.

    Attributes:
        id: Of its place in the page.
        title: The dataset, and what tells this table from another of the same dataset.
        facts: What all rows share: word, value, and what it means.
        finding: What the table says, in a sentence.
        columns: Its columns.
        lines: Its rows, best first.
        published: Rows of published tables, never ranked.
        selected: Test-selected epochs, under the paper's protocol.
        metrics: The board's.
        before: How many columns stand before the metrics.
        legend: What its signs mean.
        notes: What a reader must know of rows: label and note.
    """

    id: str
    title: str
    facts: list[tuple[str, str, str]]
    finding: str
    columns: list[Column]
    lines: list[Line]
    published: list[PublishedLine]
    selected: list[SelectedLine]
    metrics: tuple[str, ...]
    before: int
    legend: str
    notes: list[tuple[str, str]]


def table(group: Group, metrics: tuple[str, ...], number: int, alone: bool) -> Table:
    """Return a group as its table.

    Args:
        group: The rows.
        metrics: The board's, the first one ranks.
        number: Of the group on the page.
        alone: Whether no other group of the board has the same dataset.
    """
    columns = _columns(group, metrics)
    bars = _bars(group, metrics[0].lower())
    lines = [
        Line(
            id=f"g{number}r{index}",
            label=row.label,
            colour=colour(index),
            cells=[_cell(group, row, index + 1, column.key, metrics[0], bars) for column in columns],
            flags=list(dict.fromkeys(note.partition(":")[0] for note in row.notes)),
            multimodal=bool(row.modalities),
            search=" ".join((row.label, row.model, *row.modalities, row.tuned)).lower(),
        )
        for index, row in enumerate(group.rows)
    ]
    title = group.dataset if alone else f"{group.dataset}, protocol {group.protocol}"
    return Table(
        id=f"g{number}",
        title=title,
        facts=_facts(group, metrics[0]),
        finding=_finding(group, metrics[0]),
        columns=columns,
        lines=lines,
        published=_published(group, metrics),
        selected=_selected(group, metrics),
        metrics=metrics,
        before=_BEFORE,
        legend=_legend(group),
        notes=shared_words.notes(group),
    )


def _legend(group: Group) -> str:
    told = [
        shared_words.legend(group),
        *(f"{words_[:1].upper()}{words_[1:]}." for words_ in shared_words.remarks(group)),
    ]
    return " ".join(told)


def _facts(group: Group, metric: str) -> list[tuple[str, str, str]]:
    protocol = {
        "recbole": "validation selects the epoch, test is looked at once",
        "paper": "training items alone are masked; the test-selected epoch is told beside the fair one",
    }.get(group.protocol, "")
    facts = [
        ("Dataset", group.dataset, ""),
        ("Users", words.count(group.n_users), ""),
        ("Items", words.count(group.n_items), ""),
        ("Interactions", words.count(group.n_inter), "of all splits"),
        ("Split", group.split, f"SHA-256 of training, validation and test: {group.split_hash}"),
        ("Modalities", ", ".join(group.modalities) or "none used", "used by any row"),
        ("Masked at test", shared_words.masked(group), "items that are not ranked"),
        ("Epoch selected by", group.selection, ""),
        ("Protocol", group.protocol, protocol),
        ("Seeds", group.seeds, ""),
        ("Run on", shared_words.machines(group), ""),
        ("Users tested", words.count(group.n_tested) if group.n_tested is not None else "not known", "in the means"),
    ]
    tuned = {row.tuned for row in group.rows}
    if len(tuned) == 1 and tuned != {""}:
        facts.append(("Tuned", f"{tuned.pop()}, all rows alike", "budget of the search for their settings"))
    tests = group.tests.get(metric.lower())
    if tests is not None and tests.smallest is not None:
        facts.append(
            (
                "Smallest detectable difference",
                f"{words.metric(tests.smallest)} {metric}",
                "what so many users would show in four of five repetitions, by a paired t-test at 5 %, uncorrected",
            )
        )
    return facts


def _finding(group: Group, metric: str) -> str:
    key = metric.lower()
    best = group.rows[0]
    cell = best.cells[key]
    text = f"{best.label} has the best {metric}, {words.metric(cell.mean)}"
    if cell.deviation is not None:
        text += f"\u00a0±\u00a0{words.metric(cell.deviation)}"
    if len(group.rows) == 1:
        return f"{text}; it is the only row."
    if key not in group.tests:
        return f"{text}; without values of single users, nothing can be tested."
    tied = [row.label for row in group.rows if row.cells[key].tied]
    if not tied:
        return f"{text}, and the t-test tells it from every other row.{_doubted(group.tests[key])}"
    named = ", ".join(tied[:3]) + (f" and {len(tied) - 3} more" if len(tied) > 3 else "")
    return f"{text}; the t-test does not tell it from {named}.{_doubted(group.tests[key])}"


def _doubted(tests: Tests) -> str:
    labels = shared_words.doubted(tests)
    return f" Wilcoxon’s test differs on {', '.join(labels)}." if labels else ""


def _plus_minus(deviation: float | None) -> str:
    return "" if deviation is None else f"±\u202f{words.metric(deviation)}"


def _columns(group: Group, metrics: Sequence[str]) -> list[Column]:
    first = metrics[0]
    tests = group.tests.get(first.lower())
    found = [
        Column("rank", "#", f"rank by {first}"),
        Column("label", "Model", "name on this board; select it for its runs", "label"),
        Column("modalities", "Modalities", "what it uses besides interactions", "text"),
    ]
    for metric in metrics:
        hint = f"{metric} on test: mean and standard deviation over seeds"
        found.append(Column(f"metric {metric.lower()}", metric, hint, "metric", "descending", "mean ± deviation"))
    if _any(group, lambda row: row.cells[first.lower()].low):
        hint = f"95 % bootstrap interval of {first} over users; all rows on one scale"
        found.append(Column("interval", "95 % interval", hint, "interval", "descending", first))
    if len(group.rows) > 1:
        hint = f"difference in {first} to the row with the best mean, and Holm-corrected p of the paired t-test"
        found.append(Column("best", "To best", hint, "number", "descending", f"{first}, p"))
    if tests is not None and tests.reference and tests.reference != tests.best:
        hint = f"difference in {first} to {tests.reference}, and Holm-corrected p of the paired t-test"
        found.append(Column("reference", f"To {tests.reference}", hint, "number", "descending", f"{first}, p"))
    found += [
        Column("epochs", "Epochs", "epochs trained, and the selected one (from 0): means over seeds", note="selected"),
        Column("seconds", "Seconds", "all phases up to the selected epoch: mean over seeds", note="to best epoch"),
        Column("host", "Host", "peak memory of the process: mean over seeds", note="peak MiB"),
    ]
    if _any(group, lambda row: _memory(row, "device")):
        found.append(Column("device", "Device", "peak memory of the accelerator: mean over seeds", note="peak MiB"))
    if _any(group, _energy):
        found.append(Column("energy", "Energy", "measured for the whole run: mean over seeds", note="kWh"))
    if len({row.tuned for row in group.rows}) > 1:  # otherwise it stands above the table, once
        found.append(Column("tuned", "Tuned", "budget of the search for its settings", "text"))
    return found


def _any(group: Group, value: Any) -> bool:
    return any(value(row) not in (None, "", []) for row in group.rows)


def _memory(row: Row, where: str) -> float | None:
    return row.mean(lambda record: record.peak_memory_mb.get(where))


def _energy(row: Row) -> float | None:
    return row.mean(lambda record: record.energy.get("kwh"))


def seconds_to_best(row: Row) -> float | None:
    """Return the mean seconds up to the selected epoch."""
    return row.mean(lambda record: record.seconds.get("to_best_epoch"))


def _cell(group: Group, row: Row, rank: int, key: str, first: str, bars: dict[str, Value]) -> Value:
    kind, _, metric = key.partition(" ")
    tests = group.tests.get(first.lower())
    if kind == "rank":
        return Value(str(rank), key=float(rank))
    if kind == "label":
        return Value(row.label, row.model if row.model != row.label else "", key=row.label.lower())
    if kind == "modalities":
        return Value(", ".join(row.modalities) or NO_MODALITY, key=", ".join(row.modalities).lower() or None)
    if kind == "metric":
        return _metric(row, metric)
    if kind == "interval":
        return bars.get(row.label, Value(words.NONE))
    if kind == "best":
        best = tests.best if tests else group.rows[0].label
        return _difference(row, best, tests.against_best if tests else {}, group, first)
    if kind == "reference":
        assert tests is not None
        return _difference(row, tests.reference, tests.against_reference, group, first)
    if kind == "epochs":
        run, selected = row.mean(lambda r: r.epochs_run), row.mean(lambda r: r.best_epoch)
        return Value(words.amount(run), words.amount(selected) if selected is not None else "", key=run)
    if kind == "tuned":
        return Value(row.tuned or words.NONE, key=row.tuned.lower() or None)
    cost = {
        "seconds": seconds_to_best,
        "host": lambda row: _memory(row, "host"),
        "device": lambda row: _memory(row, "device"),
        "energy": _energy,
    }[kind](row)
    return Value(words.amount(cost), key=cost)


def _metric(row: Row, metric: str) -> Value:
    cell = row.cells[metric]
    hint = "" if cell.low is None else f"95 % interval {words.metric(cell.low)} to {words.metric(cell.high)} over users"
    return Value(
        words.metric(cell.mean),
        _plus_minus(cell.deviation) or "one seed",
        hint,
        cell.mean,
        cell.best,
        cell.second,
        cell.tied,
    )


def _difference(row: Row, other: str, against: dict[str, Comparison], group: Group, metric: str) -> Value:
    if row.label == other:
        return Value(words.NONE, key=0.0)
    found = against.get(row.label)
    if found is None:
        means = {other.label: other.cells[metric.lower()].mean for other in group.rows}
        apart = means[row.label] - means[other]
        return Value(words.difference(apart), "not tested", key=apart)
    hint = f"against {other} in {metric}; Wilcoxon, Holm-corrected: {words.p_value(found.wilcoxon_holm)}"
    return Value(words.difference(found.difference), words.p_value(found.t_holm), hint, found.difference)


_WIDTH = 104.0


def _bars(group: Group, metric: str) -> dict[str, Value]:
    """The intervals of the ranking metric on one scale, as wide as all of them together."""
    cells = {row.label: row.cells[metric] for row in group.rows if row.cells[metric].low is not None}
    if not cells:
        return {}
    low = min(cell.low for cell in cells.values() if cell.low is not None)
    high = max(cell.high for cell in cells.values() if cell.high is not None)
    scale = (_WIDTH - 8) / ((high - low) or 1.0)

    def place(value: float) -> float:
        return round(4 + (value - low) * scale, 1)

    return {
        label: Value(
            f"{words.metric(cell.low)} to {words.metric(cell.high)}",
            key=cell.low,
            bar=(place(cell.low), place(cell.mean), place(cell.high)),
        )
        for label, cell in cells.items()
        if cell.low is not None and cell.high is not None
    }


def _published(group: Group, metrics: Sequence[str]) -> list[PublishedLine]:
    lines = []
    wanted = [metric.lower() for metric in metrics]
    for entry in group.published:
        values = {key.lower(): value for key, value in entry.metrics.items()}
        others = ", ".join(
            f"{key} {words.metric(value)}" for key, value in entry.metrics.items() if key.lower() not in wanted
        )
        cells = [words.metric(values.get(metric)) for metric in wanted]
        lines.append(PublishedLine(entry.model, entry.source, entry.protocol, cells, others))
    return lines


def _selected(group: Group, metrics: Sequence[str]) -> list[SelectedLine]:
    if group.protocol != "paper":
        return []
    lines = []
    for row in group.rows:
        chosen = shared_words.chosen_on_test(row)
        if not chosen:
            continue
        cells = [_selected_value(shared_words.over_chosen(chosen, metric)) for metric in metrics]
        epochs = ", ".join(str(entry.epoch) for entry in chosen)
        criterion = " and ".join(dict.fromkeys(entry.selected_on for entry in chosen))
        lines.append(SelectedLine(row.label, cells, epochs, criterion))
    return lines


def _selected_value(cell: Cell | None) -> Value:
    if cell is None:
        return Value(words.NONE)
    deviation = "one seed" if cell.deviation is None else _plus_minus(cell.deviation)
    return Value(words.metric(cell.mean), deviation, key=cell.mean)
