"""Edges whose weights change while their places do not: dropped anew in every batch, or learned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recbole_diffmm.graph.adjacency import SparseAdjacency, csr_matrix


class Edges(NamedTuple):
    """Edges ordered by the node that receives, and how to order them by the node that sends.

    The matrix they stand for has receivers as rows: its product with node rows sums what arrives.
    """

    receiver: Tensor  # (E,) ascending
    sender: Tensor  # (E,)
    starts: Tensor  # (N,) where each receiver's edges begin
    by_sender: Tensor  # (E,) the edges' order when sorted by sender
    sender_starts: Tensor  # (N,) where each sender's edges begin in that order

    @property
    def n_nodes(self) -> int:
        """Number of nodes ``N``."""
        return self.starts.numel()

    def adjacency(self, weight: Tensor) -> SparseAdjacency:
        """Return the sparse matrix with these ``weight (E,)``, without sorting anything again."""
        counts = self.receiver.numel()
        order = self.by_sender
        return SparseAdjacency(
            csr_matrix(self.starts, counts, self.sender, weight),
            csr_matrix(self.sender_starts, counts, self.receiver[order], weight[order]),
        )


def order_edges(receiver: Tensor, sender: Tensor, n_nodes: int) -> tuple[Edges, Tensor]:
    """Return edges among ``n_nodes`` in the order of :class:`Edges`, and that order ``(E,)`` of what was given."""
    order = torch.argsort(receiver * n_nodes + sender)
    receiver, sender = receiver[order], sender[order]
    by_sender = torch.argsort(sender, stable=True)
    return Edges(receiver, sender, _starts(receiver, n_nodes), by_sender, _starts(sender, n_nodes)), order


def _starts(nodes: Tensor, n_nodes: int) -> Tensor:
    counts = torch.bincount(nodes, minlength=n_nodes)
    return torch.cumsum(counts, 0) - counts


def undirected_keep(edges: Edges, drop_rate: float) -> Tensor:
    """Return ``(E,)`` bool, both directions of an edge of a symmetric graph being kept or dropped together."""
    draw = torch.rand(edges.receiver.shape, device=edges.receiver.device)
    # Sorted by sender, an edge stands where its other direction stands when sorted by receiver.
    draw = torch.where(edges.receiver < edges.sender, draw, draw[edges.by_sender])
    return draw >= drop_rate


def kept_weight(edges: Edges, keep: Tensor) -> Tensor:
    r"""Return :math:`d_r^{-1/2} d_s^{-1/2}` ``(E,)`` of kept edges, degrees counted over them, and zero elsewhere."""
    kept = keep.to(torch.float32)
    degree = kept.new_zeros(edges.n_nodes).index_add(0, edges.receiver, kept)
    inv_sqrt = degree.clamp(min=1).rsqrt()
    return kept * inv_sqrt[edges.receiver] * inv_sqrt[edges.sender]


def softmax_by_receiver(edges: Edges, logits: Tensor) -> Tensor:
    """Return the softmax of ``logits (E,)`` over the edges that each node receives (GAT, eq. 2)."""
    n_nodes = edges.n_nodes
    largest = logits.new_full((n_nodes,), -torch.inf).scatter_reduce(0, edges.receiver, logits.detach(), "amax")
    exps = (logits - largest[edges.receiver]).exp()
    sums = exps.new_zeros(n_nodes).index_add(0, edges.receiver, exps)
    return exps / sums[edges.receiver]
