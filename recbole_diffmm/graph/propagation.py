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
        # The same sums over the entries of a row: on the CPU a weighted embedding bag takes a tenth of the time.
        rows = matrix.crow_indices()[:-1]
        return F.embedding_bag(matrix.col_indices(), x, rows, mode="sum", per_sample_weights=matrix.values())


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
