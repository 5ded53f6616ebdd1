"""The final of a search: its best settings are trained again with other seeds, and the best mean over those wins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from typing import Any

from recbole_diffmm import provenance
from recbole_diffmm.errors import UserError
from recbole_diffmm.process import Job, carry_out, slots
from recbole_diffmm.tuning.bar import Bar
from recbole_diffmm.tuning.report import at_edge
from recbole_diffmm.tuning.search import QUIET, Search
from recbole_diffmm.tuning.space import read_range
from recbole_diffmm.tuning.trials import reached

# How many seeds a finalist is trained with. They follow the search's own, by which it was chosen.
SEEDS = 2
_WORKER = "recbole_diffmm.tuning.worker"


def hold_final(
    search: Search, content: Mapping[str, Any], bigger: bool, journal: Path, workers: int | None, progress: bool
) -> dict[str, Any]:
    """Return a search's report with its final, whose winner is the best of the search.

    The finalists are the trials that have reached most, those that were given up among them, for they may have been so
    too early. They are trained with validation alone, to their end; one of which a training fails is out.

    Args:
        search: What was searched, and how many finalists it has.
        content: The report of its trials.
        bigger: Whether a bigger score is better.
        journal: File of the trainings that are done, a line each; what it has is not trained again.
        workers: Trainings at a time; by default one a GPU, or as cores and memory allow.
        progress: Show one bar on standard error.

    Raises:
        UserError: No finalist could be trained, or the data changed meanwhile.
    """
    content = {**content, "bigger_is_better": bigger}
    seeds = [content["seed"] + number for number in range(1, SEEDS + 1)]
    finalists = _finalists(content, search.finalists, bigger)
    code = provenance.code_hash(search.model)
    done = _read(journal)
    keys, jobs = {}, []
    for trial in finalists:
        for seed in seeds:
            key = keys[trial["number"], seed] = _key(code, content, trial["settings"], seed)
            if key not in done:
                name = f"{search.name} trial {trial['number']} with seed {seed}"
                jobs.append(Job(name, _WORKER, {**_request(search, trial["settings"], seed), "key": key}))
    with _Trainings(f"{search.name} final", len(keys), len(keys) - len(jobs), progress, journal, done) as watcher:
        if jobs:
            carry_out(jobs, slots(workers, len(jobs)), watcher)
    for seed in seeds:
        if len({done[keys[trial["number"], seed]].get("split_hash") for trial in finalists} - {None}) > 1:
            raise UserError(
                f"the data of {search.dataset} changed while the final of {search.name} was held; delete {journal} to "
                "hold it anew"
            )
    entries = []
    for trial in finalists:
        runs = [{"seed": seed, **done[keys[trial["number"], seed]]} for seed in seeds]
        failed = any("error" in run for run in runs)
        entries.append(
            {"number": trial["number"], "mean": None if failed else fmean(run["score"] for run in runs), "runs": runs}
        )
    ranked = sorted(
        (entry for entry in entries if entry["mean"] is not None),
        key=lambda entry: (entry["mean"] * (-1 if bigger else 1), entry["number"]),
    )
    if not ranked:
        reason = next(run["error"] for entry in entries for run in entry["runs"] if "error" in run)
        raise UserError(f"no finalist of {search.name} could be trained: {reason}; delete {journal} to try again")
    winner = next(trial for trial in finalists if trial["number"] == ranked[0]["number"])
    ranges = content["space"]["ranges"]
    space = {name: read_range(name, told, Path(content["space"]["file"])) for name, told in ranges.items()}
    return {
        **content,
        "budget": {**content["budget"], "finalists": search.finalists},
        "best": {
            "number": winner["number"],
            "score": reached(content, winner),
            "settings": winner["settings"],
            "best_epoch": _best_epoch(content, winner),
        },
        "at_edge": at_edge(space, winner["settings"]),
        "final": {
            "seeds": seeds,
            "mean": ranked[0]["mean"],
            "finalists": entries,
            "code": provenance.code(search.model),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    }


def _finalists(content: Mapping[str, Any], n: int, bigger: bool) -> list[dict[str, Any]]:
    """The `n` trials that have reached most, the first of equals, and no settings twice."""
    by_score = [
        (score * (-1 if bigger else 1), trial["number"], trial)
        for trial in content["trials"]
        if trial["state"] != "fail" and (score := reached(content, trial)) is not None
    ]
    chosen: list[dict[str, Any]] = []
    for _, _, trial in sorted(by_score, key=lambda entry: entry[:2]):
        if all(trial["settings"] != other["settings"] for other in chosen):
            chosen.append(trial)
    return chosen[:n]


def _best_epoch(content: Mapping[str, Any], trial: Mapping[str, Any]) -> int | None:
    if trial["state"] == "complete" or trial["best_epoch"] is not None:
        return trial["best_epoch"]
    best = reached(content, trial)
    return max(epoch for epoch, score in enumerate(trial["curve"]) if score == best)


def _request(search: Search, drawn: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {
        "model": search.model,
        "dataset": search.dataset,
        "config_files": list(search.config_files),
        "settings": {**QUIET, **search.settings, **drawn, "seed": seed},
    }


def _key(code: str, content: Mapping[str, Any], drawn: Mapping[str, Any], seed: int) -> str:
    """Fingerprint of what a training's score depends on."""
    asked = [code, *(content[key] for key in ("model", "dataset", "settings", "config_hashes")), drawn, seed]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _read(journal: Path) -> dict[str, dict[str, Any]]:
    """The trainings of a journal by their keys; a line that a kill has cut off is none."""
    done: dict[str, dict[str, Any]] = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []:
        try:
            training = json.loads(line)
            key = training.pop("key")
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        if "error" in training or isinstance(training.get("score"), float):
            done[key] = training
    return done


class _Trainings(Bar):
    """Keeps what the trainings of a final come to."""

    def __init__(
        self, what: str, total: int, n_done: int, shown: bool, journal: Path, done: dict[str, dict[str, Any]]
    ) -> None:
        super().__init__(what, "training", total, n_done, shown)
        self._journal, self._done = journal, done

    def told(self, job: Job, message: dict[str, Any]) -> None:
        super().told(job, message)
        if "done" in message:
            self._keep(job, message["done"])

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        super().ended(job, failed)
        if failed is not None:
            # As in a search: whose process has died is not tried again, for it might well die again.
            self._keep(job, {"error": failed["failed"]})

    def _keep(self, job: Job, training: dict[str, Any]) -> None:
        self._done[job.request["key"]] = training
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": job.request["key"], **training}) + "\n")
