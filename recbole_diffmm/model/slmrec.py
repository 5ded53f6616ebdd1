"""SLMRec: Self-Supervised Learning for Multimedia Recommendation (IEEE TMM 2022, doi 10.1109/TMM.2022.3187556)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_diffmm.graph import mean_over_layers, unit_rows
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import in_batch_infonce
from recbole_diffmm.model.parts import embedding_table, linear_projections
from recbole_diffmm.model.settings import Layers, ModelSettings, Weight


class SLMRecConfig(ModelSettings):
    """Hyper-parameters of :class:`SLMRec`."""

    embedding_size: PositiveInt = Field(64, description="width D of all embeddings")
    n_layers: Layers = Field(3, description="propagation layers L")
    temperature: PositiveFloat = Field(0.2, description="temperature of the ranking loss")
    cl_weight: Weight = Field(0.1, description="weight of holding items' ids and modalities against each other")
    cl_temperature: PositiveFloat = Field(0.2, description="temperature of that")
    score: Literal["dot", "cosine"] = Field(
        "dot", description="what ranks: the inner product as published, or the cosine that is trained on"
    )


class SLMRec(MultimodalRecommender):
    r"""A graph per modality and one of ids, fused and held against each other (doi 10.1109/TMM.2022.3187556).

    With :math:`X_c = \frac{1}{L+1} \sum_l A^l [E_u; Z_c]` for each channel ``c``, ids and projected normalised
    features, and a linear map of all channels side by side for users and one for items, the ranking loss is InfoNCE of
    users and positive items in the batch, by cosine. The self-supervised loss is the paper's multi-modal pattern
    uncovering: an item's id channel finds each of its modality channels among those of the batch, both mapped first.
    The paper puts one modality into a finer space than the others; here all have the same, so that their order does not
    matter. Its other two tasks, which drop and mask features, are not offered. The published code, though trained on
    the cosine, scores by the product (``score: dot``, the default), through a sigmoid in which large scores tie, and by
    the rows of its last training batch; here scores are the products themselves, of the parameters at hand.
    """

    config_class = SLMRecConfig
    settings: SLMRecConfig
    input_type = InputType.POINTWISE
    loss_names = ("ranking", "ssl")
    replayable = True
    unit_features = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        self.user_embedding = embedding_table(self.user_count, size)
        self.item_embedding = embedding_table(self.item_count, size)
        keys = {name: module_key(name) for name in self.modality_names}
        self.projections = linear_projections(self, size)
        self.heads = nn.ModuleDict({key: nn.Linear(size, size) for key in ("ids", *keys.values())})
        width = (1 + len(keys)) * size
        self.user_fusion, self.item_fusion = nn.Linear(width, size), nn.Linear(width, size)

    def channels(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return users ``(U, D)`` and items ``(I, D)`` per channel: ``ids``, then each modality's key."""
        starts: dict[str, Tensor] = {"ids": self.item_embedding}
        for name in self.modality_names:
            key = module_key(name)
            starts[key] = self.projections[key](self.features(name))
            if name == self.left_out:
                starts[key] = torch.zeros_like(starts[key])
        return {
            key: self.by_kind(
                mean_over_layers(self.adj, torch.cat([self.user_embedding, start]), self.settings.n_layers)
            )
            for key, start in starts.items()
        }

    def _fused(self, channels: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        users = self.user_fusion(torch.cat([part[0] for part in channels.values()], dim=1))
        items = self.item_fusion(torch.cat([part[1] for part in channels.values()], dim=1))
        return users, items

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return fused users ``(U, D)`` and items ``(I, D)``, of unit norm with ``score: cosine``."""
        users, items = self._fused(self.channels())
        return (unit_rows(users), unit_rows(items)) if self.settings.score == "cosine" else (users, items)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, item)."""
        s = self.settings
        users, items = self.pairs(interaction)
        channels = self.channels()
        user_rows, item_rows = self._fused(channels)
        ranking = in_batch_infonce(user_rows[users], item_rows[items], s.temperature)
        ids = self.heads["ids"](channels["ids"][1][items])
        found = [
            in_batch_infonce(ids, self.heads[key](part[1][items]), s.cl_temperature, cosine=False)
            for key, part in channels.items()
            if key != "ids"
        ]
        return ranking, s.cl_weight * torch.stack(found).sum()
