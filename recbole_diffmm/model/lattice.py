"""LATTICE: Mining Latent Structures for Multimedia Recommendation (ACM MM 2021, arXiv 2104.09036)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recbole_diffmm.graph import (
    Edges,
    aggregate,
    knn_edges,
    mean_over_layers,
    nearest_items,
    neighbour_edges,
    normalize_by_sums,
    order_edges,
    unit_rows,
)
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import half_squared_norm, mean_bpr_loss
from recbole_diffmm.model.parts import FeatureSettings, embedding_table, linear_projections
from recbole_diffmm.model.settings import Layers, Share, Weight


class LATTICEConfig(FeatureSettings):
    """Hyper-parameters of :class:`LATTICE`."""

    embedding_size: PositiveInt = Field(64, description="width D of all embeddings")
    n_layers: Layers = Field(2, description="propagation layers L over the user-item graph")
    n_item_layers: Layers = Field(1, description="propagation layers over the item-item graph")
    knn_k: PositiveInt = Field(10, description="nearest items of an item in an item-item graph, itself included")
    initial_share: Share = Field(0.9, description="share of the features' own graph, the rest being the learned one")
    reg_weight: Weight = Field(1e-5, description="weight of half the squared norms of a batch's final rows")


class LATTICE(MultimodalRecommender):
    r"""An item-item graph learned from projected features, beside that of the features (arXiv 2104.09036).

    With a softmax ``a`` over modalities, :math:`S_m` the graph of the ``k`` nearest by the cosine of :math:`f_m` and
    :math:`\tilde S_m` that of :math:`W_m f_m + b_m`, sums normalised on both sides:

    .. math::
        S &= \lambda \sum_m a_m S_m + (1 - \lambda)\, \mathrm{norm}\Big(\sum_m a_m \tilde S_m\Big) \\
        X &= \frac{1}{L+1} \sum_l \hat A^l [E_u; E_i], \quad \hat A = D^{-1} (A + I)

    and items are :math:`X_i + \mathrm{normalize}(S E_i)`.

    The learned graph is built once an epoch, and as published its gradient reaches :math:`W_m` and ``a`` in the epoch's
    first batch alone, and the features where they are trained. It is never dense: the ``k`` cosines of an item that are
    kept are computed again with their gradient, which are those of the dense form. The published learning rate is
    multiplied by .96 every 50 epochs, and here it stays; of the published backbones LightGCN's alone is offered.
    Negative cosines count as zero, so that no node's sum is negative. The features are parameters, as in the published
    code (``train_features: false`` leaves them as given).
    """

    config_class = LATTICEConfig
    settings: LATTICEConfig
    loss_names = ("bpr", "reg")
    replayable = True
    has_item_graph = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        self.user_embedding = embedding_table(self.user_count, size)
        self.item_embedding = embedding_table(self.item_count, size)
        self.projections = linear_projections(self, size)
        self.modal_weight = nn.Parameter(torch.full((len(self.modality_names),), 1 / len(self.modality_names)))

    def on_epoch_start(self) -> None:
        """Forget the learned graph: this epoch's first batch builds it."""
        self._graphs.pop("learned", None)

    def _given_edges(self, name: str) -> tuple[Tensor, Tensor]:
        """The graph of one modality's features as index ``(2, E)`` and weights ``(E,)``."""
        features, k = self.given_features(name), self.settings.knn_k
        return self.graph(("given", name), lambda: knn_edges(features, k, "cosine"))

    def item_edges(self) -> tuple[Edges, Tensor]:
        """Return the graph ``S`` of all modalities as edges and their weights, with gradient where it has one."""
        places = [i for i, name in enumerate(self.modality_names) if name != self.left_out]
        shares = torch.softmax(self.modal_weight[places], dim=0)
        learned, initial = [], []
        for share, name in zip(shares, self.present, strict=True):
            given, weight = self._given_edges(name)
            initial.append((given, share * weight))
            # An item without features has no neighbours, whatever the projection's bias makes of its zeros.
            described = self.given_features(name).any(dim=1, keepdim=True)
            unit = unit_rows(self.projections[module_key(name)](self.features(name)) * described)
            index, _ = neighbour_edges(nearest_items(unit, self.settings.knn_k))
            learned.append((index, share * (unit[index[0]] * unit[index[1]]).sum(dim=1).clamp(min=0)))
        index = torch.cat([part[0] for part in learned], dim=1)
        new = normalize_by_sums(index, torch.cat([part[1] for part in learned]), self.item_count)
        old_share = self.settings.initial_share
        receiver, sender = torch.cat([index, *(part[0] for part in initial)], dim=1)
        weight = torch.cat([(1 - old_share) * new, *(old_share * part[1] for part in initial)])
        edges, order = order_edges(receiver, sender, self.item_count)
        return edges, weight[order]

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return users ``(U, D)`` and items ``(I, D)``, over the item graph of now in evaluation."""
        rows = torch.cat([self.user_embedding, self.item_embedding])
        users, items = self.by_kind(mean_over_layers(self.mean_adj(self_loops=True), rows, self.settings.n_layers))
        if not self.present:
            return users, items
        if self.training and self.left_out is None and "learned" in self._graphs:
            edges, weight = self._graphs["learned"]
        else:
            edges, weight = self.item_edges()
            if self.training and self.left_out is None:
                self._graphs["learned"] = edges, weight.detach()
        similar: Tensor = self.item_embedding
        for _ in range(self.settings.n_item_layers):
            similar = aggregate(edges, weight, similar)
        return users, items + unit_rows(similar)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative)."""
        users, positives, negatives = self.triples(interaction)
        user_rows, item_rows = self.embeddings()
        rows = user_rows[users], item_rows[positives], item_rows[negatives]
        return mean_bpr_loss(*rows), self.settings.reg_weight * half_squared_norm(*rows)
