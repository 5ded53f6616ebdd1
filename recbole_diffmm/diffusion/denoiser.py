"""The network that predicts the clean row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BIAS_STD = 0.001
MAX_PERIOD = 10000.0


def sinusoidal_embedding(t: Tensor, size: int) -> Tensor:
    r"""Embed steps ``t (B,)`` as :math:`[\cos(t\omega_k)]_k, [\sin(t\omega_k)]_k` of shape ``(B, size)``.

    :math:`\omega_k = 10000^{-k/h}` for ``h = size // 2``; all cosines come before all sines, and one zero is appended
    if ``size`` is odd.
    """
    half = size // 2
    k = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = t.to(torch.float32).unsqueeze(1) * torch.exp(-math.log(MAX_PERIOD) * k / half)  # (B, h)
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, size % 2))


class Denoiser(nn.Module):
    r"""MLP that predicts a user's clean row from a noisy one and its step (DiffMM, arXiv 2406.11781, section 3.2).

    With one hidden size ``H``: :math:`\hat x_0 = W_2 \tanh(W_1 x_t + W_t e_t + b_1) + b_2`. Several sizes ``[a, b]``
    give ``I -> b -> a -> b -> I`` with tanh after every layer but the last. The input's weight is kept apart from the
    step's, so that the row need not be copied to append the step to it.

    Args:
        n_items: row length ``I``.
        hidden_sizes: widths, innermost first.
        time_embedding_size: width of the step's embedding.
        dropout: probability to drop an input entry while training.
        normalize_input: scale rows to unit L2 norm before the first layer.
    """

    def __init__(
        self,
        n_items: int,
        hidden_sizes: Sequence[int] = (1000,),
        time_embedding_size: int = 10,
        dropout: float = 0.5,
        normalize_input: bool = False,
    ) -> None:
        super().__init__()
        self.time_embedding_size = time_embedding_size
        self.dropout = dropout
        self.normalize_input = normalize_input
        widths = [*reversed(hidden_sizes), *hidden_sizes[1:], n_items]
        self.time_layer = nn.Linear(time_embedding_size, time_embedding_size)
        self.input_layer = nn.Linear(n_items, widths[0])
        self.input_time_layer = nn.Linear(time_embedding_size, widths[0], bias=False)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw weights from N(0, 2 / (fan_in + fan_out)) and biases from N(0, 0.001^2)."""
        # Row and step enter the first layer together: its fan-in counts both.
        first_fan = self.input_layer.in_features + self.time_embedding_size + self.input_layer.out_features
        with torch.no_grad():
            for layer in (m for m in self.modules() if isinstance(m, nn.Linear)):
                first = layer is self.input_layer or layer is self.input_time_layer
                fan = first_fan if first else layer.in_features + layer.out_features
                layer.weight.normal_(0.0, math.sqrt(2.0 / fan))
                if layer.bias is not None:
                    layer.bias.normal_(0.0, BIAS_STD)

    def embed_time(self, t: Tensor) -> Tensor:
        """Contribution of the steps ``t (B,)`` to the first hidden layer, ``(B, H)``."""
        embedding = sinusoidal_embedding(t, self.time_embedding_size).to(self.time_layer.weight.dtype)
        return self.input_time_layer(self.time_layer(embedding))

    def hidden(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the input ``(B, H)`` of the last layer for noisy rows ``x_t (B, I)`` at steps ``t (B,)``."""
        if self.normalize_input:
            x_t = F.normalize(x_t)
        if self.training and self.dropout > 0:
            # By a uniform draw, which is vectorised on the CPU: F.dropout's Bernoulli draw takes several times as long.
            # In place, because new memory for rows of all items costs more than the arithmetic on them.
            keep = torch.rand_like(x_t).ge_(self.dropout)
            x_t = keep.mul_(x_t).mul_(1.0 / (1.0 - self.dropout))
        h = self.input_layer(x_t) + self.embed_time(t)  # (B, H)
        for layer in self.layers[:-1]:
            h = layer(torch.tanh(h))
        return torch.tanh(h)

    @property
    def output_layer(self) -> nn.Linear:
        """The last layer, from ``(B, H)`` to ``(B, I)``."""
        return cast(nn.Linear, self.layers[-1])

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return ``pred_x_start (B, I)`` for noisy rows ``x_t (B, I)`` at steps ``t (B,)``."""
        return self.output_layer(self.hidden(x_t, t))
