"""Graph operators against a five-node graph worked out by hand, and against dense algebra."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_diffmm.graph import bipartite_edges, build_adjacency, drop_edges, propagate, sum_over_layers, unit_rows

# Two users, three items: user 0 has items 0 and 1, user 1 has item 1; item 2 is alone.
USERS, ITEMS = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])


def test_weights_of_a_five_node_graph() -> None:
    adj = build_adjacency(*bipartite_edges(USERS, ITEMS, 2, 3), 5, symmetric=True).matrix.to_dense()
    # degrees with self-loops: user 0: 3, user 1: 2, item 0: 2, item 1: 3, item 2: 1
    expected = torch.zeros(5, 5)
    for a, b, weight in [(0, 2, 1 / math.sqrt(6)), (0, 3, 1 / 3), (1, 3, 1 / math.sqrt(6))]:
        expected[a, b] = expected[b, a] = weight
    expected += torch.diag(torch.tensor([1 / 3, 1 / 2, 1 / 2, 1 / 3, 1.0]))
    torch.testing.assert_close(adj, expected)


def test_propagation_gives_hand_computed_rows() -> None:
    adj = build_adjacency(*bipartite_edges(USERS, ITEMS, 2, 3), 5, symmetric=True)
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    first = 1 / 3 + 3 / math.sqrt(6) + 4 / 3  # user 0: itself, item 0, item 1
    assert propagate(adj, x)[0].item() == pytest.approx(first, rel=1e-6)
    assert propagate(adj, x)[4].item() == pytest.approx(5.0)  # an item alone keeps its row
    torch.testing.assert_close(sum_over_layers(adj, x, 2), x + propagate(adj, x) + propagate(adj, propagate(adj, x)))
    assert torch.equal(sum_over_layers(adj, x, 0), x)


@pytest.mark.parametrize("keep_share", [1.0, 0.5])
def test_gradient_of_propagation_uses_the_transpose(keep_share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    index, weight = bipartite_edges(USERS, ITEMS, 2, 3)
    keep = torch.rand(weight.shape, generator=generator) < keep_share
    index, weight = drop_edges(index, weight, keep, 1 - keep_share)
    adj = build_adjacency(index, weight.double(), 5, symmetric=False)
    dense = adj.matrix.to_dense()
    if keep_share < 1:
        assert not torch.equal(dense, dense.t()), "the draw must make the graph asymmetric"
    x = torch.randn(5, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: propagate(adj, x), (x,))
    torch.testing.assert_close(propagate(adj, x), dense @ x)


def test_dropping_rescales_what_is_kept() -> None:
    index, weight = bipartite_edges(USERS, ITEMS, 2, 3)
    keep = torch.zeros_like(weight, dtype=torch.bool)
    keep[[0, 4]] = True
    kept_index, kept_weight = drop_edges(index, weight, keep, 0.75)
    assert torch.equal(kept_index, index[:, [0, 4]])
    torch.testing.assert_close(kept_weight, weight[[0, 4]] * 4)


def test_the_graph_has_both_directions_and_every_self_loop() -> None:
    index, _ = bipartite_edges(USERS, ITEMS, 2, 3)
    assert index.shape == (2, 2 * 3 + 5)
    assert build_adjacency(*bipartite_edges(USERS, ITEMS, 2, 3), 5, symmetric=True).matrix.values().numel() == 11


def test_a_zero_row_stays_zero_in_every_format() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=dtype, requires_grad=True)
        rows = unit_rows(x)
        torch.testing.assert_close(rows, torch.tensor([[0.0, 0.0], [0.6, 0.8]], dtype=dtype))
        (gradient,) = torch.autograd.grad((rows * torch.tensor([[0.0, 0.0], [1.0, 2.0]])).sum(), x)
        assert gradient.isfinite().all()


def test_unit_rows_are_normalised_rows_and_their_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.normalize(x)
    torch.testing.assert_close(unit_rows(x), expected)
    weights = torch.randn(6, 4, dtype=torch.float64)
    gradients = [torch.autograd.grad((weights * rows).sum(), x) for rows in (unit_rows(x), expected)]
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradcheck(unit_rows, (x,))


def test_a_zero_row_stays_zero() -> None:
    rows = unit_rows(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    torch.testing.assert_close(rows, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
