"""Edges whose weights change while their places do not: dropped anew in every batch, or learned."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_diffmm.graph.adjacency import SparseAdjacency, csr_matrix
from recbole_diffmm.graph.propagation import weighted_sums


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


class _Aggregate(torch.autograd.Function):
    """Weighted sums over incoming edges, differentiable in the rows and in the weights."""

    @staticmethod
    def forward(ctx: Any, edges: Edges, weight: Tensor, x: Tensor) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(weight, x)
        return weighted_sums(edges.sender, edges.starts, weight, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor | None, Tensor | None]:  # type: ignore[override]
        edges: Edges = ctx.edges
        weight, x = ctx.saved_tensors
        grad = grad_outputs[0].contiguous()
        grad_weight = grad_x = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad[edges.receiver] * x[edges.sender]).sum(dim=1)
        if ctx.needs_input_grad[2]:
            order = edges.by_sender
            grad_x = weighted_sums(edges.receiver[order], edges.sender_starts, weight[order], grad)
        return None, grad_weight, grad_x


def aggregate(edges: Edges, weight: Tensor, x: Tensor) -> Tensor:
    """Return ``(N, D)`` sums of ``weight (E,)`` times the senders' rows of ``x (N, D)``, per receiver.

    Gradients reach both ``weight`` and ``x``; with constant weights :func:`propagate` is faster.
    """
    if weight.dtype.itemsize < 4:  # sums of half precision lose what they sum; as in `propagate`
        weight = weight.float()
    with torch.autocast(x.device.type, enabled=False):
        return _Aggregate.apply(edges, weight, x.to(weight.dtype))


class _Agreement(torch.autograd.Function):
    """Inner products along edges that keep the node rows alone for the way back, and not two rows an edge."""

    @staticmethod
    def forward(ctx: Any, edges: Edges, x: Tensor) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(x)
        return (x[edges.receiver] * x[edges.sender]).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        edges: Edges = ctx.edges
        (x,) = ctx.saved_tensors
        grad, order = grad_outputs[0].contiguous(), edges.by_sender
        to_receivers = weighted_sums(edges.sender, edges.starts, grad, x)
        return None, to_receivers + weighted_sums(edges.receiver[order], edges.sender_starts, grad[order], x)


def agreement(edges: Edges, x: Tensor) -> Tensor:
    """Return the inner products ``(E,)`` of the rows of ``x (N, D)`` at both ends of each edge."""
    with torch.autocast(x.device.type, enabled=False):
        return _Agreement.apply(edges, x)


def softmax_by_receiver(edges: Edges, logits: Tensor) -> Tensor:
    """Return the softmax of ``logits (E,)`` over the edges that each node receives (GAT, eq. 2)."""
    n_nodes = edges.n_nodes
    largest = logits.new_full((n_nodes,), -torch.inf).scatter_reduce(0, edges.receiver, logits.detach(), "amax")
    exps = (logits - largest[edges.receiver]).exp()
    sums = exps.new_zeros(n_nodes).index_add(0, edges.receiver, exps)
    return exps / sums[edges.receiver]
