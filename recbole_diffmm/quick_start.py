"""The recipe of a run; the order of its steps is visible here only."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import Sampler
from recbole.utils import dict2str, init_seed, set_color
from recbole.utils.logger import RemoveColorFilter

from recbole_diffmm import record as records
from recbole_diffmm import registry
from recbole_diffmm.config import Config
from recbole_diffmm.data.dataset import interaction_hash
from recbole_diffmm.errors import UserError
from recbole_diffmm.evaluator.per_user import write_parquet
from recbole_diffmm.trainer import checkpoint
from recbole_diffmm.trainer.base import check_identity, load_parameters


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

    The steps and the two seedings are in RecBole's order: its own models give the numbers that `run_recbole` gives.

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
    with _logging(config) as warnings:
        started = time.perf_counter()
        init_seed(config["seed"], config["reproducibility"])
        logger = getLogger()
        logger.info(config)

        dataset_ = registry.create_dataset(config)
        logger.info(dataset_)
        train_data, valid_data, test_data = load_splits(config, dataset_)
        data = records.describe_data(dataset_, (loader._dataset for loader in (train_data, valid_data, test_data)))

        path = records.record_path(config)
        if config["resume"]:
            finished = records.read(path)
            if finished is not None and finished["data"] == records.plain(data):
                logger.info(f"This run is finished: {path}")
                return _result(finished, path)

        init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
        model_ = config.model_class(config, train_data._dataset).to(config["device"])
        logger.info(model_)

        trainer = registry.get_trainer_class(config)(config, model_)
        trainer.resume_file = Path(config["checkpoint_dir"]) / f"{records.run_name(config)}.resume.pth"
        if config["protocol"] == "paper":
            trainer.watch_test(test_data)
        if config["resume"] and trainer.resume_file.exists():
            trainer.identify(train_data)
            trainer.resume_checkpoint(trainer.resume_file)
        elif config["resume"]:
            logger.info(f"Nothing to resume with this configuration at {trainer.resume_file}: training from the start")
        if config["device"].type == "cuda":
            torch.cuda.reset_peak_memory_stats(config["device"])
        prepared = time.perf_counter()

        _, valid_result = trainer.fit(
            train_data, valid_data, show_progress=config["show_progress"], callback_fn=on_epoch
        )
        trained = time.perf_counter()
        test_result = trainer.evaluate(test_data, load_best_model=Path(trainer.saved_model_file).exists())

        metrics = {"valid": valid_result, "test": test_result}
        logger.info(set_color("best valid", "yellow") + f": {dict2str(valid_result or {})}")
        logger.info(set_color("test", "yellow") + f": {dict2str(test_result or {})}")
        if trainer.test_selected is not None:
            metrics["test_selected"] = trainer.test_selected
            logger.info(
                f"test-selected (protocol: paper, epoch {trainer.test_selected['epoch']} chosen by "
                f"{trainer.test_selected['selected_on']}): {dict2str(trainer.test_selected['metrics'])}"
            )
        seconds = {
            **records.summarise_seconds(trainer.curve),
            "preparation": round(prepared - started, 4),
            "training": round(trainer.earlier_seconds + trained - prepared, 4),
            "test": round(time.perf_counter() - trained, 4),
        }
        record = {
            "schema_version": records.SCHEMA_VERSION,
            "model": config["model"],
            "dataset": config["dataset"],
            "protocol": config["protocol"],
            "masking": "train" if config["protocol"] == "paper" else "train+valid",
            "selection": records.selection(config),
            "seed": config["seed"],
            "config": records.plain_config(config),
            "data": data,
            "metrics": metrics,
            "best_epoch": trainer.best_epoch,
            "epochs_run": len(trainer.curve),
            "curve": trainer.curve,
            "seconds": seconds,
            "peak_memory_mb": records.peak_memory_mb(config["device"]),
            "device": records.device_name(config["device"]),
            "threads": torch.get_num_threads(),
            # What `precision: auto` came to; RecBole's models multiply in float32 unless enable_amp is set.
            "precision": getattr(model_, "precision", "fp32"),
            "versions": records.versions(),
            "commit": records.commit(),
            "warnings": warnings,
        }
        per_user = trainer.evaluator.per_user()
        if per_user and isinstance(test_data, FullSortEvalDataLoader):
            tokens = dataset_.id2token(dataset_.uid_field, test_data.uid_list.numpy())
            write_parquet(path.with_suffix(".per_user.parquet"), tokens, per_user)
        records.write(path, record)
        trainer.resume_file.unlink(missing_ok=True)
        return _result(records.plain(record), path)


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
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    model = config.model_class(config, train_data._dataset).to(config["device"])
    check_identity(
        checkpoint_path,
        content,
        {
            "model": config["model"],
            "dataset": config["dataset"],
            "n_users": int(dataset.user_num),
            "n_items": int(dataset.item_num),
            "train_hash": interaction_hash(train_data._dataset),
        },
    )
    load_parameters(model, checkpoint.load(checkpoint_path, config["device"]), checkpoint_path)
    return config, model.eval(), dataset, train_data, valid_data, test_data


def load_splits(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Split `dataset` and return its training, validation and test loaders.

    RecBole's `data_preparation` would unpickle loaders that it finds in ``checkpoint_dir``; this never does.
    Under ``protocol: paper`` testing hides the training items alone, otherwise those of validation too.
    """
    splits = dataset.build()
    samplers = create_samplers(config, dataset, splits)
    train_data, valid_data, test_data = (
        get_dataloader(config, phase)(config, split, sampler, shuffle=config["shuffle"] if phase == "train" else False)
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
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise UserError(
                f"{key} in {config.source(key)}: {folder} cannot be written ({reason}); give another folder"
            ) from None


@contextmanager
def _logging(config: Any) -> Iterator[list[str]]:
    """Log to the terminal and to a file named after the run, and gather the warnings.

    RecBole's `init_logger` sets the root logger up once a process: a second run would write into the first one's file.
    """
    root = getLogger()
    before = root.level
    level = logging.getLevelName(str(config["state"] or "info").upper())
    path = Path(config["log_dir"] or "log") / config["model"] / f"{records.run_name(config)}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, mode="a" if config["resume"] else "w", encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s  %(message)s"))
    file.addFilter(RemoveColorFilter())
    terminal = logging.StreamHandler()
    terminal.setFormatter(logging.Formatter("%(asctime)s %(levelname)s  %(message)s", "%d %b %H:%M"))
    if config["show_progress"]:
        terminal.addFilter(_not_of_an_epoch)
    warnings = _Warnings()
    handlers: list[logging.Handler] = [terminal, file, warnings]
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
