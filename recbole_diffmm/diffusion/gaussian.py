"""Forward and reverse process. They know no network: a denoiser is any callable ``(x_t, t) -> pred_x_start``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recbole_diffmm.diffusion.schedule import NoiseSchedule

DenoiserFn = Callable[[Tensor, Tensor], Tensor]


class GaussianDiffusion(nn.Module):
    """Gaussian diffusion over rows ``x (B, I)`` with a fixed schedule (DDPM, arXiv 2006.11239)."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    @property
    def steps(self) -> int:
        """Number of steps ``T``."""
        return self.schedule.steps

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        r"""Add noise: :math:`x_t = \sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon` (DDPM, eq. 4).

        Args:
            x_start: ``(B, I)`` clean rows.
            t: ``(B,)`` steps, ``0..T-1``.
            noise: ``(B, I)`` standard normal noise.
        """
        scale = self.schedule.sqrt_alphas_cumprod[t].to(x_start.dtype).unsqueeze(1)  # (B, 1)
        sigma = self.schedule.sqrt_one_minus_alphas_cumprod[t].to(x_start.dtype).unsqueeze(1)
        return torch.addcmul(scale * x_start, sigma, noise)

    def q_sample_history_(self, noise: Tensor, t: Tensor, row: Tensor, item: Tensor) -> Tensor:
        """Turn ``noise (B, I)`` in place into :meth:`q_sample` of rows that are 1 at ``(row, item)`` and 0 elsewhere.

        Args:
            noise: ``(B, I)`` standard normal noise; it is overwritten.
            t: ``(B,)`` steps, ``0..T-1``.
            row: ``(E,)`` and
            item: ``(E,)``, the positions of the ones, each once.
        """
        scale = self.schedule.sqrt_alphas_cumprod[t].to(noise.dtype)  # (B,)
        sigma = self.schedule.sqrt_one_minus_alphas_cumprod[t].to(noise.dtype)
        return noise.mul_(sigma.unsqueeze(1)).index_put_((row, item), scale[row], accumulate=True)

    def p_mean(self, denoiser: DenoiserFn, x_t: Tensor, t: Tensor) -> Tensor:
        r"""Mean of :math:`q(x_{t-1} | x_t, \hat x_0(x_t, t))` (DDPM, eq. 7), shape ``(B, I)``."""
        coef1 = self.schedule.posterior_mean_coef1[t].to(x_t.dtype).unsqueeze(1)
        coef2 = self.schedule.posterior_mean_coef2[t].to(x_t.dtype).unsqueeze(1)
        return coef1 * denoiser(x_t, t) + coef2 * x_t

    def p_sample_loop(
        self,
        denoiser: DenoiserFn,
        x_t: Tensor,
        *,
        sampling_noise: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Run the reverse process over all steps from ``x_t (B, I)``.

        Args:
            denoiser: callable ``(x_t, t) -> pred_x_start``.
            x_t: ``(B, I)`` rows to start from; DiffMM starts from the clean rows themselves.
            sampling_noise: add posterior noise at every step but the last one; by default only the mean is followed.
            generator: source of that noise; the device's default one if not given.
        """
        for step in reversed(range(self.steps)):
            t = torch.full((x_t.shape[0],), step, dtype=torch.int64, device=x_t.device)
            mean = self.p_mean(denoiser, x_t, t)
            if sampling_noise and step > 0:
                sigma = (0.5 * self.schedule.posterior_log_variance_clipped[step]).exp().to(x_t.dtype)
                noise = torch.randn(x_t.shape, dtype=x_t.dtype, device=x_t.device, generator=generator)
                mean = mean + sigma * noise
            x_t = mean
        return x_t
