"""Which stale records present code has confirmed: a run's first epochs came out the same, to the last digit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recbole_diffmm import provenance
from recbole_diffmm.errors import UserError
from recbole_diffmm.record import Code, Digest, Record, read_json, write_json

FILE = "confirmed.json"
COMPARED = ("losses", "valid", "diagnostics")  # of every epoch


class Confirmation(BaseModel):
    """That code at hand gave a record's first epochs; the record itself stays as its run wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checksum: Digest = Field(description="of the record")
    code: Code = Field(description="what confirmed it")
    against: Code | None = Field(
        default=None, description="code that had made or confirmed it and gave the same here; None: its own numbers"
    )
    epochs: int = Field(description="how many epochs were trained and compared")
    when: str = Field(description="ISO 8601 in UTC")


class _Confirmed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    runs: dict[str, Confirmation]


def read(folder: Path) -> dict[str, Confirmation]:
    """Return the confirmations of a board's runs by name.

    Raises:
        UserError: their file cannot be read.
    """
    path = folder / FILE
    try:
        return _Confirmed.model_validate(read_json(path)).runs
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, ValidationError) as error:
        what = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path}: is no list of confirmed runs ({what}); delete it, leaderboard --confirm_stale writes it"
        ) from None


def write(folder: Path, runs: Mapping[str, Confirmation]) -> None:
    """Write the confirmations of a board's runs, without those of runs whose records are gone."""
    kept = {name: found for name, found in sorted(runs.items()) if (folder / f"{name}.json").is_file()}
    content = _Confirmed(runs=kept).model_dump()
    for run in content["runs"].values():
        if run["against"] is None:  # as in files from before there was such a thing
            del run["against"]
    write_json(folder / FILE, content)


def holds(record: Record, confirmations: Mapping[str, Confirmation]) -> bool:
    """Whether present code has confirmed this record as it is now."""
    found = confirmations.get(record.name)
    if found is None:
        return False
    return (found.checksum, found.code.hash) == (record.checksum, provenance.code_hash(record.model))


def first_difference(expected: list[dict[str, Any]], curve: list[dict[str, Any]], epochs: int) -> str | None:
    """Return where a training's epochs first differ from others, None where the first ``epochs`` are the same."""
    if epochs < 1:
        return "its record has no epoch to compare"
    for number in range(epochs):
        if number >= min(len(curve), len(expected)):
            return f"it ended after {min(len(curve), len(expected))} epochs"
        then, now = expected[number], curve[number]
        for part in COMPARED:
            if now.get(part) != then.get(part):
                return f"{part} of epoch {number}"
    return None
