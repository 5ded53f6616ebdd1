"""The recipe of a run; the order of its steps is visible here only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import Sampler
from recbole.utils import dict2str, init_seed, set_color
from recbole.utils.logger import RemoveColorFilter

from recbole_diffmm import provenance, registry
from recbole_diffmm import record as records
from recbole_diffmm.config import Config
from recbole_diffmm.data.dataset import interaction_hash
from recbole_diffmm.errors import UserError
from recbole_diffmm.evaluator import slices
from recbole_diffmm.evaluator.per_user import write_parquet
from recbole_diffmm.evaluator.slices import Lists
from recbole_diffmm.provenance import energy_meter
from recbole_diffmm.trainer import checkpoint
from recbole_diffmm.trainer.base import check_identity, feature_hashes, load_parameters

# What a model raises that is built with settings which it does not look at.
_OF_SETTINGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


# Where RecBole's models keep what they have propagated for scoring.
_PROPAGATED = ("restore_user_e", "restore_item_e")


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind.

    Attributes:
        record: The run's record, as in its file.
        record_path: That file.
        valid: Validation metrics of the selected epoch, keyed like ``recall@20``.
        test: Test metrics of the same epoch.
    """

    record: dict[str, Any]
    record_path: Path
    valid: dict[str, float]
    test: dict[str, float]


def run(
    model: str | type = "DiffMM",
    dataset: str = "ml-100k",
    config_files: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> RunResult:
    """Train a model, select its epoch on validation, test it once, and write the record.

    The steps and the two seedings are in RecBole's order: its own models give the numbers that `run_recbole` gives, but
    for SGL, MacridVAE and Random, for which counting FLOPs, as that does in between, draws random numbers.

    Args:
        model: Name or class; this package's models and RecBole's.
        dataset: Name of a folder under ``data_path``, or of a bundled dataset.
        config_files: YAML files, later ones first in priority.
        config_dict: Values that win over files.
        overrides: Values that win over everything.
        on_epoch: Called after every validation with the epoch, from 0, and the validation score.

    Raises:
        UserError: Something that was given does not work; the message says what to do.
    """
    config = Config(model, dataset, list(config_files or []), dict(config_dict or {}), overrides=dict(overrides or {}))
    _require_writable(config)
    with _only_one(config), _logging(config) as warnings, energy_meter(bool(config["energy"])) as energy:
        started = time.perf_counter()
        dataset_, loaders = _prepare_data(config)
        train_data, valid_data, test_data = loaders
        if len(test_data._dataset) == 0:
            raise UserError(
                f"dataset {config['dataset']} has no test split: eval_args in {config.source('eval_args')} leaves "
                "nothing to test on; give test a share"
            )
        data = provenance.describe_data(dataset_, (loader._dataset for loader in loaders))
        data["files"] = provenance.describe_files(dataset_.dataset_path, dataset_, config)

        path = records.record_path(config)
        if config["resume"]:
            finished = records.read(path)
            if finished is not None and finished["data"] == records.plain(data):
                if finished["code"]["hash"] == provenance.code_hash(config["model"]):
                    getLogger().info(f"This run is finished: {path}")
                    return _result(finished, path)
                getLogger().warning(f"{path} is of other code of {config['model']}: training from the start")

        building = time.perf_counter()
        trainer = _prepare_trainer(config, train_data)
        trainer.identify_data(data)
        model_ = trainer.model
        building = time.perf_counter() - building
        trainer.resume_file = Path(config["checkpoint_dir"]) / f"{records.run_name(config)}.resume.pth"
        if config["protocol"] == "paper":
            trainer.watch_test(test_data)
        if config["resume"] and trainer.resume_file.exists():
            trainer.identify(train_data)
            trainer.resume_checkpoint(trainer.resume_file)
        elif config["resume"]:
            getLogger().info(
                f"Nothing to resume with this configuration at {trainer.resume_file}: training from the start"
            )
        if config["device"].type == "cuda":
            torch.cuda.reset_peak_memory_stats(config["device"])
        prepared = time.perf_counter()

        _, valid_result = trainer.fit(
            train_data, valid_data, show_progress=config["show_progress"], callback_fn=on_epoch
        )
        trained = time.perf_counter()
        trainer.release()
        test_result, lists = trainer.test(test_data)
        tested = time.perf_counter()
        _log_results(trainer, valid_result, test_result)

        records.set_aside(path)
        per_user = trainer.evaluator.per_user()
        written = None
        if per_user and lists is not None:
            tokens = dataset_.id2token(dataset_.uid_field, lists.users.numpy())
            file = path.with_suffix(".per_user.parquet")
            written = write_parquet(file, tokens, per_user, lists.user_history())
        seconds = {
            **records.summarise_seconds(trainer.curve, trainer.best_epoch, building),
            "preparation": round(prepared - started, 4),
            "training": round(trainer.earlier_seconds + trained - prepared, 4),
            "test": round(tested - trained, 4),
        }
        record = {
            "schema_version": records.SCHEMA_VERSION,
            "name": path.stem,
            "model": config["model"],
            "dataset": config["dataset"],
            "modalities": list(getattr(model_, "modality_names", ())),
            "protocol": config["protocol"],
            "masking": "train" if config["protocol"] == "paper" else "train+valid",
            "selection": records.selection(config, validated=valid_result is not None),
            "seed": config["seed"],
            "config": records.plain_config(config),
            "data": data,
            "metrics": {"valid": valid_result, "test": test_result, "test_selected": trainer.test_selected},
            **_parts(trainer, test_data, lists, getattr(dataset_, "modalities", {})),
            "per_user": written,
            "best_epoch": trainer.best_epoch,
            "epochs_run": len(trainer.curve),
            "curve": trainer.curve,
            "seconds": seconds,
            "peak_memory_mb": provenance.peak_memory_mb(config["device"]),
            "device": provenance.device_name(config["device"]),
            "threads": torch.get_num_threads(),
            # What `precision: auto` came to, or what `enable_amp` makes of it for models without that setting.
            "precision": getattr(model_, "precision", trainer.product_format),
            "versions": provenance.versions(),
            "code": provenance.code(config["model"]),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "warnings": warnings,
        }
    record["energy"] = energy  # measured up to here
    written_record = records.write(path, record)
    trainer.resume_file.unlink(missing_ok=True)
    return _result(written_record, path)


@dataclass(frozen=True)
class Validation:
    """What a training is worth on validation; nothing of test is in it.

    Attributes:
        score: The best value of ``valid_metric``.
        metrics: All validation metrics of that epoch.
        best_epoch: That epoch, from 0.
        epochs_run: Epochs trained.
        seconds: What building the model and training it took.
        split_hash: Fingerprint of the three splits.
        curve: What a record says of every epoch.
    """

    score: float
    metrics: dict[str, float]
    best_epoch: int | None
    epochs_run: int
    seconds: float
    split_hash: str
    curve: list[dict[str, Any]]


def validate(
    model: str | type,
    dataset: str,
    config_files: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
    on_data: Callable[[str], None] | None = None,
) -> Validation:
    """Train a model as :func:`run` does and judge it on validation alone; the test split is never ranked.

    Neither checkpoint nor record is written. Arguments and errors are those of :func:`run`; `on_epoch` may raise to end
    a training that is not worth going on with, and `on_data`, which gets the fingerprint of the three splits before it,
    one that is not worth beginning.
    """
    config = Config(model, dataset, list(config_files or []), dict(config_dict or {}), overrides=dict(overrides or {}))
    with _logging(config, to_file=False):
        dataset_, loaders = _prepare_data(config)
        train_data, valid_data, test_data = loaders
        data = provenance.describe_data(dataset_, (loader._dataset for loader in loaders))
        del loaders, test_data
        if on_data is not None:
            on_data(data["split_hash"])
        started = time.perf_counter()  # models without epochs, such as EASE, learn while they are built
        trainer = _prepare_trainer(config, train_data)
        score, metrics = trainer.fit(train_data, valid_data, saved=False, callback_fn=on_epoch)
        if metrics is None:
            raise UserError(f"dataset {config['dataset']} has no validation split; tuning needs one (see eval_args)")
        seconds = time.perf_counter() - started
    return Validation(
        float(score),
        dict(metrics),
        trainer.best_epoch,
        len(trainer.curve),
        round(seconds, 2),
        data["split_hash"],
        trainer.curve,
    )


def _prepare_data(config: Config) -> tuple[Any, tuple[Any, Any, Any]]:
    init_seed(config["seed"], config["reproducibility"])
    getLogger().info(config)
    dataset = registry.create_dataset(config)
    getLogger().info(dataset)
    return dataset, load_splits(config, dataset)


def _prepare_trainer(config: Config, train_data: Any) -> Any:
    with settings_told(config, "built"):
        model = _build_model(config, train_data)
        getLogger().info(model)
        return registry.get_trainer_class(config)(config, model)


def _build_model(config: Any, train_data: Any) -> Any:
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    return config.model_class(config, train_data._dataset).to(config["device"])


@contextmanager
def settings_told(config: Any, what: str) -> Iterator[None]:
    """Turn what a model raises because of its settings, of which RecBole's look at few, into one line.

    Args:
        config: The configuration.
        what: What the model cannot be, such as "built".

    Raises:
        UserError: In place of any of the model's errors.
    """
    try:
        yield
    except _OF_SETTINGS as error:
        getLogger().debug("where in the code", exc_info=error)
        reason = " ".join(str(error).split()) or "no reason given"
        raise UserError(
            f"{config['model']} cannot be {what} with its settings ({type(error).__name__}: {reason[:200]}); "
            f"recbole-diffmm models {config['model']} lists them, state: debug tells where in the code"
        ) from error


def _log_results(trainer: Any, valid_result: Any, test_result: Any) -> None:
    logger = getLogger()
    logger.info(set_color("best valid", "yellow") + f": {dict2str(valid_result or {})}")
    logger.info(set_color("test", "yellow") + f": {dict2str(test_result or {})}")
    chosen = trainer.test_selected
    if chosen is not None:
        logger.info(
            f"test-selected (protocol: paper, epoch {chosen['epoch']} chosen by {chosen['selected_on']}): "
            f"{dict2str(chosen['metrics'])}"
        )


def _parts(trainer: Any, test_data: Any, lists: Lists | None, modalities: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says beyond the averages of accuracy, all of the selected epoch and the test split."""
    if lists is None:
        return {"beyond_accuracy": {}, "coverage_by_modality": {}, "slices": None}
    per_user = trainer.evaluator.per_user
    parts: dict[str, Any] = {
        "users_by_history": slices.users_by_history(lists, per_user),
        "items_by_popularity": slices.items_by_popularity(lists, per_user),
        "without_modality": {},
    }
    model = trainer.model
    for name in getattr(model, "modality_names", ()):
        with model.without(name):
            parts["without_modality"][name] = trainer.evaluate(test_data, load_best_model=False)
    observed = {name: features.observed for name, features in modalities.items()}
    config = trainer.config
    return {
        "beyond_accuracy": slices.beyond_accuracy(lists, config),
        "coverage_by_modality": slices.coverage_by_modality(lists, observed, config["topk"]),
        "slices": parts,
    }


def load(
    checkpoint_path: str | Path, overrides: Mapping[str, Any] | None = None
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Rebuild what a checkpoint was trained with.

    Args:
        checkpoint_path: A file that a run wrote.
        overrides: Settings that win over the checkpoint's, such as ``protocol``, ``topk``, ``data_path`` or
            ``eval_graph``.

    Returns:
        The configuration, the model with the checkpoint's parameters in evaluation mode, the dataset, and the
        training, validation and test loaders.

    Raises:
        UserError: The checkpoint is unreadable, the data are not those it was trained on, or a key is unknown.
    """
    content = checkpoint.load(checkpoint_path)
    if content.get("kind") == "resume" or "config" not in content:
        raise UserError(
            f"checkpoint {checkpoint_path}: holds the state of an unfinished run and no trained model; continue the "
            "run with --resume=true, or give the .pth file without .resume in its name"
        )
    config = Config.from_plain(content["config"], overrides)
    init_seed(config["seed"], config["reproducibility"])
    dataset = registry.create_dataset(config)
    train_data, valid_data, test_data = load_splits(config, dataset)
    data = provenance.describe_data(dataset, (loader._dataset for loader in (train_data, valid_data, test_data)))
    with settings_told(config, "built"):
        model = _build_model(config, train_data)
    check_identity(
        checkpoint_path,
        content,
        {
            "model": config["model"],
            "dataset": config["dataset"],
            "n_users": int(dataset.user_num),
            "n_items": int(dataset.item_num),
            "train_hash": interaction_hash(train_data._dataset),
            "split_hash": data["split_hash"],
            "features": feature_hashes(data),
        },
    )
    load_parameters(model, checkpoint.load(checkpoint_path, config["device"]), checkpoint_path)
    for name in _PROPAGATED if overrides else ():
        if hasattr(model, name):  # of the checkpoint's own settings; None has RecBole's models propagate anew
            setattr(model, name, None)
    return config, model.eval(), dataset, train_data, valid_data, test_data


def load_splits(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Split `dataset` and return its training, validation and test loaders.

    RecBole's `data_preparation` would unpickle loaders that it finds in ``checkpoint_dir``; this never does.
    Under ``protocol: paper`` testing hides the training items alone, otherwise those of validation too.
    """
    with registry.data_errors_told(config):
        splits = dataset.build()
        samplers = create_samplers(config, dataset, splits)
        train_data, valid_data, test_data = (
            get_dataloader(config, phase)(config, split, sampler, shuffle=phase == "train" and config["shuffle"])
            for phase, split, sampler in zip(("train", "valid", "test"), splits, samplers, strict=True)
        )
    if config["protocol"] == "paper":
        if not isinstance(test_data, FullSortEvalDataLoader):
            raise UserError("protocol: paper ranks all items; set eval_args.mode to full or use protocol: recbole")
        hidden = Sampler(["train"], [splits[0]]).set_phase("train")
        test_data = FullSortEvalDataLoader(config, splits[2], hidden)
    return train_data, valid_data, test_data


def _result(record: dict[str, Any], path: Path) -> RunResult:
    metrics = record["metrics"]
    return RunResult(record, path, metrics["valid"] or {}, metrics["test"] or {})


def _require_writable(config: Any) -> None:
    # Now, not when the first epoch has been trained.
    for key, default in (("checkpoint_dir", "saved"), ("results_dir", "results/runs"), ("log_dir", "log")):
        folder = Path(config[key] or default)
        records.require_writable(folder, what=f"{key} in {config.source(key)}: ")
    records.require_writable(Path(config["log_dir"] or "log") / config["model"])
    earlier = records.record_path(config).parent / records.EARLIER
    if earlier.exists():
        records.require_writable(earlier)
    if config["tensorboard"] is not False:
        records.require_writable(Path("log_tensorboard"), what="tensorboard: true writes into it, and ")


@contextmanager
def _only_one(config: Any) -> Iterator[None]:
    """Keep a second process out of the same run: both would write its checkpoint and its record.

    Raises:
        UserError: Another one is at work on it.
    """
    path = Path(config["checkpoint_dir"]) / f"{records.run_name(config)}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is at work on this run ({path}); wait for it or end it") from None
    except (OSError, NotImplementedError):  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


@contextmanager
def _logging(config: Any, to_file: bool = True) -> Iterator[list[str]]:
    """Log to the terminal and to a file named after the run, and gather the warnings.

    RecBole's `init_logger` sets the root logger up once a process: a second run would write into the first one's file.
    """
    root = getLogger()
    before = root.level
    level = logging.getLevelName(str(config["state"] or "info").upper())
    handlers: list[logging.Handler] = []
    if to_file:
        path = Path(config["log_dir"] or "log") / config["model"] / f"{records.run_name(config)}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, mode="a" if config["resume"] else "w", encoding="utf-8", delay=True)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s  %(message)s"))
        file.addFilter(RemoveColorFilter())
        handlers.append(file)
    terminal = logging.StreamHandler()
    terminal.setFormatter(logging.Formatter("%(asctime)s %(levelname)s  %(message)s", "%d %b %H:%M"))
    if config["show_progress"]:
        terminal.addFilter(_not_of_an_epoch)
    warnings = _Warnings()
    handlers += [terminal, warnings]
    root.setLevel(level)
    for handler in handlers:
        handler.setLevel(max(level, handler.level))
        root.addHandler(handler)
    try:
        yield warnings.messages
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def _not_of_an_epoch(record: logging.LogRecord) -> bool:
    # The bar tells the terminal how training goes; the lines of every epoch are in the file.
    return record.levelno > logging.INFO or record.funcName not in {"fit", "_save_checkpoint", "_test_epoch"}


class _Warnings(logging.Handler):
    """Keeps the text of every warning, once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.messages:
            self.messages.append(message)
