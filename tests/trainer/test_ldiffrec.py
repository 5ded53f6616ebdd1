"""LDiffRec trains with RecBole's own encoder, whichever way its first product is computed."""

from __future__ import annotations

import copy

import pytest
import torch
from recbole.utils import init_seed
from torch import nn
from torch.nn import functional as F

from recbole_diffmm.trainer.ldiffrec import LinearOfFew
from tests.trainer.test_loop import build


def test_values_and_gradients_are_those_of_the_dense_product():
    torch.manual_seed(0)
    rows = torch.zeros(4, 6, dtype=torch.float64)
    rows[0, 5], rows[0, 1], rows[2, 1], rows[3, 0] = 1.0, 2.0, -1.0, 0.5  # the second row is empty
    layer, factors = LinearOfFew(6, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    ours, dense = layer(rows), F.linear(rows, layer.weight, layer.bias)
    torch.testing.assert_close(ours, dense)
    gradients = [torch.autograd.grad(value, list(layer.parameters()), factors) for value in (ours, dense)]
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)


def test_the_dense_product_is_not_taken_on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nn.Linear, "forward", None)
    assert LinearOfFew(6, 3)(torch.zeros(2, 6)).shape == (2, 3)


def test_a_step_takes_no_more_memory_than_weights_and_entries():
    rows = torch.zeros(64, 500)
    rows[:, ::4] = 1.0  # 125 items a user: a row of the output for each entry would be 16 times the weights
    layer = LinearOfFew(500, 32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        layer(rows).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= max(layer.weight.numel() * 4, rows.numel() * 8)


@pytest.mark.parametrize("amp", [False, True])
def test_an_epoch_takes_recboles_steps_and_ranks_alike(amp: bool):
    outcomes = []
    for kind in (LinearOfFew, nn.Linear):
        settings = {"dims_dnn": [8], "in_dims": [6], "learning_rate": 0.01, "enable_amp": amp}
        trainer, train_data = build("LDiffRec", train_batch_size=7, **settings)
        layer = trainer.model.autoencoder.encoder.mlp_layers[1]
        assert type(layer) is LinearOfFew
        layer.__class__ = kind
        init_seed(3, True)
        losses = trainer._train_epoch(train_data, 0)
        trainer.model.eval()
        scores = trainer.model.full_sort_predict(next(iter(train_data))).detach()
        outcomes.append([torch.as_tensor(losses), scores, *(p.detach().clone() for p in trainer.model.parameters())])
    for got, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, check_dtype=False)


def test_a_copy_of_the_model_has_parameters_of_its_own():
    layer = build("LDiffRec")[0].model.autoencoder.encoder.mlp_layers[1]
    other = copy.deepcopy(layer)
    nn.init.zeros_(other.weight)
    rows = torch.ones(2, layer.in_features)
    assert torch.equal(other(rows), other.bias.expand(2, -1))
    assert layer(rows).abs().sum() > 0


def test_clusters_of_items_keep_recboles_encoder():
    trainer, _ = build("LDiffRec")
    layer = trainer.model.autoencoder.encoder.mlp_layers[1]
    layer.__class__ = nn.Linear
    trainer.model.n_cate = 2
    type(trainer)(trainer.config, trainer.model)
    assert type(layer) is nn.Linear
