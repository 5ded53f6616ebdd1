"""The constants of the noise process."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The first step's variance is set to this value after the fact, as DiffRec does (`beta_fixed`).
FIRST_BETA = 1e-4
MAX_BETA = 0.999


class NoiseSchedule(nn.Module):
    r"""Linear-variance schedule of DiffRec (SIGIR 2023, eq. 4), which DiffMM (arXiv 2406.11781, eq. 3) takes over.

    .. math::
        1 - \bar\alpha_t = \mathrm{linspace}(s\,v_{min}, s\,v_{max}, T)_t, \qquad
        \beta_t = \min(1 - \bar\alpha_t / \bar\alpha_{t-1}, 0.999), \quad \beta_0 = 10^{-4}

    The cumulative products are then computed again from these :math:`\beta_t`. All constants are float64 buffers of
    shape ``(T,)``, left out of the state dict because the configuration determines them.

    Args:
        steps: number of steps ``T``, at least 1.
        noise_scale: factor ``s`` on both bounds.
        noise_min: lower bound of the variance before scaling.
        noise_max: upper bound of the variance before scaling.
    """

    betas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor
    snr: Tensor
    loss_weight: Tensor

    def __init__(self, steps: int, noise_scale: float, noise_min: float, noise_max: float) -> None:
        super().__init__()
        self.steps = steps
        one = torch.ones(1, dtype=torch.float64)
        variance = torch.linspace(noise_scale * noise_min, noise_scale * noise_max, steps, dtype=torch.float64)
        cumprod = 1 - variance
        betas = torch.clamp(1 - cumprod / torch.cat([one, cumprod[:-1]]), max=MAX_BETA)
        betas[0] = FIRST_BETA
        cumprod = torch.cumprod(1 - betas, 0)
        previous = torch.cat([one, cumprod[:-1]])
        posterior_variance = betas * (1 - previous) / (1 - cumprod)
        snr = cumprod / (1 - cumprod)
        constants = {
            "betas": betas,
            "alphas_cumprod": cumprod,
            "alphas_cumprod_prev": previous,
            "sqrt_alphas_cumprod": cumprod.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - cumprod).sqrt(),
            "posterior_variance": posterior_variance,
            # The variance of step 0 is zero; its logarithm takes the next step's (DDPM's clipping).
            "posterior_log_variance_clipped": torch.cat([posterior_variance[1:2], posterior_variance[1:]]).log()
            if steps > 1
            else posterior_variance.clamp(min=1e-20).log(),
            "posterior_mean_coef1": betas * previous.sqrt() / (1 - cumprod),
            "posterior_mean_coef2": (1 - previous) * (1 - betas).sqrt() / (1 - cumprod),
            "snr": snr,
            # SNR(t-1) - SNR(t), and 1 at t = 0 (DiffRec, eq. 12; DiffMM, eq. 9)
            "loss_weight": torch.cat([one, snr[:-1] - snr[1:]]),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
