"""MMGCN: Multi-modal Graph Convolution Network for Personalized Recommendation of Micro-video (ACM MM 2019).

doi 10.1145/3343031.3351034
"""

from __future__ import annotations

from typing import Any, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.graph import SparseAdjacency, propagate, unit_rows
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import mean_bpr_loss
from recbole_diffmm.model.settings import ModelSettings, Weight


class MMGCNConfig(ModelSettings):
    """Hyper-parameters of :class:`MMGCN`."""

    embedding_size: PositiveInt = Field(64, description="width D of ids' embeddings and of a modality's output")
    n_layers: PositiveInt = Field(3, description="convolutions of a modality")
    hidden_size: PositiveInt = Field(256, description="wider features than this are first projected to it")
    reg_weight: Weight = Field(0.1, description="weight of the mean squares of ids' embeddings and of preferences")
    train_id: bool = Field(
        True, description="false: ids' embeddings and preferences are never trained, as in the published code"
    )


class Convolution(nn.Module):
    r"""One layer of one modality (MMGCN).

    .. math::
        h = \phi(\bar A\, x C), \qquad \hat x = \phi(x L + b) + E, \qquad x' = \phi([h; \hat x] G + b)

    with the mean over neighbours :math:`\bar A` and leaky ReLUs :math:`\phi`.

    Args:
        n_in: Width of the rows that it gets.
        embedding_size: Width D of ids' embeddings and of its own rows.
        first: Whether it is its modality's first, whose G alone begins Xavier normal, as in the published code.
    """

    def __init__(self, n_in: int, embedding_size: int, first: bool) -> None:
        super().__init__()
        self.neighbour = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_in, n_in)))
        self.own = nn.Linear(n_in, embedding_size)
        self.fusion = nn.Linear(n_in + embedding_size, embedding_size)
        for linear in (self.own, self.fusion) if first else (self.own,):
            nn.init.xavier_normal_(linear.weight)

    def forward(self, adj: SparseAdjacency, x: Tensor, ids: Tensor) -> Tensor:
        """Return ``(N, D)`` of node rows ``x (N, n_in)`` and ids' embeddings ``(N, D)``."""
        h = F.leaky_relu(propagate(adj, x @ self.neighbour))
        own = F.leaky_relu(self.own(x)) + ids
        return F.leaky_relu(self.fusion(torch.cat([h, own], dim=1)))


class MMGCN(MultimodalRecommender):
    """A graph network per modality, joined by ids' embeddings and averaged (ACM MM 2019, doi 10.1145/3343031.3351034).

    A modality's nodes are the users' preferences, which are learned, and the items' features, all scaled to unit norm.
    Features wider than ``hidden_size`` pass a linear map first, of any modality; the published code does so with
    images alone, whatever their width. Its concatenating layers are used, as it always uses them. With ``train_id:
    false`` ids and preferences stay at their first values, and ``reg_weight`` changes nothing. The loss is BPR and the
    mean squares of a batch's ids and of all preferences, of every modality where the published code takes the first.
    Without its only modality nothing is left to score by, and all items tie.

    What else the published code does, and its figures may depend on: it scores by the rows of its last training batch,
    one step old, where here they come from the parameters at hand; it gives training items the score 1e-5, which they
    may rank first with, where here they are left out; it has three convolutions whatever ``n_layers`` says.
    """

    config_class = MMGCNConfig
    settings: MMGCNConfig
    loss_names = ("bpr", "reg")
    replayable = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        ids = nn.init.xavier_normal_(torch.empty(self.n_nodes, s.embedding_size))
        self.id_embedding = nn.Parameter(ids, requires_grad=s.train_id)  # (N, D)
        self.preferences = nn.ParameterDict()
        self.projections = nn.ModuleDict()
        self.convolutions = nn.ModuleDict()
        for name in self.modality_names:
            key, width = module_key(name), self.features(name).shape[1]
            if width > s.hidden_size:
                self.projections[key] = nn.Linear(width, s.hidden_size)
                width = s.hidden_size
            preference = nn.init.xavier_normal_(torch.empty(self.user_count, width))
            self.preferences[key] = nn.Parameter(preference, requires_grad=s.train_id)  # (U, width)
            widths = [width] + [s.embedding_size] * (s.n_layers - 1)
            self.convolutions[key] = nn.ModuleList(
                Convolution(n_in, s.embedding_size, first=layer == 0) for layer, n_in in enumerate(widths)
            )

    def _modality_rows(self, name: str) -> Tensor:
        key = module_key(name)
        features = self.features(name)
        if key in self.projections:
            features = self.projections[key](features)
        rows = unit_rows(torch.cat([self.preferences[key], features]))
        adj = self.mean_adj(self_loops=False)
        for convolution in cast(nn.ModuleList, self.convolutions[key]):
            rows = convolution(adj, rows, self.id_embedding)
        return rows

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the mean over modalities: users ``(U, D)`` and items ``(I, D)``."""
        if not self.present:
            return self.by_kind(torch.zeros_like(self.id_embedding))
        return self.by_kind(torch.stack([self._modality_rows(name) for name in self.present]).mean(dim=0))

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative)."""
        users, positives, negatives = self.triples(interaction)
        user_rows, item_rows = self.embeddings()
        bpr = mean_bpr_loss(user_rows[users], item_rows[positives], item_rows[negatives])
        user_ids, item_ids = self.by_kind(self.id_embedding)
        batch = torch.cat([user_ids[users], item_ids[positives], item_ids[negatives]])
        squares = [batch.square().mean(), *(part.square().mean() for part in self.preferences.values())]
        return bpr, self.settings.reg_weight * torch.stack(squares).sum()
