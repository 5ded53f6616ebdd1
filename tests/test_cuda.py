"""What only a GPU can show: every model trains and scores there as on the CPU, and no step makes the host wait."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.evaluator.collector import Collector
from recbole.utils import init_seed

from recbole_diffmm import registry
from recbole_diffmm.config import Config
from recbole_diffmm.evaluator.collector import TopCollector
from recbole_diffmm.quick_start import load, load_splits, run
from recbole_diffmm.trainer.loop import handed_over
from recbole_diffmm.trainer.replay import WARM_UP, Replay, own_stream
from tests.model.test_contract import MODELS, TRAINED

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

BUILT_IN = [
    *("BPR", "NGCF", "LightGCN", "SGL", "NCL", "SimpleX", "MultiVAE", "DiffRec", "LDiffRec"),
    *("EASE", "ItemKNN", "SLIMElastic", "Pop"),
]
SETTINGS = {
    "train_batch_size": 64,
    "epochs": 3,
    "learning_rate": 0.003,
    "show_progress": False,
    "state": "WARNING",
    "tensorboard": False,
    "use_gpu": True,
}
WAITING = {"HCCF"}  # its contrast is among the distinct nodes of a batch, whose number is waited for
REPLAYABLE = [name for name in TRAINED if registry.get_model(name).replayable]


@contextmanager
def no_waiting() -> Iterator[None]:
    """Refuse whatever makes the host wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("model", [*MODELS, *BUILT_IN])
def test_a_model_trained_on_the_gpu_scores_alike_on_the_cpu(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"num_clusters": 8} if model == "NCL" else {}  # toy has fewer users than its default
    result = run(model, "toy", config_dict={**SETTINGS, **few})
    assert result.record["device"].startswith("cuda")
    (checkpoint,) = Path("saved").glob("*.pth")
    scores = {}
    for device in ("cuda", "cpu"):
        if device == "cpu":
            monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        config, loaded, dataset, *_ = load(checkpoint)
        assert config["device"].type == device
        users = torch.arange(1, dataset.user_num, device=config["device"])
        with torch.no_grad():
            scores[device] = loaded.full_sort_predict({loaded.USER_ID: users}).view(len(users), -1)[:, 1:].cpu()
    assert torch.isfinite(scores["cpu"]).all()
    torch.testing.assert_close(scores["cuda"], scores["cpu"], rtol=1e-3, atol=1e-4 * float(scores["cpu"].abs().max()))


def trainer_of(model: str, **settings: Any) -> tuple[Any, Any]:
    """A trainer on the GPU, and its training batches."""
    config = Config(model, "toy", config_dict={**SETTINGS, **settings})
    init_seed(config["seed"], config["reproducibility"])
    train_data, *_ = load_splits(config, registry.create_dataset(config))
    built = config.model_class(config, train_data._dataset).to(config["device"])
    return registry.get_trainer_class(config)(config, built), train_data


@pytest.mark.parametrize("model", [name for name in TRAINED if name not in WAITING])
def test_a_step_does_not_wait_for_the_gpu(model: str) -> None:
    trainer, train_data = trainer_of(model)
    trainer.on_epoch_start(train_data, 0)
    trainer.model.train()

    def step(batch: Any) -> None:
        trainer.optimizer.zero_grad()
        losses = trainer.model.calculate_loss(handed_over(batch, trainer.device))
        (sum(losses) if isinstance(losses, tuple) else losses).backward()
        trainer.optimizer.step()

    batches = [batch for batch in train_data if len(batch) == 64][:3]
    for batch in batches[:2]:  # graphs and the optimiser's state are made
        step(batch)
    with no_waiting():
        step(batches[2])


def test_an_evaluation_collects_the_same_and_its_batches_do_not_wait() -> None:
    config = {"metrics": ["Recall", "ItemCoverage"], "eval_args": {"mode": "full"}, "topk": [5], "device": "cuda"}
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(30, 400, generator=generator) for _ in range(3)]
    positives = (torch.rand(30, 400, generator=generator) < 0.02).nonzero().T
    on_gpu = [(scores.cuda(), None, *positives.cuda()) for scores in batches]
    ours, recboles = TopCollector(config), Collector(config)
    ours.eval_batch_collect(*on_gpu[0])
    with no_waiting():
        for batch in on_gpu[1:]:
            ours.eval_batch_collect(*batch)
    for batch in on_gpu:
        recboles.eval_batch_collect(*batch)
    found, expected = ours.get_data_struct(), recboles.get_data_struct()
    for name in ("rec.items", "rec.topk"):
        assert torch.equal(found.get(name), expected.get(name))


def test_those_that_wait_still_do() -> None:
    """Else they belong among the others."""
    for model in WAITING:
        with pytest.raises(RuntimeError, match="synchroniz"):
            test_a_step_does_not_wait_for_the_gpu(model)


@pytest.mark.parametrize("model", REPLAYABLE)
def test_replayed_steps_train_as_steps_do(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []
    record = Replay._record
    monkeypatch.setattr(Replay, "_record", lambda self, batch: recorded.append(record(self, batch)))
    settings = {**SETTINGS, "train_batch_size": 20}
    curves = {}
    for cuda_graphs in (False, True):
        result = run(
            model, "toy", config_dict={**settings, "cuda_graphs": cuda_graphs, "results_dir": str(cuda_graphs)}
        )
        curves[cuda_graphs] = [epoch["losses"] for epoch in result.record["curve"]]
        assert len(recorded) == SETTINGS["epochs"] * cuda_graphs, "one an epoch, its graphs being others"
    assert curves[True][0] == pytest.approx(curves[False][0], rel=0.005)
    # Sums in parallel come in any order, and what that changes grows from step to step.
    assert curves[True][-1] == pytest.approx(curves[False][-1], rel=0.05)


@pytest.mark.parametrize("model", ["BM3", "CLCRec"])
def test_random_numbers_go_on_from_replay_to_replay(model: str) -> None:
    trainer, train_data = trainer_of(model, train_batch_size=20, learner="adam", learning_rate=1e-30)
    trainer.model.train()
    (batch, *_) = (handed_over(batch, trainer.device) for batch in train_data if len(batch) == 20)

    def step(given: Any) -> torch.Tensor:
        trainer.optimizer.zero_grad()
        terms = trainer.model.calculate_loss(given)
        sum(terms).backward()
        trainer.optimizer.step()
        return torch.stack([term.detach().reshape(()) for term in terms])

    with own_stream(trainer.device, torch.cuda.Stream()):
        replay = Replay(step, trainer.optimizer, model)
        losses = torch.stack([replay(batch).sum() for _ in range(WARM_UP + 6)]).tolist()
    assert len(set(losses)) == len(losses), "nothing else changes, at a rate that moves no weight"


def test_memory_on_the_gpu_does_not_grow_with_the_epochs() -> None:
    # In one run: cuBLAS keeps 64 MiB for the stream that a trainer works in, and the next trainer has another stream.
    peaks: list[float] = []
    settings = {**SETTINGS, "train_batch_size": 20, "epochs": 12, "stopping_step": 12, "resume_every": 0}
    run(
        "DiffMM",
        "toy",
        config_dict=settings,
        on_epoch=lambda epoch, score: peaks.append(torch.cuda.max_memory_allocated() / 2**20),
    )
    assert len(peaks) == 12
    assert peaks[11] == pytest.approx(peaks[2], abs=16)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_number_formats_agree(precision: str) -> None:
    settings = {**SETTINGS, "epochs": 8, "train_batch_size": 20}
    plain = run("DiffMM", "toy", config_dict={**settings, "precision": "fp32"}).record["curve"][-1]
    other = run("DiffMM", "toy", config_dict={**settings, "precision": precision}).record["curve"][-1]
    assert other["losses"] == pytest.approx(plain["losses"], rel=0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scaled", [False, True], ids=["as it is", "scaled"])
@pytest.mark.parametrize("model", [*TRAINED, "BPR", "NGCF", "LightGCN", "SGL", "SimpleX", "MultiVAE", "DiffRec"])
def test_float16_trains(model: str, scaled: bool) -> None:
    """RecBole's ``enable_amp``, which is float16 on a GPU alone, with and without its scaler of losses."""
    record = run(model, "toy", config_dict={**SETTINGS, "enable_amp": True, "enable_scaler": scaled}).record
    assert all(math.isfinite(value) for epoch in record["curve"] for value in epoch["losses"].values())
    checkpoint = next(Path("saved").glob("*.pth"))
    _, loaded, dataset, *_ = load(checkpoint)
    users = torch.arange(1, dataset.user_num, device=loaded.device)
    with torch.no_grad():
        scores = loaded.full_sort_predict({loaded.USER_ID: users})
    assert torch.isfinite(scores.view(len(users), -1)[:, 1:]).all()


def test_a_step_that_cannot_be_recorded_is_told() -> None:
    """In a process of its own: PyTorch's generator does not recover from a recording that failed."""
    settings = {**SETTINGS, "train_batch_size": 20}
    code = (
        "from recbole_diffmm import registry, quick_start\n"
        "registry.get_model('HCCF').replayable = True\n"
        f"quick_start.run('HCCF', 'toy', config_dict={settings})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = done.stderr.strip().splitlines()[-1]
    assert re.search(
        r"UserError: cuda_graphs: a training step of HCCF cannot be recorded .*cuda_graphs: false, in a new process$",
        told,
    )


def test_the_guard_refuses_a_wait() -> None:
    with pytest.raises(RuntimeError, match="synchroniz"), no_waiting():
        torch.ones(1, device="cuda").item()


@pytest.mark.parametrize("settings", [{}, {"latent_size": 8}, {"precision": "fp32"}, {"precision": "tf32"}], ids=str)
def test_a_denoiser_step_does_not_wait_for_the_gpu(settings: dict[str, Any]) -> None:
    trainer, _ = trainer_of("DiffMM", denoiser_hidden_sizes=[16], denoiser_batch_size=20, **settings)
    model = trainer.model.train()
    projected, targets = model.injection_targets()
    batches = model.history.batches(torch.arange(model.user_count, device="cuda"), 20)
    (name, optimizer), *_ = trainer.denoiser_optimizers.items()

    def step(users: torch.Tensor, n_entries: int) -> None:
        t = torch.randint(model.settings.steps, users.shape, device=users.device)
        noise = torch.randn(len(users), model.row_size, device=users.device)
        elbo, msi = model.denoiser_loss(name, users, t, noise, projected[name], targets[users], n_entries)
        (elbo.mean() + msi.mean()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step(*batches[0])
    with no_waiting():
        step(*batches[1])


@pytest.mark.parametrize("model", ["DiffMM", "LightGCN", "LATTICE"])
def test_a_run_on_the_gpu_goes_on_where_it_stopped(model: str) -> None:
    def stop(epoch: int, score: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    settings = {**SETTINGS, "epochs": 6, "train_batch_size": 20}
    whole = run(model, "toy", config_dict={**settings, "checkpoint_dir": "whole"})
    with pytest.raises(KeyboardInterrupt):
        run(model, "toy", config_dict=settings, on_epoch=stop)
    resumed = run(model, "toy", config_dict={**settings, "resume": True})
    assert len(resumed.record["curve"]) == 6
    # Sums in parallel come in any order: nearly the same, where another draw would give something else.
    for name, value in whole.record["curve"][-1]["losses"].items():
        assert resumed.record["curve"][-1]["losses"][name] == pytest.approx(value, rel=0.02), name


def test_memory_on_the_gpu_is_told() -> None:
    peak = run("DiffMM", "toy", config_dict=SETTINGS).record["peak_memory_mb"]
    assert 0 < peak["device"] < 1024
