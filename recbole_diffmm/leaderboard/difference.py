"""What differs between two runs: settings, data, code, machine, results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from tabulate import tabulate

from recbole_diffmm.record import Record, candidates, load

_ABSENT = "(not there)"
_WIDTH = 50  # of a value, in characters


def describe(first: Path, second: Path) -> str:
    """Return what changed from one record to another, as text: first what explains a difference, then the difference.

    Raises:
        UserError: A record cannot be read.
    """
    a, b = load(first), load(second)
    parts = [f"a: {first}\nb: {second}"]
    apart = [name for name, value in _place(a).items() if value != _place(b)[name]]
    if apart:
        parts.append(
            f"NOT COMPARABLE: the runs differ in {', '.join(apart)}. Their numbers answer different questions, and "
            "their difference is no result."
        )
    changes = list(_changes(a, b))
    if changes:
        # Not by `maxcolwidths`, which reads cells as the values that they spell: "False" became True.
        rows = [[name, fill(a, _WIDTH), fill(b, _WIDTH)] for name, a, b in changes]
        parts.append(tabulate(rows, headers=["what", "a", "b"], disable_numparse=True))
    else:
        parts.append("The runs have the same configuration, data, code, versions and device.")
    parts.append(_metrics(a, b))
    tested = "" if apart else _users(first, a, second, b)
    if tested:
        parts.append(tested)
    return "\n\n".join(parts)


def _place(record: Record) -> dict[str, str]:
    """What two runs must share for their numbers to be held against each other."""
    return {
        "dataset": record.dataset,
        "data": record.data.hash,
        "split": record.data.split_hash,
        "protocol": record.protocol,
        "masking": record.masking,
        "selection": record.selection,
        "candidates": candidates(record.config),
    }


def _changes(a: Record, b: Record) -> Iterator[tuple[str, str, str]]:
    for name in ("model", "dataset", "modalities", "protocol", "masking", "selection", "seed"):
        yield from _change(name, getattr(a, name), getattr(b, name))
    for key in sorted({*a.config, *b.config}):
        if key not in {"model", "dataset", "protocol", "seed"}:
            yield from _change(f"config: {key}", a.config.get(key, _ABSENT), b.config.get(key, _ABSENT))
    data_a, data_b = a.data, b.data
    for name in ("n_users", "n_items", "n_inter", "hash", "split_hash"):
        yield from _change(f"data: {name}", getattr(data_a, name), getattr(data_b, name))
    for what, left, right in (("data: file", data_a.files, data_b.files), ("versions:", a.versions, b.versions)):
        yield from _in_mapping(what, left, right)
    for name in ("hash", "commit", "dirty"):
        yield from _change(f"code: {name}", getattr(a.code, name), getattr(b.code, name))
    for name in ("device", "threads", "precision", "warnings"):
        yield from _change(name, getattr(a, name), getattr(b, name))


def _in_mapping(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key in sorted({*a, *b}):
        yield from _change(f"{what} {key}", a.get(key, _ABSENT), b.get(key, _ABSENT))


def _change(name: str, a: Any, b: Any) -> Iterator[tuple[str, str, str]]:
    if a != b:
        yield name, str(a), str(b)


def _metrics(a: Record, b: Record) -> str:
    rows: list[list[Any]] = []
    for split in ("valid", "test"):
        left, right = getattr(a.metrics, split) or {}, getattr(b.metrics, split) or {}
        for name in dict.fromkeys([*left, *right]):
            rows.append([f"{split} {name}", *_and_difference(left.get(name), right.get(name), ".6f", "+.6f")])
    for name in ("best_epoch", "epochs_run"):
        rows.append([name.replace("_", " "), *_and_difference(getattr(a, name), getattr(b, name), "d", "+d")])
    for name in ("training", "to_best_epoch"):
        rows.append([f"seconds {name.replace('_', ' ')}", *_and_difference(a.seconds.get(name), b.seconds.get(name))])
    for name in ("host", "device"):
        left, right = a.peak_memory_mb.get(name), b.peak_memory_mb.get(name)
        if left is not None or right is not None:
            rows.append([f"peak MiB {name}", *_and_difference(left, right)])
    return tabulate(
        rows, headers=["result", "a", "b", "b - a"], disable_numparse=True, colalign=["left"] + ["right"] * 3
    )


def _and_difference(a: Any, b: Any, form: str = ".1f", signed: str = "+.1f") -> list[str]:
    told = ["-" if value is None else format(value, form) for value in (a, b)]
    return [*told, "" if a is None or b is None else format(b - a, signed)]


def _users(first: Path, a: Record, second: Path, b: Record) -> str:
    """A paired test of the two runs over users, where both have the same ones."""
    if a.per_user is None or b.per_user is None or a.per_user.users_hash != b.per_user.users_hash:
        return ""
    from recbole_diffmm.leaderboard.per_user import read_per_user
    from recbole_diffmm.leaderboard.statistics import compare

    metric = a.selection.rpartition(" ")[2].lower()
    left = read_per_user(first.parent / a.per_user.file, [metric], a.per_user.hash).get(metric)
    right = read_per_user(second.parent / b.per_user.file, [metric], b.per_user.hash).get(metric)
    if left is None or right is None:
        return ""
    found = compare({"a": left, "b": right}, [("b", "a")])["b", "a"]
    better, worse = int((right > left).sum()), int((right < left).sum())
    seeds = "" if a.seed == b.seed else "; their seeds differ too"
    return (
        f"{metric} over {len(left):,} users: b is better for {better:,} and worse for {worse:,}; paired t-test "
        f"p = {found.t:.3g}, Wilcoxon p = {found.wilcoxon:.3g} (of two trained models, one run each, not of two methods"
        f"{seeds})"
    )
