"""LightGCN-M: LightGCN whose items start from their features as well as from their ids."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from recbole_diffmm.graph import mean_over_layers
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import mean_bpr_loss, norm_loss
from recbole_diffmm.model.parts import embedding_table, linear_projections
from recbole_diffmm.model.settings import Layers, ModelSettings, Weight


class LightGCNMConfig(ModelSettings):
    """Hyper-parameters of :class:`LightGCNM`."""

    embedding_size: PositiveInt = Field(64, description="width D of all embeddings")
    n_layers: Layers = Field(2, description="propagation layers L")
    reg_weight: Weight = Field(1e-4, description="weight of the norms of a batch's embeddings")
    feature_weight: Weight = Field(1.0, description="weight w of the projected features beside the items' embeddings")


class LightGCNM(MultimodalRecommender):
    r"""LightGCN over ids and features, the row "LightGCN-M" of the DiffMM paper's Table 1.

    No paper or code defines that row beyond "LightGCN with multimodal features in message passing". Here an item enters
    as :math:`E_i + \frac{w}{M} \sum_m W_m f_m / \lVert f_m \rVert`, and the rest is LightGCN (SIGIR 2020, arXiv
    2002.02126): :math:`X = \frac{1}{L+1} \sum_l A^l [E_u; \cdot]`, BPR and RecBole's norm loss on the embeddings.
    :math:`w`, by default 1, is needed where features have much of their direction in common, which is then added to
    every item. The maps have no constant, which every item would share.
    """

    config_class = LightGCNMConfig
    settings: LightGCNMConfig
    loss_names = ("bpr", "reg")
    replayable = True
    unit_features = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        self.user_embedding = embedding_table(self.user_count, size)
        self.item_embedding = embedding_table(self.item_count, size)
        self.projections = linear_projections(self, size, bias=False)

    def item_rows(self) -> Tensor:
        """Items ``(I, D)`` as they enter the graph."""
        projected = [self.projections[module_key(name)](self.features(name)) for name in self.present]
        if not projected:
            return self.item_embedding
        return self.item_embedding + self.settings.feature_weight * torch.stack(projected).mean(dim=0)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return propagated users ``(U, D)`` and items ``(I, D)``."""
        rows = torch.cat([self.user_embedding, self.item_rows()])
        return self.by_kind(mean_over_layers(self.adj, rows, self.settings.n_layers))

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative)."""
        users, positives, negatives = self.triples(interaction)
        user_rows, item_rows = self.embeddings()
        bpr = mean_bpr_loss(user_rows[users], item_rows[positives], item_rows[negatives])
        reg = norm_loss(self.user_embedding[users], self.item_embedding[positives], self.item_embedding[negatives])
        return bpr, self.settings.reg_weight * reg
