"""The recipe of a search: a study is opened or gone on with, its trials are done, the best settings are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recbole_diffmm.errors import UserError
from recbole_diffmm.process import Job, carry_out, only_one, same_environment, slots
from recbole_diffmm.tuning.report import report, write_pictures, write_settings
from recbole_diffmm.tuning.search import Search
from recbole_diffmm.tuning.space import Range, load_space

_WORKER = "recbole_diffmm.tuning.worker"
# A search shows one bar and leaves no checkpoint; none of these keys can move a number.
_QUIET: dict[str, Any] = {"state": "WARNING", "show_progress": False, "tensorboard": False, "resume_every": 0}


@dataclass(frozen=True)
class Found:
    """What a search has found: the best settings, their score, and the files it wrote."""

    settings: dict[str, Any]
    score: float
    files: tuple[Path, ...]


def tune(
    search: Search,
    out: Path = Path("properties/tuned"),
    reports: Path = Path("results/tuning"),
    storage: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Found:
    """Search until the budget is spent, going on where an earlier call stopped, and write what was found.

    Every trial trains with validation alone: the objective is the best `valid_metric` of its curve, trials that do
    worse than the median of the earlier ones are pruned, and the test split is never ranked.

    Args:
        search: What to search.
        out: Folder of the YAML of the best settings.
        reports: Folder of the report of all trials, of the pictures, and of the journal.
        storage: Another place for the study: a file, or a URL such as ``postgresql://...``, for workers elsewhere.
        workers: Trials at a time; by default one a GPU, or as cores and memory allow.
        progress: Show one bar on standard error.

    Raises:
        UserError: A setting or range is wrong, the study is one of other settings, or no trial ended well.
    """
    from recbole_diffmm.config import Config
    from recbole_diffmm.tuning import study as studies

    if search.trials < 1:
        raise UserError(f"--trials is {search.trials}; give at least 1")
    space, source = load_space(search.model, search.space)
    with same_environment():
        config = Config(search.model, search.dataset, list(search.config_files), None, {**_QUIET, **search.settings})
    for name in space:
        if name not in config._known_keys():
            raise UserError(f"{source} searches {name!r}, which is no setting of {search.model}; see its settings")
    bigger = bool(config["valid_metric_bigger"])
    where = storage or str(reports / f"{search.name}.journal")
    with only_one(reports):
        study = studies.open_study(where, search.name, bigger, search.seed, search.trials)
        _same_question(study, _question(search, space), where)
        if storage is None:  # elsewhere others may be at work on it
            studies.give_up_running(study)
        studies.enqueue_shipped(study, space, config)
        n_spent = len(studies.spent(study))
        jobs = [
            Job(f"{search.name} trial {number}", _WORKER, _request(search, space, where, bigger, number))
            for number in range(n_spent, search.trials)
        ]
        with _Trials(search, n_spent, progress) as watcher:
            carry_out(jobs, slots(workers, max(len(jobs), 1)), watcher)
        if storage is None:
            studies.give_up_running(study)
        trials = studies.spent(study)
        winner = studies.best(trials, bigger)
        if winner is None:
            reasons = dict.fromkeys(watcher.reasons)
            raise UserError(f"no trial of {search.name} ended well: {'; '.join(reasons) or 'all were pruned'}")
        content = report(search, space, source, config, study, trials, winner)
        files = (
            write_settings(out / f"{search.name}.yaml", content),
            *write_pictures(reports / search.name, content, study),
        )
    return Found(content["best"]["settings"], content["best"]["score"], files)


def _question(search: Search, space: Mapping[str, Range]) -> str:
    """Fingerprint of what a trial's score depends on besides its own settings."""
    files = [Path(file).read_text(encoding="utf-8") for file in search.config_files]
    ranges = {name: value.model_dump() for name, value in space.items()}
    asked = [search.model, search.dataset, files, search.settings, ranges]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _same_question(study: Any, question: str, where: str) -> None:
    asked = study.user_attrs.get("question")
    if asked is None:
        study.set_user_attr("question", question)
    elif asked != question:
        raise UserError(
            f"the study in {where} was begun with other settings or ranges; delete it to begin anew, or give another "
            "--label"
        )


def _request(search: Search, space: Mapping[str, Range], where: str, bigger: bool, number: int) -> dict[str, Any]:
    return {
        "model": search.model,
        "dataset": search.dataset,
        "config_files": list(search.config_files),
        "settings": {**_QUIET, **search.settings},
        "space": {name: value.model_dump(mode="json") for name, value in space.items()},
        "storage": where,
        "study": search.name,
        "bigger": bigger,
        "trials": search.trials,
        "sampler_seed": search.seed * 10_000 + number,
    }


class _Trials:
    """Watches the trials of a search, with one bar."""

    def __init__(self, search: Search, n_spent: int, shown: bool) -> None:
        self.reasons: list[str] = []
        self._bar = tqdm(
            total=search.trials, initial=n_spent, desc=search.name, unit="trial", disable=not shown, dynamic_ncols=True
        )

    def __enter__(self) -> _Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def started(self, job: Job) -> None:
        """Nothing is worth a line yet."""

    def told(self, job: Job, message: dict[str, Any]) -> None:
        if "score" in message:
            self._bar.set_postfix_str(f"epoch {message['epoch']}: {message['score']:.4f}")

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        self._bar.update()
        if failed is not None:
            self.reasons.append(failed["failed"])
            self._bar.write(f"failed: {job.name}: {failed['failed']}")
