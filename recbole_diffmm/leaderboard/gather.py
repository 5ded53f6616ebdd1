"""A board from its records: which runs make a row, and which rows may stand in one table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard import confirmed, plan
from recbole_diffmm.leaderboard.board import Board, Cell, Group, Row, over_seeds
from recbole_diffmm.leaderboard.manifest import Manifest
from recbole_diffmm.leaderboard.manifest import Row as ManifestRow
from recbole_diffmm.leaderboard.marks import bound, mark, run_tests
from recbole_diffmm.leaderboard.per_user import means_per_user
from recbole_diffmm.record import NOT_IN_NAME, Record, candidates, load, read_json


def gather(folder: Path, manifest: Manifest, data_path: Path = Path("dataset")) -> Board:
    """Read a board's records and return it.

    Args:
        folder: Where its records lie.
        manifest: Its rows.
        data_path: Where datasets lie; those at hand are held against what records were made of.

    Raises:
        UserError: A record cannot be read, or lacks a word that a table needs.
    """
    groups: list[tuple[tuple[str, ...], dict[int, str], list[Row]]] = []
    empty: list[tuple[str, str, str]] = []
    confirmations = confirmed.read(folder)
    for entry in manifest.rows:
        row = _row(folder, entry, data_path, confirmations)
        if not row.records:
            unrun = "no run yet" if entry.runs else entry.tuned or "not tuned yet"
            why = "; ".join(dict.fromkeys(row.failures)) or unrun
            empty.append((row.label, entry.dataset, why))
            continue
        key, splits = _key(row), _splits(row)
        for other, theirs, rows in groups:
            if other == key and _same_splits(splits, theirs):
                rows.append(row)
                theirs.update(splits)
                break
        else:
            groups.append((key, splits, [row]))
    tables = [_group(folder, key, splits, rows, manifest) for key, splits, rows in groups]
    return Board(manifest.name, manifest.title, manifest.about, manifest.metrics, tables, empty)


def _row(folder: Path, entry: ManifestRow, data_path: Path, confirmations: Mapping[str, confirmed.Confirmation]) -> Row:
    records: list[Record] = []
    missing, failures = [], []
    for run in entry.runs:
        path = folder / f"{run.name}.json"
        if path.is_file():
            record = load(path)
            if (record.model, record.dataset) != (entry.model, entry.dataset):
                raise UserError(
                    f"row {entry.label} is of {entry.model} on {entry.dataset}, and {path} is of {record.model} on "
                    f"{record.dataset}; move it away and run the board again"
                )
            records.append(record)
            continue
        missing.append(run.name)
        failure = folder / f"{run.name}.failure.json"
        if failure.is_file():
            failures.append(_reason(failure))
    changes = [change for record in records for change in plan.changed(record, data_path, confirmations)]
    notes = [f"stale: {change} since" for change in dict.fromkeys(changes)]
    same = {r.name: confirmations[r.name] for r in records if confirmed.holds(r, confirmations)}
    if len({same[record.name].code.hash if record.name in same else record.code.hash for record in records}) > 1:
        notes.append("its runs were made by different code")
    if any(record.code.dirty for record in records):
        notes.append("made by code that was not committed")
    if missing:
        notes.append(f"{len(missing)} of {len(entry.runs)} runs are missing" + (f": {failures[0]}" if failures else ""))
    if len({json.dumps(record.versions, sort_keys=True) for record in records}) > 1:
        notes.append("its runs were made with different versions of packages")
    modalities = tuple(records[0].modalities) if records else ()
    return Row(entry.label, entry.model, modalities, entry.tuned, records, missing, failures, notes, confirmed=same)


def _reason(failure: Path) -> str:
    try:
        content = read_json(failure)
    except (OSError, ValueError):
        content = None
    return str(content.get("reason", "unknown")) if isinstance(content, dict) else "unknown"


def _key(row: Row) -> tuple[str, ...]:
    """What a table must share; a row whose own runs do not share it is refused."""
    keys = {
        (r.dataset, r.data.hash, r.protocol, r.masking, r.selection, candidates(r.config) or "all items")
        for r in row.records
    }
    if len(keys) > 1:
        raise UserError(
            f"row {row.label}: its runs differ in dataset, protocol, masking or selection; run the older ones again "
            "with --rerun_stale"
        )
    first = row.records[0]
    for record in row.records[1:]:
        differing = [
            *(["modalities"] if record.modalities != first.modalities else []),
            *(["features"] if _features(record) != _features(first) else []),
            *(key for key in sorted(record.config.keys() | first.config.keys()) if _set_apart(key, record, first)),
        ]
        if differing:
            raise UserError(
                f"row {row.label}: its runs {first.name} and {record.name} differ in {differing[0]}; runs of one row "
                "differ in their seeds alone"
            )
    return keys.pop()


def _features(record: Record) -> dict[str, str]:
    """The fingerprints of the features that a run used, by modality."""
    return {name: record.data.features[name].hash for name in record.modalities if name in record.data.features}


def _set_apart(key: str, a: Record, b: Record) -> bool:
    return key != "seed" and key not in NOT_IN_NAME and a.config.get(key) != b.config.get(key)


def _splits(row: Row) -> dict[int, str]:
    return {record.seed: record.data.split_hash for record in row.records}


def _same_splits(a: Mapping[int, str], b: Mapping[int, str]) -> bool:
    """Whether two rows were split alike: the same for every seed that both have, and for at least one."""
    return all(b.get(seed, digest) == digest for seed, digest in a.items()) and not set(a.values()).isdisjoint(
        b.values()
    )


def _group(folder: Path, key: tuple[str, ...], splits: dict[int, str], rows: list[Row], manifest: Manifest) -> Group:
    dataset, _, protocol, masking, selection, _ = key
    if not all((*key, *splits.values())):
        raise UserError(f"a table needs dataset, split hash, protocol, masking and selection, got {key}")
    metrics = [metric.lower() for metric in manifest.metrics]
    features: dict[str, tuple[str, str]] = {}
    for row in rows:
        for name, digest in _features(row.records[0]).items():
            other, theirs = features.setdefault(name, (row.label, digest))
            if theirs != digest:
                raise UserError(
                    f"rows {other} and {row.label} read different features of the modality {name}; run the older one "
                    "again with --rerun_stale"
                )
    for row in rows:
        row.cells = {metric: _cell(row, metric) for metric in metrics}
    rows = sorted(rows, key=lambda row: -row.cells[metrics[0]].mean)
    values, n_tested = means_per_user(folder, rows, metrics)
    first = rows[0].records[0].data
    group = Group(
        dataset=dataset,
        splits=splits,
        protocol=protocol,
        masking=masking,
        selection=selection,
        modalities=tuple(dict.fromkeys(name for row in rows for name in row.modalities)),
        seeds=_seeds(rows),
        n_users=first.n_users,
        n_items=first.n_items,
        n_inter=first.n_inter,
        n_tested=n_tested,
        rows=rows,
        published=tuple(entry for entry in manifest.published if entry.dataset == dataset),
    )
    labels = [row.label for row in rows]
    if len(set(splits.values())) == 1:  # where each seed has a split of its own, tuning had another one anyway
        (split,) = set(splits.values())
        for row in rows:
            found = re.search(r" of split ([0-9a-f]{12})", row.tuned)
            if found and not split.startswith(found[1]):
                row.notes.append(f"tuned on another split, {found[1]}")
    for metric in metrics:
        of_metric = values.get(metric, {})
        if of_metric:
            bound(rows, metric, of_metric)
        reference = manifest.reference if manifest.reference in labels else ""
        tests = run_tests(rows, metric, of_metric, reference, with_pairs=metric == metrics[0])
        if tests is not None:
            group.tests[metric] = tests
        mark(rows, metric, tests)
    return group


def _cell(row: Row, metric: str) -> Cell:
    values = []
    for record in row.records:
        value = (record.metrics.test or {}).get(metric)
        if value is None:
            known = ", ".join(record.metrics.test or {})
            raise UserError(f"row {row.label} has no {metric} in {record.name}, only {known}; name others in the board")
        values.append(value)
    return over_seeds(values)


def _seeds(rows: Sequence[Row]) -> str:
    kinds = dict.fromkeys(", ".join(map(str, row.seeds)) for row in rows)
    if len(kinds) == 1:
        return next(iter(kinds))
    return "; ".join(f"{row.label}: {', '.join(map(str, row.seeds))}" for row in rows)
