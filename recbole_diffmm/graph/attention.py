"""Products and sums along edges whose weights are learned, without a row for every edge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_diffmm.graph.adjacency import csr_matrix
from recbole_diffmm.graph.edges import Edges, _Agreement
from recbole_diffmm.graph.edges import aggregate as plain_aggregate


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


class _SampledAgreement(_Agreement):
    """The products of :func:`graph.agreement` without a row for every edge."""

    @staticmethod
    def forward(ctx: Any, edges: Edges, x: Tensor) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(x)
        return _products(edges, x, x)


class _LearnedWeight(torch.autograd.Function):
    """Passes on sums along edges, and to their weights the gradient that they have."""

    @staticmethod
    def forward(ctx: Any, edges: Edges, weight: Tensor, x: Tensor, sums: Tensor) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(x)
        return sums.view_as(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, None, Tensor]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        grad = grad_outputs[0].contiguous()
        return None, _products(ctx.edges, grad, x), None, grad


def agreement(edges: Edges, x: Tensor) -> Tensor:
    """Return the inner products ``(E,)`` of the rows of ``x (N, D)`` at both ends of each edge."""
    with torch.autocast(x.device.type, enabled=False):
        return _SampledAgreement.apply(edges, x.float() if x.dtype.itemsize < 4 else x)


def aggregate(edges: Edges, weight: Tensor, x: Tensor) -> Tensor:
    """Return ``(N, D)`` sums of ``weight (E,)`` times the senders' rows of ``x (N, D)``, per receiver.

    Gradients reach both ``weight`` and ``x``; with constant weights :func:`propagate` is faster.
    """
    sums = plain_aggregate(edges, weight.detach(), x)
    if not weight.requires_grad:
        return sums
    return _LearnedWeight.apply(edges, weight.to(sums.dtype), x.detach().to(sums.dtype), sums)
