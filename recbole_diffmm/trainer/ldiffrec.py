"""RecBole's LDiffRec, whose encoder multiplies the few items of a user and not all of them."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.general_recommender import LDiffRec
from torch import Tensor, nn

from recbole_diffmm.trainer.base import RunTrainer
from recbole_diffmm.trainer.loop import BatchLoop


class LDiffRecTrainer(RunTrainer, BatchLoop):
    """RecBole's trainer; on the CPU the first product of the model's encoder (SIGIR 2023) skips what is zero.

    The input is a user's row of the interaction matrix. Values and gradients are the same to rounding. With clusters of
    items (``n_cate`` above 1) the encoder stays RecBole's.
    """

    def __init__(self, config: Any, model: LDiffRec) -> None:
        super().__init__(config, model)
        if model.n_cate == 1:
            model.autoencoder.encoder.mlp_layers[1].__class__ = LinearOfFew


class LinearOfFew(nn.Linear):
    """A linear layer for rows ``(B, I)`` that are nearly all zero and need no gradient; dense on a GPU and with AMP."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return ``(B, D)``."""
        if rows.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(rows)
        return torch.sparse.mm(rows.detach().to_sparse(), self.weight.t()) + self.bias
