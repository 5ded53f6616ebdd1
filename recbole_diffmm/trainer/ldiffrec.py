"""RecBole's LDiffRec, whose encoder multiplies the few items of a user and not all of them."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.general_recommender import LDiffRec
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_diffmm.trainer.base import RunTrainer
from recbole_diffmm.trainer.loop import BatchLoop


class LDiffRecTrainer(RunTrainer, BatchLoop):
    """RecBole's trainer; on the CPU the first product of the model's encoder (SIGIR 2023) skips what is zero.

    The input is a user's row of the interaction matrix, and its dense product with the first layer and back is most of
    an epoch. Values and gradients are the same to rounding. With clusters of items (``n_cate`` above 1) it
    stays RecBole's.
    """

    def __init__(self, config: Any, model: LDiffRec) -> None:
        super().__init__(config, model)
        if model.n_cate == 1 and self.device.type == "cpu":
            first = model.autoencoder.encoder.mlp_layers[1]
            first.forward = lambda rows: _SparseLinear.apply(rows, first.weight, first.bias)


class _SparseLinear(torch.autograd.Function):
    """``rows (B, I) @ weight.t() (I, D) + bias (D,)`` for rows that are nearly all zero and need no gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        row, column = rows.nonzero(as_tuple=True)
        value = rows[row, column]
        ctx.save_for_backward(row, column, value)
        ctx.n_columns = rows.shape[1]
        starts = torch.searchsorted(row, torch.arange(len(rows)))
        return F.embedding_bag(column, weight.t().contiguous(), starts, mode="sum", per_sample_weights=value) + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, Tensor]:  # type: ignore[override]
        row, column, value = ctx.saved_tensors
        grad = grad_outputs[0]
        by_column = grad.new_zeros(ctx.n_columns, grad.shape[1])
        by_column.index_add_(0, column, grad[row] * value.unsqueeze(1))
        return None, by_column.t(), grad.sum(dim=0)
