"""Parts that most of the rivals begin with: embedding tables, a projection a modality, settings of features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.model.base import module_key
from recbole_diffmm.model.settings import ModelSettings

if TYPE_CHECKING:
    from recbole_diffmm.model.base import MultimodalRecommender


class FeatureSettings(ModelSettings):
    """How features enter a model whose published code trains them."""

    normalize_features: bool = Field(False, description="scale an item's features to unit norm")
    train_features: bool = Field(
        True, description="features are parameters, as in the published code; false: they stay as given"
    )


def dropout(x: Tensor, rate: float) -> Tensor:
    """Return ``x`` with a share of ``rate`` of its entries zero and the others divided by ``1 - rate``."""
    if x.device.type != "cpu" or rate == 0:
        return F.dropout(x, rate)
    # By a uniform draw, which is vectorised on the CPU: F.dropout's Bernoulli draw takes several times as long.
    return torch.rand_like(x).ge_(rate).mul_(1.0 / (1.0 - rate)) * x


def embedding_table(n_rows: int, embedding_size: int) -> nn.Parameter:
    """Return embeddings ``(n_rows, D)``, Xavier uniform."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_rows, embedding_size)))


def linear_projections(model: MultimodalRecommender, embedding_size: int, *, bias: bool = True) -> nn.ModuleDict:
    """Return a linear map from the features ``(I, F)`` of each modality to ``(I, D)``, under :func:`module_key`."""
    return nn.ModuleDict(
        {
            module_key(name): nn.Linear(model.features(name).shape[1], embedding_size, bias=bias)
            for name in model.modality_names
        }
    )
