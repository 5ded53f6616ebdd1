"""ContentEASE: EASE's item-item weights mixed with a neighbourhood of features."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from recbole_diffmm.errors import UserError
from recbole_diffmm.model.neighbourhood import NeighbourhoodRecommender, NeighbourhoodSettings
from recbole_diffmm.model.settings import Share


class ContentEASEConfig(NeighbourhoodSettings):
    """Hyper-parameters of :class:`ContentEASE`."""

    reg_weight: PositiveFloat = Field(250.0, description="weight of the squared norm of EASE's item-item weights")
    content_share: Share = Field(0.1, description="share of the features' neighbourhood in a score; 0 is EASE")
    max_items: PositiveInt = Field(
        30_000, description="catalogue up to which the closed form is computed; its memory is twice 4 I^2 bytes"
    )


class ContentEASE(NeighbourhoodRecommender):
    r"""EASE (WWW 2019, arXiv 1905.03375) beside :class:`ContentKNN`, in closed form.

    .. math::
        S = (1 - \alpha) B + \alpha K, \qquad B_{ij} = -P_{ij} / P_{jj}, \quad P = (X^T X + \lambda I)^{-1}

    with zeros on the diagonal of ``B`` and the weights ``K`` of nearest items by features. An item without training
    interactions has no weights in ``B``, and ``K`` alone scores it. Mixing two item-item models is the additive form
    of side information in Jeunen et al. (RecSys 2020); ``content_share`` is to be chosen on validation.
    """

    config_class = ContentEASEConfig
    settings: ContentEASEConfig

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        limit = self.settings.max_items
        if self.item_count > limit:
            gigabytes = 8 * self.item_count**2 / 1e9
            raise UserError(
                f"ContentEASE inverts a matrix of all items, {self.item_count} here ({gigabytes:.0f} GB), more than "
                f"max_items={limit}; raise max_items if the memory is there, or take ContentKNN"
            )
        # Not persistent: it follows from the training split.
        self.register_buffer("item_weights", self._closed_form(), persistent=False)  # (I, I)

    def _closed_form(self) -> Tensor:
        entries = torch.stack([self.train_users, self.train_items])
        ones = torch.ones(entries.shape[1])
        x = torch.sparse_coo_tensor(entries, ones, (self.user_count, self.item_count)).coalesce()
        x = torch.sparse_coo_tensor(x.indices(), torch.ones_like(x.values()), x.shape)  # a repeated pair counts once
        gram = torch.sparse.mm(x.t(), x).to_dense()
        gram.diagonal().add_(self.settings.reg_weight)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weights = inverse.div_(-inverse.diagonal().clone())
        return weights.fill_diagonal_(0)

    def item_scores(self, histories: Tensor) -> Tensor:
        """Return the scores ``(I, B)`` of all items given ``histories (I, B)``."""
        share = self.settings.content_share
        scores = self.get_buffer("item_weights").t() @ histories
        return torch.lerp(scores, self.content_scores(histories), share) if share > 0 else scores
