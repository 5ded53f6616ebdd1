"""Arithmetic on node rows with few buffers: at a million nodes, making each of them costs more than its arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Rows shorter than this are not stretched to unit norm; as in torch.nn.functional.normalize. Half precision, which has
# nothing so small, takes the smallest that it has.
EPSILON = 1e-12


class _UnitRows(torch.autograd.Function):
    """Rows divided by their norm; the gradient is ``(g - y (y . g)) / ||x||`` for unit rows ``y``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        shortest = max(EPSILON, torch.finfo(x.dtype).tiny)
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min_(shortest)  # (N, 1)
        unit = x / norm
        ctx.save_for_backward(unit, norm)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # type: ignore[override]
        unit, norm = ctx.saved_tensors
        along = torch.linalg.vecdot(unit, grad_outputs[0]).unsqueeze(1)  # (N, 1)
        return torch.addcmul(grad_outputs[0], unit, along, value=-1).div_(norm)


def unit_rows(x: Tensor) -> Tensor:
    """Return the rows of ``x (N, D)`` scaled to unit L2 norm, zero rows left as they are."""
    return _UnitRows.apply(x)
