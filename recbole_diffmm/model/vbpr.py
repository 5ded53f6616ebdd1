"""VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback (AAAI 2016, arXiv 1510.01784)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recbole_diffmm.model.base import MultimodalRecommender
from recbole_diffmm.model.losses import mean_bpr_loss, norm_loss
from recbole_diffmm.model.parts import embedding_table
from recbole_diffmm.model.settings import ModelSettings, Weight


class VBPRConfig(ModelSettings):
    """Hyper-parameters of :class:`VBPR`."""

    embedding_size: PositiveInt = Field(64, description="width D of ids' embeddings, and of projected features")
    reg_weight: Weight = Field(1e-4, description="weight of the norms of a batch's rows")
    biases: bool = Field(True, description="the paper's biases of items and of features; false: as in MMRec")
    normalize_features: bool = Field(
        True, description="scale an item's features to unit norm, or the longest modality decides the first epochs"
    )


class VBPR(MultimodalRecommender):
    r"""Matrix factorisation beside a projection of item features (AAAI 2016, arXiv 1510.01784).

    .. math:: s_{ui} = \gamma_u^T \gamma_i + \theta_u^T W [f_1; \dots; f_M] + \beta_i + \beta'^T [f_1; \dots; f_M]

    The paper's one visual feature is here the concatenation of all modalities, projected to as many dimensions as the
    ids' embeddings have (the paper: 20), and the biases are not in the norm loss; its constant and user bias change no
    ranking and are left out. MMRec's VBPR has no biases (``biases: false``) and features as they are
    (``normalize_features: false``); its map has a constant of its own, which is the same for all items and changes no
    ranking but for the norm loss on it.
    """

    config_class = VBPRConfig
    settings: VBPRConfig
    loss_names = ("bpr", "reg")
    replayable = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        # gamma_u beside theta_u
        self.user_embedding = embedding_table(self.user_count, 2 * size)
        self.item_embedding = embedding_table(self.item_count, size)
        feat_dim = sum(self.features(name).shape[1] for name in self.modality_names)
        self.projection = nn.Linear(feat_dim, size, bias=False)  # a bias would be the same for all items of a user
        nn.init.xavier_normal_(self.projection.weight)
        if self.settings.biases:
            self.item_bias = nn.Parameter(torch.zeros(self.item_count, 1))
            self.feature_bias = nn.Parameter(torch.zeros(self.projection.in_features, 1))

    def item_rows(self, items: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:
        r"""Return :math:`[\gamma_i; W f]` ``(n, 2D)`` and the biases ``(n, 1)`` of some items, by default of all."""
        features = torch.cat([self.features(name)[items] for name in self.modality_names], dim=1)
        rows = torch.cat([self.item_embedding[items], self.projection(features)], dim=1)
        if not self.settings.biases:
            return rows, rows.new_zeros(len(rows), 1)
        return rows, self.item_bias[items] + features @ self.feature_bias

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return users ``(U, 2D + 1)``, one being their last entry, and items ``(I, 2D + 1)`` with the bias there."""
        ones = self.user_embedding.new_ones(self.user_count, 1)
        return torch.cat([self.user_embedding, ones], dim=1), torch.cat(self.item_rows(), dim=1)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative)."""
        users, positives, negatives = self.triples(interaction)
        user = self.user_embedding[users]
        (positive, positive_bias), (negative, negative_bias) = self.item_rows(positives), self.item_rows(negatives)
        bpr = mean_bpr_loss(
            torch.cat([user, torch.ones_like(positive_bias)], dim=1),
            torch.cat([positive, positive_bias], dim=1),
            torch.cat([negative, negative_bias], dim=1),
        )
        return bpr, self.settings.reg_weight * norm_loss(user, positive, negative)
