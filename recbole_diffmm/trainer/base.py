"""What this package adds to any of RecBole's trainers; the training loop stays RecBole's own `fit`."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.trainer import Trainer
from recbole.trainer import trainer as recbole_trainer
from recbole.utils import dict2str, set_color
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from recbole_diffmm import provenance
from recbole_diffmm.data.dataset import interaction_hash
from recbole_diffmm.errors import UserError
from recbole_diffmm.evaluator.batches import RepeatedBatches
from recbole_diffmm.evaluator.collector import TopCollector
from recbole_diffmm.evaluator.per_user import PerUserEvaluator
from recbole_diffmm.evaluator.slices import Lists
from recbole_diffmm.record import plain_config, run_name
from recbole_diffmm.trainer import checkpoint
from recbole_diffmm.trainer.loop import BatchLoop
from recbole_diffmm.trainer.replay import keep_count_on_host
from recbole_diffmm.trainer.state import AttributeWatch, random_state, set_random_state


class RunTrainer(Trainer):
    """RecBole's `Trainer` with phases, named losses, plain checkpoints and exact resuming.

    Combine it with the trainer of a model in front and the loop over batches behind, see :func:`with_records`.

    Attributes:
        curve: One dict an epoch: ``epoch``, ``losses`` (mean per batch, by name), ``seconds`` (by phase), ``valid``
            (metrics; absent without validation), ``diagnostics``, and under ``protocol: paper`` also ``test``.
        diagnostics: What a subclass wants to see of the current epoch; it goes to the log, the curve and TensorBoard.
        best_epoch: The epoch that validation selected, from 0, or else the last; None before the first.
        test_selected: Under ``protocol: paper``, the epoch with the best test metric; None otherwise.
        resume_file: Where the state of an unfinished run is kept, every `resume_every` epochs; None keeps none.
        earlier_seconds: What training took, up to the state that was resumed from, in all sessions before this one.

    Raises:
        UserError: More than one process was asked for.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        if not config["single_spec"]:
            raise UserError("nproc/world_size: training in several processes is not supported; leave both out")
        name = run_name(config)
        # RecBole's constructor opens TensorBoard in the current folder under the name of the log file.
        opened = recbole_trainer.get_tensorboard
        recbole_trainer.get_tensorboard = lambda logger: _summary_writer(config, name)
        try:
            super().__init__(config, model)
        finally:
            recbole_trainer.get_tensorboard = opened
        # RecBole's file name is the clock's second: runs that start together would overwrite each other's best epoch.
        self.saved_model_file = os.path.join(self.checkpoint_dir, f"{name}.pth")
        self.eval_collector = TopCollector(config)
        self.evaluator = PerUserEvaluator(config)
        self.curve: list[dict[str, Any]] = []
        self.diagnostics: dict[str, Any] = {}
        self.best_epoch: int | None = None
        self.test_selected: dict[str, Any] | None = None
        self.resume_file: Path | None = None
        self.earlier_seconds = 0.0
        self.train_hash: str | None = None
        self.split_hash: str | None = None
        self.feature_hashes: dict[str, str] = {}
        self._started = time.perf_counter()
        self._watch = AttributeWatch(model)
        self._test_data: Any = None
        self._evaluated: WeakKeyDictionary[FullSortEvalDataLoader, RepeatedBatches] = WeakKeyDictionary()
        self._loaders: list[Any] = []
        self._random_state: dict[str, Any] | None = None
        self._resumed = False
        self._epoch = 0
        self._batches = 0
        self._seconds: dict[str, float] = {}
        self._terms: Any = None
        self._epoch_losses: dict[str, float] = {}
        self._bar = tqdm(disable=True)

    # What a subclass may override

    def on_epoch_start(self, train_data: Any, epoch_idx: int) -> dict[str, float]:
        """Do what comes before the epoch's ranking batches; returned losses are logged by their names."""
        return {}

    def extra_state(self) -> dict[str, Any]:
        """Return what resuming needs besides the model and this trainer's optimisers, as tensors and plain values."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `extra_state` returned."""

    def release(self) -> None:
        """Free what training alone needs, before the best epoch's parameters are read beside those of the last."""
        self.model.zero_grad(set_to_none=True)
        self.optimizer.state.clear()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the wall-clock seconds spent inside to this epoch's phase `name`."""
        self._synchronise()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._synchronise()
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def _synchronise(self) -> None:
        # Twice a phase, never a step: kernels still running would be counted in the next phase.
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def watch_test(self, test_data: Any) -> None:
        """Evaluate `test_data` whenever validation is looked at, and remember the epoch that is best there.

        Raises:
            UserError: The protocol is not ``paper``; nothing else may look at test data during training.
        """
        if self.config["protocol"] != "paper":
            raise UserError(f"protocol: {self.config['protocol']}: only protocol: paper may see test data in training")
        self._test_data = test_data
        # Both selections, by validation and by test, are to choose among all epochs.
        self.stopping_step = self.epochs + 1

    # RecBole's steps, in the order of `fit`

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train as RecBole does, with one progress bar over epochs in place of one for every epoch."""
        if self._test_data is not None and not valid_data:
            raise UserError(
                "protocol: paper reports the epochs that validation and test select, and eval_args.split leaves no "
                "validation interactions; give it a share, or use protocol: recbole"
            )
        self._started = time.perf_counter()
        self._loaders = [train_data] if valid_data is None else [train_data, valid_data]
        self.identify(train_data)
        if self.resume_file is not None and not self._resumed:
            self.resume_file.unlink(missing_ok=True)  # left by an earlier run that nobody asked to continue
        redirected = logging_redirect_tqdm() if show_progress else nullcontext()
        with (
            tqdm(
                total=self.epochs,
                initial=self.start_epoch,
                desc=f"{self.config['model']} on {self.config['dataset']}",
                unit="epoch",
                disable=not show_progress,
            ) as self._bar,
            redirected,
            warnings.catch_warnings(),
        ):
            # RecBole builds a scaler an epoch by a name that PyTorch renamed.
            warnings.filterwarnings("ignore", r".*torch\.cuda\.amp", FutureWarning)
            result = super().fit(train_data, valid_data, verbose, saved, False, callback_fn)
        self._apply_random_state()
        self._save_resume_state(self.epochs)
        self.tensorboard.flush()
        return result

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Callable[..., Any] | None = None, show_progress: bool = False
    ) -> Any:
        self._apply_random_state()
        if epoch_idx > self.start_epoch:
            self._save_resume_state(epoch_idx)
        self._epoch, self._batches, self._terms = epoch_idx, 0, None
        self._seconds, self.diagnostics = {}, {}
        extra_losses = self.on_epoch_start(train_data, epoch_idx)
        for name, value in extra_losses.items():
            if not torch.isfinite(torch.tensor(float(value))):
                raise self._not_finite(name, value, "while preparing it")
        with self.phase("ranking"):
            losses = super()._train_epoch(
                train_data, epoch_idx, loss_func=self._remember_terms(loss_func or self.model.calculate_loss)
            )
        self._epoch_losses = {**extra_losses, **self._named_means(losses)}
        self.curve.append(
            {
                "epoch": epoch_idx,
                "losses": self._epoch_losses,
                "seconds": self._seconds,
                "diagnostics": self.diagnostics,
            }
        )
        self._bar.update()
        return losses

    def _remember_terms(self, loss_func: Callable[..., Any]) -> Callable[..., Any]:
        def remembering(*args: Any, **kwargs: Any) -> Any:
            self._terms = loss_func(*args, **kwargs)
            return self._terms

        return remembering

    def _check_nan(self, loss: torch.Tensor) -> None:
        # The one place that RecBole visits once a batch. RecBole waits for the device here too, and lets infinity pass.
        if not torch.isfinite(loss):
            term, value = "loss", loss.item()
            if isinstance(self._terms, tuple):
                values = [part.item() for part in self._terms]
                broken = [i for i, part in enumerate(self._terms) if not torch.isfinite(part)]
                if broken:
                    term, value = self._loss_names(len(values))[broken[0]], values[broken[0]]
            raise self._not_finite(term, value, f"batch {self._batches}")
        self._batches += 1

    def begin_batches(self) -> None:
        """Count batches anew: losses are means over those of the last pass."""
        self._batches = 0

    def check_in_retrospect(self, losses: list[torch.Tensor]) -> None:
        """Count the batches and refuse the first term that is not finite, as :meth:`_check_nan` does at once."""
        values = torch.stack(losses)  # (batches, terms)
        broken = (~torch.isfinite(values)).nonzero()
        if len(broken):
            batch, term = broken[0].tolist()
            name = self._loss_names(values.shape[1])[term]
            raise self._not_finite(name, values[batch, term].item(), f"batch {self._batches + batch}")
        self._batches += len(values)

    def _not_finite(self, term: str, value: float, where: str) -> UserError:
        return UserError(
            f"loss term {term} became {value} in epoch {self._epoch}, {where}, "
            f"with learning_rate={self.learning_rate}; try a smaller learning_rate, or "
            "clip_grad_norm: {max_norm: 5}"
        )

    def _loss_names(self, n_terms: int) -> list[str]:
        declared = tuple(getattr(self.model, "loss_names", ()))
        if len(declared) == n_terms:
            return list(declared)
        return ["loss"] if n_terms == 1 else [f"loss{i + 1}" for i in range(n_terms)]

    def _named_means(self, losses: Any) -> dict[str, float]:
        # RecBole sums over batches; a mean does not change with the batch size.
        if losses is None:
            return {}
        terms = losses if isinstance(losses, tuple) else (losses,)
        names = self._loss_names(len(terms))
        return {name: float(value) / max(self._batches, 1) for name, value in zip(names, terms, strict=True)}

    def _generate_train_loss_output(self, epoch_idx: int, s_time: float, e_time: float, losses: Any) -> str:
        places = self.config["loss_decimal_place"] or 4
        parts = [set_color("time", "blue") + f": {e_time - s_time:.2f}s"]
        parts += [set_color(phase, "blue") + f": {seconds:.2f}s" for phase, seconds in self._seconds.items()]
        parts += [set_color(name, "blue") + f": {value:.{places}f}" for name, value in self._epoch_losses.items()]
        parts += [f"{name}: {value:.4g}" for name, value in _flat_numbers(self.diagnostics)]
        return set_color(f"epoch {epoch_idx} training", "green") + f" [{', '.join(parts)}]"

    def _add_train_loss_to_tensorboard(self, epoch_idx: int, losses: Any, tag: str = "Loss/Train") -> None:
        for name, value in self._epoch_losses.items():
            self.tensorboard.add_scalar(f"Loss/{name}", value, epoch_idx)
        for phase, seconds in self._seconds.items():
            self.tensorboard.add_scalar(f"Seconds/{phase}", seconds, epoch_idx)
        for name, value in _flat_numbers(self.diagnostics):
            self.tensorboard.add_scalar(f"Diagnostics/{name}", value, epoch_idx)

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        with self.phase("evaluation"):
            score, result = super()._valid_epoch(valid_data)
        self.curve[-1]["valid"] = dict(result)
        self.tensorboard.add_scalar("Seconds/evaluation", self._seconds["evaluation"], self._epoch)
        if self._not_worse(score, self.best_valid_score):
            self.best_epoch = self._epoch
        self._bar.set_postfix({self.config["valid_metric"]: f"{score:.4f}", "best epoch": self.best_epoch})
        if self._test_data is not None:
            self._test_epoch()
        return score, result

    def _test_epoch(self) -> None:
        with self.phase("test_evaluation"):
            result = self.evaluate(self._test_data, load_best_model=False) or {}
        self.curve[-1]["test"] = dict(result)
        self.logger.info(f"epoch {self._epoch} test (protocol: paper): \n{dict2str(result)}")
        score, best = result[self.valid_metric], self.test_selected
        if best is None or (
            score != best["metrics"][self.valid_metric] and self._not_worse(score, best["metrics"][self.valid_metric])
        ):
            self.test_selected = {
                "epoch": self._epoch,
                "metrics": dict(result),
                "selected_on": f"test {self.config['valid_metric']}",
            }

    def _not_worse(self, score: float, best: float) -> bool:
        # Ties count as improvement, as in RecBole's early stopping.
        return score >= best if self.valid_metric_bigger else score <= best

    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: str | None = None, show_progress: bool = False
    ) -> dict[str, float] | None:
        """Return the metrics of `eval_data`, of the best epoch's model unless `load_best_model` is False.

        Raises:
            UserError: The checkpoint is of another model or dataset, or a score is infinite or not a number.
        """
        if load_best_model and eval_data:
            self.load_model(model_file or self.saved_model_file)
        if isinstance(eval_data, FullSortEvalDataLoader):
            if eval_data not in self._evaluated:
                self._evaluated[eval_data] = RepeatedBatches(eval_data, self.device)
            eval_data = self._evaluated[eval_data]
        self.eval_collector.begin()
        result: dict[str, float] | None = super().evaluate(eval_data, load_best_model=False)
        largest = self.eval_collector.largest
        if largest and not torch.stack(largest).amax() < torch.inf:  # not a number compares to nothing
            raise UserError(
                f"scores of {self.config['model']} are not finite, with learning_rate={self.learning_rate}; try a "
                "smaller learning_rate, and look at the sizes of the features"
            )
        return result

    def test(self, test_data: Any) -> tuple[dict[str, float], Lists | None]:
        """Return the test metrics of the best epoch, and the lists they are of where all items were ranked."""
        register = self.eval_collector.register
        full = isinstance(test_data, FullSortEvalDataLoader)
        had = register.need("rec.items")
        setattr(register, "rec.items", full or had)
        try:
            metrics = self.evaluate(test_data, load_best_model=Path(self.saved_model_file).exists()) or {}
        finally:
            setattr(register, "rec.items", had)
        hits, items = self.evaluator.hits, self.evaluator.items
        if not full or hits is None or items is None:
            return metrics, None
        test, train = test_data._dataset, self._loaders[0]._dataset
        lists = Lists(
            users=test_data.uid_list.cpu(),
            items=items.cpu(),
            hits=hits.cpu(),
            positives=_pairs(test),
            history=_pairs(train),
            n_users=int(test.user_num),
            n_items=int(test.item_num),
        )
        return metrics, lists

    # Checkpoints

    def identify(self, train_data: Any) -> None:
        """Remember which training split this is, so that another one's checkpoints are refused."""
        self.train_hash = interaction_hash(train_data._dataset)

    def identify_data(self, data: Mapping[str, Any]) -> None:
        """Remember what `describe_data` says of all splits and features, to the same end."""
        self.split_hash = data["split_hash"]
        self.feature_hashes = feature_hashes(data)

    def _identity(self) -> dict[str, Any]:
        return {
            "model": self.config["model"],
            "dataset": self.config["dataset"],
            "n_users": int(getattr(self.model, "n_users", 0)),
            "n_items": int(getattr(self.model, "n_items", 0)),
            "train_hash": self.train_hash,
            "split_hash": self.split_hash,
            "features": self.feature_hashes,
        }

    def _require_same_identity(self, path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
        check_identity(path, content, self._identity())

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if epoch < 0 and self._resumed:
            return  # `fit` found nothing left to train: the last epoch must not overwrite the best one
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        if self.best_epoch is None or not any("valid" in entry for entry in self.curve):
            self.best_epoch = epoch  # without validation, each epoch takes the place of the one before
        content = {
            **self._identity(),
            "kind": "model",
            "config": plain_config(self.config),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": dict(self.model.state_dict()),
            "other_parameter": self.model.other_parameter(),
        }
        with self.phase("saving"):
            checkpoint.save(path, content)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Store a pre-trained model (RecBole's `PretrainTrainer` calls this) in the format of all checkpoints.

        Under RecBole's name, for the next stage, which is that of every seed's; and under the run's own, for its test.
        """
        for path in (saved_model_file, self.saved_model_file):
            self._save_checkpoint(epoch, verbose=False, saved_model_file=path)

    def load_model(self, path: str | os.PathLike[str]) -> None:
        """Put the parameters of a checkpoint into the model.

        Raises:
            UserError: It is unreadable, or of another model or dataset.
        """
        content = checkpoint.load(path, map_location=self.device)
        self._require_same_identity(path, content)
        load_parameters(self.model, content, path)
        self.logger.info(f"Loading model structure and parameters from {path}")

    def _save_resume_state(self, next_epoch: int) -> None:
        every = 1 if self.config["resume_every"] is None else self.config["resume_every"]
        if self.resume_file is None or every == 0:
            return
        if next_epoch % every and next_epoch < self.epochs:
            return
        with self.phase("saving"):
            checkpoint.save(self.resume_file, self._resume_state(next_epoch))

    def _resume_state(self, next_epoch: int) -> dict[str, Any]:
        optimizers: dict[str, Any] = {}
        seen: dict[int, str] = {}
        for name, value in sorted(vars(self).items(), reverse=True):
            if isinstance(value, torch.optim.Optimizer):
                # Some trainers switch `optimizer` between others: an alias is stored as the other's name.
                optimizers[name] = seen.get(id(value)) or value.state_dict()
                seen.setdefault(id(value), name)
        return {
            **self._identity(),
            "kind": "resume",
            "code": provenance.code_hash(self.config["model"]),
            "next_epoch": next_epoch,
            "seconds": self.earlier_seconds + time.perf_counter() - self._started,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": self.best_valid_result,
            "best_epoch": self.best_epoch,
            "test_selected": self.test_selected,
            "train_loss_dict": self.train_loss_dict,
            "curve": self.curve,
            "state_dict": dict(self.model.state_dict()),
            "attributes": self._watch.changed(),
            "optimizers": optimizers,
            "extra_state": self.extra_state(),
            "random": random_state(self._loaders),
        }

    def resume_checkpoint(self, resume_file: str | os.PathLike[str]) -> None:
        """Continue from the state of an unfinished run, as if it had not been interrupted.

        State that other code of the model has written is passed over with a warning: a record names one code alone.

        Raises:
            UserError: The file is unreadable, no such state, or of another model or dataset.
        """
        content = checkpoint.load(resume_file)
        if content.get("kind") != "resume":
            raise UserError(f"checkpoint {resume_file}: holds a trained model and no training state; use resume: true")
        self._require_same_identity(resume_file, content)
        if content.get("code") != provenance.code_hash(self.config["model"]):
            self.logger.warning(
                f"{resume_file} was written by other code of {self.config['model']}: training from the start"
            )
            return
        try:
            self._restore(content, resume_file)
        except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            raise UserError(
                f"checkpoint {resume_file}: is damaged ({reason}); delete it to train from the start"
            ) from None
        self._resumed = True
        self.logger.info(f"Resuming from epoch {self.start_epoch}: {resume_file}")

    def _restore(self, content: Mapping[str, Any], resume_file: str | os.PathLike[str]) -> None:
        load_parameters(self.model, {"state_dict": content["state_dict"]}, resume_file)
        self._watch.restore(content["attributes"], self.device)
        # First those with a state of their own, then the names that point to them.
        for name, state in sorted(content["optimizers"].items(), key=lambda item: isinstance(item[1], str)):
            if isinstance(state, str):
                setattr(self, name, getattr(self, state))
            else:
                getattr(self, name).load_state_dict(state)
                if self.device.type != "cuda":
                    keep_count_on_host(getattr(self, name))
        self.load_extra_state(content["extra_state"])
        self.start_epoch = content["next_epoch"]
        self.earlier_seconds = content.get("seconds", 0.0)
        self.cur_step = content["cur_step"]
        self.best_valid_score = content["best_valid_score"]
        self.best_valid_result = content["best_valid_result"]
        self.best_epoch = content["best_epoch"]
        self.test_selected = content["test_selected"]
        self.train_loss_dict = content["train_loss_dict"]
        self.curve = content["curve"]
        self._random_state = content["random"]

    def _apply_random_state(self) -> None:
        # Late, because building the model and the loaders has drawn numbers since.
        if self._random_state is not None:
            set_random_state(self._random_state, self._loaders)
            self._random_state = None


def with_records(base: type[Trainer]) -> type:
    """Return one of RecBole's trainer classes with what :class:`RunTrainer` and :class:`BatchLoop` add to it."""
    bases = (RunTrainer, BatchLoop) if base is Trainer else (RunTrainer, base, BatchLoop)
    return type(base.__name__, bases, {"__module__": base.__module__})


def _pairs(dataset: Any) -> torch.Tensor:
    """The distinct pairs ``(2, P)`` of user and item of a split."""
    features = dataset.inter_feat
    pairs = torch.stack([torch.as_tensor(features[field]).long() for field in (dataset.uid_field, dataset.iid_field)])
    return torch.unique(pairs.cpu(), dim=1)


def feature_hashes(data: Mapping[str, Any]) -> dict[str, str]:
    """Of what `describe_data` says, the fingerprint of each modality's features."""
    return {name: features["hash"] for name, features in data["features"].items()}


def check_identity(path: str | os.PathLike[str], content: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another model, another dataset, other splits or other features.

    What an older checkpoint does not say, or `expected` leaves open, is not compared; nor are modalities that only one
    of the two uses.

    Raises:
        UserError: Naming the first difference.
    """
    pairs = [
        (meaning, content.get(key), expected.get(key))
        for key, meaning in (
            ("model", "model"),
            ("dataset", "dataset"),
            ("n_users", "number of users"),
            ("n_items", "number of items"),
            ("train_hash", "training split"),
            ("split_hash", "split into training, validation and test"),
        )
    ]
    features = content.get("features") or {}
    for name, digest in (expected.get("features") or {}).items():
        pairs.append((f"features file of {name}", features.get(name), digest))
    for meaning, got, wanted in pairs:
        if got is not None and wanted is not None and got != wanted:
            raise UserError(
                f"checkpoint {path}: its {meaning} is {got}, this run's is {wanted}; give a checkpoint of this "
                f"{'model' if meaning == 'model' else 'dataset and split'}, or delete this one and train again"
            )


def load_parameters(model: Any, content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Put a checkpoint's parameters into `model`.

    Raises:
        UserError: They do not fit, as when the sizes in the configuration differ.
    """
    try:
        model.load_state_dict(content["state_dict"])
        model.load_other_parameter(content.get("other_parameter"))
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"checkpoint {path}: does not fit this model's configuration ({reason})") from None


def _flat_numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", float(value)


class _NoWriter:
    """Stands in for TensorBoard where ``tensorboard: false``."""

    def add_scalar(self, *args: Any, **kwargs: Any) -> None: ...

    def add_hparams(self, *args: Any, **kwargs: Any) -> None: ...

    def flush(self) -> None: ...


def _summary_writer(config: Any, name: str) -> Any:
    if config["tensorboard"] is False:
        return _NoWriter()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(os.path.join("log_tensorboard", name))
