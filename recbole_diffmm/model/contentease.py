"""ContentEASE: EASE's item-item weights mixed with a neighbourhood of features."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from recbole_diffmm.checks import require_room
from recbole_diffmm.errors import UserError
from recbole_diffmm.model.neighbourhood import NeighbourhoodRecommender, NeighbourhoodSettings
from recbole_diffmm.model.settings import Share


class ContentEASEConfig(NeighbourhoodSettings):
    """Hyper-parameters of :class:`ContentEASE`."""

    reg_weight: PositiveFloat = Field(250.0, description="weight of the squared norm of EASE's item-item weights")
    content_share: Share = Field(0.1, description="share of the features' neighbourhood in a score; 0 is EASE")
    max_items: PositiveInt = Field(
        30_000, description="catalogue up to which the closed form is computed; it takes two matrices of 4 I^2 bytes"
    )


class ContentEASE(NeighbourhoodRecommender):
    r"""EASE (WWW 2019, arXiv 1905.03375) beside :class:`ContentKNN`, in closed form.

    .. math::
        S = (1 - \alpha) B + \alpha \sum_m \alpha_m c_m K_m^T, \qquad
        B_{ij} = -P_{ij} / P_{jj}, \quad P = (X^T X + \lambda I)^{-1}

    with zeros on the diagonal of ``B``, the cosines ``K`` of an item (row) to its nearest by features, and ``c``
    such that the squares of both add up to the same over all interactions, or one share would mean something else on
    every dataset. An item without training
    interactions has no weights in ``B``, and ``K`` alone scores it. Mixing two item-item models is the additive form
    of side information in Jeunen et al. (RecSys 2020); ``content_share`` is to be chosen on validation.
    """

    config_class = ContentEASEConfig
    settings: ContentEASEConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        require_room("ContentEASE", self.item_count, self.settings.max_items, 8, "ContentKNN")
        # Not persistent: it follows from the training split.
        self.register_buffer("item_weights", self._closed_form(), persistent=False)  # (I, I)

    def _closed_form(self) -> Tensor:
        entries = torch.stack([self.train_users, self.train_items])
        ones = torch.ones(entries.shape[1], device=entries.device)
        x = torch.sparse_coo_tensor(entries, ones, (self.user_count, self.item_count)).coalesce()
        x = torch.sparse_coo_tensor(x.indices(), torch.ones_like(x.values()), x.shape)  # a repeated pair counts once
        gram = torch.sparse.mm(x.t(), x).to_dense()
        gram.diagonal().add_(self.settings.reg_weight)
        try:
            factor = torch.linalg.cholesky(gram)
        except torch.linalg.LinAlgError:
            raise UserError(
                f"reg_weight={self.settings.reg_weight:g} is too small for an inverse of the training matrix; give more"
            ) from None
        del gram
        inverse = torch.cholesky_inverse(factor)
        del factor
        weights = inverse.div_(-inverse.diagonal().clone())
        return weights.fill_diagonal_(0)

    def _scale(self, name: str) -> Tensor:
        """What makes the weights of one modality as large as EASE's, by their squares over all interactions."""

        def build() -> Tensor:
            counts = torch.bincount(self.history.col_indices, minlength=self.item_count).float().unsqueeze(1)  # (I, 1)
            ease = (self.get_buffer("item_weights").square().t() @ counts).sum()
            matrix = self.nearest(name).matrix
            content = (matrix.values().square() * counts.squeeze(1)[matrix.col_indices()]).sum()
            return torch.where(content > 0, (ease / content.clamp(min=1e-12)).sqrt(), 0.0)

        return self.graph(("scale", name), build)

    def modality_scores(self, name: str, histories: Tensor) -> Tensor:
        """Return :math:`c_m K_m` times ``histories (I, B)``."""
        return self._scale(name) * super().modality_scores(name, histories)

    def item_scores(self, histories: Tensor) -> Tensor:
        """Return the scores ``(I, B)`` of all items given ``histories (I, B)``."""
        share = self.settings.content_share
        scores = self.get_buffer("item_weights").t() @ histories
        if share == 0:
            return scores
        return torch.lerp(scores, self.content_scores(histories), share)
