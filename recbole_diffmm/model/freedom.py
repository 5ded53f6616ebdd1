"""FREEDOM: A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal Recommendation (ACM MM 2023).

arXiv 2211.06924
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from recbole_diffmm.graph import (
    SparseAdjacency,
    bipartite_edges,
    build_adjacency,
    mean_over_layers,
    propagate,
    sample_edges,
)
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import mean_bpr_loss
from recbole_diffmm.model.parts import FeatureSettings, embedding_table, linear_projections
from recbole_diffmm.model.settings import DropRate, Layers, Weight


class FREEDOMConfig(FeatureSettings):
    """Hyper-parameters of :class:`FREEDOM`."""

    embedding_size: PositiveInt = Field(64, description="width D of all embeddings")
    n_layers: Layers = Field(2, description="propagation layers L over the user-item graph")
    n_item_layers: Layers = Field(1, description="propagation layers over the item-item graph")
    knn_k: PositiveInt = Field(10, description="nearest items of an item in the item-item graph, itself included")
    modality_weight: dict[str, Weight] | None = Field(
        None, description="share of each modality in the item-item graph, by name; none: equal shares"
    )
    edge_dropout: DropRate = Field(0.8, description="share of the user-item edges that an epoch leaves out")
    feature_weight: Weight = Field(0.0, description="weight of ranking by the projected features")


class FREEDOM(MultimodalRecommender):
    r"""A frozen item-item graph of features and a denoised user-item graph (ACM MM 2023, arXiv 2211.06924).

    The item graph is :math:`S = \sum_m \alpha_m S_m`, ``S_m`` the mean over an item's ``k`` nearest. Each epoch keeps
    edges drawn without replacement with probabilities as :math:`1/\sqrt{d_u d_i}`, normalised anew. With
    :math:`X = \frac{1}{L+1} \sum_l A^l E`:

    .. math::
        \mathcal L = \mathrm{BPR}(X_u, X_i + S^{L'} E_i) + w \sum_m \mathrm{BPR}(X_u, W_m f_m)

    The published ``modality_weight`` is .1 for images and .9 for text (``properties/published/``). With
    ``feature_weight`` 0 features act through the item graph alone. The features are parameters, as in the published
    code (``train_features: false`` leaves them as given).
    """

    config_class = FREEDOMConfig
    settings: FREEDOMConfig
    loss_names = ("bpr", "feature_bpr")
    replayable = True
    has_item_graph = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        self.user_embedding = embedding_table(self.user_count, size)
        self.item_embedding = embedding_table(self.item_count, size)
        self.projections = linear_projections(self, size)
        self.modality_share = self.shares("modality_weight")

    def trains_features(self) -> bool:
        """Whether features are parameters; without a loss on them they have no gradient."""
        return super().trains_features() and self.settings.feature_weight > 0

    def on_epoch_start(self) -> None:
        """Forget the last epoch's edges."""
        self._graphs.pop("epoch", None)

    def _epoch_adj(self) -> SparseAdjacency:
        """The edges that this epoch propagates over, drawn on first use."""
        if self.settings.edge_dropout == 0:
            return self.adj
        return self.graph("epoch", self._draw)

    def _draw(self) -> SparseAdjacency:
        (users, items), weight = self.graph("to_users", self.edges_to_users)
        kept = sample_edges(weight, max(1, round(len(users) * (1 - self.settings.edge_dropout))))
        counts = self.user_count, self.item_count
        edges = bipartite_edges(users[kept], items[kept] - self.user_count, *counts, self_loops=False)
        return build_adjacency(*edges, self.n_nodes, symmetric=True)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return users ``(U, D)`` and items ``(I, D)``, over this epoch's edges in training and over all otherwise."""
        adj = self._epoch_adj() if self.training else self.adj
        rows = torch.cat([self.user_embedding, self.item_embedding])
        users, items = self.by_kind(mean_over_layers(adj, rows, self.settings.n_layers))
        similar: Tensor = self.item_embedding
        for _ in range(self.settings.n_item_layers):
            similar = self._over_items(similar)
        return users, items + similar

    def _over_items(self, rows: Tensor) -> Tensor:
        """Return ``S rows`` for item rows ``(I, D)``; a modality that is left out gives its share to the others."""
        total = sum(self.modality_share[name] for name in self.present)
        result = torch.zeros_like(rows)
        for name in self.present:
            share = self.modality_share[name]
            if share > 0:
                graph = self.item_graph(name, self.settings.knn_k, "uniform")
                result = torch.add(result, propagate(graph, rows), alpha=share / total)
        return result

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative)."""
        users, positives, negatives = self.triples(interaction)
        user_rows, item_rows = self.embeddings()
        bpr = mean_bpr_loss(user_rows[users], item_rows[positives], item_rows[negatives])
        by_features = bpr.new_zeros(())
        if self.settings.feature_weight > 0:
            for name in self.modality_names:
                projection, features = self.projections[module_key(name)], self.features(name)
                by_features = by_features + mean_bpr_loss(
                    user_rows[users], projection(features[positives]), projection(features[negatives])
                )
        return bpr, self.settings.feature_weight * by_features
