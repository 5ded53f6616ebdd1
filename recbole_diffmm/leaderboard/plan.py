"""Which runs of a board have a record, which are stale and which are missing. Imports RecBole only for new runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from recbole_diffmm import provenance
from recbole_diffmm.errors import UserError, nearest
from recbole_diffmm.leaderboard import confirmed
from recbole_diffmm.leaderboard.confirmed import Confirmation
from recbole_diffmm.leaderboard.spec import Task
from recbole_diffmm.process import same_environment
from recbole_diffmm.record import Record, load
from recbole_diffmm.sources import property_folders, read_yaml

# What a run of a board never does on its own; none of these keys is in a run's name.
QUIET: dict[str, Any] = {"state": "WARNING", "show_progress": False, "resume": True, "tensorboard": False}

State = Literal["done", "stale", "missing"]
_CODE = "the code of {} has changed"


@dataclass(frozen=True)
class Planned:
    """One run of a board and what there is of it.

    Attributes:
        task: The run.
        name: Its name, and that of its files.
        fingerprint: SHA-256 of all that decides the name.
        state: ``done``, ``stale`` (code or data have changed since) or ``missing``.
        why: What has changed.
        known: Whether an earlier plan had it just so: only then may an interrupted training be continued, which
            would otherwise go on where other code has stopped.
    """

    task: Task
    name: str
    fingerprint: str
    state: State
    why: str = ""
    known: bool = False


def fingerprint(task: Task) -> str:
    """Return the SHA-256 of all that decides a run's name: its settings, the files that hold them, the code."""
    digest = hashlib.sha256(provenance.code_hash(task.model).encode())
    digest.update(
        json.dumps([task.model, task.dataset, task.seed, task.settings], sort_keys=True, default=str).encode()
    )
    files = [Path(file) for file in task.config_files]
    for folder in property_folders():
        files += [
            folder / "overall.yaml",
            folder / "model" / f"{task.model}.yaml",
            folder / "dataset" / f"{task.dataset}.yaml",
        ]
    files.append(data_path(task) / task.dataset / f"{task.dataset}.yaml")
    for file in files:
        # Contents alone: the same clone elsewhere has the same names.
        digest.update(provenance.hash_file(file).encode() if file.is_file() else b"-")
    return digest.hexdigest()


def plan(
    tasks: Iterable[Task],
    folder: Path,
    known: Mapping[str, str],
    metrics: Sequence[str] = (),
    board: str = "the board",
) -> list[Planned]:
    """Return the runs with their states.

    All configurations of new runs are checked here, before the first one trains.

    Args:
        tasks: The runs.
        folder: Where records lie.
        known: Names by fingerprint, as an earlier plan had them.
        metrics: What every run must give, such as ``Recall@20``.
        board: What errors call the board.

    Raises:
        UserError: A configuration is wrong, gives no such metric, or two rows come to the same run.
    """
    _values.cache_clear()  # a notebook plans more than once, and files change in between
    planned = []
    confirmations = confirmed.read(folder)
    rows: dict[str, Task] = {}
    for task in tasks:
        digest = fingerprint(task)
        name = known.get(digest)
        if name is None or not (folder / f"{name}.json").is_file():
            name = _name(task, metrics, board)
        other = rows.setdefault(name, task)
        if other is not task:
            raise UserError(
                f"{board}: {task} and {other} have the same configuration; leave one out or set it differently"
            )
        state, why = _state(folder / f"{name}.json", task, confirmations)
        planned.append(Planned(task, name, digest, state, why, digest in known))
    return planned


def _name(task: Task, metrics: Sequence[str], board: str) -> str:
    from recbole_diffmm.config import COMMAND_LINE, Config
    from recbole_diffmm.data.features import select_modalities
    from recbole_diffmm.record import run_name
    from recbole_diffmm.registry import is_multimodal

    try:
        with same_environment():
            config = Config(task.model, task.dataset, list(task.config_files), None, {**QUIET, **task.settings})
        if is_multimodal(config.model_class):
            select_modalities(
                config["modalities"],
                config["use_modalities"],
                Path(config["data_path"]),
                task.dataset,
                {key: f" in {config.source(key)}" for key in ("modalities", "use_modalities")},
            )
        given = [f"{metric}@{k}" for metric in config["metrics"] for k in config["topk"]]
        for metric in metrics:
            if metric.lower() not in map(str.lower, given):
                raise UserError(
                    f"metrics names {metric}, which its runs do not give{nearest(metric, given)} "
                    f"(settings: metrics and topk say what they give: {', '.join(given)})"
                )
    except UserError as error:
        told = str(error).replace(COMMAND_LINE, "its settings")
        raise UserError(f"{board}: {task}: {told}") from None
    return run_name(config)


def _state(path: Path, task: Task, confirmations: Mapping[str, Confirmation]) -> tuple[State, str]:
    if not path.is_file():
        return "missing", ""
    record = load(path)
    changes = changed(record, data_path(task), confirmations)
    return ("stale", "; ".join(changes)) if changes else ("done", "")


def data_path(task: Task) -> Path:
    """Where the datasets of a run lie, as the strongest source has it."""
    places = ("overall", f"model/{task.model}", f"dataset/{task.dataset}")
    files = [folder / f"{place}.yaml" for place in places for folder in property_folders()]
    files += map(Path, task.config_files)
    values = [task.settings, *(_values(file) for file in reversed(files) if file.is_file())]
    return Path(str(next((value["data_path"] for value in values if "data_path" in value), "dataset")))


@cache
def _values(file: Path) -> dict[str, Any]:
    return read_yaml(file)


def changed(record: Record, data_path: Path, confirmations: Mapping[str, Confirmation]) -> list[str]:
    """Return what is no longer as it was when a record was made: code, or files of the data where they are at hand.

    Code that has changed and was found to give the record's numbers all the same counts as unchanged.
    """
    changes = []
    if record.code.hash != provenance.code_hash(record.model) and not confirmed.holds(record, confirmations):
        changes.append(_CODE.format(record.model))
    places = (data_path / record.dataset, Path(str(record.config.get("data_path", ""))))
    folder = next((place for place in places if place.is_dir()), None)
    if folder is not None:
        files = [name for name, digest in record.data.files.items() if _differs(folder / name, digest)]
        if files:
            changes.append(f"{', '.join(files)} of {record.dataset} changed")
    return changes


def _differs(file: Path, digest: str) -> bool:
    return not file.is_file() or provenance.hash_file(file) != digest


def of_other_code(planned: Sequence[Planned]) -> list[Planned]:
    """Return the stale runs that nothing but changed code speaks against."""
    return [run for run in planned if run.state == "stale" and run.why == _CODE.format(run.task.model)]


def pending(planned: Sequence[Planned], rerun_stale: bool) -> list[Planned]:
    """Return the runs that are to be done: the missing ones, and stale ones where that was asked for."""
    return [run for run in planned if run.state == "missing" or (rerun_stale and run.state == "stale")]
