"""What DiffMM's trainer does in an epoch: the denoisers' step against a plain one, the order of phases, and devices."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.utils import init_seed

from recbole_diffmm import registry
from recbole_diffmm.config import Config
from recbole_diffmm.diffusion.denoiser import sinusoidal_embedding
from recbole_diffmm.errors import UserError
from recbole_diffmm.quick_start import load_splits, run
from recbole_diffmm.trainer.diffmm import DiffMMTrainer
from recbole_diffmm.trainer.state import return_freed_memory
from tests.trainer.small import SETTINGS, small_run

SMALL = {**SETTINGS, "denoiser_hidden_sizes": [16], "use_modalities": ["look", "smell"], "tensorboard": False}


def build(**values: Any) -> tuple[DiffMMTrainer, Any]:
    """A trainer with a new model on toy, and the training loader."""
    config = Config("DiffMM", "toy", config_dict={**SMALL, **values})
    init_seed(7, True)
    train_data, _, _ = load_splits(config, registry.create_dataset(config))
    model = config.model_class(config, train_data._dataset).to(config["device"])
    return DiffMMTrainer(config, model), train_data


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 1e-2)])
def test_one_step_of_the_denoisers_is_adam_on_the_published_loss(precision: str, tolerance: float) -> None:
    trainer, _ = build(denoiser_batch_size=1000, denoiser_dropout=0.0, msi_weight=0.3, precision=precision)
    model = trainer.model
    plain = copy.deepcopy(model)
    torch.manual_seed(11)
    losses = trainer._train_denoisers()

    torch.manual_seed(11)
    users = torch.randperm(model.user_count)
    rows = torch.zeros(model.user_count, model.item_count)
    rows[model.train_users, model.train_items] = 1
    x_start = rows[users]
    schedule = model.diffusion.schedule
    for name in model.modality_names:
        t = torch.randint(model.settings.steps, users.shape)
        noise = torch.randn_like(x_start)
        alpha = schedule.alphas_cumprod[t].float().unsqueeze(1)
        x_t = alpha.sqrt() * x_start + (1 - alpha).sqrt() * noise
        net = plain.denoiser(name)
        weight = torch.cat([net.input_layer.weight, net.input_time_layer.weight], dim=1)
        e_t = net.time_layer(sinusoidal_embedding(t, net.time_embedding_size))
        h = torch.tanh(torch.cat([x_t, e_t], dim=1) @ weight.t() + net.input_layer.bias)
        pred = h @ net.layers[0].weight.t() + net.layers[0].bias
        snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
        w_t = torch.where(t == 0, torch.ones(()), (snr[t - 1] - snr[t]).float())
        elbo = (w_t * ((x_start - pred) ** 2).mean(dim=1)).mean()
        with torch.no_grad():
            projected, items = plain.project(name), plain.item_embedding
        msi = ((pred @ projected - x_start @ items.detach()) ** 2).mean(dim=1).mean()
        assert losses[f"elbo_{name}"] == pytest.approx(elbo.item(), rel=tolerance)
        assert losses[f"msi_{name}"] == pytest.approx(0.3 * msi.item(), rel=tolerance)
        optimizer = torch.optim.Adam(net.parameters(), lr=model.settings.denoiser_learning_rate)
        (elbo + 0.3 * msi).backward()
        optimizer.step()
        for key, parameter in net.named_parameters():
            trained = model.denoiser(name).get_parameter(key)
            # The first step of Adam is the sign of the gradient: where that is zero but for rounding, it may differ.
            same = (trained - parameter).abs() < 1e-5
            assert same.float().mean() > 1 - 10 * tolerance, key


def test_the_denoisers_learn() -> None:
    trainer, train_data = build(denoiser_batch_size=16, denoiser_learning_rate=0.01)
    epochs = [trainer.on_epoch_start(train_data, epoch) for epoch in range(8)]
    for name in trainer.model.modality_names:
        assert epochs[-1][f"elbo_{name}"] < 0.8 * epochs[0][f"elbo_{name}"]


def test_without_signal_injection() -> None:
    (with_msi, data), (without, _) = build(msi_weight=5.0), build(msi_weight=0.0)
    torch.manual_seed(0)
    assert with_msi.on_epoch_start(data, 0)["msi_look"] > 0
    torch.manual_seed(0)
    assert without.on_epoch_start(data, 0)["msi_look"] == 0
    weights = [trainer.model.denoiser("look").input_layer.weight for trainer in (with_msi, without)]
    assert not torch.allclose(*weights)


def test_an_epoch_denoises_then_generates_then_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, train_data = build()
    order: list[str] = []

    def noting(owner: Any, method: str) -> None:
        original = getattr(owner, method)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            order.append(method)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, method, wrapped)

    for method in ("denoiser_loss", "generate", "calculate_loss"):
        noting(trainer.model, method)
    before = {name: trainer.model.generated_items(name).clone() for name in trainer.model.modality_names}
    trainer.epochs = 1
    trainer.fit(train_data, None, saved=False)
    first, last = {}, {}
    for position, method in enumerate(order):
        first.setdefault(method, position)
        last[method] = position
    assert last["denoiser_loss"] < first["generate"]
    assert last["generate"] < first["calculate_loss"]
    for name, items in before.items():
        assert not torch.equal(trainer.model.generated_items(name), items)


def test_a_denoiser_that_diverges_is_told_with_its_own_learning_rate() -> None:
    trainer, train_data = build(denoiser_learning_rate=1e30, denoiser_batch_size=16)
    before = trainer.model.generated_items("look").clone()
    with pytest.raises(UserError, match=r"(elbo|msi)_\w+ became .* in epoch 4 with denoiser_learning_rate=1e\+30"):
        trainer.on_epoch_start(train_data, 4)
    assert torch.equal(trainer.model.generated_items("look"), before), "no graph is made of what is not a number"


def test_mixed_precision_trains() -> None:
    result = small_run("DiffMM", enable_amp=True, epochs=8, denoiser_hidden_sizes=[16])
    plain = small_run("DiffMM", epochs=8, denoiser_hidden_sizes=[16])
    losses = [epoch["losses"]["contrast"] for epoch in result.record["curve"]]
    expected = [epoch["losses"]["contrast"] for epoch in plain.record["curve"]]
    assert losses == pytest.approx(expected, rel=0.05)
    assert result.test["recall@20"] == pytest.approx(plain.test["recall@20"], abs=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_a_gpu_reaches_the_level_of_the_cpu() -> None:
    values = {**SMALL, "epochs": 8}
    on_gpu = run("DiffMM", "toy", config_dict={**values, "use_gpu": True})
    on_cpu = run("DiffMM", "toy", config_dict=values)
    assert on_gpu.record["device"].startswith("cuda")
    assert on_gpu.test["recall@20"] == pytest.approx(on_cpu.test["recall@20"], abs=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of other systems keeps less")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    blocks = [torch.ones(2**14) for _ in range(4000)]  # 64 KiB each: too small to be mapped one by one
    kept = blocks[::40]
    full = resident()
    del blocks
    return_freed_memory()
    assert resident() < full - 0.7 * 4000 * 2**16 / os.sysconf("SC_PAGE_SIZE")
    assert all(block[0] == 1 for block in kept)


def test_a_run_goes_on_in_the_number_format_it_began_with() -> None:
    began, _ = build(precision="bf16")
    went_on, _ = build(precision="fp32")
    went_on.load_extra_state({**began.extra_state(), "precision": "fp32"})
    with pytest.raises(UserError, match="resume: the run has used precision bf16 so far, here it would be fp32"):
        went_on.load_extra_state(began.extra_state())
