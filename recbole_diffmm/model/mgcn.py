"""MGCN: Multi-View Graph Convolutional Network for Multimedia Recommendation (ACM MM 2023, arXiv 2308.03588)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from recbole_diffmm.graph import SparseAdjacency, build_adjacency, mean_over_layers, propagate
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import half_squared_norm, in_batch_infonce, mean_bpr_loss
from recbole_diffmm.model.parts import FeatureSettings, embedding_table, linear_projections
from recbole_diffmm.model.settings import Layers, Weight


class MGCNConfig(FeatureSettings):
    """Hyper-parameters of :class:`MGCN`."""

    embedding_size: PositiveInt = Field(64, description="width D of all embeddings")
    n_layers: Layers = Field(2, description="propagation layers over the user-item graph")
    n_item_layers: Layers = Field(1, description="propagation layers over each modality's item-item graph")
    knn_k: PositiveInt = Field(10, description="nearest items of an item in an item-item graph, itself included")
    reg_weight: Weight = Field(1e-4, description="weight of half the squared norms of a batch's final rows")
    cl_weight: Weight = Field(0.01, description="weight of the contrastive loss")
    temperature: PositiveFloat = Field(0.2, description="temperature of the contrastive loss")


class MGCN(MultimodalRecommender):
    r"""Features purified by behaviour, fused by what the modalities share and what each adds (arXiv 2308.03588).

    With the behaviour view :math:`C = \frac{1}{L+1} \sum_l A^l E`, the item graphs :math:`S_m` of cosines and the
    observed graph's block ``R`` from users to items:

    .. math::
        Z_m &= S_m \big(E_i \odot \sigma(W'_m (W_m f_m))\big), \quad V_m = [R Z_m; Z_m] \\
        c &= \sum_m a_m V_m, \quad a = \mathrm{softmax}_m\, q(V_m) \\
        side &= \tfrac{1}{M+1} \Big(c + \sum_m \sigma(G_m C) \odot (V_m - c)\Big)

    Final rows are :math:`C + side`; the loss is BPR, their norms, and InfoNCE of ``side`` against ``C``. The published
    learning rate is multiplied by .96 every 50 epochs; RecBole has no such schedule, and here it stays. Neighbours of
    negative cosine have weight zero, so that no row's sum is negative. The features
    are parameters, as in the published code (``train_features: false`` leaves them as given).
    """

    config_class = MGCNConfig
    settings: MGCNConfig
    loss_names = ("bpr", "reg", "contrast")
    replayable = True
    has_item_graph = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        self.user_embedding = embedding_table(self.user_count, size)
        self.item_embedding = embedding_table(self.item_count, size)
        keys = {name: module_key(name) for name in self.modality_names}
        self.projections = linear_projections(self, size)
        self.purifiers = nn.ModuleDict(
            {key: nn.Sequential(nn.Linear(size, size), nn.Sigmoid()) for key in keys.values()}
        )
        self.gates = nn.ModuleDict({key: nn.Sequential(nn.Linear(size, size), nn.Sigmoid()) for key in keys.values()})
        self.attention = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False))

    def _to_users(self) -> SparseAdjacency:
        """The observed graph ``(N, N)`` with the edges that end at users alone."""

        def build() -> SparseAdjacency:
            return build_adjacency(*self.edges_to_users(), self.n_nodes, symmetric=False)

        return self.graph("to_users", build)

    def _modality_view(self, name: str) -> Tensor:
        """Rows :math:`V_m` ``(N, D)`` of one modality."""
        key = module_key(name)
        items = self.item_embedding * self.purifiers[key](self.projections[key](self.features(name)))
        graph = self.item_graph(name, self.settings.knn_k, "cosine")
        for _ in range(self.settings.n_item_layers):
            items = propagate(graph, items)
        nothing = items.new_zeros(self.user_count, items.shape[1])
        users, _ = self.by_kind(propagate(self._to_users(), torch.cat([nothing, items])))
        return torch.cat([users, items])

    def views(self) -> tuple[Tensor, Tensor]:
        """Return the behaviour view and the side view of all nodes, each ``(N, D)``."""
        ids = torch.cat([self.user_embedding, self.item_embedding])
        behaviour = mean_over_layers(self.adj, ids, self.settings.n_layers)
        if not self.present:
            return behaviour, torch.zeros_like(behaviour)
        parts = {name: self._modality_view(name) for name in self.present}
        stacked = torch.stack(list(parts.values()), dim=1)  # (N, M, D)
        common = (torch.softmax(self.attention(stacked), dim=1) * stacked).sum(dim=1)
        side = common
        for name, part in parts.items():
            side = side + self.gates[module_key(name)](behaviour) * (part - common)
        return behaviour, side / (len(parts) + 1)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return final users ``(U, D)`` and items ``(I, D)``."""
        behaviour, side = self.views()
        return self.by_kind(behaviour + side)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative)."""
        s = self.settings
        users, positives, negatives = self.triples(interaction)
        behaviour, side = self.views()
        user_rows, item_rows = self.by_kind(behaviour + side)
        rows = user_rows[users], item_rows[positives], item_rows[negatives]
        nodes = positives + self.user_count
        contrast = in_batch_infonce(side[nodes], behaviour[nodes], s.temperature) + in_batch_infonce(
            side[users], behaviour[users], s.temperature
        )
        return mean_bpr_loss(*rows), s.reg_weight * half_squared_norm(*rows), s.cl_weight * contrast
