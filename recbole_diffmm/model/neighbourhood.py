"""Recommenders without training: scores of a history by items' weights on each other."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt
from recbole.utils import InputType, ModelType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.data.history import History
from recbole_diffmm.graph import SparseAdjacency, build_adjacency, nearest_items, neighbour_edges, propagate
from recbole_diffmm.model.base import MultimodalRecommender
from recbole_diffmm.model.settings import ModelSettings, Weight

# Of whom `predict` makes whole rows of scores at a time.
_USERS_AT_A_TIME = 1024


class NeighbourhoodSettings(ModelSettings):
    """What every recommender of this kind can be set to."""

    knn_k: PositiveInt = Field(10, description="nearest items of the training split per item and modality")
    modality_weight: dict[str, Weight] | None = Field(
        None, description="share of each modality in the similarity, by name; none: equal shares"
    )


class NeighbourhoodRecommender(MultimodalRecommender):
    """A recommender that scores items from the items of a user's history and has nothing to train.

    Subclasses implement :meth:`item_scores`.

    Args:
        config: RecBole's configuration.
        dataset: the training split, with ``modalities``.
    """

    type = ModelType.TRADITIONAL
    input_type = InputType.POINTWISE
    loss_names = ("nothing",)
    settings: NeighbourhoodSettings

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.modality_share = self.shares("modality_weight")
        self.history = History(self.train_users, self.train_items, self.user_count, self.item_count)
        self.nothing = nn.Parameter(torch.zeros(1))  # RecBole's trainer wants a parameter

    def item_scores(self, histories: Tensor) -> Tensor:
        """Return the scores ``(I, B)`` of all items given ``histories (I, B)`` of zeros and ones."""
        raise NotImplementedError

    def nearest(self, name: str) -> SparseAdjacency:
        """The graph ``(I, I)`` from each item to its nearest of the training split in one modality, by cosine."""

        def build() -> SparseAdjacency:
            warm = torch.bincount(self.train_items, minlength=self.item_count) > 0
            neighbours = nearest_items(self.features(name), self.settings.knn_k, include_self=False, candidates=warm)
            return build_adjacency(*neighbour_edges(neighbours), self.item_count, symmetric=False)

        return self.graph(("nearest", name), build)

    def modality_scores(self, name: str, histories: Tensor) -> Tensor:
        """Return the summed cosines ``(I, B)`` of items and their nearest ones in ``histories (I, B)``."""
        return propagate(self.nearest(name), histories)

    def content_scores(self, histories: Tensor) -> Tensor:
        """Return the weighted mean ``(I, B)`` of :meth:`modality_scores` over modalities.

        A modality that is left out gives its share to the others.
        """
        total = sum(self.modality_share[name] for name in self.present)
        scores = torch.zeros_like(histories)
        for name in self.present:
            if self.modality_share[name] > 0:
                share = self.modality_share[name] / total
                scores = torch.add(scores, self.modality_scores(name, histories), alpha=share)
        return scores

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return zero."""
        return self.nothing.sum() * 0

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores ``(B, n_items)`` of all items, PAD's column included because RecBole masks it."""
        histories = self.history.rows(interaction[self.USER_ID] - 1).t().contiguous()  # (I, B)
        return F.pad(self.item_scores(histories).t(), (1, 0))

    def predict(self, interaction: Any) -> Tensor:
        """Return the scores ``(B,)`` of the interaction's (user, item) pairs."""
        users, place = torch.unique(interaction[self.USER_ID], return_inverse=True)
        order = place.argsort()
        user_of, item_of = place[order], interaction[self.ITEM_ID][order]
        scores = []
        for first in range(0, len(users), _USERS_AT_A_TIME):
            rows = self.full_sort_predict({self.USER_ID: users[first : first + _USERS_AT_A_TIME]})
            ends = torch.searchsorted(user_of, torch.tensor([first, first + len(rows)], device=user_of.device))
            some = slice(*ends.tolist())
            scores.append(rows[user_of[some] - first, item_of[some]])
        return torch.cat(scores)[order.argsort()]
