"""A board: tables of rows that may stand beside each other, each with its means, tests and records."""

from __future__ import annotations

import statistics as plain_statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from recbole_diffmm.leaderboard.confirmed import Confirmation
from recbole_diffmm.leaderboard.spec import Published
from recbole_diffmm.leaderboard.statistics import Comparison
from recbole_diffmm.record import Record


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
        confirmed: Of its records, by name, those that other code has confirmed.
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
    confirmed: dict[str, Confirmation] = field(default_factory=dict)

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
        pairs: Every pair of the best rows (`marks.MATRIX_ROWS` at most), by the first metric alone.
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


def all_records(board: Board) -> Iterable[tuple[Group, Row, Record]]:
    """Return every record of a board with its row and table."""
    for group in board.groups:
        for row in group.rows:
            for record in row.records:
                yield group, row, record
