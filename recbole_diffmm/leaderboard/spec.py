"""What a leaderboard's YAML says, and the runs that it means."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from recbole_diffmm.errors import UserError, nearest
from recbole_diffmm.sources import properties_dir, property_folders, read_yaml

Word = Annotated[str, Field(min_length=1)]


# Where `recbole-diffmm tune` writes the best settings, and reports of all trials.
TUNED = "properties/tuned"
REPORTS = "results/tuning"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelEntry(_Part):
    """One row of a board: a model and what it is set to, besides what holds for all rows."""

    model: Word
    label: str = ""  # the row's name; the model's by default
    config_files: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    untuned: str = ""  # why a row of a board with `tuning` is not tuned

    @property
    def name(self) -> str:
        """The row's name."""
        return self.label or self.model

    @property
    def slug(self) -> str:
        """The row's name as part of a file's."""
        return re.sub(r"[^\w.+-]+", "-", self.name)


class Published(_Part):
    """A row of a published table, shown beside the board's own and never ranked with them."""

    model: Word
    dataset: Word
    metrics: dict[str, FiniteFloat]
    source: Word  # where it was published
    protocol: Word  # what selected it there, and on which data

    @field_validator("metrics")
    @classmethod
    def _lower_case(cls, value: dict[str, float]) -> dict[str, float]:
        return {name.lower(): number for name, number in value.items()}


class Tuning(_Part):
    """The budget that every model of the board was tuned with, on validation."""

    trials: int = Field(ge=1)
    minutes: FiniteFloat | None = Field(None, gt=0)  # of training, after which no further trial begins
    finalists: int = Field(1, ge=1)  # of the best trials, trained again with other seeds to choose the best one by


class Spec(_Part):
    """A leaderboard. `{model}` and `{dataset}` in the names of config files stand for the run's."""

    name: Word  # the file's
    title: Word
    about: str = ""
    datasets: tuple[Word, ...] = Field(min_length=1)
    models: tuple[ModelEntry, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    results_dir: str = ""  # results/<name> by default
    config_files: tuple[str, ...] = ()  # for all rows
    settings: dict[str, Any] = {}  # for all rows; a row's own win
    # The first one ranks and is tested.
    metrics: tuple[str, ...] = Field(("Recall@20", "NDCG@20", "Recall@10", "NDCG@10"), min_length=1)
    reference: str = ""  # the row that others are tested against, besides the best
    tuning: Tuning | None = None
    published: tuple[Published, ...] = ()
    _path: Path = PrivateAttr(default=Path())

    @property
    def given(self) -> str:
        """What names this board in a command: its name where the property folders have it, and its file otherwise."""
        folders = {(folder / "leaderboard").resolve() for folder in property_folders()}
        return self.name if self._path.resolve().parent in folders else str(self._path)

    @field_validator("models", mode="before")
    @classmethod
    def _names_are_entries(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"model": entry} if isinstance(entry, str) else entry for entry in value]

    @field_validator("datasets", "seeds", mode="after")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        repeated = [entry for entry in dict.fromkeys(value) if value.count(entry) > 1]
        if repeated:
            raise ValueError(f"{repeated[0]} is listed {value.count(repeated[0])} times, name each once")
        return value

    @model_validator(mode="after")
    def _rows_differ(self) -> Spec:
        labels = [entry.name for entry in self.models]
        repeated = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
        if repeated:
            raise ValueError(f"models: two rows are called {repeated[0]}, give each a label of its own")
        slugs = [entry.slug.lower() for entry in self.models]
        alike = [entry.name for entry in self.models if slugs.count(entry.slug.lower()) > 1]
        if alike:
            raise ValueError(f"models: {' and '.join(alike)} would share files, give them other labels")
        given = {key for settings in (self.settings, *(entry.settings for entry in self.models)) for key in settings}
        for key, where in (("seed", "`seeds`"), ("model", "`models`"), ("dataset", "`datasets`")):
            if key in given:
                raise ValueError(f"settings: {key} is given, and {where} gives it to each run; leave it out")
        if self.reference and self.reference not in labels:
            raise ValueError(f"reference: {self.reference} is no row{nearest(self.reference, labels)}")
        return self

    def tuned_file(self, entry: ModelEntry, dataset: str) -> str:
        """The YAML that `recbole-diffmm tune --board` writes for a row: a board's own, for budgets and data differ."""
        return f"{TUNED}/{self.name}/{entry.slug}-{dataset}.yaml"

    def report_file(self, entry: ModelEntry, dataset: str) -> str:
        """The report of the search for a row."""
        return f"{REPORTS}/{self.name}/{entry.slug}-{dataset}.json"

    @property
    def folder(self) -> Path:
        """Where the board's records and views lie."""
        return Path(self.results_dir or f"results/{self.name}")


@dataclass(frozen=True)
class Task:
    """One run of a board.

    Attributes:
        label: The row that it belongs to.
        model: Name of the model.
        dataset: Name of the dataset.
        seed: Seed of everything random.
        config_files: YAML files, later ones first in priority.
        settings: Settings that win over the files.
    """

    label: str
    model: str
    dataset: str
    seed: int
    config_files: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """`label on dataset, seed N`."""
        return f"{self.label} on {self.dataset}, seed {self.seed}"


def find_spec(given: str) -> Path:
    """Return the file that `given` means: a path, or the name of one in `properties/leaderboard/`.

    Raises:
        UserError: There is none.
    """
    path = Path(given)
    if path.is_file():
        return path
    folders = [folder / "leaderboard" for folder in property_folders()]
    for folder in reversed(folders):
        if (folder / f"{given}.yaml").is_file():
            return folder / f"{given}.yaml"
    names = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    raise UserError(
        f"no leaderboard {given}{nearest(given, names) or '; there are ' + ', '.join(names)}, or give a file"
    )


def load_spec(path: Path) -> Spec:
    """Read a board's YAML.

    Raises:
        UserError: It is no YAML, or a key is unknown, missing or mistyped; the message names it.
    """
    values = {"name": path.stem, **read_yaml(path)}
    for key in values:
        if key not in Spec.model_fields:
            raise UserError(f"unknown key {key!r} in {path}{nearest(key, Spec.model_fields, cutoff=0.3)}")
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_told(error)}") from None
    spec._path = path
    return spec


# Keys of what stands in a list, by the list's key.
_PARTS: dict[str, type[BaseModel]] = {"models": ModelEntry, "published": Published, "tuning": Tuning}


def _told(error: ValidationError) -> str:
    """The first thing wrong with a board, in the words of whoever wrote the YAML."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        key, part = str(first["loc"][-1]), _PARTS.get(str(first["loc"][0]), Spec)
        return f"unknown key {key!r} in {'.'.join(map(str, first['loc'][:-1]))}{nearest(key, part.model_fields)}"
    if first["type"] == "tuple_type":
        return f"{place} must be a list such as [{first['input']}], got {first['input']!r}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{place + ': ' if place else ''}{message[:1].lower()}{message[1:]}"


def check_rows(spec: Spec, names: Collection[str]) -> None:
    """Check that a board has these rows.

    Raises:
        UserError: It has not.
    """
    labels = [entry.name for entry in spec.models]
    for name in names:
        if name not in labels:
            raise UserError(f"{name} is no row of board {spec.name}{nearest(name, labels)}")


def tasks(spec: Spec, without: Collection[tuple[str, str]] = ()) -> Iterator[Task]:
    """Return the runs of a board, in the order of datasets, rows and seeds.

    Args:
        spec: The board.
        without: Rows and datasets to leave out.

    Raises:
        UserError: A config file is missing.
    """
    for dataset in spec.datasets:
        for entry in spec.models:
            if (entry.name, dataset) in without:
                continue
            files = config_files(spec, entry, dataset)
            if spec.tuning is not None and not entry.untuned:
                files += (find_file(spec.tuned_file(entry, dataset)),)
            for seed in spec.seeds:
                yield Task(
                    entry.name, entry.model, dataset, seed, files, {**spec.settings, **entry.settings, "seed": seed}
                )


def config_files(spec: Spec, entry: ModelEntry, dataset: str) -> tuple[str, ...]:
    """Return the paths of the config files that a row names for a dataset, without what tuning has found.

    Raises:
        UserError: One is missing.
    """
    names = (*spec.config_files, *entry.config_files)
    return tuple(find_file(name.replace("{model}", entry.model).replace("{dataset}", dataset)) for name in names)


def find_file(name: str) -> str:
    """Return the path of a config file: relative to the current folder, or to the one that `properties/` lies in.

    Raises:
        UserError: It is in neither.
    """
    for base in (Path(), properties_dir().parent):
        if (base / name).is_file():
            return str(base / name)
    raise UserError(f"config file {name} is missing; if it is a tuned one, recbole-diffmm tune makes it")
