"""How the rows of a board were tuned, held against the budget that the board states."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_diffmm import provenance
from recbole_diffmm.errors import UserError, nearest
from recbole_diffmm.leaderboard.spec import ModelEntry, Spec, Tuning, config_files, find_file
from recbole_diffmm.leaderboard.views.words import UNTUNED
from recbole_diffmm.record import plain, read_json
from recbole_diffmm.sources import read_yaml
from recbole_diffmm.tuning.search import Search


@dataclass(frozen=True)
class Waiting:
    """Why a row is not tuned as its board states, empty where nothing has been searched yet."""

    why: str


class _NoReportError(UserError):
    """Nothing has been searched yet."""


def tuning_words(spec: Spec, rows: Collection[str] = ()) -> dict[tuple[str, str], str | Waiting]:
    """Return for every row and dataset of a board how it was tuned; nothing where the board states no budget.

    Args:
        spec: The board.
        rows: Names of the rows that must be tuned, all by default; others may be waiting for it.

    Raises:
        UserError: A row that must be has neither a tuning report with that budget nor a word why not.
    """
    if spec.tuning is None:
        return {}
    words: dict[tuple[str, str], str | Waiting] = {}
    for dataset in spec.datasets:
        for entry in spec.models:
            try:
                words[entry.name, dataset] = _words(spec, entry, dataset, spec.tuning)
            except UserError as error:
                if not rows or entry.name in rows:
                    raise
                why = "" if isinstance(error, _NoReportError) else str(error)
                words[entry.name, dataset] = Waiting(why.removeprefix(f"{entry.name} on {dataset} "))
    return words


def _words(spec: Spec, entry: ModelEntry, dataset: str, tuning: Tuning) -> str:
    if entry.untuned:
        return UNTUNED + entry.untuned
    command = f"recbole-diffmm tune --board {spec.given}"
    name = spec.report_file(entry, dataset)
    row = f"{entry.name} on {dataset}"
    try:
        report: dict[str, Any] = read_json(Path(find_file(name)))
        budget, objective = report["budget"], str(report["objective"])
        found = Tuning(trials=budget["trials"], minutes=budget["minutes"], finalists=budget.get("finalists", 1))
        trials = report["trials"]
        best, split = report["best"]["settings"], str(report["split_hash"])
        spent = sum(trial["seconds"] or 0.0 for trial in trials) / 60
        took = spent + _seconds_of_final(report) / 60
        if not isinstance(best, dict) or not math.isfinite(took):
            raise TypeError(best)
        asked = report["model"], report["dataset"], report["settings"], report["config_files"]
    except UserError:
        raise _NoReportError(
            f"{row} is not tuned ({name} is missing): {command}, or say `untuned: <why>` in its row; "
            "--models runs rows that are"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{name} is no report of recbole-diffmm tune; delete it and tune again: {command}") from None
    # A search that did all its trials within fewer minutes than the board grants was not cut short by them.
    within = len(trials) >= found.trials and (found.minutes or math.inf) <= (tuning.minutes or math.inf)
    if found.trials != tuning.trials or (found.minutes != tuning.minutes and not within):
        raise UserError(f"{row} was tuned with {_budget(found)}, the board states {_budget(tuning)} for all: {command}")
    if found.finalists != tuning.finalists:
        then, now = _final(found), _final(tuning)
        advice = f"{command} --final_only"
        if tuning.finalists == 1:
            advice = f"state `finalists: {found.finalists}` there, or tune it anew: {command}"
        raise UserError(f"{row} was tuned with {then}, the board states {now} for all: {advice}")
    if len(trials) < tuning.trials and (tuning.minutes is None or spent < tuning.minutes):
        raise UserError(f"{row} was tuned with {len(trials)} trials of {tuning.trials} alone ({name}): {command}")
    settings = plain({**spec.settings, **entry.settings})
    files = [Path(file).name for file in config_files(spec, entry, dataset)]
    for what, then, now in zip(
        ("model", "dataset", "settings", "config_files"), asked, (entry.model, dataset, settings, files), strict=True
    ):
        if then != now:
            raise UserError(
                f"{row} was tuned with {what} {then}, the board has {now} ({name}); tune it anew: {command}"
            )
    hashes = [provenance.hash_file(Path(file)) for file in config_files(spec, entry, dataset)]
    if report.get("config_hashes", hashes) != hashes:
        raise UserError(f"{row} was tuned before {', '.join(files)} changed ({name}); tune it anew: {command}")
    if not objective.startswith("validation "):
        raise UserError(f"{row} was tuned on {objective} ({name}); only validation may choose: {command}")
    both = sorted(best.keys() & settings.keys())
    if both:
        raise UserError(f"{row}: {both[0]} was tuned, and the board sets it too; leave it out of the board's settings")
    tuned = find_file(spec.tuned_file(entry, dataset))
    if read_yaml(Path(tuned)) != best:
        raise UserError(f"{tuned} is not what {name} found; put it back, or tune again: {command}")
    time = "under a minute" if took < 1 else f"{took:.0f} minute{'s' if round(took) > 1 else ''}"
    cap = f", none begun after {tuning.minutes:g} minutes" if tuning.minutes else ""
    more = "more " if report.get("earlier") else ""
    final = f" and {_final(tuning)}" if tuning.finalists > 1 else ""
    return f"{len(trials)} {more}trials{final} in {time}{cap}, on {objective} of split {split[:12]}"


def _budget(tuning: Tuning) -> str:
    return f"{tuning.trials} trials" + (f" or {tuning.minutes:g} minutes" if tuning.minutes else "")


def _final(tuning: Tuning) -> str:
    return f"a final of {tuning.finalists}" if tuning.finalists > 1 else "no final"


def _seconds_of_final(report: dict[str, Any]) -> float:
    """What a search's final took; the minutes of a budget are of its trials alone."""
    finalists = (report.get("final") or {}).get("finalists", ())
    return sum(run.get("seconds") or 0.0 for entry in finalists for run in entry["runs"])


def searches(spec: Spec, models: Collection[str] = ()) -> list[Search]:
    """Return the searches that give every tuned row of a board the board's budget.

    Args:
        spec: The board.
        models: Names of rows; all by default.

    Raises:
        UserError: The board states no budget, or a name is no tuned row.
    """
    if spec.tuning is None:
        raise UserError(f"board {spec.name} states no budget; give it one, such as tuning: {{trials: 20}}")
    rows = {entry.name: entry for entry in spec.models if not entry.untuned}
    for name in models:
        if name not in rows:
            raise UserError(f"{name} is no tuned row of board {spec.name}{nearest(name, rows)}")
    return [
        Search(
            entry.model,
            dataset,
            spec.tuning.trials,
            entry.slug,
            config_files(spec, entry, dataset),
            {**spec.settings, **entry.settings},
            minutes=spec.tuning.minutes,
            finalists=spec.tuning.finalists,
        )
        for dataset in spec.datasets
        for entry in rows.values()
        if not models or entry.name in models
    ]
