"""Graphs of nearest items by the cosine of their features, in blocks: no items x items array at any time."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recbole_diffmm.graph.adjacency import SparseAdjacency, build_adjacency
from recbole_diffmm.graph.rows import unit_rows

# Similarities that exist at a time: 128 MiB in float32.
_BLOCK_ENTRIES = 1 << 25

Weighting = Literal["uniform", "cosine"]


class Neighbours(NamedTuple):
    """For each of some items, the ids of its nearest ones and their cosines, nearest first."""

    items: Tensor  # (n,) the items that have neighbours, ascending
    nearest: Tensor  # (n, k) ids
    cosine: Tensor  # (n, k)


def nearest_items(
    features: Tensor, k: int, *, include_self: bool = True, candidates: Tensor | None = None
) -> Neighbours:
    """Return the ``k`` nearest items of every item by the cosine of ``features (I, F)``.

    Items whose features are all zero have none and are nobody's neighbours. Where fewer than ``k`` candidates are left,
    all of them are neighbours, and what is missing has the cosine minus infinity. Time is one product of all features
    with themselves, memory a block of it.

    Args:
        features: ``(I, F)`` rows of any length.
        k: number of neighbours.
        include_self: whether an item is its own nearest, as published graphs have it, even among items just like it.
        candidates: ``(I,)`` bool, the items that may be neighbours; by default all.
    """
    unit = unit_rows(features.detach())
    described = unit.any(dim=1)
    rows = described.nonzero().squeeze(1)
    columns = (described if candidates is None else described & candidates).nonzero().squeeze(1)
    keys = unit if len(columns) == len(unit) else unit[columns]  # (C, F), not copied where it need not be
    k = min(k, len(columns))
    if k < 1 or not len(rows):
        return Neighbours(rows[:0], rows.new_zeros(0, 0), unit.new_zeros(0, 0))
    # Where each item stands among the candidates, so that its similarity with itself can be struck out.
    place = torch.full((len(unit),), -1, device=unit.device)
    place[columns] = torch.arange(len(columns), device=unit.device)
    nearest, cosine = [], []
    for block in rows.split(max(1, _BLOCK_ENTRIES // len(columns))):
        similarity = unit[block] @ keys.t()  # (b, C)
        own = place[block]
        known = (own >= 0).nonzero().squeeze(1)
        similarity[known, own[known]] = torch.inf if include_self else -torch.inf
        top = similarity.topk(k, dim=1)
        nearest.append(columns[top.indices])
        cosine.append(top.values.where(top.values < torch.inf, 1.0))
    return Neighbours(rows, torch.cat(nearest), torch.cat(cosine))


def neighbour_edges(neighbours: Neighbours) -> tuple[Tensor, Tensor]:
    """Return ``edge_index (2, E)``, each item and one of its neighbours, and the cosines ``(E,)``."""
    row = neighbours.items.repeat_interleave(neighbours.nearest.shape[1])
    cosine = neighbours.cosine.flatten()
    there = cosine > -torch.inf
    return torch.stack([row, neighbours.nearest.flatten()])[:, there], cosine[there]


def knn_edges(features: Tensor, k: int, weighting: Weighting) -> tuple[Tensor, Tensor]:
    r"""Return index ``(2, E)`` and weights ``(E,)`` of edges from every item to its ``k`` nearest, itself among them.

    Weights of ``uniform`` are :math:`1/\sqrt{r_i r_j}` with the number of neighbours as ``r``, so ``1/k`` (FREEDOM);
    those of ``cosine`` :math:`s_{ij}/\sqrt{q_i q_j}` with the cosine ``s`` and :math:`q_i` the sum of an item's
    (LATTICE, MGCN), negative ones counting as zero. Neither is made symmetric. An item without features has an empty
    row.
    """
    index, cosine = neighbour_edges(nearest_items(features, k))
    weight = torch.ones_like(cosine) if weighting == "uniform" else cosine.clamp(min=0)
    return index, normalize_by_sums(index, weight, len(features))


def knn_graph(features: Tensor, k: int, weighting: Weighting) -> SparseAdjacency:
    """Return the graph ``(I, I)`` of :func:`knn_edges`."""
    return build_adjacency(*knn_edges(features, k, weighting), len(features), symmetric=False)


def normalize_by_sums(edge_index: Tensor, weight: Tensor, n_nodes: int) -> Tensor:
    r"""Return :math:`w_e/\sqrt{q_r q_c}` ``(E,)`` with the sums ``q`` of each row's ``weight``, differentiable."""
    row, col = edge_index
    sums = weight.new_zeros(n_nodes).index_add(0, row, weight)
    inv_sqrt = sums.clamp(min=1e-12).rsqrt()
    return weight * inv_sqrt[row] * inv_sqrt[col]
