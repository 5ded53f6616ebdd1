"""Nearest items and their graphs against dense cosines in NumPy and against rows worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recbole_diffmm.graph import knn_graph, nearest_items, neighbour_edges, normalize_by_sums
from recbole_diffmm.graph.knn import Weighting

ZERO_ROWS = (2, 11)


def random_features(n_items: int = 17) -> torch.Tensor:
    features = torch.randn(n_items, 5, generator=torch.Generator().manual_seed(4))
    features *= torch.linspace(0.1, 30, n_items).unsqueeze(1)  # lengths must not matter
    features[list(ZERO_ROWS)] = 0
    return features


def dense_cosines(features: torch.Tensor) -> NDArray[np.float64]:
    rows = features.numpy().astype(np.float64)
    length = np.sqrt((rows**2).sum(axis=1))
    length[length == 0] = np.inf
    return (rows @ rows.T) / np.outer(length, length)


def dense_nearest(
    features: torch.Tensor, k: int, include_self: bool, candidates: list[int]
) -> dict[int, list[tuple[int, float]]]:
    """Per item with features, its up to `k` neighbours and cosines, nearest first."""
    cosines = dense_cosines(features)
    described = [item for item in range(len(features)) if features[item].any()]
    nearest = {}
    for item in described:
        allowed = [j for j in candidates if j in described and (include_self or j != item)]
        nearest[item] = [(j, cosines[item, j]) for j in sorted(allowed, key=lambda j: -cosines[item, j])[:k]]
    return nearest


def dense_graph(features: torch.Tensor, k: int, weighting: Weighting) -> torch.Tensor:
    weight = np.zeros((len(features), len(features)))
    for item, neighbours in dense_nearest(features, k, True, list(range(len(features)))).items():
        for j, cosine in neighbours:
            weight[item, j] = cosine if weighting == "cosine" else 1
    sums = weight.sum(axis=1)
    sums[sums == 0] = 1  # rows without an entry
    return torch.from_numpy(weight / np.sqrt(np.outer(sums, sums))).float()


def check_against_dense(
    features: torch.Tensor, k: int, *, include_self: bool, candidates: torch.Tensor | None = None
) -> None:
    found = nearest_items(features, k, include_self=include_self, candidates=candidates)
    ids = list(range(len(features))) if candidates is None else candidates.nonzero().squeeze(1).tolist()
    expected = dense_nearest(features, k, include_self, ids)
    assert found.items.tolist() == list(expected)
    # Where not so many are left, the rest has the cosine minus infinity.
    rows = zip(found.nearest.tolist(), found.cosine.tolist(), strict=True)
    there = [[j for j, cosine in zip(*row, strict=True) if cosine > -torch.inf] for row in rows]
    assert there == [[j for j, _ in row] for row in expected.values()]
    cosines = torch.tensor([cosine for row in expected.values() for _, cosine in row])
    torch.testing.assert_close(found.cosine[found.cosine > -torch.inf], cosines.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("k", [1, 4, 14])
def test_nearest_items_are_the_dense_top_k_by_cosine(k: int, include_self: bool) -> None:
    check_against_dense(random_features(), k, include_self=include_self)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("k", [1, 4])
def test_only_candidates_are_neighbours_but_every_item_has_some(k: int, include_self: bool) -> None:
    candidates = torch.zeros(17, dtype=torch.bool)
    candidates[[0, 2, 3, 5, 8, 9, 13, 16]] = True  # item 2 may be one but has no features
    check_against_dense(random_features(), k, include_self=include_self, candidates=candidates)


@pytest.mark.parametrize("include_self", [True, False])
def test_with_k_larger_than_the_catalogue_every_described_item_is_a_neighbour(include_self: bool) -> None:
    check_against_dense(random_features(), 100, include_self=include_self)
    index, _ = neighbour_edges(nearest_items(random_features(), 100, include_self=include_self))
    assert index.shape == (2, 15 * (14 + include_self))


@pytest.mark.parametrize("n_candidates", [1, 3])
def test_an_item_outside_few_candidates_has_all_of_them_as_neighbours(n_candidates: int) -> None:
    candidates = torch.arange(17) >= 17 - n_candidates
    found = nearest_items(random_features(), 10, include_self=False, candidates=candidates)
    (row,) = found.nearest[found.items == 0].tolist() or [[]]
    assert len(row) == n_candidates


@pytest.mark.parametrize("entries", [1, 40, 100])
@pytest.mark.parametrize("include_self", [True, False])
def test_more_than_one_block_gives_the_same_neighbours(
    monkeypatch: pytest.MonkeyPatch, entries: int, include_self: bool
) -> None:
    monkeypatch.setattr("recbole_diffmm.graph.knn._BLOCK_ENTRIES", entries)
    check_against_dense(random_features(), 4, include_self=include_self)
    candidates = torch.arange(17) % 2 == 0
    check_against_dense(random_features(), 4, include_self=include_self, candidates=candidates)


def test_items_without_features_have_no_neighbours_and_are_nobodys() -> None:
    found = nearest_items(random_features(), 100)
    assert not set(ZERO_ROWS) & set(found.items.tolist())
    assert not set(ZERO_ROWS) & set(found.nearest.flatten().tolist())
    assert torch.isfinite(found.cosine).all()


@pytest.mark.parametrize("weighting", ["uniform", "cosine"])
def test_a_modality_without_any_features_gives_an_empty_graph(weighting: Weighting) -> None:
    found = nearest_items(torch.zeros(4, 3), 2)
    assert found.items.numel() == found.nearest.numel() == found.cosine.numel() == 0
    graph = knn_graph(torch.zeros(4, 3), 2, weighting)
    assert torch.equal(graph.matrix.to_dense(), torch.zeros(4, 4))
    assert torch.equal(graph.transpose.to_dense(), torch.zeros(4, 4))


def test_a_lone_item_with_features_has_itself_alone() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert nearest_items(features, 3).nearest.tolist() == [[1]]
    assert neighbour_edges(nearest_items(features, 3, include_self=False))[0].numel() == 0
    assert knn_graph(features, 3, "cosine").matrix.to_dense().tolist() == [[0, 0], [0, pytest.approx(1)]]


def test_nearest_items_never_carry_a_gradient() -> None:
    assert not nearest_items(random_features().requires_grad_(), 3).cosine.requires_grad


def test_neighbour_edges_go_from_an_item_to_each_neighbour() -> None:
    found = nearest_items(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), 2)
    index, cosine = neighbour_edges(found)
    assert index.tolist() == [[0, 0, 2, 2], [0, 2, 2, 0]]
    torch.testing.assert_close(cosine, torch.tensor([1, math.sqrt(0.5), 1, math.sqrt(0.5)]))


def test_graphs_of_five_items_worked_out_by_hand() -> None:
    """Directions of 0, 10, 30 and 90 degrees, and an item without features; each has itself and its nearest."""
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 30.0, 90.0]))
    features = torch.zeros(5, 2)
    features[:4] = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [5.0], [2.0], [0.3]])
    uniform = torch.zeros(5, 5)
    for item, other in [(0, 1), (1, 0), (2, 1), (3, 2)]:
        uniform[item, item] = uniform[item, other] = 1 / 2
    torch.testing.assert_close(knn_graph(features, 2, "uniform").matrix.to_dense(), uniform)
    near, middle, far = (math.cos(math.radians(degrees)) for degrees in (10, 20, 60))
    q = [1 + near, 1 + near, 1 + middle, 1 + far]  # what each row sums to
    cosine = torch.zeros(5, 5)
    for item, other, value in [(0, 1, near), (1, 0, near), (2, 1, middle), (3, 2, far)]:
        cosine[item, item] = 1 / q[item]
        cosine[item, other] = value / math.sqrt(q[item] * q[other])
    torch.testing.assert_close(knn_graph(features, 2, "cosine").matrix.to_dense(), cosine)


@pytest.mark.parametrize("weighting", ["uniform", "cosine"])
@pytest.mark.parametrize("k", [1, 3])
def test_knn_graph_equals_the_dense_formula_and_is_not_made_symmetric(k: int, weighting: Weighting) -> None:
    features = random_features()
    graph = knn_graph(features, k, weighting)
    expected = dense_graph(features, k, weighting)
    torch.testing.assert_close(graph.matrix.to_dense(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(graph.transpose.to_dense(), expected.t(), rtol=1e-5, atol=1e-6)
    assert (expected.t() != expected).any() == (k > 1)


def test_uniform_weights_of_all_described_items_make_the_mean_over_them() -> None:
    rows = knn_graph(random_features(), 100, "uniform").matrix.to_dense()
    described = random_features().any(dim=1)
    torch.testing.assert_close(rows[described][:, described], torch.full((15, 15), 1 / 15))
    assert not rows[~described].any() and not rows[:, ~described].any()


def test_an_item_is_its_own_neighbour_also_where_more_than_k_items_are_identical() -> None:
    found = nearest_items(torch.tensor([[1.0, 2.0, 3.0]]).expand(40, 3), 5)
    assert (found.nearest == found.items.unsqueeze(1)).any(dim=1).all()


def test_cosine_weights_stay_moderate_where_a_small_catalogue_makes_opposite_items_neighbours() -> None:
    graph = knn_graph(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 2, "cosine")
    assert graph.matrix.values().abs().max() < 10


def test_normalize_by_sums_gives_hand_computed_weights() -> None:
    index = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 2, 2]])
    weight = torch.tensor([1.0, 3.0, 4.0, 5.0, 1.0])  # rows sum to 4, 9 and 1
    expected = torch.tensor([1 / 4, 3 / 6, 4 / 9, 5 / 3, 1.0])
    torch.testing.assert_close(normalize_by_sums(index, weight, 4), expected)


def test_gradient_of_normalize_by_sums_goes_through_the_sums_too() -> None:
    index = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 2, 2]])
    weight = torch.tensor([1.0, 3.0, 4.0, 5.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: normalize_by_sums(index, w, 3), (weight,))

    def dense(w: torch.Tensor) -> torch.Tensor:
        matrix = torch.zeros(3, 3, dtype=torch.float64).index_put((index[0], index[1]), w)
        scale = torch.diag(matrix.sum(dim=1) ** -0.5)
        return (scale @ matrix @ scale)[index[0], index[1]]

    factors = torch.arange(1.0, 6.0, dtype=torch.float64)
    ours = torch.autograd.grad((factors * normalize_by_sums(index, weight, 3)).sum(), weight)
    torch.testing.assert_close(ours, torch.autograd.grad((factors * dense(weight)).sum(), weight))
