"""Products and sums along edges against rows taken edge by edge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_diffmm.graph import Edges, attention, order_edges
from recbole_diffmm.graph.attention import aggregate, agreement, edges_to_picked

N_NODES = 5
# Nodes 2 and 4 receive nothing, node 4 sends nothing, and node 0 receives from 2 twice.
EDGES = order_edges(torch.tensor([3, 0, 1, 3, 0, 0]), torch.tensor([0, 2, 3, 1, 3, 2]), N_NODES)[0]
# Each of the edges six times: more than there are pairs of nodes.
CROWDED = order_edges(EDGES.receiver.repeat(6), EDGES.sender.repeat(6), N_NODES)[0]
PICKED = torch.tensor([[3, 0, 3], [1, 3, 0]])  # unsorted, row 3 twice by one query, row 2 by none


def rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("edges", [EDGES, edges_to_picked(PICKED, 4), CROWDED], ids=["ordered", "picked", "crowded"])
def test_values_and_gradients_are_those_of_rows_taken_edge_by_edge(edges: Edges) -> None:
    x, weight = rows(0, edges.n_nodes, 3), rows(1, edges.receiver.numel())
    plain = (x[edges.receiver] * x[edges.sender]).sum(dim=1)
    torch.testing.assert_close(agreement(edges, x), plain)
    sums = torch.zeros_like(x).index_add(0, edges.receiver, weight.unsqueeze(1) * x[edges.sender])
    torch.testing.assert_close(aggregate(edges, weight, x), sums)
    for ours, theirs, inputs in ((agreement(edges, x), plain, (x,)), (aggregate(edges, weight, x), sums, (x, weight))):
        factors = rows(2, *theirs.shape).detach()
        for got, expected in zip(
            torch.autograd.grad(ours, inputs, factors), torch.autograd.grad(theirs, inputs, factors), strict=True
        ):
            torch.testing.assert_close(got, expected)
    assert torch.autograd.gradcheck(lambda weight: aggregate(edges, weight, x.detach()), (weight,))


def test_no_row_is_taken_edge_by_edge_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x, taken = rows(0, N_NODES, 3), []
    index = Tensor.__getitem__
    monkeypatch.setattr(Tensor, "__getitem__", lambda self, key: taken.append(self.dim()) or index(self, key))
    (gradient,) = torch.autograd.grad(aggregate(EDGES, agreement(EDGES, x), x).sum(), x)
    assert gradient.shape == x.shape
    assert set(taken) == {1}  # weights and places, never the two-dimensional rows


def test_without_an_edge_there_is_nothing_to_multiply_and_gradients_are_zero() -> None:
    none = torch.empty(0, dtype=torch.int64)
    edges, x = order_edges(none, none, N_NODES)[0], rows(0, N_NODES, 3)
    products = agreement(edges, x)
    assert products.shape == (0,)
    (gradient,) = torch.autograd.grad(aggregate(edges, products, x).sum(), x)
    assert not gradient.any()


def test_half_precision_is_summed_in_float32() -> None:
    x, weight = rows(0, N_NODES, 3).detach().bfloat16(), torch.full((6,), 1.1).bfloat16()
    torch.testing.assert_close(agreement(EDGES, x), agreement(EDGES, x.float()))
    torch.testing.assert_close(aggregate(EDGES, weight, x), aggregate(EDGES, weight.float(), x.float()))


def test_a_device_whose_library_wants_sorted_columns_multiplies_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(0, N_NODES, 3).detach()
    expected = agreement(EDGES, x)

    def refuse(*args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(torch.sparse, "sampled_addmm", refuse)
    with pytest.raises(AssertionError):
        agreement(EDGES, x)
    assert attention._products(EDGES, x.to("meta"), x.to("meta")).shape == expected.shape


def test_edges_to_picked_rows_stand_in_the_order_of_the_picks() -> None:
    edges = edges_to_picked(PICKED, 4)
    assert edges.n_nodes == 6
    assert edges.receiver.tolist() == [0, 0, 0, 1, 1, 1]
    assert edges.sender.tolist() == [5, 2, 5, 3, 5, 2]
    assert edges.starts.tolist() == [0, 3, 6, 6, 6, 6]
    assert edges.by_sender.tolist() == [1, 5, 3, 0, 2, 4]
    assert edges.sender_starts.tolist() == [0, 0, 0, 2, 3, 3]
