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
    """``sum_b w_b log sum_k exp(q_b . k / tau)`` that keeps one ``(B, N)`` buffer and its own gradient."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, weight: Tensor, temperature: float) -> Tensor:
        # A sum over all nodes wants full precision, under autocast too.
        with torch.autocast(queries.device.type, enabled=False):
            softmax = (queries / temperature) @ keys.t()  # (B, N)
            largest = softmax.amax(dim=1, keepdim=True)
            total = softmax.sub_(largest).exp_().sum(dim=1)
            softmax.mul_((weight / total).unsqueeze(1))
            ctx.save_for_backward(queries, keys, softmax)
            ctx.temperature = temperature
            return (weight * (total.log() + largest.squeeze(1))).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        queries, keys, softmax = ctx.saved_tensors
        scale = grad_outputs[0] / ctx.temperature
        return scale * (softmax @ keys), scale * (softmax.t() @ queries), None, None


def infonce_loss(queries: Tensor, keys: Tensor, nodes: Tensor, temperature: float) -> Tensor:
    r"""InfoNCE between two views of the same nodes, every node a negative (DiffMM, eq. 15 and 16).

    .. math:: -\frac{1}{B} \sum_n \Big[\cos(p_n, q_n)/\tau - \log \sum_{k=1}^{N} \exp(\cos(p_n, q_k)/\tau)\Big]

    Args:
        queries: ``(N, D)`` one view ``p``.
        keys: ``(N, D)`` the other view ``q``; all its rows are in the denominator.
        nodes: ``(B,)`` rows that are contrasted; repeated ones count as often as they occur.
        temperature: ``tau``.
    """
    # A node that occurs often in the batch is compared with all others once and weighted, which is the same sum.
    nodes, counts = torch.unique(nodes, return_counts=True)
    weight = counts.to(queries.dtype) / counts.sum()
    keys = F.normalize(keys)
    picked = F.normalize(queries[nodes])  # (B, D)
    positive = (weight * (picked * keys[nodes]).sum(dim=1)).sum() / temperature
    return _SoftmaxDenominator.apply(picked, keys, weight, temperature) - positive
