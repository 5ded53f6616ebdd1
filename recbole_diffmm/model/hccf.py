"""HCCF: Hypergraph Contrastive Collaborative Filtering (SIGIR 2022, arXiv 2204.12200)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.graph import SparseAdjacency, propagate
from recbole_diffmm.model.base import RowRecommender
from recbole_diffmm.model.losses import in_batch_infonce, mean_bpr_loss, squared_norm
from recbole_diffmm.model.parts import dropout, embedding_table
from recbole_diffmm.model.settings import DropRate, Layers, ModelSettings, Weight


class HCCFConfig(ModelSettings):
    """Hyper-parameters of :class:`HCCF`."""

    embedding_size: PositiveInt = Field(32, description="width D of all embeddings")
    n_layers: Layers = Field(2, description="layers L, each over the graph and over the hyperedges")
    n_hyperedges: PositiveInt = Field(128, description="hyperedges of users, and as many of items")
    hyperedges: Literal["learned", "embedding"] = Field(
        "learned", description="H = E W; or the embeddings as they are, which the authors advise for sparse data"
    )
    hyperedge_scale: Weight = Field(1.0, description="factor of H; the published sparse variant has one")
    activation: Literal["none", "leaky_relu"] = Field(
        "leaky_relu",
        description="of both parts of a layer: the paper's, of slope .5, or none, as in the published code",
    )
    edge_dropout: DropRate = Field(0.5, description="dropout of edges and of hyperedges' entries")
    reg_weight: Weight = Field(1e-7, description="weight of the squared norms of all parameters")
    cl_weight: Weight = Field(1e-3, description="weight of the contrastive loss")
    temperature: PositiveFloat = Field(1.0, description="temperature of the contrastive loss")


class HCCF(RowRecommender):
    r"""Graph propagation beside learned hyperedges, contrasted layer by layer (arXiv 2204.12200).

    With :math:`H = s E W` separately for users and items, :math:`X_0 = E`:

    .. math::
        G_l = \sigma(\mathrm{drop}(A) X_{l-1}), \quad P_l = \sigma(H (H^T X_{l-1})), \quad X_l = G_l + P_l, \quad
        X = \sum_l X_l

    with a leaky :math:`\sigma`. BPR, the contrast of :math:`\mathrm{sg}(G_l)` and :math:`P_l` over a batch's distinct
    users and items, and the squared norms of all parameters. :math:`P_1` is cubic in :math:`E`, :math:`G_1` linear; a
    small :math:`s` holds the hyperedges' part down while embeddings grow. The published code, and so its figures, makes
    the activation and does not use it (``activation: none``). In more than that this is the published code's model: it
    stops the gradient of :math:`G_l` in the contrast, where the paper's formula has no such stop, and it leaves out the
    paper's further maps from hyperedges to hyperedges and the rows of the layer before, which the paper adds to
    :math:`X_l`. On a GPU, finding the distinct ones makes the host wait twice a batch.
    """

    config_class = HCCFConfig
    settings: HCCFConfig
    loss_names = ("bpr", "contrast", "reg")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size, count = self.settings.embedding_size, self.settings.n_hyperedges
        self.user_embedding = embedding_table(self.user_count, size)
        self.item_embedding = embedding_table(self.item_count, size)
        if self.settings.hyperedges == "learned":
            self.user_hyperedges = nn.Parameter(nn.init.xavier_uniform_(torch.empty(size, count)))
            self.item_hyperedges = nn.Parameter(nn.init.xavier_uniform_(torch.empty(size, count)))

    def _dropped_adj(self) -> SparseAdjacency:
        """The observed graph, each direction of an edge dropped by itself, anew in each batch."""
        edges, weight = self.ordered_edges()
        # Dropped entries stay as zeros: the matrix need not be put together again.
        return edges.adjacency(dropout(weight, self.settings.edge_dropout))

    def _incidence(self) -> tuple[Tensor, Tensor]:
        """Return the incidence of users ``(U, K)`` and of items ``(I, K)``."""
        scale, users, items = self.settings.hyperedge_scale, self.user_embedding, self.item_embedding
        if self.settings.hyperedges == "embedding":
            return scale * users, scale * items
        return scale * (users @ self.user_hyperedges), scale * (items @ self.item_hyperedges)

    def layers(self) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return the final rows ``(N, D)`` and per layer :math:`G_l` and :math:`P_l`, each ``(N, D)``."""
        rate = self.settings.edge_dropout if self.training else 0.0
        rows = total = torch.cat([self.user_embedding, self.item_embedding])
        hyperedges = self._incidence()
        views = []
        for _ in range(self.settings.n_layers):
            local = self._activated(propagate(self._dropped_adj() if rate > 0 else self.adj, rows))
            parts = []
            for incidence, part in zip(hyperedges, self.by_kind(rows), strict=True):
                dropped = dropout(incidence, rate)
                parts.append(dropped @ (dropped.t() @ part))
            shared = self._activated(torch.cat(parts))
            views.append((local, shared))
            rows = local + shared
            total = total + rows
        return total, views

    def _activated(self, rows: Tensor) -> Tensor:
        return rows if self.settings.activation == "none" else F.leaky_relu(rows, 0.5)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return final users ``(U, D)`` and items ``(I, D)``."""
        return self.by_kind(self.layers()[0])

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative)."""
        s = self.settings
        users, positives, negatives = self.triples(interaction)
        total, views = self.layers()
        user_rows, item_rows = self.by_kind(total)
        bpr = mean_bpr_loss(user_rows[users], item_rows[positives], item_rows[negatives])
        contrast = bpr.new_zeros(())
        for nodes in (torch.unique(users), torch.unique(positives) + self.user_count):
            for local, shared in views:
                contrast = contrast + in_batch_infonce(local.detach()[nodes], shared[nodes], s.temperature)
        return bpr, s.cl_weight * contrast, s.reg_weight * squared_norm(*self.parameters())
