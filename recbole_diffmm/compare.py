"""Several models on one dataset under one protocol, and the table of their records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from recbole_diffmm.errors import UserError
from recbole_diffmm.record import MASKED, candidates

DEFAULT_MODELS = ("DiffMM", "Pop", "BPR", "LightGCN", "EASE")

# One bar and one table: the log of five trainings would bury both. Neither key is part of a run's name.
_QUIET = {"state": "WARNING", "show_progress": False}


def compare(
    models: Iterable[str] = DEFAULT_MODELS,
    dataset: str = "ml-100k",
    config_files: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: bool = True,
    failures: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Train and evaluate each model on the dataset and return their run records, in the order of `models`.

    All configurations are checked before the first model trains.

    Args:
        models: Names of our models or of RecBole's.
        dataset: The dataset's name.
        config_files: YAML files for all models.
        config_dict: Settings for all models.
        overrides: Settings for all models, of the highest priority; a key ``<Model>.<key>`` is for that model alone.
        progress: Show one progress bar, in epochs, on standard error.
        failures: Where given, a model that fails is noted here with its reason and the others go on.

    Raises:
        UserError: There is no model, a model is named twice, or a model, dataset or setting is wrong.
    """
    from recbole_diffmm.config import Config
    from recbole_diffmm.quick_start import run

    names = list(models)
    shared, own = _split_overrides(names, overrides or {})
    settings = {name: {**_QUIET, **shared, **own[name]} for name in names}
    budgets = {}
    for name in names:
        config = Config(name, dataset, config_files, dict(config_dict or {}), settings[name])
        budgets[name] = budget(config)

    records = []
    with tqdm(total=sum(budgets.values()), disable=not progress, unit="epoch", dynamic_ncols=True) as bar:
        done = 0
        for name in names:
            bar.set_description(name)
            try:
                result = run(name, dataset, config_files, config_dict, settings[name], on_epoch=partial(_advance, bar))
                records.append(result.record)
            except Exception as error:  # whatever a model stumbles over, the others' hours are not lost
                if failures is None:
                    raise
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                failures[name] = " ".join(reason.split())
            done += budgets[name]
            bar.update(done - bar.n)  # early stopping leaves a rest
        bar.set_description("all models")
        bar.set_postfix_str("")
    return records


def render(records: Sequence[Mapping[str, Any]]) -> str:
    """Return one table of test metrics at each run's validation-selected epoch, under a caption with their protocol.

    A value that the runs do not share is listed in the caption with all its variants, so that rows that cannot be
    compared are seen not to be.
    """
    if not records:
        return "no runs to compare"
    columns = _metric_columns(records)
    rows = [
        [*_row(record, columns, record["metrics"]["test"], record["best_epoch"]), record["seconds"]["training"]]
        for record in records
    ]
    parts = [_caption(records), _table(["model", *columns, "best epoch", "seconds"], rows)]
    selected = [
        (record, record["metrics"]["test_selected"]) for record in records if record["metrics"].get("test_selected")
    ]
    if selected:
        criteria = " and ".join(dict.fromkeys(str(found["selected_on"]) for _, found in selected))
        parts += [
            f"\nTest-selected, for comparison with published tables only: the epoch with the best {criteria}.",
            _table(
                ["model", *columns, "best epoch"],
                [_row(record, columns, found["metrics"], found["epoch"]) for record, found in selected],
            ),
        ]
    return "\n".join(parts)


def _row(
    record: Mapping[str, Any], columns: Sequence[str], metrics: Mapping[str, float], epoch: int | None
) -> list[Any]:
    return [record["model"], *(metrics.get(column.lower()) for column in columns), epoch]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    formats = [{"model": "", "best epoch": "", "seconds": ".1f"}.get(name, ".4f") for name in header]
    return tabulate(rows, headers=header, floatfmt=formats, missingval="-")


def _advance(bar: Any, epoch: int, score: float) -> None:
    bar.set_postfix(valid=f"{score:.4f}", refresh=False)
    bar.update()


def _split_overrides(
    names: Sequence[str], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    if not names:
        raise UserError(f"no model to compare: give --models=A,B,..., such as --models={','.join(DEFAULT_MODELS)}")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"model {name!r} is listed {names.count(name)} times in --models: name each model once")
    shared: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in overrides.items():
        model, dot, rest = key.partition(".")
        if not dot:
            shared[key] = value
        elif model in own:
            own[model][rest] = value
        else:
            raise UserError(f"--{key}: {model!r} is not one of the compared models ({', '.join(names)})")
    return shared, own


def budget(config: Any) -> int:
    """Return how many epochs a run may train."""
    from recbole.utils import ModelType

    # RecBole's trainer for models without gradient descent makes one pass, whatever `epochs` says.
    return 1 if config["MODEL_TYPE"] == ModelType.TRADITIONAL else max(int(config["epochs"]), 1)


def _metric_columns(records: Sequence[Mapping[str, Any]]) -> list[str]:
    columns: list[str] = []
    for record in records:
        config = record["config"]
        for cut_off in config["topk"]:
            columns += [f"{metric}@{cut_off}" for metric in config["metrics"]]
    return list(dict.fromkeys(columns))


def _caption(records: Sequence[Mapping[str, Any]]) -> str:
    def shared(key: str) -> str:
        return " and ".join(dict.fromkeys(str(record[key]) for record in records))

    masking = " or ".join(dict.fromkeys(MASKED[record["masking"]] for record in records))
    among = " or ".join(dict.fromkeys(candidates(record["config"]) or "all items" for record in records))
    lines = (
        f"Test metrics on {shared('dataset')}, protocol {shared('protocol')}, epoch selected by {shared('selection')},",
        f"{masking} masked at test, seed {shared('seed')}; seconds of training with validation.",
        *([] if among == "all items" else [f"Each test item is ranked among {among}."]),
    )
    return "\n".join(lines)
