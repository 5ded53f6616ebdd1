"""A board from its records: rows that may stand in one table, their means, tests, slices and costs."""

from __future__ import annotations

import hashlib
import io
import json
import re
import statistics as plain_statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard import plan
from recbole_diffmm.leaderboard.manifest import Manifest
from recbole_diffmm.leaderboard.manifest import Row as ManifestRow
from recbole_diffmm.leaderboard.spec import Published
from recbole_diffmm.leaderboard.statistics import Comparison, compare, intervals, smallest_difference
from recbole_diffmm.record import NOT_IN_NAME, Record, load

MATRIX_ROWS = 30


@dataclass(frozen=True)
class Cell:
    """A metric of a row.

    Attributes:
        mean: Over seeds.
        deviation: Standard deviation over seeds; None with one seed.
        low: Lower end of the 95 % bootstrap interval over users; None without per-user values.
        high: Its upper end.
        best: Whether it is the group's best.
        second: Whether it is the second best.
        tied: Whether the tests do not tell it from the best.
    """

    mean: float
    deviation: float | None
    low: float | None = None
    high: float | None = None
    best: bool = False
    second: bool = False
    tied: bool = False


@dataclass
class Row:
    """One model as set, over its seeds.

    Attributes:
        label: The row's name.
        model: The model's.
        modalities: Which it used, none for models that know none.
        tuned: How it was tuned, in words.
        records: Its runs that are done.
        missing: Names of its runs that have no record.
        failures: Reasons of runs that failed.
        notes: What a reader must know, such as that the code has changed since.
        cells: By metric, such as ``recall@20``.
    """

    label: str
    model: str
    modalities: tuple[str, ...]
    tuned: str
    records: list[Record]
    missing: list[str]
    failures: list[str]
    notes: list[str]
    cells: dict[str, Cell] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """The seeds of its records."""
        return [record.seed for record in self.records]

    def mean(self, value: Any) -> float | None:
        """Mean over its records of what `value` takes from each; None where a record has none."""
        values = [value(record) for record in self.records]
        return None if not values or any(x is None for x in values) else plain_statistics.fmean(values)

    def groups(self, kind: str, metric: str) -> dict[str, float]:
        """Mean over its records of a metric for every group of a slice.

        Args:
            kind: ``users_by_history`` or ``items_by_popularity``.
            metric: Such as ``recall@20``.
        """
        parts = [part for record in self.records for part in getattr(record.slices, kind, ())]
        return _means((part.group, part.metrics.get(metric)) for part in parts)

    def without(self, metric: str) -> dict[str, float]:
        """Mean over its records of a metric when they score without each modality."""
        parts = [record.slices.without_modality for record in self.records if record.slices]
        return _means((name, metrics.get(metric)) for part in parts for name, metrics in part.items())


def _means(values: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """Means by name, in the order in which names first come."""
    found: dict[str, list[float]] = {}
    for name, value in values:
        if value is not None:
            found.setdefault(name, []).append(value)
    return {name: plain_statistics.fmean(of_name) for name, of_name in found.items()}


def over_seeds(values: Sequence[float]) -> Cell:
    """The mean and standard deviation of one value a seed."""
    deviation = plain_statistics.stdev(values) if len(values) > 1 else None
    return Cell(plain_statistics.fmean(values), deviation)


@dataclass(frozen=True)
class Tests:
    """The tests of one metric.

    Attributes:
        best: The row with the best mean.
        against_best: Every other row against it.
        reference: The named row.
        against_reference: Every other row against it.
        pairs: Every pair of the best :data:`MATRIX_ROWS` rows, by the first metric alone.
        smallest: The smallest difference that so many users show.
    """

    best: str
    against_best: dict[str, Comparison]
    reference: str
    against_reference: dict[str, Comparison]
    pairs: dict[tuple[str, str], Comparison]
    smallest: float | None


@dataclass
class Group:
    """Rows that may stand in one table: same data, split, protocol, masking and selection.

    Attributes:
        dataset: The dataset's name.
        splits: Fingerprint of the split of each seed: one for all, or, where RecBole splits at random by the seed, one
            each, the same for every row.
        protocol: ``recbole`` or ``paper``.
        masking: Whose items are not ranked at test.
        selection: What chose the epoch.
        modalities: What any of its rows uses.
        seeds: In words.
        n_tested: Users in the means; None without per-user values.
        rows: Best first by the first metric.
        tests: By metric; none with one row, or where rows have other users.
        published: Rows of published tables.
    """

    dataset: str
    splits: dict[int, str]
    protocol: str
    masking: str
    selection: str
    modalities: tuple[str, ...]
    seeds: str
    n_users: int
    n_items: int
    n_inter: int
    n_tested: int | None
    rows: list[Row]
    tests: dict[str, Tests] = field(default_factory=dict)
    published: tuple[Published, ...] = ()

    @property
    def split(self) -> str:
        """The split in words: the beginning of its fingerprint, or of each seed's."""
        if len(set(self.splits.values())) == 1:
            return next(iter(self.splits.values()))[:12]
        return "one per seed: " + ", ".join(f"{digest[:12]} ({seed})" for seed, digest in sorted(self.splits.items()))

    @property
    def split_hash(self) -> str:
        """The whole fingerprint, or those of all seeds."""
        return " ".join(dict.fromkeys(digest for _, digest in sorted(self.splits.items())))


@dataclass(frozen=True)
class Board:
    """All of a board.

    Attributes:
        name: Of its folder.
        title: What stands above it.
        about: What a reader should know of the data.
        metrics: Its columns, such as ``Recall@20``; the first one ranks.
        groups: Its tables.
        empty: Rows without any record yet, with the reason where they failed.
    """

    name: str
    title: str
    about: str
    metrics: tuple[str, ...]
    groups: list[Group]
    empty: list[tuple[str, str, str]]


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
    for entry in manifest.rows:
        row = _row(folder, entry, data_path)
        if not row.records:
            why = "; ".join(dict.fromkeys(row.failures)) or "no run yet"
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


def _row(folder: Path, entry: ManifestRow, data_path: Path) -> Row:
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
            failures.append(str(json.loads(failure.read_text(encoding="utf-8")).get("reason", "unknown")))
    notes = list(dict.fromkeys(change for record in records for change in plan.changed(record, data_path)))
    notes = [f"stale: {note} since" for note in notes]
    if len({record.code.hash for record in records}) > 1:
        notes.append("its runs were made by different code")
    if any(record.code.dirty for record in records):
        notes.append("made by code that was not committed")
    if missing:
        notes.append(f"{len(missing)} of {len(entry.runs)} runs are missing" + (f": {failures[0]}" if failures else ""))
    if len({json.dumps(record.versions, sort_keys=True) for record in records}) > 1:
        notes.append("its runs were made with different versions of packages")
    modalities = tuple(records[0].modalities) if records else ()
    return Row(entry.label, entry.model, modalities, entry.tuned, records, missing, failures, notes)


def _key(row: Row) -> tuple[str, ...]:
    """What a table must share; a row whose own runs do not share it is refused."""
    keys = {(r.dataset, r.data.hash, r.protocol, r.masking, r.selection) for r in row.records}
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
    dataset, _, protocol, masking, selection = key
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
    values, n_tested = _per_user(folder, rows, metrics)
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
            _bounds(rows, metric, of_metric)
        reference = manifest.reference if manifest.reference in labels else ""
        tests = _tests(rows, metric, of_metric, reference, with_pairs=metric == metrics[0])
        if tests is not None:
            group.tests[metric] = tests
        _mark(rows, metric, tests)
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


def _per_user(
    folder: Path, rows: Sequence[Row], metrics: Sequence[str]
) -> tuple[dict[str, dict[str, np.ndarray]], int | None]:
    """By metric and row one value a user, averaged over seeds; nothing where rows do not have the same users."""
    files = [[record.per_user for record in row.records] for row in rows]
    if any(file is None for of_row in files for file in of_row):
        return {}, None
    hashes = {file.users_hash for of_row in files for file in of_row if file is not None}
    if len(hashes) != 1:
        return {}, None
    values: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in metrics}
    n_users = None
    for row in rows:
        sums: dict[str, np.ndarray] = {}
        for record in row.records:
            assert record.per_user is not None
            n_users = record.per_user.n_users
            file = folder / record.per_user.file
            for metric, of_run in read_per_user(file, metrics, record.per_user.hash).items():
                sums[metric] = sums.get(metric, 0.0) + of_run
        for metric, total in sums.items():
            values[metric][row.label] = total / len(row.records)
    complete = {metric: found for metric, found in values.items() if len(found) == len(rows)}
    return complete, n_users


def read_per_user(path: Path, metrics: Sequence[str], digest: str) -> dict[str, np.ndarray]:
    """Return one value a user of those `metrics` that a record's per-user file has; none without pyarrow.

    Args:
        path: The file.
        metrics: Names as its columns have them.
        digest: Its SHA-256, as the record says.

    Raises:
        UserError: The file is missing, broken or not the one that the run wrote.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        return {}
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(f"per-user values {path} were edited since the run wrote them; put them back or run again")
        file = pq.ParquetFile(io.BytesIO(content))
        names = [metric for metric in metrics if metric in file.schema_arrow.names]
        table = file.read(columns=names, use_threads=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"per-user values {path} cannot be read ({reason}); delete the record and run again") from None
    return {name: table.column(name).to_numpy() for name in names}


def _bounds(rows: Sequence[Row], metric: str, values: Mapping[str, np.ndarray]) -> None:
    ends = intervals(np.stack([values[row.label] for row in rows]))
    for row, (low, high) in zip(rows, ends.tolist(), strict=True):
        row.cells[metric] = Cell(row.cells[metric].mean, row.cells[metric].deviation, low, high)


def _tests(
    rows: Sequence[Row], metric: str, values: Mapping[str, np.ndarray], reference: str, with_pairs: bool
) -> Tests | None:
    labels = [row.label for row in rows]
    if len(labels) < 2 or not values:
        return None
    # By what stands in the table, not by the per-user means that it was rounded from: one row is the best one.
    best = max(rows, key=lambda row: row.cells[metric].mean).label
    # Rows are sorted: these are the best ones. Nobody reads a matrix of more, and its tests grow with the square.
    every = list(combinations(labels[:MATRIX_ROWS], 2)) if with_pairs else []

    def against(label: str) -> dict[str, Comparison]:
        others = [other for other in labels if other != label]
        found = compare(values, [(other, label) for other in others])
        return {other: found[other, label] for other in others}

    return Tests(
        best,
        against(best),
        reference,
        against(reference) if reference else {},
        compare(values, every),
        smallest_difference([values[label] - values[best] for label in labels if label != best]),
    )


def _mark(rows: Sequence[Row], metric: str, tests: Tests | None) -> None:
    ranked = sorted({row.cells[metric].mean for row in rows}, reverse=True)
    for row in rows:
        cell = row.cells[metric]
        tied = tests is not None and row.label != tests.best and not tests.against_best[row.label].distinguishable
        row.cells[metric] = Cell(
            cell.mean,
            cell.deviation,
            cell.low,
            cell.high,
            best=cell.mean == ranked[0],
            second=len(ranked) > 1 and cell.mean == ranked[1],
            tied=tied,
        )


def all_records(board: Board) -> Iterable[tuple[Group, Row, Record]]:
    """Return every record of a board with its row and table."""
    for group in board.groups:
        for row in group.rows:
            for record in row.records:
                yield group, row, record
