"""The JSON record of a run: what was run, on what, and what came out. Imports neither torch nor RecBole."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recbole_diffmm.errors import UserError

SCHEMA_VERSION = 3

# What says where files lie, what is shown and how many cells are scored at once cannot move a number: a run keeps its
# name when these change. (`eval_users_per_batch` cannot either; it has been a part of names from the start.)
NOT_IN_NAME = frozenset(
    {
        "checkpoint_dir",
        "config_files",
        "cuda_graphs",
        "data_path",
        "energy",
        "eval_batch_size",
        "gpu_id",
        "log_dir",
        "log_wandb",
        "properties_dir",
        "results_dir",
        "resume",
        "resume_every",
        "show_progress",
        "state",
        "tensorboard",
        "verbose",
        "wandb_project",
    }
)


# Where a record goes that another run of its configuration would write over.
EARLIER = "earlier"

Word = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Metrics = dict[str, float | None]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureFile(_Part):
    """The features of one modality."""

    hash: Digest = Field(description="SHA-256 of the feature file and the file of its ids")
    coverage: float = Field(description="share of the items that have features")


class Data(_Part):
    """What was learnt from and tested on. Counts are of real users and items, without PAD."""

    n_users: int = Field(description="users of the dataset")
    n_items: int = Field(description="items of the dataset")
    n_inter: int = Field(description="interactions of all splits")
    hash: Digest = Field(description="SHA-256 of all interactions as raw ids, whatever their order")
    split_hash: Digest = Field(description="the same of training, validation and test one after the other")
    files: dict[str, Digest] = Field(description="SHA-256 of every file that was read, by its name")
    features: dict[str, FeatureFile] = Field(description="the modalities that the dataset offers, by name")


# The values of `masking`, in words.
MASKED = {"train": "training items", "train+valid": "training and validation items"}


def candidates(config: Mapping[str, Any]) -> str:
    """Return what a test item is ranked among, in words; empty where it is all items, as it should be."""
    mode = (config.get("eval_args") or {}).get("mode") or "full"
    mode = str(mode.get("test", "full") if isinstance(mode, Mapping) else mode)
    sampled = re.fullmatch(r"(?:uni|pop)(\d+)", mode)
    if sampled:
        return f"{sampled[1]} sampled items ({mode}), which lifts every figure"
    return "" if mode == "full" else f"the items of {mode}"


class TestSelected(_Part):
    """The epoch that is best on test, under `protocol: paper` alone; no fair estimate."""

    epoch: int = Field(description="that epoch, from 0")
    metrics: Metrics = Field(description="its test metrics")
    selected_on: Word = Field(description="the criterion, such as `test Recall@20`")


class AllMetrics(_Part):
    """Metrics keyed like `recall@20`."""

    valid: Metrics | None = Field(description="on validation, of the selected epoch")
    test: Metrics | None = Field(description="on test, of the selected epoch")
    test_selected: TestSelected | None = Field(None, description="the test-selected epoch, under `protocol: paper`")


class Group(_Part):
    """The test metrics of some users, or of all users on some items."""

    group: Word = Field(description="numbers of training interactions, such as `5-9`; `0` is cold")
    n_users: int = Field(description="users that the metrics are a mean over")
    n_items: int | None = Field(None, description="items of the group, where items are grouped")
    metrics: Metrics = Field(description="means over these users")


class Slices(_Part):
    """Test metrics of parts, because averages hide."""

    users_by_history: list[Group] = Field(description="users grouped by their training interactions")
    items_by_popularity: list[Group] = Field(
        description="only the test items of a group count as found or missed; they compete with all items"
    )
    without_modality: dict[str, Metrics] = Field(
        description="test metrics when the trained model scores without one modality, by its name"
    )


class PerUser(_Part):
    """The file of every user's test metrics, beside the record."""

    file: Word = Field(description="name of the Parquet file: columns `user`, `history` and one a metric")
    n_users: int = Field(description="its rows")
    users_hash: Digest = Field(description="SHA-256 of its raw user ids in their order")
    hash: Digest = Field(description="SHA-256 of the file")


class Code(_Part):
    """The code that made the numbers."""

    hash: Digest = Field(description="of this package's modules that the run depends on, and RecBole's version")
    commit: str | None = Field(description="commit of the clone; null when installed")
    dirty: bool | None = Field(description="whether files that these numbers come from were changed and not committed")


class Record(_Part):
    """One run, written once and edited by nobody."""

    schema_version: Literal[3] = Field(description="3")
    name: Word = Field(description="name of the run and of its files: model, dataset, seed, hash of the configuration")
    model: Word = Field(description="class of the model")
    dataset: Word = Field(description="name of the dataset")
    modalities: list[str] = Field(description="names of the modalities that the model used")
    protocol: Literal["recbole", "paper"] = Field(description="what selects, what is masked and when training stops")
    masking: Literal["train", "train+valid"] = Field(description="whose items are not ranked at test")
    selection: Word = Field(
        description="what chose the reported epoch, such as `validation Recall@20`, or `last epoch`"
    )
    seed: int = Field(description="seed of everything random")
    config: dict[str, Any] = Field(description="the full resolved configuration")
    data: Data
    metrics: AllMetrics
    beyond_accuracy: Metrics = Field(description="RecBole's coverage, Gini index and average popularity on test")
    coverage_by_modality: dict[str, dict[str, Metrics]] = Field(
        description="per modality, shares of the items with (`observed`) and without (`missing`) it that anyone gets"
    )
    slices: Slices | None = Field(description="null where not all items were ranked")
    per_user: PerUser | None = Field(description="null where there are none or pyarrow is missing")
    best_epoch: int | None = Field(description="the selected epoch, from 0; the last without validation")
    epochs_run: int = Field(description="epochs trained")
    curve: list[dict[str, Any]] = Field(description="per epoch: losses, validation metrics, seconds, diagnostics")
    seconds: dict[str, Any] = Field(
        description="by phase, in all and `per_epoch` (medians); `to_best_epoch`: building the model and all until then"
    )
    peak_memory_mb: dict[str, float | None] = Field(description="MiB of the process (`host`) and of the `device`")
    energy: dict[str, float] = Field(description="`kwh` where `energy: true` had it measured")
    device: Word = Field(description="accelerator's name, or cpu with the architecture")
    threads: int = Field(description="threads of PyTorch")
    precision: Word = Field(description="number format of large products, resolved")
    versions: dict[str, str | None] = Field(description="of Python and the packages that numbers depend on")
    code: Code
    finished: Word = Field(description="when, ISO 8601 in UTC")
    warnings: list[str] = Field(description="every warning that was logged, once")
    checksum: Digest = Field(
        description="SHA-256 of all other fields as JSON with sorted keys: edited records are refused"
    )


def plain(value: Any) -> Any:
    """Return `value` as JSON has it: keys as strings, NumPy and tensors as numbers and lists, no NaN or infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays, their scalars and tensors
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def plain_config(config: Any) -> dict[str, Any]:
    """Return the resolved configuration as JSON-able values, RecBole's own `Config` included."""
    if hasattr(config, "plain"):
        return dict(config.plain())
    scalars = (bool, int, float, str, list, tuple, dict, type(None))
    return {str(k): plain(v) for k, v in config.final_config_dict.items() if isinstance(v, scalars)}


def run_name(config: Any) -> str:
    """Return ``<Model>-<dataset>-s<seed>-<hash8>``: the same configuration always has the same name."""
    settings = {key: value for key, value in plain_config(config).items() if key not in NOT_IN_NAME}
    text = json.dumps(plain(settings), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{config['model']}-{config['dataset']}-s{config['seed']}-{digest}"


def record_path(config: Any) -> Path:
    """Return the path of the run's record, in ``results_dir``."""
    return Path(config["results_dir"] or "results/runs") / f"{run_name(config)}.json"


def selection(config: Any, validated: bool = True) -> str:
    """Return what chooses the reported epoch, such as ``validation Recall@20``."""
    return f"validation {config['valid_metric']}" if validated else "last epoch"


def summarise_seconds(
    curve: Sequence[Mapping[str, Any]], best_epoch: int | None, building: float = 0.0
) -> dict[str, Any]:
    """Return the total seconds of each phase, their medians as ``per_epoch``, and all of them ``to_best_epoch``.

    Args:
        curve: The epochs, each with ``epoch`` and ``seconds`` by phase.
        best_epoch: The selected one; None takes the last.
        building: What came before them; models without epochs, such as EASE, learn while they are built.
    """
    phases: dict[str, list[float]] = {}
    for entry in curve:
        for phase, seconds in entry["seconds"].items():
            phases.setdefault(phase, []).append(seconds)
    totals: dict[str, Any] = {phase: round(sum(values), 4) for phase, values in phases.items()}
    totals["per_epoch"] = {phase: round(statistics.median(values), 4) for phase, values in phases.items()}
    until = [entry for entry in curve if best_epoch is None or entry["epoch"] <= best_epoch]
    totals["building"] = round(building, 4)
    totals["to_best_epoch"] = round(building + sum(sum(entry["seconds"].values()) for entry in until), 4)
    return totals


def write(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Validate a record, write it whole or not at all, and return it as :func:`read` will."""
    unsigned = {**plain(record), "checksum": "0" * 64}
    content = Record.model_validate(unsigned).model_dump()
    content["checksum"] = checksum(content)
    write_json(path, content)
    return content


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record's fields but `checksum`: what was written is told from what was edited."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def set_aside(path: Path, folder: str = EARLIER) -> None:
    """Move a record to a folder beside it, and one after it to ``2/`` there: none is written over, all can be read.

    Args:
        path: The record; its values of single users go with it.
        folder: Name of the folder.
    """
    if not path.is_file():
        return
    places = (path.parent / folder / ("" if number == 1 else str(number)) for number in count(1))
    place = next(place for place in places if not (place / path.name).exists())
    place.mkdir(parents=True, exist_ok=True)
    # The record last: it says that the others belong to it.
    for file in (path.with_suffix(".per_user.parquet"), path):
        if file.is_file():
            file.replace(place / file.name)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all."""
    write_text(path, _lines(plain(content)))


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: It cannot be written.
    """
    # A name of this process's own: two may write one file, and the last one wins.
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UserError(f"{path} cannot be written ({told_by_system(error)}); move away what is there") from None


def require_writable(folder: Path, what: str = "") -> None:
    """Make a folder, if it is not there, and see that a file can be written into it.

    Args:
        folder: The folder.
        what: What the message begins with, such as the setting that names it.

    Raises:
        UserError: It is no folder, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # of a name that no file can have
        raise UserError(f"{what}{folder} cannot be written ({told_by_system(error)}); give another folder") from None


def told_by_system(error: Exception) -> str:
    """Why a file could not be read or written, in the system's words."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _lines(content: Mapping[str, Any]) -> str:
    """JSON with a line a key, and in a list of objects, such as a curve, a line each: to be read, and not longer."""
    lines = []
    for key, value in content.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            inner = ",\n  ".join(json.dumps(item, allow_nan=False) for item in value)
            text = f"[\n  {inner}\n ]"
        elif isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
            inner = ",\n  ".join(
                f"{json.dumps(name)}: {json.dumps(item, allow_nan=False)}" for name, item in value.items()
            )
            text = f"{{\n  {inner}\n }}"
        else:
            text = json.dumps(value, allow_nan=False)
        lines.append(f" {json.dumps(str(key))}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read(path: Path) -> dict[str, Any] | None:
    """Return a record of this schema, or None where there is no readable one."""
    try:
        return load(path).model_dump()
    except UserError:
        return None


def load(path: Path) -> Record:
    """Return the record of a file, validated.

    Raises:
        UserError: It is missing, no JSON, of another schema version, or lacks what a record has.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise UserError(f"record {path}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError:
        raise UserError(f"record {path}: is no JSON, so it is no record of a run, or one cut short") from None
    if not isinstance(content, dict) or not {"schema_version", "metrics", "curve"} <= content.keys():
        raise UserError(f"record {path}: is no record of a run")
    version = content["schema_version"]
    if version != SCHEMA_VERSION:
        raise UserError(
            f"record {path}: has schema version {version}, this package reads {SCHEMA_VERSION}; move it away and run "
            "again"
        )
    try:
        record = Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "?"
        raise UserError(f"record {path}: {place}: {first['msg'].lower()}; move it away and run again") from None
    if record.checksum != checksum(content):
        raise UserError(f"record {path}: was edited since its run wrote it; put it back, or move it away and run again")
    if record.name != path.stem:
        raise UserError(f"record {path}: is the record of {record.name}; give it that name back")
    return record
