"""A board's own file beside its records: which rows it has, of which runs, and the words that stand on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard.plan import Planned
from recbole_diffmm.leaderboard.spec import Published, Spec
from recbole_diffmm.leaderboard.tuned import Waiting
from recbole_diffmm.record import read_json, write_json

FILE = "board.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(_Part):
    """One run of a row: its name, and the fingerprint of what decided it."""

    name: str
    fingerprint: str


class Row(_Part):
    """One row of a board on one dataset."""

    label: str
    model: str
    dataset: str
    tuned: str  # in words: with which budget, or why not; empty where the board states none or nothing is searched yet
    runs: tuple[Run, ...]


class Manifest(_Part):
    """What a board is made of; the numbers are in the records that it names."""

    schema_version: Literal[1] = 1
    name: str
    title: str
    about: str
    metrics: tuple[str, ...] = Field(min_length=1)
    reference: str
    rows: tuple[Row, ...]
    published: tuple[Published, ...]

    def names(self) -> dict[str, str]:
        """The names of the runs by fingerprint."""
        return {run.fingerprint: run.name for row in self.rows for run in row.runs}


def build(
    spec: Spec, planned: Sequence[Planned], tuned: Mapping[tuple[str, str], str | Waiting], before: Manifest | None
) -> Manifest:
    """Return the manifest of a board.

    Args:
        spec: What was asked for.
        planned: Its runs.
        tuned: By row and dataset, how the row was tuned, or why it waits for that.
        before: The manifest that is there; a row that waits keeps the runs that it has in this one.
    """
    runs: dict[tuple[str, str], list[Run]] = {}
    for run in planned:
        runs.setdefault((run.task.label, run.task.dataset), []).append(Run(name=run.name, fingerprint=run.fingerprint))
    kept = {(row.label, row.dataset): row for row in before.rows if row.runs} if before else {}
    rows = []
    for dataset in spec.datasets:
        for entry in spec.models:
            key = entry.name, dataset
            found = tuned.get(key, "")
            row = Row(
                label=entry.name,
                model=entry.model,
                dataset=dataset,
                tuned=found.why if isinstance(found, Waiting) else found,
                runs=tuple(runs.get(key, ())),
            )
            rows.append(kept.get(key, row) if isinstance(found, Waiting) else row)
    return Manifest(
        name=spec.name,
        title=spec.title,
        about=spec.about,
        metrics=spec.metrics,
        reference=spec.reference,
        rows=tuple(rows),
        published=spec.published,
    )


def read(folder: Path) -> Manifest | None:
    """Return the manifest of a board's folder, None where it has none yet.

    Raises:
        UserError: It cannot be read.
    """
    path = folder / FILE
    try:
        content: Any = read_json(path)
        return Manifest.model_validate(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        what = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path}: is no board ({what}); delete it, the next recbole-diffmm leaderboard writes it"
        ) from None


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest where it is not there as it is."""
    if read(folder) != manifest:
        write_json(folder / FILE, manifest.model_dump())
