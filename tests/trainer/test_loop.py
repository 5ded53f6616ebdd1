"""The loop over batches: RecBole's own numbers, a trainer's own loop where it has one, and no waiting for a device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recbole.model.general_recommender import BPR
from recbole.trainer import KGATTrainer, NCLTrainer, RecVAETrainer, Trainer
from recbole.utils import init_seed
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_diffmm import registry
from recbole_diffmm.config import Config
from recbole_diffmm.errors import UserError
from recbole_diffmm.quick_start import load_splits
from recbole_diffmm.trainer import loop
from recbole_diffmm.trainer.base import with_records
from recbole_diffmm.trainer.loop import BatchLoop
from tests.trainer.small import SETTINGS


class Readings(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: numbers read back, and results whose size depends on the data."""

    WAITING = ("_local_scalar_dense", "nonzero", "_unique", "unique_dim", "masked_select", "is_nonzero")
    # Its result's size is read from the device unless it is given.
    SIZED = "repeat_interleave"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if name.startswith(self.WAITING) or (name == self.SIZED and (kwargs or {}).get("output_size") is None):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> Readings:
        self._calls = _Calls(self.seen)
        self._calls.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._calls.__exit__(*error)


class _Calls(TorchFunctionMode):
    """Adds the calls that wait for a GPU and do something else on the CPU, where the dispatcher sees none of it."""

    WAITING = ("numpy", "cpu", "equal", "allclose", "bincount", "__contains__")

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.WAITING or (name in {"__getitem__", "__setitem__"} and self._has_mask(args[1])):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _has_mask(index: Any) -> bool:
        parts = index if isinstance(index, tuple) else (index,)
        return any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in parts)


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("__getitem__", lambda x: x[x > 0]),
        ("__setitem__", lambda x: x.__setitem__(x > 0, 0.0)),
        ("bincount", lambda x: x.long().bincount()),
        ("numpy", lambda x: x.numpy()),
        ("equal", lambda x: torch.equal(x, x)),
        ("_local_scalar_dense", lambda x: x.sum().item()),
        ("nonzero", lambda x: x.nonzero()),
        ("repeat_interleave", lambda x: x.repeat_interleave(x.long())),
    ],
)
def test_what_waits_for_a_device_is_seen(name: str, reading: Any) -> None:
    with Readings() as readings:
        reading(torch.arange(4.0))
    assert name in readings.seen
    with Readings() as readings:
        torch.arange(4.0)[torch.arange(2)].sum().mul_(2)
    assert readings.seen == []


def build(model: str, **values: Any) -> tuple[Any, Any]:
    config = Config(model, "toy", config_dict={**SETTINGS, "tensorboard": False, **values})
    init_seed(7, True)
    train_data, _, _ = load_splits(config, registry.create_dataset(config))
    model_ = config.model_class(config, train_data._dataset)
    return registry.get_trainer_class(config)(config, model_), train_data


@pytest.mark.parametrize("values", [{}, {"clip_grad_norm": {"max_norm": 0.1}}, {"enable_amp": True}], ids=str)
@pytest.mark.parametrize("model", ["BPR", "LightGCN", "SGL"])
def test_an_epoch_is_recboles_own(model: str, values: dict[str, Any]) -> None:
    outcomes = []
    for train_epoch in (BatchLoop._train_epoch, Trainer._train_epoch):
        trainer, train_data = build(model, **values)
        init_seed(3, True)
        losses = train_epoch(trainer, train_data, 0)
        outcomes.append((losses, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}))
    (ours, parameters), (theirs, expected) = outcomes
    assert ours == pytest.approx(theirs, rel=1e-12)
    assert all(torch.equal(parameters[name], value) for name, value in expected.items())


@pytest.mark.parametrize("base", [KGATTrainer, RecVAETrainer, NCLTrainer])
def test_a_trainers_own_loop_comes_first(base: type) -> None:
    order = with_records(base).__mro__
    assert order.index(base) < order.index(BatchLoop) < order.index(Trainer)


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "DiffMM"])
def test_steps_do_not_wait_for_a_device(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Twice the batches read no more: what is left is once an epoch, to build graphs and to look at the losses."""
    trainer, train_data = build(model, train_batch_size=64)
    trainer.on_epoch_start(train_data, 0)
    trainer.reading_waits = True
    trainer.optimizer.step = lambda: None  # it counts its steps in a tensor on the CPU
    # What a GPU takes instead of counting each node of a batch once.
    equal = lambda nodes: (nodes, torch.ones(len(nodes)) / len(nodes))  # noqa: E731
    monkeypatch.setattr("recbole_diffmm.model.losses.distinct", equal)
    batches = list(train_data)  # RecBole samples negatives on the CPU
    seen = []
    for n_batches in (1, 4, 8):  # the first builds the observed graph
        with Readings() as readings:
            BatchLoop._train_epoch(trainer, batches[:n_batches], 0)
        seen.append(sorted(readings.seen))
    assert len(batches) >= 8
    assert seen[1] == seen[2]
    assert "nonzero" in seen[1], "the look at the losses is counted, so that readings are seen at all"


def test_a_loss_that_breaks_is_named_in_retrospect(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def calculate_loss(self: Any, interaction: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        zero = self.user_embedding.weight.sum() * 0
        return zero + 1.0, zero + (float("nan") if len(calls) == 5 else 1.0)

    monkeypatch.setattr(BPR, "calculate_loss", calculate_loss)
    monkeypatch.setattr(BPR, "loss_names", ("fine", "broken"), raising=False)
    monkeypatch.setattr(loop, "CHECK_EVERY", 3)
    trainer, train_data = build("BPR", train_batch_size=64)
    trainer.reading_waits = True
    with pytest.raises(UserError, match=r"loss term broken became nan in epoch 0, batch 4, with learning_rate=0\.01"):
        BatchLoop._train_epoch(trainer, train_data, 0)
    assert len(calls) == 6, "it is found with the next look, not at the end"


@pytest.mark.parametrize("every", [2, 3, 100])
def test_every_batch_is_looked_at_once(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    monkeypatch.setattr(loop, "CHECK_EVERY", every)
    trainer, train_data = build("BPR", train_batch_size=64)
    trainer.reading_waits = True
    batches = list(train_data)[:6]
    BatchLoop._train_epoch(trainer, batches, 0)
    assert trainer._batches == len(batches) == 6


@pytest.mark.parametrize("values", [{}, {"latent_size": 16}, {"sampling_steps": 2}], ids=str)
def test_the_diffusion_reads_back_as_much_whatever_the_number_of_its_batches(values: dict[str, Any]) -> None:
    seen = []
    for size in (64, 8):
        trainer, _ = build("DiffMM", denoiser_batch_size=size, **values)
        trainer.model.rebuild_graphs()
        for optimizer in trainer.denoiser_optimizers.values():
            optimizer.step = lambda: None  # it counts its steps in a tensor on the CPU
        with Readings() as readings:
            trainer._train_denoisers()
            trainer.model.rebuild_graphs()
        seen.append(sorted(readings.seen))
    assert trainer.model.user_count > 16
    # The lengths of the batches are read in one go, but as a list: a number each.
    lists = [[name for name in names if name != "_local_scalar_dense"] for names in seen]
    assert lists[0] == lists[1]
    assert lists[1].count("repeat_interleave") == 1, "the sums of all histories, once an epoch"


def test_a_record_says_what_products_are_in() -> None:
    assert build("BPR")[0].product_format == "fp32"
    assert build("BPR", enable_amp=True)[0].product_format == "bf16"


def test_what_training_alone_needs_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, train_data = build("DiffMM")
    trainer.on_epoch_start(train_data, 0)
    BatchLoop._train_epoch(trainer, train_data, 0)
    optimizers = [trainer.optimizer, *trainer.denoiser_optimizers.values()]
    assert all(optimizer.state for optimizer in optimizers)
    left: list[int] = []
    give_back = lambda: left.append(sum(len(optimizer.state) for optimizer in optimizers))  # noqa: E731
    monkeypatch.setattr("recbole_diffmm.trainer.diffmm.return_freed_memory", give_back)
    trainer.release()
    assert left == [0], "given back once, when all of them are free"
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_diffmm_gives_back_what_its_batches_freed_before_it_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, train_data = build("DiffMM", epochs=1)
    _, valid_data, _ = load_splits(trainer.config, registry.create_dataset(trainer.config))
    seen: list[str] = []
    phase = trainer.phase
    monkeypatch.setattr(trainer, "phase", lambda name: seen.append(name) or phase(name))
    monkeypatch.setattr("recbole_diffmm.trainer.diffmm.return_freed_memory", lambda: seen.append("given back"))
    trainer.fit(train_data, valid_data, saved=False)
    before = seen[: seen.index("evaluation")]
    assert before[before.index("ranking") :] == ["ranking", "given back"]


def test_the_papers_protocol_wants_a_validation_split() -> None:
    trainer, train_data = build("BPR", protocol="paper")
    trainer.watch_test(train_data)
    with pytest.raises(UserError, match=r"protocol: paper .* eval_args.split leaves no validation interactions"):
        trainer.fit(train_data, None)
