"""Edges with changing weights, random removal and plain adjacencies, against five nodes worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recbole_diffmm.graph import (
    Edges,
    SparseAdjacency,
    aggregate,
    agreement,
    bipartite_edges,
    build_adjacency,
    kept_weight,
    mean_over_layers,
    mean_weight,
    order_edges,
    propagate,
    sample_edges,
    softmax_by_receiver,
    sum_over_layers,
    symmetric_weight,
    undirected_keep,
)
from recbole_diffmm.model.base import RowRecommender

N_NODES = 5
# Node 0 receives from 2 and 3, node 1 from 3, node 3 from 0 and 1; nodes 2 and 4 receive nothing, node 4 sends nothing.
RECEIVER, SENDER = torch.tensor([3, 0, 1, 3, 0]), torch.tensor([0, 2, 3, 1, 3])
# Two users, three items, one interaction told twice: user 0 has items 0 and 1, user 1 has item 1; item 2 is alone.
USERS, ITEMS = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 1, 1, 0])


@pytest.fixture
def edges() -> Edges:
    return order_edges(RECEIVER, SENDER, N_NODES)[0]


def interactions() -> SparseAdjacency:
    return build_adjacency(*bipartite_edges(USERS, ITEMS, 2, 3, self_loops=False), N_NODES, symmetric=True)


def test_order_edges_sorts_by_receiver_then_sender_and_says_where_each_node_begins() -> None:
    edges, order = order_edges(RECEIVER, SENDER, N_NODES)
    assert order.tolist() == [1, 4, 2, 0, 3]
    assert edges.receiver.tolist() == [0, 0, 1, 3, 3]
    assert edges.sender.tolist() == [2, 3, 3, 0, 1]
    assert edges.starts.tolist() == [0, 2, 3, 3, 5]
    assert edges.by_sender.tolist() == [3, 4, 0, 1, 2]
    assert edges.sender_starts.tolist() == [0, 1, 2, 3, 5]
    assert edges.n_nodes == N_NODES


def test_the_adjacency_of_edges_has_receivers_as_rows_and_its_transpose_beside_it(edges: Edges) -> None:
    adj = edges.adjacency(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    expected = torch.zeros(N_NODES, N_NODES)
    expected[0, 2], expected[0, 3], expected[1, 3], expected[3, 0], expected[3, 1] = 1, 2, 3, 4, 5
    assert torch.equal(adj.matrix.to_dense(), expected)
    assert torch.equal(adj.transpose.to_dense(), expected.t())


def test_weights_that_are_zero_stay_in_the_adjacency_as_zeros(edges: Edges) -> None:
    adj = edges.adjacency(torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0]))
    assert adj.matrix.values().numel() == adj.transpose.values().numel() == 5
    x = torch.arange(1.0, 6.0).unsqueeze(1)
    assert propagate(adj, x).squeeze(1).tolist() == [8, 0, 0, 0, 0]


def test_propagating_over_the_adjacency_of_edges_uses_its_transpose_on_the_way_back(edges: Edges) -> None:
    adj = edges.adjacency(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64))
    x = torch.randn(N_NODES, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: propagate(adj, x), (x,))


def test_order_edges_of_an_undirected_graph_gives_build_adjacency_again() -> None:
    (row, col), weight = bipartite_edges(USERS, ITEMS, 2, 3, self_loops=False)
    edges, order = order_edges(row, col, N_NODES)
    assert torch.equal(edges.adjacency(weight[order]).matrix.to_dense(), interactions().matrix.to_dense())


def test_aggregate_gives_hand_computed_sums_and_zero_where_nothing_arrives(edges: Edges) -> None:
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    x = torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0], [4.0, 1.0], [5.0, 0.0]])
    # node 0: 1 x_2 + 2 x_3; node 1: 3 x_3; node 3: 4 x_0 + 5 x_1
    expected = torch.tensor([[11.0, 2.0], [12.0, 3.0], [0.0, 0.0], [14.0, 5.0], [0.0, 0.0]])
    assert torch.equal(aggregate(edges, weight, x), expected)
    assert torch.equal(propagate(edges.adjacency(weight), x), expected)


def test_agreement_gives_hand_computed_products(edges: Edges) -> None:
    x = torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0], [4.0, 1.0], [5.0, 0.0]])
    # 0 with 2 and 3, 1 with 3, 3 with 0 and 1
    assert agreement(edges, x).tolist() == [3, 4, 9, 4, 9]


def test_gradients_of_aggregate_reach_weights_and_rows(edges: Edges) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    x = torch.randn(N_NODES, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, x: aggregate(edges, w, x), (weight, x))
    assert torch.autograd.gradcheck(lambda w: aggregate(edges, w, x.detach()), (weight,))
    assert torch.autograd.gradcheck(lambda x: aggregate(edges, weight.detach(), x), (x,))


def test_aggregate_without_any_edge_is_zero_and_so_are_its_gradients() -> None:
    none = torch.empty(0, dtype=torch.int64)
    edges, _ = order_edges(none, none, N_NODES)
    weight = torch.empty(0, requires_grad=True)
    x = torch.ones(N_NODES, 2, requires_grad=True)
    result = aggregate(edges, weight, x)
    assert torch.equal(result, torch.zeros(N_NODES, 2))
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert torch.equal(gradient, torch.zeros(N_NODES, 2))


@pytest.mark.parametrize("scale", [1.0, 1000.0, -1000.0])
def test_softmax_by_receiver_is_torch_softmax_per_node_however_large_the_logits(edges: Edges, scale: float) -> None:
    logits = scale * torch.tensor([1.0, 0.9995, -3.0, 0.2, 0.201], dtype=torch.float64)
    parts = [torch.softmax(part, dim=0) for part in (logits[:2], logits[2:3], logits[3:])]
    torch.testing.assert_close(softmax_by_receiver(edges, logits), torch.cat(parts))


def test_softmax_by_receiver_gives_a_lone_edge_all_and_equal_edges_equal_shares(edges: Edges) -> None:
    shares = softmax_by_receiver(edges, torch.tensor([7.0, 7.0, -1e30, 1e30, 1e30]))
    assert shares.tolist() == [0.5, 0.5, 1.0, 0.5, 0.5]


def test_gradient_of_softmax_by_receiver_is_that_of_torch_softmax(edges: Edges) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(5, dtype=torch.float64)
    dense = torch.cat([torch.softmax(part, dim=0) for part in (logits[:2], logits[2:3], logits[3:])])
    gradients = [torch.autograd.grad((factors * s).sum(), logits) for s in (softmax_by_receiver(edges, logits), dense)]
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradcheck(lambda x: softmax_by_receiver(edges, x), (logits,))


def test_mean_weight_makes_a_product_the_mean_over_neighbours(edges: Edges) -> None:
    weight = mean_weight(edges.receiver, N_NODES)
    assert weight.tolist() == [0.5, 0.5, 1.0, 0.5, 0.5]
    x = torch.arange(1.0, 6.0).unsqueeze(1)
    means = propagate(edges.adjacency(weight), x).squeeze(1)
    assert means.tolist() == [3.5, 4.0, 0.0, 1.5, 0.0]


def test_symmetric_weight_counts_degrees_over_the_rows() -> None:
    row, col = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 2, 0, 0])
    torch.testing.assert_close(symmetric_weight(row, col, 3), torch.full((4,), 1 / math.sqrt(2)))


def test_without_self_loops_a_repeated_interaction_counts_once_and_an_item_alone_has_no_entry() -> None:
    index, weight = bipartite_edges(USERS, ITEMS, 2, 3, self_loops=False)
    assert index.tolist() == [[0, 0, 1, 2, 3, 3], [2, 3, 3, 0, 0, 1]]
    # degrees: user 0: 2, user 1: 1, item 0: 1, item 1: 2
    half = [1 / math.sqrt(2), 1 / 2, 1 / math.sqrt(2)]
    torch.testing.assert_close(weight, torch.tensor(half * 2))
    assert weight.dtype == torch.float32


def test_mean_over_layers_gives_hand_computed_rows() -> None:
    adj = interactions()
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    once = mean_over_layers(adj, x, 1)
    assert once[0].item() == pytest.approx((1 + 3 / math.sqrt(2) + 4 / 2) / 2, rel=1e-6)
    assert once[1].item() == pytest.approx((2 + 4 / math.sqrt(2)) / 2, rel=1e-6)
    assert once[4].item() == pytest.approx(5 / 2)  # an item alone has its own row and nothing from the layer
    assert torch.equal(mean_over_layers(adj, x, 0), x)
    dense = adj.matrix.to_dense()
    torch.testing.assert_close(mean_over_layers(adj, x, 3), (x + dense @ x + dense @ dense @ (x + dense @ x)) / 4)


def test_sample_edges_draws_that_many_different_ones() -> None:
    torch.manual_seed(0)
    weight = torch.rand(200) + 0.01
    for n_edges in (1, 50, 200):
        drawn = sample_edges(weight, n_edges)
        assert drawn.shape == (n_edges,)
        assert len(set(drawn.tolist())) == n_edges
        assert 0 <= drawn.min() and drawn.max() < 200
    assert set(sample_edges(weight, 50).tolist()) != set(sample_edges(weight, 50).tolist())


def test_sample_edges_never_takes_an_edge_of_weight_zero_while_others_are_left() -> None:
    torch.manual_seed(0)
    weight = torch.tensor([0.0, 1.0, 0.0, 1e-6])
    assert all(set(sample_edges(weight, 2).tolist()) == {1, 3} for _ in range(50))


def test_inclusion_frequencies_of_sample_edges_are_those_of_successive_draws() -> None:
    torch.manual_seed(0)
    p = torch.tensor([1.0, 2.0, 5.0, 8.0]) / 16
    # Two draws, the second among what the first left: P(i) = p_i + sum_{j != i} p_j p_i / (1 - p_j).
    odds = p / (1 - p)
    expected = p + p * (odds.sum() - odds)
    assert expected.sum().item() == pytest.approx(2)
    n_draws = 6000
    counts = torch.zeros(4)
    for _ in range(n_draws):
        counts[sample_edges(3.7 * p, 2)] += 1  # the scale of the weights does not matter
    torch.testing.assert_close(counts / n_draws, expected, rtol=0, atol=0.026)  # four standard errors


def observed_edges() -> Edges:
    """The interactions, in both directions: 0 with 2 and 3, 1 with 3, 2 with 0, 3 with 0 and 1."""
    (row, col), _ = bipartite_edges(USERS, ITEMS, 2, 3, self_loops=False)
    return order_edges(row, col, N_NODES)[0]


def test_undirected_keep_draws_once_for_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.tensor([0.9, 0.2, 0.6, 0.1, 0.7, 0.3])  # those from 3 to 4 stand for the other direction
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: draws)
    assert undirected_keep(observed_edges(), 0.5).tolist() == [True, False, True, True, False, True]


def test_kept_weight_counts_the_degrees_of_what_is_kept() -> None:
    # Without the edge of 0 and 2: degrees of 0, 1 and 3 are 1, 1 and 2.
    keep = torch.tensor([False, True, True, False, True, True])
    half = 1 / math.sqrt(2)
    torch.testing.assert_close(kept_weight(observed_edges(), keep), torch.tensor([0, half, half, 0, half, half]))


def test_sum_and_mean_over_layers_give_hand_computed_rows() -> None:
    x = torch.arange(1.0, 6.0).unsqueeze(1)
    root = 1 / math.sqrt(2)  # the weight of 0 with 2 and of 1 with 3; that of 0 with 3 is a half
    once = torch.tensor([3 * root + 2, 4 * root, root, 0.5 + 2 * root, 0])
    twice = torch.tensor([
        root * root + (0.5 + 2 * root) / 2, root * (0.5 + 2 * root), root * (3 * root + 2),
        (3 * root + 2) / 2 + root * 4 * root, 0,
    ])  # fmt: skip
    expected = (x.squeeze(1) + once + twice).unsqueeze(1)
    torch.testing.assert_close(sum_over_layers(interactions(), x, 2), expected)
    torch.testing.assert_close(mean_over_layers(interactions(), x, 2), expected / 3)


def test_graphs_that_models_build_of_the_interactions_have_hand_computed_entries() -> None:
    def edges(self_loops: bool) -> tuple[torch.Tensor, torch.Tensor]:
        return bipartite_edges(USERS, ITEMS, 2, 3, self_loops=self_loops)

    model: Any = SimpleNamespace(user_count=2, n_nodes=N_NODES, edges=edges, graph=lambda key, build: build())
    index, weight = RowRecommender.edges_to_users(model)
    assert index.tolist() == [[0, 0, 1], [2, 3, 3]]
    torch.testing.assert_close(weight, torch.tensor([1 / math.sqrt(2), 0.5, 1 / math.sqrt(2)]))
    mean = torch.zeros(N_NODES, N_NODES)
    mean[0, [2, 3]], mean[3, [0, 1]], mean[1, 3], mean[2, 0] = 0.5, 0.5, 1, 1
    assert torch.equal(RowRecommender.mean_adj(model, self_loops=False).matrix.to_dense(), mean)
    walk = torch.zeros(N_NODES, N_NODES)
    walk[0, [0, 2, 3]], walk[3, [3, 0, 1]], walk[1, [1, 3]], walk[2, [2, 0]], walk[4, 4] = 1 / 3, 1 / 3, 0.5, 0.5, 1
    torch.testing.assert_close(RowRecommender.mean_adj(model, self_loops=True).matrix.to_dense(), walk)
