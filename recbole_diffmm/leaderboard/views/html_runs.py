"""What a page tells of single runs: a table's rows opened, and what several of them share told once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_diffmm.leaderboard.board import Group, Row
from recbole_diffmm.leaderboard.statistics import Comparison
from recbole_diffmm.leaderboard.views import html_words as words
from recbole_diffmm.record import Record

# Keys of facts are a section and a name with this between; no section has it in its own name.
_OF = " / "
_TESTS = ["Metric", "Mean", "Deviation", "95 % interval", "To best", "t, Holm", "Wilcoxon, Holm"]


@dataclass(frozen=True)
class Runs:
    """The runs of a table.

    Attributes:
        shared: Settings that all of them have.
        content: Everything else, as JSON has it: per row and run, without what all have.
        losses: By row and run, the losses by epoch.
    """

    shared: dict[str, Any]
    content: dict[str, Any]
    losses: list[list[dict[str, list[float | None]]]]


def runs(group: Group, metrics: Sequence[str]) -> Runs:
    """Return what a table's rows open to.

    Args:
        group: The rows.
        metrics: The board's.
    """
    configs = [[record.config for record in row.records] for row in group.rows]
    facts = [[_facts(record) for record in row.records] for row in group.rows]
    shared_config = common(config for of_row in configs for config in of_row)
    shared_facts = common(fact for of_row in facts for fact in of_row)
    rows = []
    for row, of_row, told in zip(group.rows, configs, facts, strict=True):
        config, fact = common(of_row), common(told)
        rows.append(
            {
                "label": row.label,
                "notes": row.notes,
                "missing": row.missing,
                "tests": _tests(group, row, metrics),
                "config": without(config, shared_config),
                "facts": without(fact, shared_facts),
                "runs": [
                    {
                        "seed": record.seed,
                        "config": without(own_config, config),
                        "facts": without(own_fact, fact),
                        "warnings": record.warnings,
                    }
                    for record, own_config, own_fact in zip(row.records, of_row, told, strict=True)
                ],
            }
        )
    losses = [[_losses(record) for record in row.records] for row in group.rows]
    header = [*_TESTS, *(_against_reference(group) or [])]
    keys = list(dict.fromkeys(key for of_row in facts for fact in of_row for key in fact))
    content = {"keys": keys, "config": shared_config, "facts": shared_facts, "tests": header, "rows": rows}
    return Runs(shared_config, content, losses)


def common(mappings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all mappings say alike."""
    found: dict[str, Any] | None = None
    for mapping in mappings:
        if found is None:
            found = dict(mapping)
            continue
        # Most are alike: what differs is rare, and only that is taken out.
        for key in [key for key, value in found.items() if key not in mapping or not _same(mapping[key], value)]:
            del found[key]
    return found or {}


def _same(a: Any, b: Any) -> bool:
    return a == b and type(a) is type(b)  # 1, 1.0 and true are different settings


def without(mapping: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a mapping says besides what is shared."""
    return {key: value for key, value in mapping.items() if key not in shared}


def _facts(record: Record) -> dict[str, Any]:
    """All that a record tells of its run besides its settings and curves, by section and name."""
    metrics, seconds = record.metrics, record.seconds
    facts: dict[str, Any] = {}

    def tell(section: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            facts[f"{section}{_OF}{name}"] = round(value, 6) if isinstance(value, float) else value

    tell("Test metrics", metrics.test or {})
    tell("Validation metrics, selected epoch", metrics.valid or {})
    if metrics.test_selected is not None:
        chosen = metrics.test_selected
        tell(
            "Test-selected, no fair estimate",
            {"selected by": chosen.selected_on, "epoch": chosen.epoch, **chosen.metrics},
        )
    tell("Training", {"selected epoch": record.best_epoch, "epochs": record.epochs_run})
    tell("Training", {"finished": record.finished.replace("T", " ").replace("+00:00", " UTC")})
    per_epoch = seconds.get("per_epoch") or {}
    tell("Seconds", {name.replace("_", " "): value for name, value in seconds.items() if name != "per_epoch"})
    tell("Seconds an epoch, median", per_epoch)
    memory = {f"{name} MiB": value for name, value in record.peak_memory_mb.items()}
    tell("Peak memory and energy", {**memory, **record.energy})
    tell("Machine", {"device": record.device, "threads": record.threads, "precision": record.precision})
    tell("Beyond accuracy", record.beyond_accuracy)
    for modality, shares in record.coverage_by_modality.items():
        for which, values in shares.items():
            tell("Coverage of items", {f"{modality} {which}: {name}": value for name, value in values.items()})
    code = record.code
    changed = {None: "not known", True: "yes", False: "no"}[code.dirty]
    tell("Code", {"commit": code.commit or "installed", "uncommitted changes": changed, "hash": code.hash})
    tell("Versions", record.versions)
    data = record.data
    tell("Data", {"interactions": data.hash, "split": data.split_hash})
    for name, feature in data.features.items():
        tell("Data", {f"features {name}": feature.hash, f"features {name}, coverage": feature.coverage})
    tell("Data", {f"file {name}": digest for name, digest in data.files.items()})
    facts[f"Record{_OF}name"] = record.name
    return facts


def _against_reference(group: Group) -> list[str] | None:
    """Headers of the tests against the named row, unless it is the best one anyway."""
    reference = next((tests.reference for tests in group.tests.values()), "")
    needed = any(tests.reference and tests.reference != tests.best for tests in group.tests.values())
    return [f"To {reference}", "t, Holm"] if needed else None


def _tests(group: Group, row: Row, metrics: Sequence[str]) -> list[list[str]]:
    """One line a metric: the mean, how sure it is, and the tests."""
    lines = []
    for metric in metrics:
        cell, tests = row.cells[metric.lower()], group.tests.get(metric.lower())
        interval = words.NONE if cell.low is None else f"{words.metric(cell.low)} to {words.metric(cell.high)}"
        best = tests.against_best.get(row.label) if tests else None
        line = [metric, words.metric(cell.mean), words.metric(cell.deviation), interval, *_compared(best)]
        if _against_reference(group):
            line += _compared(tests.against_reference.get(row.label) if tests else None)[:2]
        lines.append(line)
    return lines


def _compared(found: Comparison | None) -> list[str]:
    if found is None:
        return [words.NONE] * 3
    return [words.difference(found.difference), words.p_value(found.t_holm), words.p_value(found.wilcoxon_holm)]


def _losses(record: Record) -> dict[str, list[float | None]]:
    """Every loss by epoch, to six digits of its largest value."""
    found: dict[str, list[float | None]] = {}
    for index, entry in enumerate(record.curve):
        for name, value in (entry.get("losses") or {}).items():
            # A loss that begins later has nothing before.
            values = found.setdefault(name, [])
            values += [None] * (index - len(values))
            values.append(value)
    return {name: _short(values) for name, values in found.items()}


def _short(values: list[float | None]) -> list[float | None]:
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    digits = 5 - math.floor(math.log10(largest)) if largest else 0
    return [None if value is None else round(value, digits) for value in values]
