"""SGL and NCL train with RecBole's own loss, whichever way it is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recbole.trainer import NCLTrainer
from recbole.utils import init_seed
from torch import Tensor

from recbole_diffmm.errors import UserError
from recbole_diffmm.trainer.base import with_records
from recbole_diffmm.trainer.loop import BatchLoop
from tests.trainer.test_loop import build

# What each model contrasts in, and settings that tell its factors apart.
METHODS = {
    "SGL": ("calc_ssl_loss", {"ssl_tau": 0.3, "ssl_weight": 0.7}),
    "NCL": ("ssl_layer_loss", {"ssl_temp": 0.3, "ssl_reg": 0.7, "alpha": 1.5, "num_clusters": 5}),
}


def _contrast(model: Any, name: str, compute: Any) -> list[Tensor]:
    """The loss and its gradients with respect to all views."""
    torch.manual_seed(5)
    n_users, n_items = model.n_users, model.n_items
    sizes = [n_users, n_users, n_items, n_items] if name == "SGL" else [n_users + n_items] * 2
    views = [torch.randn(size, 8, dtype=torch.float64, requires_grad=True) for size in sizes]
    users = torch.tensor([1, 4, 4, 4, n_users - 1])  # repeated ones count each time
    items = torch.tensor([2, n_items - 1, 2, 3, 5])
    nodes = [users, items]
    loss = compute(*nodes, *views) if name == "SGL" else compute(*views, *nodes)
    return [loss.detach(), *torch.autograd.grad(loss, views)]


@pytest.mark.parametrize("name", METHODS)
def test_the_contrast_with_all_nodes_is_recboles(name: str):
    method, settings = METHODS[name]
    if name == "NCL":
        pytest.importorskip("faiss")
    model = build(name, **settings)[0].model
    recboles = getattr(type(model), method).__get__(model)
    assert getattr(model, method) != recboles
    ours, theirs = (_contrast(model, name, compute) for compute in (getattr(model, method), recboles))
    assert all(value.abs().sum() > 0 for value in theirs)
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_an_epoch_takes_recboles_steps(name: str):
    method, settings = METHODS[name]
    if name == "NCL":
        pytest.importorskip("faiss")
    outcomes = []
    for recboles in (False, True):
        trainer, train_data = build(name, **settings, train_batch_size=64)
        if recboles:
            delattr(trainer.model, method)
        init_seed(3, True)
        if name == "NCL":
            trainer.model.e_step()
        losses = BatchLoop._train_epoch(trainer, train_data, 0)
        outcomes.append([torch.as_tensor(losses), *(p.detach().clone() for p in trainer.model.parameters())])
    for got, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, check_dtype=False)


def test_ncl_clusters_and_warms_up_when_recboles_trainer_does():
    pytest.importorskip("faiss")
    settings = {"num_clusters": 5, "m_step": 2, "warm_up_step": 3, "proto_reg": 0.1, "epochs": 5}
    outcomes = []
    for recboles in (False, True):
        trainer, train_data = build("NCL", **settings)
        assert not isinstance(trainer, NCLTrainer)
        if recboles:
            trainer = with_records(NCLTrainer)(trainer.config, trainer.model)
        init_seed(3, True)
        trainer.fit(train_data, verbose=False, saved=False)
        outcomes.append((trainer.train_loss_dict, [p.detach().clone() for p in trainer.model.parameters()]))
    (ours, parameters), (theirs, expected) = outcomes
    assert len(ours) == 5
    assert ours == pytest.approx(theirs, rel=1e-12)
    assert all(torch.equal(got, value) for got, value in zip(parameters, expected, strict=True))


def test_ncl_is_in_float32_on_a_cpu_as_by_recboles_trainer():
    trainer, _ = build("NCL", num_clusters=5, enable_amp=True)
    assert trainer.product_format == "fp32"
    assert not trainer.enable_amp


def test_ncl_wants_epochs_between_clusterings():
    with pytest.raises(UserError, match=r"^m_step=0 in .*: give 1 or more epochs$"):
        build("NCL", num_clusters=5, m_step=0)
