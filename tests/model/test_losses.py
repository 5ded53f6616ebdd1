"""Shared losses against plain formulas."""

from __future__ import annotations

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


def test_bpr_divides_by_the_nominal_batch_size() -> None:
    pos, neg = torch.tensor([2.0, 0.5]), torch.tensor([1.0, 0.0])
    expected = -(torch.sigmoid(pos - neg).log().sum()) / 8
    torch.testing.assert_close(bpr_loss(pos, neg, 8), expected)
    assert torch.isfinite(bpr_loss(torch.tensor([-1e4]), torch.tensor([1e4]), 1)), "log(sigmoid(x)) would be -inf"


def test_squared_norm() -> None:
    assert squared_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0])).item() == pytest.approx(26.0)
