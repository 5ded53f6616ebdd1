"""Shared losses against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from recbole_diffmm.model.losses import bpr_loss, infonce_loss, squared_norm


def plain_infonce(queries: torch.Tensor, keys: torch.Tensor, nodes: torch.Tensor, tau: float) -> torch.Tensor:
    cosine = F.normalize(queries[nodes]) @ F.normalize(keys).t() / tau
    return -(cosine[torch.arange(len(nodes)), nodes] - torch.logsumexp(cosine, dim=1)).mean()


@pytest.mark.parametrize("tau", [0.05, 0.5, 2.0])
def test_infonce_equals_the_formula_and_its_gradient(tau: float) -> None:
    torch.manual_seed(0)
    queries, keys = (torch.randn(12, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    nodes = torch.tensor([3, 3, 0, 11])  # node 3 counts twice
    ours = torch.autograd.grad(infonce_loss(queries, keys, nodes, tau), (queries, keys))
    plain = torch.autograd.grad(plain_infonce(queries, keys, nodes, tau), (queries, keys))
    torch.testing.assert_close(infonce_loss(queries, keys, nodes, tau), plain_infonce(queries, keys, nodes, tau))
    torch.testing.assert_close(ours, plain)
    assert torch.autograd.gradcheck(lambda q, k: infonce_loss(q, k, nodes, tau), (queries, keys))


def test_infonce_stays_finite_where_exponentials_would_overflow() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    for tau in (0.005, 1e-4):
        ours = infonce_loss(x, y, torch.arange(6), tau)
        torch.testing.assert_close(ours, plain_infonce(x, y, torch.arange(6), tau))
        assert torch.isfinite(infonce_loss(x, -x, torch.arange(6), tau)), "no positive is near its node"


@pytest.mark.parametrize("kept", [0, 1 << 25])
@pytest.mark.parametrize("tau", [0.005, 0.3])
def test_infonce_in_many_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch, kept: int, tau: float) -> None:
    torch.manual_seed(0)
    queries, keys = (torch.randn(300, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    nodes = torch.arange(200)
    plain = plain_infonce(queries, keys, nodes, tau)
    monkeypatch.setattr("recbole_diffmm.model.losses._BLOCK_ENTRIES", {"cpu": 1})  # the smallest blocks there are
    monkeypatch.setattr("recbole_diffmm.model.losses._KEPT_ENTRIES", {"cpu": kept})
    ours = infonce_loss(queries, keys, nodes, tau)
    torch.testing.assert_close(ours, plain)
    gradients = [torch.autograd.grad(loss, (queries, keys)) for loss in (ours, plain)]
    torch.testing.assert_close(*gradients)


def test_infonce_with_bfloat16_operands_is_near() -> None:
    torch.manual_seed(0)
    queries, keys = (torch.randn(300, 16, requires_grad=True) for _ in range(2))
    nodes = torch.randint(300, (64,))
    exact = infonce_loss(queries, keys, nodes, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        near = infonce_loss(queries, keys, nodes, 0.5)
    assert near.dtype == torch.float32
    assert near.item() != exact.item()
    torch.testing.assert_close(near, exact, rtol=2e-3, atol=0)
    for ours, theirs in zip(*(torch.autograd.grad(loss, (queries, keys)) for loss in (near, exact)), strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_infonce_against_the_batch_alone() -> None:
    torch.manual_seed(0)
    queries, keys = (torch.randn(50, 6, dtype=torch.float64) for _ in range(2))
    nodes = torch.tensor([4, 9, 9, 30])
    cosine = F.normalize(queries[nodes]) @ F.normalize(keys[nodes]).t() / 0.4
    expected = -(cosine.diagonal() - torch.logsumexp(cosine, dim=1)).mean()
    torch.testing.assert_close(infonce_loss(queries, keys, nodes, 0.4, n_negatives=0), expected)


@pytest.mark.parametrize("n_negatives", [0, 7])
def test_gradients_of_infonce_against_few_nodes(n_negatives: int) -> None:
    torch.manual_seed(0)
    queries, keys = (torch.randn(12, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    nodes = torch.tensor([3, 3, 0, 11])

    def loss(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the same nodes are drawn every time
        return infonce_loss(q, k, nodes, 0.5, n_negatives)

    assert torch.autograd.gradcheck(loss, (queries, keys))


def test_infonce_against_drawn_nodes_takes_that_many_more() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(50, 6), torch.zeros(50, 6)  # every cosine is 0: the loss is the logarithm of the count
    nodes = torch.tensor([4, 9])
    for n_negatives in (0, 1, 70):
        loss = infonce_loss(queries, keys, nodes, 0.4, n_negatives)
        assert loss.item() == pytest.approx(math.log(len(nodes) + n_negatives), rel=1e-6)


def test_bpr_divides_by_the_nominal_batch_size() -> None:
    pos, neg = torch.tensor([2.0, 0.5]), torch.tensor([1.0, 0.0])
    expected = -(torch.sigmoid(pos - neg).log().sum()) / 8
    torch.testing.assert_close(bpr_loss(pos, neg, 8), expected)
    assert torch.isfinite(bpr_loss(torch.tensor([-1e4]), torch.tensor([1e4]), 1)), "log(sigmoid(x)) would be -inf"


def test_squared_norm() -> None:
    assert squared_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0])).item() == pytest.approx(26.0)
