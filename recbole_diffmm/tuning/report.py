"""What a search leaves: the best settings as YAML, all trials as JSON, and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from recbole_diffmm import provenance
from recbole_diffmm.record import plain, selection, write_json, write_text
from recbole_diffmm.tuning.pictures import write_page
from recbole_diffmm.tuning.search import EARLIER, PATIENCES, WORST, Search, patience_in_epochs
from recbole_diffmm.tuning.space import Range


def report(
    search: Search,
    space: Mapping[str, Range],
    source: str,
    config: Any,
    study: Any,
    trials: Sequence[Any],
    winner: Any,
) -> dict[str, Any]:
    """Return all that is known of a search, as JSON has it."""

    def settings(trial: Any) -> dict[str, Any]:
        return {name: space[name].decode(value) for name, value in trial.params.items()}

    states = [trial.state.name.lower() for trial in trials]
    return dict(
        plain(
            {
                "model": search.model,
                "dataset": search.dataset,
                "objective": selection(config),
                "bigger_is_better": bool(config["valid_metric_bigger"]),
                "budget": {
                    "trials": search.trials,
                    "minutes": search.minutes,
                    "epochs": config["epochs"],
                    "stopping_step": config["stopping_step"],
                },
                "states": {state: states.count(state) for state in sorted(set(states))},
                "sampler": f"{type(study.sampler).__name__}, the shipped settings first"
                + (", then the best of an earlier search" if study.user_attrs.get(EARLIER) else ""),
                "earlier": study.user_attrs.get(EARLIER) or None,
                "pruner": f"the worst {WORST:.0f} % of all ended trials, each by its best so far, after "
                f"{PATIENCES * patience_in_epochs(config)} epochs",
                "sampler_seed": search.seed,
                "seed": config["seed"],
                "space": {"file": source, "ranges": {name: _told(value) for name, value in space.items()}},
                "settings": search.settings,
                "config_files": [Path(file).name for file in search.config_files],
                "config_hashes": [provenance.hash_file(Path(file)) for file in search.config_files],
                "best": {
                    "number": winner.number,
                    "score": winner.value,
                    "settings": settings(winner),
                    "best_epoch": winner.user_attrs.get("best_epoch"),
                },
                "at_edge": at_edge(space, settings(winner)),
                "importances": _importances(study),
                "trials": [
                    {
                        "number": trial.number,
                        "state": state,
                        "score": trial.value,
                        "settings": settings(trial),
                        "curve": [trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values)],
                        "best_epoch": trial.user_attrs.get("best_epoch", _best_epoch(trial, config)),
                        **{key: trial.user_attrs.get(key) for key in ("epochs_run", "seconds", "error")},
                    }
                    for trial, state in zip(trials, states, strict=True)
                ],
                "split_hash": winner.user_attrs.get("split_hash"),
                "code": provenance.code(search.model),
                "versions": provenance.versions(),
                "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }
        )
    )


def _best_epoch(trial: Any, config: Any) -> int | None:
    """Of a trial that has none of its own, for it was given up: the last of its best, as RecBole's trainer has it."""
    reported, sign = trial.intermediate_values, 1 if config["valid_metric_bigger"] else -1
    return max(reported, key=lambda epoch: (sign * reported[epoch], epoch), default=None)


def _told(value: Range) -> Any:
    """A range as its YAML would say it."""
    if value.kind == "choice":
        return list(value.values)
    told: dict[str, Any] = {"low": value.low, "high": value.high}
    if value.step is not None:
        told["step"] = value.step
    return {**told, "log": True} if value.log else told


def at_edge(space: Mapping[str, Range], settings: Mapping[str, Any]) -> list[str]:
    """Settings whose best value is so near an end of its range that a wider one might do better."""
    found = []
    for name, value in settings.items():
        limits = space[name]
        if limits.kind == "choice":
            numbers = [x for x in limits.values if isinstance(x, (int, float)) and not isinstance(x, bool)]
            if len(numbers) == len(limits.values) > 2 and value in {min(numbers), max(numbers)}:
                found.append(name)
            continue
        low, high, x = limits.low, limits.high, float(value)
        share = math.log(x / low) / math.log(high / low) if limits.log else (x - low) / (high - low)
        # At zero there is nothing wider: such settings cannot be negative.
        if (share < 0.05 and low != 0) or share > 0.95:
            found.append(name)
    return found


def _importances(study: Any) -> dict[str, float]:
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import TrialState

    if len(study.get_trials(states=(TrialState.COMPLETE,))) < 4:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return dict(optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))
    except (RuntimeError, ValueError, ZeroDivisionError):  # all scores equal, or a setting that never varied
        return {}


def write_settings(path: Path, content: Mapping[str, Any]) -> Path:
    """Write the best settings as YAML for --config_files, with what found them as comments."""
    best, budget = content["best"], content["budget"]
    states = ", ".join(f"{count} {state}" for state, count in content["states"].items())
    lines = [
        f"# {content['model']} on {content['dataset']}: the best of {len(content['trials'])} trials by "
        f"{content['objective']} ({best['score']:.4f}), seed {content['seed']}.",
        f"# Found by recbole-diffmm tune over {content['space']['file']} ({states}; at most {budget['epochs']} epochs, "
        f"patience {budget['stopping_step']}).",
        f"# Data split {content['split_hash'][:12]}, commit {(content['code']['commit'] or 'installed')[:9]}, "
        f"{content['finished'][:10]}.",
    ]
    if final := content.get("final"):
        seeds = ", ".join(str(seed) for seed in final["seeds"])
        lines[0] = lines[0].replace("the best of", f"the best of {budget['finalists']} finalists of")
        lines.insert(1, f"# Chosen by its mean over seeds {seeds} ({final['mean']:.4f}).")
    if content["at_edge"]:
        lines.append(f"# At an end of the searched range: {', '.join(content['at_edge'])}; a wider one may do better.")
    text = "\n".join([*lines, yaml.safe_dump(best["settings"], sort_keys=False)])
    write_text(path, text)
    return path


def write_report(stem: Path, content: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write the report as JSON, and as a page with its pictures beside it."""
    path, page = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("json", "html"))
    write_json(path, content)
    return path, write_page(page, dict(content))
