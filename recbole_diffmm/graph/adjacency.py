"""Normalised adjacency matrices of user-item graphs."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor


class SparseAdjacency(NamedTuple):
    """A sparse matrix in CSR form with its transpose at hand, which the backward pass multiplies by.

    For a symmetric matrix both names hold the same tensor.
    """

    matrix: Tensor  # (N, N) CSR
    transpose: Tensor  # (N, N) CSR


def bipartite_edges(user_ids: Tensor, item_ids: Tensor, n_users: int, n_items: int) -> tuple[Tensor, Tensor]:
    r"""Return the entries of :math:`D^{-1/2} (A + I) D^{-1/2}` of a bipartite graph (LightGCN, eq. 8, plus self-loops).

    Args:
        user_ids: ``(E,)`` users of the edges, ``0..U-1``. Repeated edges count once.
        item_ids: ``(E,)`` items of the edges, ``0..I-1``.
        n_users: number of users ``U``.
        n_items: number of items ``I``.

    Returns:
        ``edge_index (2, 2E + N)`` with items at ``U..N-1`` (user to item, item to user, self-loops, in this order) and
        ``edge_weight (2E + N,)`` in float32.
    """
    n_nodes = n_users + n_items
    key = torch.unique(user_ids * n_items + item_ids)
    users = torch.div(key, n_items, rounding_mode="floor")
    items = key % n_items + n_users
    nodes = torch.arange(n_nodes, device=key.device)
    row = torch.cat([users, items, nodes])
    col = torch.cat([items, users, nodes])
    degree = torch.bincount(row, minlength=n_nodes)  # the self-loop keeps every degree above zero
    inv_sqrt = degree.to(torch.float32).rsqrt()
    return torch.stack([row, col]), inv_sqrt[row] * inv_sqrt[col]


def _csr(row: Tensor, col: Tensor, value: Tensor, n_nodes: int) -> Tensor:
    order = torch.argsort(row * n_nodes + col)
    counts = torch.bincount(row, minlength=n_nodes)
    crow = torch.zeros(n_nodes + 1, dtype=torch.int64, device=row.device)
    torch.cumsum(counts, 0, out=crow[1:])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(crow, col[order], value[order], (n_nodes, n_nodes), check_invariants=False)


def build_adjacency(edge_index: Tensor, edge_weight: Tensor, n_nodes: int, *, symmetric: bool) -> SparseAdjacency:
    """Build the CSR matrix of weighted edges; ``symmetric=True`` promises that its transpose is the same matrix."""
    row, col = edge_index
    matrix = _csr(row, col, edge_weight, n_nodes)
    return SparseAdjacency(matrix, matrix if symmetric else _csr(col, row, edge_weight, n_nodes))
