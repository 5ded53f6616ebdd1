"""Products and sums along edges whose weights are learned, without a row for every edge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_diffmm.graph.adjacency import csr_matrix
from recbole_diffmm.graph.edges import Edges
from recbole_diffmm.graph.propagation import weighted_sums


def edges_to_picked(picked: Tensor, n_rows: int) -> Edges:
    """Return the edges from the nodes that each of ``B`` queries has picked to the query.

    Args:
        picked: ``(B, n)`` numbers of the picked rows; one may be picked twice.
        n_rows: how many rows ``R`` there are to pick from.

    Returns:
        Edges among ``B + R`` nodes, queries first, in the order of ``picked.flatten()``.
    """
    n_queries, n_picked = picked.shape
    flat = picked.flatten()
    queries = torch.arange(n_queries + n_rows, device=picked.device)
    starts = (queries * n_picked).clamp(max=flat.numel())
    by_sender = flat.argsort(stable=True)
    sender_starts = torch.searchsorted(flat[by_sender], queries - n_queries)
    return Edges(queries[:n_queries].repeat_interleave(n_picked), flat + n_queries, starts, by_sender, sender_starts)


def _products(edges: Edges, receivers: Tensor, senders: Tensor) -> Tensor:
    """Inner products ``(E,)`` of rows of ``receivers (N, D)`` and ``senders (N, D)`` at the ends of each edge."""
    n_edges = edges.receiver.numel()
    if receivers.device.type != "cpu" or not 0 < n_edges <= edges.n_nodes**2:
        # cuSPARSE does not promise to take unsorted or repeated columns, and PyTorch fails where edges that are there
        # several times make more of them than a matrix has entries.
        return (receivers[edges.receiver] * senders[edges.sender]).sum(dim=1)
    pattern = csr_matrix(edges.starts, n_edges, edges.sender, receivers.new_zeros(n_edges))
    return torch.sparse.sampled_addmm(pattern, receivers, senders.t(), beta=0.0).values()


class _Agreement(torch.autograd.Function):
    """Inner products along edges that keep the node rows alone for the way back, and not two rows an edge."""

    @staticmethod
    def forward(ctx: Any, edges: Edges, x: Tensor) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(x)
        return _products(edges, x, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        edges: Edges = ctx.edges
        (x,) = ctx.saved_tensors
        grad, order = grad_outputs[0].contiguous(), edges.by_sender
        to_receivers = weighted_sums(edges.sender, edges.starts, grad, x)
        return None, to_receivers + weighted_sums(edges.receiver[order], edges.sender_starts, grad[order], x)


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
            grad_weight = _products(edges, grad, x)
        if ctx.needs_input_grad[2]:
            order = edges.by_sender
            grad_x = weighted_sums(edges.receiver[order], edges.sender_starts, weight[order], grad)
        return None, grad_weight, grad_x


def agreement(edges: Edges, x: Tensor) -> Tensor:
    """Return the inner products ``(E,)`` of the rows of ``x (N, D)`` at both ends of each edge."""
    with torch.autocast(x.device.type, enabled=False):
        return _Agreement.apply(edges, x.float() if x.dtype.itemsize < 4 else x)


def aggregate(edges: Edges, weight: Tensor, x: Tensor) -> Tensor:
    """Return ``(N, D)`` sums of ``weight (E,)`` times the senders' rows of ``x (N, D)``, per receiver.

    Gradients reach both ``weight`` and ``x``; with constant weights :func:`propagate` is faster.
    """
    if weight.dtype.itemsize < 4:  # sums of half precision lose what they sum; as in `propagate`
        weight = weight.float()
    with torch.autocast(x.device.type, enabled=False):
        return _Aggregate.apply(edges, weight, x.to(weight.dtype))
