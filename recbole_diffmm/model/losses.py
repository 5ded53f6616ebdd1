"""Losses that several recommenders share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def bpr_loss(pos_score: Tensor, neg_score: Tensor, batch_size: int) -> Tensor:
    r"""Bayesian personalised ranking, :math:`-\frac{1}{B}\sum \log \sigma(s^+ - s^-)` (UAI 2009; DiffMM, eq. 18).

    ``batch_size`` is the nominal ``B``: a last, smaller batch is divided by it too, as the reference does.
    """
    return -F.logsigmoid(pos_score - neg_score).sum() / batch_size


def squared_norm(*tensors: Tensor) -> Tensor:
    """Sum of the squared Frobenius norms."""
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()


class _SoftmaxDenominator(torch.autograd.Function):
    """``mean(log sum_k exp((q . k - 1) / tau)) + 1 / tau`` that keeps one ``(B, N)`` buffer and its own gradient.

    Cosines are at most 1, so that shifting by 1 instead of by the row's maximum cannot overflow.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
        weights = torch.matmul(queries / temperature, keys.t()).sub_(1.0 / temperature).exp_()  # (B, N)
        total = weights.sum(dim=1, keepdim=True)
        weights.div_(total)
        ctx.save_for_backward(queries, keys, weights)
        ctx.temperature = temperature
        return total.log().mean() + 1.0 / temperature

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        queries, keys, weights = ctx.saved_tensors
        scale = grad_outputs[0] / (ctx.temperature * queries.shape[0])
        return scale * (weights @ keys), scale * (weights.t() @ queries), None


def infonce_loss(queries: Tensor, keys: Tensor, nodes: Tensor, temperature: float) -> Tensor:
    r"""InfoNCE between two views of the same nodes, every node a negative (DiffMM, eq. 15 and 16).

    .. math:: -\frac{1}{B} \sum_n \Big[\cos(p_n, q_n)/\tau - \log \sum_{k=1}^{N} \exp(\cos(p_n, q_k)/\tau)\Big]

    Args:
        queries: ``(N, D)`` one view ``p``.
        keys: ``(N, D)`` the other view ``q``; all its rows are in the denominator.
        nodes: ``(B,)`` rows that are contrasted; repeated ones count as often as they occur.
        temperature: ``tau``.
    """
    keys = F.normalize(keys)
    picked = F.normalize(queries[nodes])  # (B, D)
    positive = (picked * keys[nodes]).sum(dim=1).mean() / temperature
    return _SoftmaxDenominator.apply(picked, keys, temperature) - positive
