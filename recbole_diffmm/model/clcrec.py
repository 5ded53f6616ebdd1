"""CLCRec: Contrastive Learning for Cold-Start Recommendation (ACM MM 2021, arXiv 2107.05315)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.graph import agreement, edges_to_picked, unit_rows
from recbole_diffmm.model.base import MultimodalRecommender
from recbole_diffmm.model.negatives import NegativeItems
from recbole_diffmm.model.settings import ModelSettings, Share, Weight


class CLCRecConfig(ModelSettings):
    """Hyper-parameters of :class:`CLCRec`."""

    embedding_size: PositiveInt = Field(64, description="width D of all embeddings")
    hidden_size: PositiveInt = Field(256, description="hidden width of the encoder of features")
    n_negatives: PositiveInt = Field(128, description="negative items of an interaction")
    alignment_share: Share = Field(0.5, description="share of aligning items with their features in the loss")
    replaced_share: Share = Field(0.5, description="share of items that their features stand in for while ranking")
    temperature: PositiveFloat = Field(2.0, description="temperature of both contrastive losses")
    reg_weight: Weight = Field(0.1, description="weight of the lengths of a batch's embeddings")


class CLCRec(MultimodalRecommender):
    r"""Items' embeddings and their features inform each other, so that features stand in for cold items' embeddings.

    With an encoder :math:`g` of the normalised, concatenated features, one positive and ``n`` negative items ``j`` per
    interaction (arXiv 2107.05315):

    .. math::
        \mathcal L_1 = \mathrm{NCE}\big(\cos(E_i, g(f_j))/\tau\big), \quad \mathcal L_2 = \mathrm{NCE}\big(E_u^T
        z_j/\tau\big), \quad \mathcal L = \lambda \mathcal L_1 + (1 - \lambda) \mathcal L_2 + w \tfrac12 (\lVert E_u
        \rVert + \lVert E_j \rVert)

    where :math:`z_j` is :math:`g(f_j)` with probability ``replaced_share`` and :math:`E_j` otherwise (the published
    code draws the replaced places with replacement and reaches 39 % of them). Scores use :math:`E_i` for items of the
    training split and :math:`g(f_i)` for all others. Users and items have a table each, Xavier normal by its own size,
    where the published code has one for both.

    No term holds the length of :math:`g(f_i)` to that of :math:`E_i`: alignment compares directions. Where it grows
    longer, as it does on TikTok, cold items take many places of the lists.
    """

    config_class = CLCRecConfig
    settings: CLCRecConfig
    input_type = InputType.POINTWISE
    loss_names = ("ranking", "alignment", "reg")
    replayable = True
    unit_features = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size, hidden = self.settings.embedding_size, self.settings.hidden_size
        self.user_embedding = nn.Parameter(nn.init.xavier_normal_(torch.empty(self.user_count, size)))
        self.item_embedding = nn.Parameter(nn.init.xavier_normal_(torch.empty(self.item_count, size)))
        feat_dim = sum(self.features(name).shape[1] for name in self.modality_names)
        self.encoder = nn.Sequential(nn.Linear(feat_dim, hidden), nn.LeakyReLU(), nn.Linear(hidden, size))
        self.negatives = NegativeItems(self.train_users, self.train_items, self.user_count, self.item_count)
        warm = torch.zeros(self.item_count, 1, dtype=torch.bool)
        warm[self.train_items] = True
        self.register_buffer("warm", warm, persistent=False)  # (I, 1)

    def encoded(self) -> Tensor:
        """Return :math:`g(f)` ``(I, D)`` of all items."""
        return self.encoder(torch.cat([self.features(name) for name in self.modality_names], dim=1))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return users ``(U, D)`` and items ``(I, D)``, cold items as their features have them."""
        return self.user_embedding, torch.where(self.get_buffer("warm"), self.item_embedding, self.encoded())

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, item)."""
        s = self.settings
        users, positives = self.pairs(interaction)
        items = torch.cat([positives.unsqueeze(1), self.negatives.draw(users, s.n_negatives)], dim=1)  # (B, 1 + n)
        user, encoded = self.user_embedding[users], self.encoded()
        target = torch.zeros_like(users)
        nothing = torch.zeros(items.shape, dtype=torch.bool, device=items.device)
        nothing[:, 1:] = ~self.negatives.has_any(users).unsqueeze(1)
        edges = edges_to_picked(items, self.item_count)

        def products(queries: Tensor, rows: Tensor) -> Tensor:  # (B, D) and (I, D) to (B, 1 + n)
            return agreement(edges, torch.cat([queries, rows])).view_as(items)

        cosines = products(unit_rows(self.item_embedding[positives]), unit_rows(encoded))
        alignment = F.cross_entropy((cosines / s.temperature).masked_fill(nothing, -torch.inf), target)
        replaced = torch.rand(items.shape, device=items.device) < s.replaced_share
        scores = torch.where(replaced, products(user, encoded), products(user, self.item_embedding))  # (B, 1 + n)
        ranking = F.cross_entropy((scores / s.temperature).masked_fill(nothing, -torch.inf), target)
        lengths = 0.5 * (user.norm(dim=1).mean() + self.item_embedding.norm(dim=1)[items].mean())
        return (1 - s.alignment_share) * ranking, s.alignment_share * alignment, s.reg_weight * lengths
