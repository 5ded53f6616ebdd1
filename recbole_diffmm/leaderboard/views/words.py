"""The words of a board that all of its views share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from recbole_diffmm.leaderboard.board import Cell, Group, Row, Tests, over_seeds
from recbole_diffmm.leaderboard.statistics import LEVEL, POWER
from recbole_diffmm.record import MASKED, Code, TestSelected, candidates

TIED = "°"
UNTUNED = "not tuned: "  # how the words of a row begin that says why it is not tuned

_MARKS = "Mean ± standard deviation over seeds. Bold: best; underlined: second"


def legend(group: Group) -> str:
    """Return what the marks of a table mean: where nothing was tested, a missing sign of a tie says nothing."""
    if not group.tests:
        return f"{_MARKS}."
    return (
        f"{_MARKS}; {TIED}: not distinguishable from the best (paired t-test over users on averages over seeds, "
        f"Holm-corrected, {LEVEL:g})."
    )


def masked(group: Group) -> str:
    """Return whose items a table leaves out of its lists, in words."""
    return MASKED[group.masking]


def facts(group: Group) -> list[tuple[str, str]]:
    """Return what a table must say to be read rightly, as pairs of name and value."""
    found = [
        ("dataset", group.dataset),
        ("users, items, interactions", f"{group.n_users:,}, {group.n_items:,}, {group.n_inter:,}"),
        ("split", group.split),
        ("modalities", modalities(group)),
        ("protocol", group.protocol),
        ("epoch selected by", group.selection),
        ("masked at test", masked(group)),
        *([("ranked among", among)] if (among := candidates(group.rows[0].records[0].config)) else []),
        ("seeds", group.seeds),
    ]
    if group.n_tested is not None:
        found.append(("users tested", f"{group.n_tested:,}"))
    for metric, tests in list(group.tests.items())[:1]:
        if tests.smallest is not None:
            found.append(
                (
                    "smallest difference that shows",
                    f"{tests.smallest:.4f} in {metric} (with power {POWER:g} at level {LEVEL:g}, uncorrected)",
                )
            )
    return found


def modalities(group: Group) -> str:
    """Return which modalities the rows of a table read, once where all read the same."""
    kinds: dict[str, list[str]] = {}
    for row in group.rows:
        kinds.setdefault(", ".join(row.modalities) or "none", []).append(row.label)
    if len(kinds) == 1:
        return next(iter(kinds))
    # Those without are the others.
    told = [f"{', '.join(labels)}: {kind}" for kind, labels in kinds.items() if kind != "none"]
    return "; ".join([*told, *(["the others: none"] if "none" in kinds else [])])


def tuning(group: Group) -> str:
    """Return how the rows of a table were tuned, what all have in common once; empty where none says."""
    searched = [row for row in group.rows if not row.tuned.startswith(UNTUNED)]
    tails = {tail for row in searched if (tail := row.tuned.partition(", ")[2])}
    if len(tails) > 1:
        return _told("Tuning", ((row.label, row.tuned) for row in group.rows))
    budgets = {row.label: (row.tuned, "", "") for row in group.rows}
    budgets |= {row.label: row.tuned.partition(", ")[0].partition(" in ") for row in searched}
    took: dict[str, list[str]] = {}
    for trials, _, minutes in budgets.values():
        took.setdefault(trials, []).append(minutes)
    common = f" ({next(iter(tails))})" if tails else ""
    return _told(f"Tuning{common}", ((label, trials + _span(took[trials])) for label, (trials, *_) in budgets.items()))


def _span(minutes: Sequence[str]) -> str:
    """The shortest and the longest of times in the words of `tuning_words`: "under a minute", "9 minutes"."""
    ordered = sorted(minutes, key=lambda told: int(re.sub(r"\D", "", told) or 0))
    if not ordered[-1]:
        return ""
    return f" in {' to '.join(dict.fromkeys((ordered[0], ordered[-1])))}"


def _told(head: str, kinds_by_label: Iterable[tuple[str, str]]) -> str:
    """Each kind with the rows that are of it, the one that most rows are of last, as that of the others."""
    rows: dict[str, list[str]] = {}
    for label, kind in kinds_by_label:
        if kind:
            rows.setdefault(kind, []).append(label)
    most = max(rows, key=lambda kind: len(rows[kind]), default="")
    told = {", ".join(labels): kind for kind, labels in rows.items()}
    if len(rows) > 1 and len(rows[most]) > 2:
        told = {names: kind for names, kind in told.items() if kind != most} | {"the others": most}
    parts = "; ".join(f"{names}: {kind}" for names, kind in told.items())
    return f"{head}: {parts}" if parts else ""


def doubted(tests: Tests) -> list[str]:
    """Return the rows that the two tests of a metric judge differently against the best."""
    return [
        label for label, found in tests.against_best.items() if (found.t_holm < LEVEL) != (found.wilcoxon_holm < LEVEL)
    ]


def disagreement(group: Group) -> str:
    """Return the rows of :func:`doubted` for every metric of a table; empty without any."""
    by_metric = {metric: doubted(tests) for metric, tests in group.tests.items()}
    told = "; ".join(f"{', '.join(labels)} in {metric}" for metric, labels in by_metric.items() if labels)
    # The marks say which way: a row without one is told from the best by the t-test alone.
    return (
        f"t-test and Wilcoxon's, Holm-corrected, disagree over whether users tell the best from {told}" if told else ""
    )


def reference(group: Group) -> str:
    """Return which rows cannot be told from the board's reference by the first metric; empty without one."""
    for metric, tests in list(group.tests.items())[:1]:
        if not tests.reference or tests.reference == tests.best:
            return ""
        alike = [label for label, found in tests.against_reference.items() if not found.distinguishable]
        return f"not distinguishable from {tests.reference} in {metric}: {', '.join(alike) or 'no other row'}"
    return ""


def remarks(group: Group) -> list[str]:
    """Return what stands below a table besides its legend: tuning, where tests disagree, the reference, epochs."""
    return [told for told in (tuning(group), disagreement(group), reference(group), training(group)) if told]


def training(group: Group) -> str:
    """Return how long the rows of a table trained at most, and which of their runs were still getting better then."""
    configs = [(row.label, row.records[0].config) for row in group.rows]
    # The paper's protocol knows no early stopping, nor does a run without validation.
    all_run = group.protocol == "paper" or not group.selection.startswith("validation ")
    kinds = [
        (
            label,
            f"{config.get('epochs')} epochs, all run"
            if all_run
            else f"at most {config.get('epochs')} epochs, patience {config.get('stopping_step')}",
        )
        for label, config in configs
    ]
    alike = {kind for _, kind in kinds}
    told = f"Training: {alike.pop()}" if len(alike) == 1 else _told("Training", kinds)
    cut = [] if all_run else [(row.label, n, len(row.records)) for row in group.rows if (n := _cut_short(row))]
    if cut:
        told += f"; best in the last epoch allowed: {', '.join(f'{label} ({n} of {of} runs)' for label, n, of in cut)}"
    return told


def _cut_short(row: Row) -> int:
    """How many runs of a row were at their best in the last of several epochs that they were allowed."""
    allowed = [(record.best_epoch, record.config.get("epochs") or 0) for record in row.records]
    return sum(most > 1 and best == most - 1 for best, most in allowed)


def notes(group: Group) -> list[tuple[str, str]]:
    """Return what a reader must know of rows: their labels, and what holds for all of them."""
    labels: dict[str, list[str]] = {}
    for row in group.rows:
        for note in row.notes:
            labels.setdefault(note, []).append(row.label)
    return [(", ".join(of), note) for note, of in labels.items()]


def number(cell: Cell) -> str:
    """Return a cell as `0.1010 ± 0.0014`, without deviation where there is one seed."""
    return f"{cell.mean:.4f}" + (f" ± {cell.deviation:.4f}" if cell.deviation is not None else "")


def epochs(row: Row) -> str:
    """Return the selected epochs of a row's runs, once where they are the same."""
    values = ["-" if record.best_epoch is None else str(record.best_epoch) for record in row.records]
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def seconds(row: Row) -> str:
    """Return the seconds to the selected epoch, a mean over seeds."""
    value = row.mean(lambda record: record.seconds.get("to_best_epoch"))
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def memory(row: Row) -> str:
    """Return the peak memory of the process, and of the device where there is one, in MiB."""
    host = row.mean(lambda record: record.peak_memory_mb.get("host"))
    device = row.mean(lambda record: record.peak_memory_mb.get("device"))
    parts = ["-" if host is None else f"{host:.0f}"] + ([] if device is None else [f"{device:.0f} on the device"])
    return ", ".join(parts)


def machines(group: Group) -> str:
    """Return what the runs of a table ran on, in words."""
    devices = dict.fromkeys(
        f"{record.device}, {record.threads} thread{'s' if record.threads > 1 else ''}"
        for row in group.rows
        for record in row.records
    )
    commits = dict.fromkeys(
        (record.code.commit or "installed package")[:9] + (" and changes" if record.code.dirty else "")
        for row in group.rows
        for record in row.records
    )
    versions = {json.dumps(record.versions, sort_keys=True) for row in group.rows for record in row.records}
    apart = "; with different versions of packages" if len(versions) > 1 else ""
    return f"{'; '.join(devices)}; code: {', '.join(commits)}{apart}{_confirmed(group)}"


def _confirmed(group: Group) -> str:
    """Which of the runs were confirmed by code that came later."""
    everything = [entry for row in group.rows for entry in row.confirmed.values()]
    n_runs = sum(len(row.records) for row in group.rows)
    words = ""
    for with_earlier in (False, True):
        found = [entry for entry in everything if (entry.against is not None) == with_earlier]
        if not found:
            continue
        epochs = max(entry.epochs for entry in found)
        which = "all runs" if len(found) == n_runs else f"{len(found)} of the {n_runs} runs"
        by = _commits([entry.code for entry in found])
        if with_earlier:
            by += f" and by {_commits([entry.against for entry in found if entry.against])}, both on one machine"
        words += (
            f"; the first epochs (up to {epochs}) of {which} were trained again by {by}, the same to the last digit"
        )
    return words


def _commits(codes: Sequence[Code]) -> str:
    return ", ".join(dict.fromkeys((code.commit or "installed package")[:9] for code in codes))


def test_selected(group: Group, metrics: Sequence[str]) -> list[list[str]]:
    """Return rows of label and cells of the epochs that are best on test, as ``protocol: paper`` notes them."""
    rows = []
    for row in group.rows:
        chosen = chosen_on_test(row)
        if chosen:
            cells = [over_chosen(chosen, metric) for metric in metrics]
            rows.append([row.label, *("-" if cell is None else number(cell) for cell in cells)])
    return rows


def chosen_on_test(row: Row) -> list[TestSelected]:
    """Return the epochs that are best on test, one a run; none unless every run has one."""
    found = [record.metrics.test_selected for record in row.records]
    return [entry for entry in found if entry is not None] if all(found) else []


def over_chosen(chosen: Sequence[TestSelected], metric: str) -> Cell | None:
    """Return a metric over the epochs of :func:`chosen_on_test`; None unless all have it."""
    values = [entry.metrics.get(metric.lower()) for entry in chosen]
    known = [value for value in values if value is not None]
    return over_seeds(known) if known and len(known) == len(values) else None
