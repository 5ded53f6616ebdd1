"""One training of a search in a process of its own, judged on validation: a trial, or one of its final."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from recbole_diffmm.errors import UserError
from recbole_diffmm.process import gpu_settings, leave, told_to_parent


def main() -> int:
    """Do the training that standard input asks for and return the exit code."""
    with told_to_parent() as (asked, tell):
        try:
            tell({"done": (trial if "study" in asked else training)(asked, tell)})
        except Exception as error:
            tell({"failed": _reason(error), "details": traceback.format_exc()})
            return 1
    return 0


def _reason(error: Exception) -> str:
    return " ".join((str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}").split())


def training(asked: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train with the settings that are asked for and return the best of the validation curve, and what it took."""
    from recbole_diffmm.quick_start import validate
    from recbole_diffmm.quiet import quiet_libraries

    quiet_libraries()
    started = time.perf_counter()
    result = validate(
        asked["model"],
        asked["dataset"],
        asked["config_files"],
        None,
        gpu_settings(asked["settings"]),
        lambda epoch, score: tell({"epoch": epoch + 1, "score": score}),
    )
    return {
        "score": result.score,
        "best_epoch": result.best_epoch,
        "epochs_run": result.epochs_run,
        "seconds": round(time.perf_counter() - started, 2),
        "split_hash": result.split_hash,
    }


def trial(asked: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> int | None:
    """Draw settings, train and return the trial's number; one that ends with an error is told to the study as failed.

    Where others, elsewhere, have spent the rest of the budget, nothing is done.
    """
    import optuna
    from optuna.trial import TrialState

    from recbole_diffmm.quick_start import validate
    from recbole_diffmm.quiet import quiet_libraries
    from recbole_diffmm.tuning.space import Range
    from recbole_diffmm.tuning.study import open_study, sampler, spent

    quiet_libraries()
    study = open_study(
        asked["storage"],
        asked["study"],
        asked["bigger"],
        asked["seed"] + asked["number"],
        asked["trials"],
        asked["patience"],
    )
    if len(spent(study)) >= asked["trials"]:
        return None
    now = study.ask()
    # By the trial's own number, which no two have here or elsewhere: others would draw the same settings.
    study.sampler = sampler(asked["seed"] + now.number, asked["trials"])
    tell({"trial": now.number})
    space = {name: Range.model_validate(value) for name, value in asked["space"].items()}
    drawn = {name: value.draw(name, now) for name, value in space.items()}
    settings = {**gpu_settings(asked["settings"]), **drawn}
    started = time.perf_counter()

    def on_epoch(epoch: int, score: float) -> None:
        now.report(score, epoch)
        tell({"epoch": epoch + 1, "score": score})
        if now.should_prune():
            raise optuna.TrialPruned

    def note_seconds() -> None:
        # However a trial ends, all of it counts: reading data and building the model, which for some is the training.
        now.set_user_attr("seconds", round(time.perf_counter() - started, 2))

    def on_data(split_hash: str) -> None:
        now.set_user_attr("split_hash", split_hash)
        others = {other.user_attrs.get("split_hash") for other in study.get_trials(deepcopy=False)}
        if len(others - {None}) > 1:
            raise UserError(f"the data of {asked['dataset']} are no longer those of the other trials")

    try:
        result = validate(asked["model"], asked["dataset"], asked["config_files"], None, settings, on_epoch, on_data)
    except optuna.TrialPruned:
        note_seconds()
        study.tell(now, state=TrialState.PRUNED)
        return now.number
    except Exception as error:
        note_seconds()
        now.set_user_attr("error", _reason(error))
        study.tell(now, state=TrialState.FAIL)
        raise
    note_seconds()
    now.set_user_attr("best_epoch", result.best_epoch)
    now.set_user_attr("epochs_run", result.epochs_run)
    study.tell(now, result.score)
    return now.number


if __name__ == "__main__":
    leave(main())
