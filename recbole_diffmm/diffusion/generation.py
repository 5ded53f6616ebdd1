"""From denoisers to edges: the reverse process over users' rows, and the items it ranks first."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_diffmm.diffusion.denoiser import Denoiser
from recbole_diffmm.diffusion.schedule import NoiseSchedule
from recbole_diffmm.precision import operand_dtype


def top_items(scores: Tensor, k: int) -> Tensor:
    """Return the ``k`` best columns of ``scores (B, I)``, best first, shape ``(B, k)``."""
    return torch.topk(scores, k, dim=1).indices


class HiddenSpaceSampler:
    r"""The reverse process of a denoiser with one hidden layer, in its hidden space: the same rows, far fewer products.

    With :math:`z_t = W_1 x_t` and :math:`h_t = \tanh(z_t + W_t e_t + b_1)`, a step of
    :meth:`GaussianDiffusion.p_sample_loop` is :math:`z_{t-1} = c1_t (W_1 W_2 h_t + W_1 b_2) + c2_t z_t`, so that it
    costs :math:`H^2` per row where the item space costs :math:`2 I H`. The last step's posterior mean is the prediction
    itself (:math:`c1_0 = 1, c2_0 = 0`), so that the item space is entered once: :math:`x = W_2 h_0 + b_2`. Under
    autocast the products, and so the scores, are in its format, and items within its rounding of each other may change
    places.

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
        # In the products' format once, not in every batch.
        self.output_weight, self.output_bias = w2.to(operand_dtype(w2)), b2
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
        for t in range(len(self.coef1) - 1, 0, -1):
            h = self._hidden(z, t)
            z = self.coef1[t] * (h @ self.hidden_to_hidden.t() + self.hidden_bias) + self.coef2[t] * z
        return torch.addmm(self.output_bias, self._hidden(z, 0), self.output_weight.t())  # (B, I)

    def _hidden(self, z: Tensor, t: int) -> Tensor:
        return torch.tanh(z + (self.time[t] + self.input_bias))
