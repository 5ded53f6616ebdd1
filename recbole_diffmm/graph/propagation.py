"""Message passing as sparse-dense products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_diffmm.graph.adjacency import SparseAdjacency


class _SparseProduct(torch.autograd.Function):
    """``A x`` whose backward pass multiplies by a stored ``A^T``: autograd's own would transpose anew in every step."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transpose: Tensor, x: Tensor) -> Tensor:
        ctx.transpose = transpose
        # Sparse products have no half-precision kernels everywhere: under autocast they stay in float32.
        return _product(matrix, x.to(matrix.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None, Tensor]:  # type: ignore[override]
        return None, None, _product(ctx.transpose, grad_outputs[0].contiguous())


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        if x.device.type != "cpu":
            return matrix @ x
        return weighted_sums(matrix.col_indices(), matrix.crow_indices()[:-1], matrix.values(), x)


def weighted_sums(senders: Tensor, starts: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """Return ``(N, D)`` sums of ``weight (E,)`` times ``x[senders]``, a row's entries beginning at ``starts (N,)``."""
    # The same sums over the entries of a row: on the CPU a weighted embedding bag takes far less time.
    return F.embedding_bag(senders, x, starts, mode="sum", per_sample_weights=weight)


def propagate(adj: SparseAdjacency, x: Tensor) -> Tensor:
    """Return ``adj @ x`` for node rows ``x (N, D)``, differentiable in ``x``."""
    return _SparseProduct.apply(adj.matrix, adj.transpose, x)


def sum_over_layers(adj: SparseAdjacency, x: Tensor, n_layers: int) -> Tensor:
    r"""Return :math:`\sum_{l=0}^{L} A^l x` for node rows ``x (N, D)`` (LightGCN's combination with equal weights)."""
    total = x
    for _ in range(n_layers):
        x = propagate(adj, x)
        total = total + x
    return total


def mean_over_layers(adj: SparseAdjacency, x: Tensor, n_layers: int) -> Tensor:
    r"""Return :math:`\frac{1}{L+1} \sum_{l=0}^{L} A^l x` for node rows ``x (N, D)`` (LightGCN, eq. 8)."""
    return sum_over_layers(adj, x, n_layers) / (n_layers + 1)
