"""Losses that train a denoiser, one value per user."""

from __future__ import annotations

from torch import Tensor

from recbole_diffmm.diffusion.schedule import NoiseSchedule


def elbo_loss(schedule: NoiseSchedule, pred_x_start: Tensor, x_start: Tensor, t: Tensor) -> Tensor:
    r"""Reconstruction error weighted by the step's signal-to-noise ratio (DiffMM, eq. 9), shape ``(B,)``.

    .. math:: w_t \frac{1}{I} \lVert x_0 - \hat x_0 \rVert^2, \quad w_t = SNR(t-1) - SNR(t), \quad w_0 = 1
    """
    return schedule.loss_weight[t].to(x_start.dtype) * (x_start - pred_x_start).square().mean(dim=1)


def msi_loss(pred_x_start: Tensor, modality_embedding: Tensor, target: Tensor) -> Tensor:
    r"""Modality-aware signal injection (DiffMM, eq. 11), shape ``(B,)``.

    .. math:: \frac{1}{D} \lVert \hat x_0 F - x_0 E_i \rVert^2

    Args:
        pred_x_start: ``(B, I)`` predicted rows.
        modality_embedding: ``(I, D)`` projected features ``F``, constant here.
        target: ``(B, D)`` sums ``x_0 E_i`` of the item embeddings of each user's history, constant here.
    """
    return (pred_x_start @ modality_embedding - target).square().mean(dim=1)
