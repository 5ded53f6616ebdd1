"""What a denoiser is trained on, one value per user."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_diffmm.diffusion.schedule import NoiseSchedule
from recbole_diffmm.precision import operand_dtype


def denoising_losses(
    schedule: NoiseSchedule,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    t: Tensor,
    row: Tensor,
    item: Tensor,
    modality_embedding: Tensor,
    target: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Reconstruction and modality-aware signal injection (DiffMM, eq. 9 and 11) of :math:`\hat x_0 = h W^T + b`.

    .. math::
        elbo_b &= w_t \frac{1}{I} \lVert x_0 - \hat x_0 \rVert^2, \quad w_t = SNR(t-1) - SNR(t), \quad w_0 = 1 \\
        msi_b &= \frac{1}{D} \lVert \hat x_0 F - x_0 E_i \rVert^2

    Args:
        schedule: the noise schedule, for its weights.
        hidden: ``(B, H)`` input ``h`` of the denoiser's last layer.
        weight: ``(I, H)`` and
        bias: ``(I,)`` of that layer.
        t: ``(B,)`` steps.
        row: ``(E,)`` and
        item: ``(E,)``, the positions of the ones in the clean rows ``x_0 (B, I)``, each once.
        modality_embedding: ``(I, D)`` projected features ``F``, constant here.
        target: ``(B, D)`` sums ``x_0 E_i`` of the item embeddings of each user's history, constant here.

    Returns:
        ``elbo (B,)`` and ``msi (B,)``.
    """
    squared_error, distance = _Residuals.apply(hidden, weight, bias, row, item, modality_embedding, target)
    elbo = schedule.loss_weight[t].to(squared_error.dtype) * squared_error / len(weight)
    return elbo, distance.square().mean(dim=1)


def dense_denoising_losses(
    schedule: NoiseSchedule,
    pred_x_start: Tensor,
    x_start: Tensor,
    t: Tensor,
    n_items: int,
    modality_embedding: Tensor,
    target: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return :func:`denoising_losses` for dense rows or latents: ``pred_x_start`` and ``x_start (B, r)``.

    Args:
        schedule: the noise schedule, for its weights.
        pred_x_start: ``(B, r)`` predicted rows.
        x_start: ``(B, r)`` clean rows.
        t: ``(B,)`` steps.
        n_items: the ``I`` that the squared error is divided by.
        modality_embedding: ``(r, D)`` projected features, in the space of the rows.
        target: ``(B, D)``, as there.
    """
    elbo = schedule.loss_weight[t].to(x_start.dtype) * (x_start - pred_x_start).square().sum(dim=1) / n_items
    return elbo, (pred_x_start @ modality_embedding - target).square().mean(dim=1)


class _Residuals(torch.autograd.Function):
    r"""``||x_0 - pred||^2 (B,)`` and ``pred F - target (B, D)`` for ``pred = h W^T + b (B, I)``.

    The predictions are the one buffer of that size: the clean rows are subtracted in place where they have ones, and
    the gradient with respect to ``pred``, :math:`G = \mathrm{diag}(2 g) (pred - x_0) + S F^T`, is multiplied out with
    ``h`` and ``W`` term by term instead of being written down.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        row: Tensor,
        item: Tensor,
        features: Tensor,
        target: Tensor,
    ) -> tuple[Tensor, Tensor]:
        dtype = operand_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            h, w, f = hidden.to(dtype), weight.to(dtype), features.to(dtype)
            residual = torch.addmm(bias.to(dtype), h, w.t())  # (B, I)
            distance = (residual @ f).to(target.dtype) - target  # (B, D)
            one = torch.ones((), dtype=dtype, device=residual.device)
            residual.index_put_((row, item), -one, accumulate=True)
            # The value is rounded to the operands' format, no gradient is: it depends on the residuals alone.
            squared_error = torch.linalg.vector_norm(residual, dim=1).to(hidden.dtype).square()
        ctx.save_for_backward(h, w, f, residual)
        ctx.dtype = hidden.dtype
        return squared_error, distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        h, w, f, residual = ctx.saved_tensors
        scale = (2 * grad_outputs[0]).unsqueeze(1).to(h.dtype)  # (B, 1)
        signal = grad_outputs[1].to(h.dtype)  # (B, D)
        grad_hidden = scale * (residual @ w) + signal @ (f.t() @ w)
        grad_weight = torch.addmm(f @ (signal.t() @ h), residual.t(), scale * h)
        grad_bias = (residual.t() @ scale).squeeze(1) + f @ signal.sum(dim=0)
        return (*(grad.to(ctx.dtype) for grad in (grad_hidden, grad_weight, grad_bias)), None, None, None, None)
