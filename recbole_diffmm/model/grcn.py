"""GRCN: Graph-Refined Convolutional Network for Multimedia Recommendation (ACM MM 2020, arXiv 2008.10950)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.graph import Edges, aggregate, agreement, order_edges, softmax_by_receiver, unit_rows
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import mean_bpr_loss
from recbole_diffmm.model.settings import Layers, ModelSettings, Weight


class GRCNConfig(ModelSettings):
    """Hyper-parameters of :class:`GRCN`."""

    embedding_size: PositiveInt = Field(64, description="width D of ids' embeddings and of projected features")
    n_routings: Layers = Field(3, description="routing iterations that shape a user's preference")
    n_layers: Layers = Field(2, description="propagation layers of ids over the refined graph")
    reg_weight: Weight = Field(1e-3, description="weight of the mean squares of a batch's embeddings and preferences")
    prune: bool = Field(True, description="edges whose confidence is negative are cut; false: they keep their weight")
    routing: bool = Field(True, description="false: users' preferences see no item, as in the published code")


class GRCN(MultimodalRecommender):
    r"""A graph whose edges are weighed by how well content and preference agree (arXiv 2008.10950).

    Per modality, items have content :math:`c_i = \mathrm{normalize}(\phi(W_m f_m + b))`, and users a preference that is
    routed: :math:`p_u \leftarrow \mathrm{normalize}(p_u + \sum_i \alpha_{ui} c_i)` with :math:`\alpha` the softmax over
    a user's items of :math:`p_u^T c_i`. Then, in both directions with softmax over each node's edges,
    :math:`x' = x + \sum_j \alpha_j x_j` is the content row, and an edge's weight is
    :math:`\mathrm{relu}(\max_m \alpha_m\, conf_{sender, m})`. Ids are propagated over those weights and
    their layers added up; rows are ids and content side by side. The loss is BPR and the mean squares of a batch's ids
    and preferences; the published code adds those of all users' preferences in its first modality.

    The published code's routing sends nothing to users, its edges pointing the other way: ``routing: false``. The
    settings that it publishes for TikTok leave out the relu of the weights (``prune: false``). It scores by the rows of
    its last training batch, where here they come from the parameters at hand; its NDCG is taken over the hits that a
    list has and not over those that it could have, and so is higher than RecBole's; it computes the norm of the
    confidences and adds it to no loss, nor is it added here.

    Where pruning cuts all edges that a node sends, its confidences have no gradient, and only ``weight_decay`` brings
    them back, by way of zero.
    """

    config_class = GRCNConfig
    settings: GRCNConfig
    loss_names = ("bpr", "reg")
    replayable = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        self.id_embedding = nn.Parameter(nn.init.xavier_normal_(torch.empty(self.n_nodes, size)))
        shape = (self.n_nodes, len(self.modality_names))
        self.confidence = nn.Parameter(nn.init.xavier_normal_(torch.empty(*shape)))
        self.preferences = nn.ParameterDict()
        self.projections = nn.ModuleDict()
        for name in self.modality_names:
            key = module_key(name)
            self.preferences[key] = nn.Parameter(nn.init.xavier_normal_(torch.empty(self.user_count, size)))
            self.projections[key] = nn.Linear(self.features(name).shape[1], size)

    def to_users(self) -> Edges:
        """The edges from items to users, among all nodes."""

        def build() -> Edges:
            (receiver, sender), _ = self.edges_to_users()
            return order_edges(receiver, sender, self.n_nodes)[0]

        return self.graph("to_users", build)

    def _content(self, name: str) -> tuple[Tensor, Tensor]:
        """Content rows ``(N, D)`` of one modality and the attention ``(2E,)`` of its edges."""
        key = module_key(name)
        content = unit_rows(F.leaky_relu(self.projections[key](self.features(name))))
        preference = unit_rows(self.preferences[key])
        to_users, (both, _) = self.to_users(), self.ordered_edges()
        for _ in range(self.settings.n_routings if self.settings.routing else 0):
            rows = torch.cat([preference, content])
            attention = softmax_by_receiver(to_users, agreement(to_users, rows))
            routed, _ = self.by_kind(aggregate(to_users, attention, rows))
            preference = unit_rows(preference + routed)
        rows = torch.cat([preference, content])
        attention = softmax_by_receiver(both, agreement(both, rows))
        return rows + aggregate(both, attention, rows), attention

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return ids and every modality's content side by side: ``(U, D (1 + M))`` and ``(I, D (1 + M))``."""
        both, _ = self.ordered_edges()
        content, confidences = [], []
        for i, name in enumerate(self.modality_names):
            rows, attention = self._content(name)
            if name == self.left_out:
                content.append(torch.zeros_like(rows))
                continue
            content.append(rows)
            confidences.append(attention * self.confidence[both.sender, i])
        ids = total = unit_rows(self.id_embedding)
        if confidences:
            weight = torch.stack(confidences).amax(dim=0)
            weight = weight.relu() if self.settings.prune else weight
            for _ in range(self.settings.n_layers):
                ids = aggregate(both, weight, ids)
                total = total + ids
        return self.by_kind(torch.cat([total, *content], dim=1))

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative)."""
        users, positives, negatives = self.triples(interaction)
        user_rows, item_rows = self.embeddings()
        bpr = mean_bpr_loss(user_rows[users], item_rows[positives], item_rows[negatives])
        user_ids, item_ids = self.by_kind(self.id_embedding)
        batch = torch.cat([user_ids[users], item_ids[positives], item_ids[negatives]])
        squares = [batch.square().mean(), *(part[users].square().mean() for part in self.preferences.values())]
        return bpr, self.settings.reg_weight * torch.stack(squares).sum()
