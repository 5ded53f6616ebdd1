"""From raw features to the embedding space."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEGATIVE_SLOPE = 0.2


class LeakyMatrix(nn.Module):
    """``LeakyReLU_0.2(X W)`` without a bias, ``W (F, D)`` Xavier uniform."""

    def __init__(self, feat_dim: int, embedding_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(feat_dim, embedding_size)))

    def forward(self, features: Tensor) -> Tensor:
        """Project ``features (I, F)`` to ``(I, D)``."""
        return F.leaky_relu(features @ self.weight, NEGATIVE_SLOPE)


PROJECTIONS: dict[str, type[nn.Module]] = {"leaky_matrix": LeakyMatrix, "linear": nn.Linear}


def build_projection(kind: str, feat_dim: int, embedding_size: int) -> nn.Module:
    """Build the projection called ``kind``, one of :data:`PROJECTIONS`."""
    return PROJECTIONS[kind](feat_dim, embedding_size)
