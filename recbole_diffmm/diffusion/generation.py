"""From denoisers to edges: the reverse process over users' rows, and the items it ranks first."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_diffmm.diffusion.denoiser import Denoiser
from recbole_diffmm.diffusion.schedule import NoiseSchedule


def top_items(scores: Tensor, k: int) -> Tensor:
    """Return the ``k`` best columns of ``scores (B, I)``, best first, shape ``(B, k)``."""
    return torch.topk(scores, k, dim=1).indices


class HiddenSpaceSampler:
    r"""The reverse process of a denoiser with one hidden layer, in its hidden space: the same rows, far fewer products.

    With :math:`z_t = W_1 x_t` and :math:`h_t = \tanh(z_t + W_t e_t + b_1)`, a step of
    :meth:`GaussianDiffusion.p_sample_loop` is :math:`z_{t-1} = c1_t (W_1 W_2 h_t + W_1 b_2) + c2_t z_t`, so that it
    costs :math:`H^2` per row where the item space costs :math:`2 I H`; the item space is entered once, at the end:
    :math:`x = W_2 \sum_t \gamma_t h_t + (\sum_t \gamma_t) b_2 + \gamma_x x_T`. Under autocast the products, and so the
    scores, are in its format, and items within its rounding of each other may change places.

    Args:
        denoiser: a network for which :meth:`applies` is true.
        schedule: the noise schedule.
    """

    def __init__(self, denoiser: Denoiser, schedule: NoiseSchedule) -> None:
        output = denoiser.output_layer
        w1, w2, b2 = denoiser.input_layer.weight, output.weight, output.bias  # (H, I), (I, H), (I,)
        # Plain numbers, read once: reading them from the device in every batch would wait for it each time.
        self.coef1: list[float] = schedule.posterior_mean_coef1.tolist()
        self.coef2: list[float] = schedule.posterior_mean_coef2.tolist()
        self.output_weight, self.output_bias = w2, b2
        self.input_rows = w1.t().contiguous()  # (I, H): row i is what item i adds to z
        self.input_bias = denoiser.input_layer.bias
        self.hidden_to_hidden = w1 @ w2  # (H, H)
        self.hidden_bias = w1 @ b2  # (H,)
        steps = torch.arange(schedule.steps, device=w1.device)
        self.time = denoiser.embed_time(steps)  # (T, H)

    @staticmethod
    def applies(denoiser: Denoiser, sampling_noise: bool) -> bool:
        """Whether the reverse process stays linear in hidden space: one hidden layer, no row norm, no added noise."""
        return len(denoiser.layers) == 1 and not denoiser.normalize_input and not sampling_noise

    def scores(self, item_ids: Tensor, offsets: Tensor, noisy_rows: Tensor | None = None) -> Tensor:
        """Return the rows ``(B, I)`` at the end of the reverse process.

        Args:
            item_ids: the items of all histories, one user after the other, ``0..I-1``.
            offsets: ``(B,)`` where each user's history starts in ``item_ids``.
            noisy_rows: ``(B, I)`` dense rows to start from instead of the clean histories.
        """
        if noisy_rows is None:
            z = F.embedding_bag(item_ids, self.input_rows, offsets, mode="sum")  # (B, H)
        else:
            z = noisy_rows @ self.input_rows
        hidden_sum = torch.zeros_like(z)
        weight_sum, start_weight = 0.0, 1.0
        coef1, coef2 = self.coef1, self.coef2
        for t in reversed(range(len(coef1))):
            h = torch.tanh(z + (self.time[t] + self.input_bias))
            hidden_sum = coef2[t] * hidden_sum + coef1[t] * h
            weight_sum = coef2[t] * weight_sum + coef1[t]
            start_weight *= coef2[t]
            if t > 0:
                z = coef1[t] * (h @ self.hidden_to_hidden.t() + self.hidden_bias) + coef2[t] * z
        x = torch.addmm(weight_sum * self.output_bias, hidden_sum, self.output_weight.t())  # (B, I)
        if noisy_rows is not None:
            return x.add_(noisy_rows, alpha=start_weight)
        if start_weight != 0.0:
            n_entries = item_ids.numel()
            lengths = torch.diff(offsets, append=torch.full((1,), n_entries, device=offsets.device))
            rows = torch.arange(offsets.numel(), device=offsets.device)
            rows = torch.repeat_interleave(rows, lengths, output_size=n_entries)
            weight = torch.full((), start_weight, dtype=x.dtype, device=x.device)
            x.index_put_((rows, item_ids), weight, accumulate=True)
        return x
