"""BM3: Bootstrap Latent Representations for Multi-modal Recommendation (WWW 2023, arXiv 2207.05969)."""

from __future__ import annotations

from typing import Any, cast

import torch
from pydantic import Field, PositiveInt
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.graph import mean_over_layers
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import norm_loss
from recbole_diffmm.model.parts import FeatureSettings, dropout, embedding_table, linear_projections
from recbole_diffmm.model.settings import DropRate, Layers, Weight


class BM3Config(FeatureSettings):
    """Hyper-parameters of :class:`BM3`."""

    embedding_size: PositiveInt = Field(64, description="width D of all embeddings")
    n_layers: Layers = Field(1, description="propagation layers L")
    target_dropout: DropRate = Field(0.5, description="dropout on the rows that are to be predicted")
    reg_weight: Weight = Field(0.1, description="weight of the norms of all rows")
    cl_weight: Weight = Field(2.0, description="weight of the alignment of the modalities")


def distance(a: Tensor, b: Tensor) -> Tensor:
    """One minus the mean cosine of the rows of ``a (B, D)`` and ``b (B, D)``."""
    return 1 - F.cosine_similarity(a, b, dim=1).mean()


class BM3(MultimodalRecommender):
    r"""Users and items predict each other and the modalities from dropped-out copies, without negatives.

    With :math:`X = \frac{1}{L+1} \sum_l A^l E`, items plus :math:`E_i`, a predictor ``q``, targets
    :math:`\bar X = \mathrm{dropout}(\mathrm{sg}(X))`, and ``C`` one minus the mean cosine (arXiv 2207.05969):

    .. math::
        \mathcal L = C(q X_u, \bar X_i) + C(q X_i, \bar X_u)
        + c \sum_m \big[ C(q Z_m, \bar X_i) + C(q Z_m, \bar Z_m) \big]
        + \tfrac{w}{I} (\lVert X_u \rVert + \lVert X_i \rVert), \quad Z_m = W_m f_m

    with norms of all rows, not squared. Scores are :math:`q(X_u)^T q(X_i)`: features act through training alone, and
    those of an item that was never trained on not at all. The features are parameters, as in the published code
    (``train_features: false`` leaves them as given).
    """

    config_class = BM3Config
    settings: BM3Config
    input_type = InputType.POINTWISE
    ranks_cold_items = False
    loss_names = ("reconstruction", "alignment", "reg")
    replayable = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        self.user_embedding = embedding_table(self.user_count, size)
        self.item_embedding = embedding_table(self.item_count, size)
        self.predictor = nn.Linear(size, size)
        nn.init.xavier_normal_(self.predictor.weight)
        self.projections = linear_projections(self, size)
        for name in self.modality_names:
            nn.init.xavier_normal_(cast(nn.Linear, self.projections[module_key(name)]).weight)

    def online_rows(self) -> tuple[Tensor, Tensor]:
        """Propagated users ``(U, D)`` and items ``(I, D)``, the latter with their embeddings added."""
        rows = torch.cat([self.user_embedding, self.item_embedding])
        users, items = self.by_kind(mean_over_layers(self.adj, rows, self.settings.n_layers))
        return users, items + self.item_embedding

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return what the predictor makes of users ``(U, D)`` and items ``(I, D)``."""
        users, items = self.online_rows()
        return self.predictor(users), self.predictor(items)

    def _target(self, rows: Tensor) -> Tensor:
        return dropout(rows.detach(), self.settings.target_dropout)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, item)."""
        users, items = self.pairs(interaction)
        user_rows, item_rows = self.online_rows()
        user, item = user_rows[users], item_rows[items]
        user_target, item_target = self._target(user), self._target(item)
        reconstruction = distance(self.predictor(user), item_target) + distance(self.predictor(item), user_target)
        alignment = reconstruction.new_zeros(())
        for name in self.modality_names:
            projected = self.projections[module_key(name)](self.features(name)[items])  # (B, D)
            predicted = self.predictor(projected)
            alignment = alignment + distance(predicted, item_target) + distance(predicted, self._target(projected))
        s = self.settings
        return reconstruction, s.cl_weight * alignment, s.reg_weight * norm_loss(user_rows, item_rows)
