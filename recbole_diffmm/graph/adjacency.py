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


def symmetric_weight(row: Tensor, col: Tensor, n_nodes: int) -> Tensor:
    r"""Return :math:`d_r^{-1/2} d_c^{-1/2}` ``(E,)`` of the entries ``(row, col)``, degrees counted over the rows."""
    degree = torch.bincount(row, minlength=n_nodes)
    inv_sqrt = degree.to(torch.float32).rsqrt()
    return inv_sqrt[row] * inv_sqrt[col]


def mean_weight(row: Tensor, n_nodes: int) -> Tensor:
    r"""Return :math:`d_r^{-1}` ``(E,)`` of the entries of each row: a product with them is a mean over neighbours."""
    return torch.bincount(row, minlength=n_nodes).to(torch.float32).reciprocal()[row]


def bipartite_edges(
    user_ids: Tensor, item_ids: Tensor, n_users: int, n_items: int, *, self_loops: bool = True
) -> tuple[Tensor, Tensor]:
    r"""Return the entries of :math:`D^{-1/2} (A + I) D^{-1/2}` of a bipartite graph (LightGCN, eq. 8, plus self-loops).

    Args:
        user_ids: ``(E,)`` users of the edges, ``0..U-1``. Repeated edges count once.
        item_ids: ``(E,)`` items of the edges, ``0..I-1``.
        n_users: number of users ``U``.
        n_items: number of items ``I``.
        self_loops: whether every node is its own neighbour; false is LightGCN's graph.

    Returns:
        ``edge_index (2, 2E + N)`` with items at ``U..N-1`` (user to item, item to user, self-loops, in this order) and
        ``edge_weight (2E + N,)`` in float32; without self-loops both end after ``2E``.
    """
    n_nodes = n_users + n_items
    key = torch.unique(user_ids * n_items + item_ids)
    users = torch.div(key, n_items, rounding_mode="floor")
    items = key % n_items + n_users
    # A node without edges is in no entry, so that its degree of zero is never divided by.
    nodes = torch.arange(n_nodes if self_loops else 0, device=key.device)
    row = torch.cat([users, items, nodes])
    col = torch.cat([items, users, nodes])
    return torch.stack([row, col]), symmetric_weight(row, col, n_nodes)


def csr_matrix(starts: Tensor, n_entries: int, col: Tensor, value: Tensor) -> Tensor:
    """Return the square CSR matrix whose rows begin at ``starts (N,)`` among ``col (E,)`` and ``value (E,)``."""
    crow = torch.cat([starts, starts.new_full((1,), n_entries)])
    n_nodes = starts.numel()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(crow, col, value, (n_nodes, n_nodes), check_invariants=False)


def _csr(row: Tensor, col: Tensor, value: Tensor, n_nodes: int) -> Tensor:
    order = torch.argsort(row * n_nodes + col)
    counts = torch.bincount(row, minlength=n_nodes)
    return csr_matrix(torch.cumsum(counts, 0) - counts, row.numel(), col[order], value[order])


def build_adjacency(edge_index: Tensor, edge_weight: Tensor, n_nodes: int, *, symmetric: bool) -> SparseAdjacency:
    """Build the CSR matrix of weighted edges; ``symmetric=True`` promises that its transpose is the same matrix."""
    row, col = edge_index
    matrix = _csr(row, col, edge_weight, n_nodes)
    return SparseAdjacency(matrix, matrix if symmetric else _csr(col, row, edge_weight, n_nodes))
