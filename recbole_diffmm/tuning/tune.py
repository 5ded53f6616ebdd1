"""The recipe of a search: a study is opened or gone on with, its trials are done, the best settings are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from recbole_diffmm.errors import UserError
from recbole_diffmm.extras import require
from recbole_diffmm.process import Job, carry_out, only_one, same_environment, slots
from recbole_diffmm.provenance import code_hash, hash_file
from recbole_diffmm.record import plain, read_json, require_writable, run_name
from recbole_diffmm.registry import get_model
from recbole_diffmm.sources import read_yaml
from recbole_diffmm.tuning.bar import Bar
from recbole_diffmm.tuning.final import hold_final
from recbole_diffmm.tuning.report import report, write_report, write_settings
from recbole_diffmm.tuning.search import EARLIER, QUIET, Search, patience_in_epochs
from recbole_diffmm.tuning.space import Range, load_space

_WORKER = "recbole_diffmm.tuning.worker"


@dataclass(frozen=True)
class Found:
    """What a search has found: the best settings, their score (their mean in a final), and the files it wrote."""

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
    *,
    only_final: bool = False,
) -> Found:
    """Search until the budget is spent, going on where an earlier call stopped, and write what was found.

    The first trial is what the model is set to anyway, the second the best of an earlier search, where `out` has one.
    Every trial trains with validation alone: the objective is the best `valid_metric` of its curve, trials that are
    among the worst quarter after twice the patience are pruned, and the test split is never ranked. Finalists are
    trained again with other seeds, and the best mean wins.

    Args:
        search: What to search.
        out: Folder of the YAML of the best settings.
        reports: Folder of the report of all trials, of the pictures, and of the journal.
        storage: Another place for the study: a file, or a URL such as ``postgresql://...``, for workers elsewhere.
        workers: Trials at a time; by default one a GPU, or as cores and memory allow.
        progress: Show one bar on standard error.
        only_final: Do no trials, and hold the final of those that the report in `reports` has.

    Raises:
        UserError: A setting or range is wrong, the study or the report is one of other settings, or no training ended
            well.
    """
    from recbole_diffmm.config import Config

    require("tune", "tune", "optuna", "jinja2")
    from recbole_diffmm.tuning import study as studies

    if search.trials < 1:
        raise UserError(f"--trials is {search.trials}; give at least 1")
    if search.finalists < 1 + only_final:
        raise UserError(f"--finalists is {search.finalists}; give at least {1 + only_final}")
    if workers is not None and workers < 1:
        raise UserError(f"--workers is {workers}; give at least 1")
    get_model(search.model)
    if search.minutes is not None and search.minutes <= 0:
        raise UserError(f"--minutes is {search.minutes:g}; give more than 0")
    with same_environment():
        config = Config(search.model, search.dataset, list(search.config_files), None, {**QUIET, **search.settings})
    modalities = config["modalities"] if config["use_modalities"] is None else config["use_modalities"]
    names = [str(name) for name in modalities] if isinstance(modalities, (Mapping, list, tuple)) else []
    space, source = load_space(search.model, search.space, names)
    for name in space:
        if name not in config._known_keys():
            raise UserError(f"{source} searches {name!r}, which is no setting of {search.model}; see its settings")
        if name in search.settings:
            raise UserError(f"{source} searches {name}, which is set to {search.settings[name]!r}; leave one out")
    bigger = bool(config["valid_metric_bigger"])
    settings_file, stem = out / f"{search.name}.yaml", reports / search.name
    with only_one(reports) if storage is None else nullcontext():  # a database is for several at a time
        if only_final:
            content = _reported(search, stem)
        else:
            content = _search(search, config, space, source, settings_file, stem, storage, workers, progress)
        if search.finalists > 1:
            for folder in (out, reports):
                require_writable(folder)
            held = stem.with_name(f"{stem.name}.final.journal")
            studies.drop_half_line(held)
            content = hold_final(search, content, bigger, held, workers, progress)
        files = (write_settings(settings_file, content), *write_report(stem, content))
    score = content["final"]["mean"] if search.finalists > 1 else content["best"]["score"]
    return Found(content["best"]["settings"], score, files)


def _reported(search: Search, stem: Path) -> dict[str, Any]:
    """The report of a search that has ended, if it is the one that is asked for."""
    path = stem.with_name(f"{stem.name}.json")
    try:
        content = dict(read_json(path))
        then = [content[key] for key in ("model", "dataset", "settings", "config_hashes")]
        _ = int(content["seed"]), content["budget"]["trials"], content["space"]["ranges"], content["trials"][0]["curve"]
    except OSError:
        raise UserError(f"{search.name} has no report {path} to hold a final from; leave --final_only out") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise UserError(f"{path} is no report of recbole-diffmm tune; leave --final_only out") from None
    hashes = [hash_file(Path(file)) for file in search.config_files]
    if then != plain([search.model, search.dataset, search.settings, hashes]):
        raise UserError(f"{path} is of a search with other settings or config files; leave --final_only out")
    return content


def _search(
    search: Search,
    config: Any,
    space: Mapping[str, Range],
    source: str,
    settings_file: Path,
    stem: Path,
    storage: str | None,
    workers: int | None,
    progress: bool,
) -> dict[str, Any]:
    """Do the trials that a search has not done yet and return the report of all."""
    from recbole_diffmm.tuning import study as studies

    bigger, patience = bool(config["valid_metric_bigger"]), patience_in_epochs(config)
    where = storage or str(stem.with_name(f"{stem.name}.journal"))
    if storage is None:  # nobody else is at work on it, and whoever was killed may have left it locked
        Path(f"{where}.lock").unlink(missing_ok=True)
        studies.drop_half_line(Path(where))
    study = studies.open_study(where, search.name, bigger, search.seed, search.trials, patience)
    asked = {
        "question": _question(search, space),
        "configuration": run_name(config),
        "code": code_hash(search.model),
    }
    _same_question(study, asked, where)
    for folder in (settings_file.parent, stem.parent):  # now, not when the trials are done
        require_writable(folder)
    if storage is None:  # elsewhere others may be at work on it
        studies.give_up_running(study)
    shipped = {name: config[name] for name in space}
    if EARLIER not in study.user_attrs:
        # What this study has written itself, when it was begun by a version without starts, is no earlier search's.
        begun = bool(study.get_trials())
        known = {} if begun or not settings_file.is_file() else read_yaml(settings_file)
        study.set_user_attr(EARLIER, plain(known))
    earlier = study.user_attrs[EARLIER]
    studies.enqueue_starts(study, space, shipped, {**shipped, **earlier} if earlier else {})
    n_spent = len(studies.spent(study))
    # Of the earlier search too, or its random settings would be drawn again.
    seed = (search.seed * 10_000 + (crc32(json.dumps(earlier, sort_keys=True).encode()) if earlier else 0)) % 2**31
    jobs = (
        Job(f"{search.name} trial {number}", _WORKER, _request(search, space, where, bigger, number, patience, seed))
        for number in range(n_spent, search.trials)
        if not _over(search, studies.spent(study))
    )
    places = slots(workers, max(search.trials - n_spent, 1))
    with _Trials(search, study, n_spent, progress) as watcher:
        carry_out(jobs, places, watcher)
    # Elsewhere others may have spent more at the same time; the budget is what is stated.
    trials = studies.spent(study)[: search.trials]
    if len(trials) < search.trials and not _over(search, trials):
        raise UserError(
            f"only {len(trials)} of {search.trials} trials of {search.name} ended "
            f"({'; '.join(dict.fromkeys(watcher.reasons))}); the same command goes on"
        )
    splits = {trial.user_attrs["split_hash"] for trial in trials if "split_hash" in trial.user_attrs}
    if len(splits) > 1:
        raise UserError(
            f"the data of {search.dataset} changed while {search.name} was tuned; delete {where} to begin anew"
        )
    winner = studies.best(trials, bigger)
    if winner is None:
        reason = next(filter(None, (trial.user_attrs.get("error") for trial in trials)), "all were pruned")
        raise UserError(f"no trial of {search.name} ended well: {reason}; delete {where} to begin anew")
    return report(search, space, source, config, study, trials, winner)


def _over(search: Search, trials: Sequence[Any]) -> bool:
    """Whether these trials have used up the minutes of a search."""
    if search.minutes is None:
        return False
    return sum(trial.user_attrs.get("seconds") or 0.0 for trial in trials) >= 60 * search.minutes


def _question(search: Search, space: Mapping[str, Range]) -> str:
    """Fingerprint of what a trial's score depends on besides its own settings."""
    files = [Path(file).read_text(encoding="utf-8") for file in search.config_files]
    ranges = {name: value.model_dump() for name, value in space.items()}
    asked = [search.model, search.dataset, files, search.settings, ranges]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


_CHANGED = {"question": "settings or ranges", "configuration": "settings", "code": "code"}


def _same_question(study: Any, asked: Mapping[str, str], where: str) -> None:
    before = study.user_attrs
    for key, value in asked.items():
        if key not in before:
            study.set_user_attr(key, value)
        elif before[key] != value:
            raise UserError(
                f"the study in {where} was begun with other {_CHANGED[key]}; delete it to begin anew, or give another "
                "--label"
            )


def _request(
    search: Search, space: Mapping[str, Range], where: str, bigger: bool, number: int, patience: int, seed: int
) -> dict[str, Any]:
    return {
        "model": search.model,
        "dataset": search.dataset,
        "config_files": list(search.config_files),
        "settings": {**QUIET, **search.settings},
        "space": {name: value.model_dump(mode="json") for name, value in space.items()},
        "storage": where,
        "study": search.name,
        "bigger": bigger,
        "trials": search.trials,
        "seed": seed,
        "number": number,
        "patience": patience,
    }


class _Trials(Bar):
    """Tells the study which trials have died."""

    def __init__(self, search: Search, study: Any, n_spent: int, shown: bool) -> None:
        super().__init__(search.name, "trial", search.trials, n_spent, shown)
        self._study = study
        self._numbers: dict[str, int] = {}

    def told(self, job: Job, message: dict[str, Any]) -> None:
        if "trial" in message:
            self._numbers[job.name] = message["trial"]
        super().told(job, message)

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        if failed is not None and job.name in self._numbers:
            from recbole_diffmm.tuning.study import fail

            fail(self._study, self._numbers[job.name], failed["failed"])
        super().ended(job, failed)
