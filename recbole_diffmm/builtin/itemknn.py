"""RecBole's ItemKNN, which makes scores for the users that are asked for and not for all of them beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.general_recommender import ItemKNN as RecBoleItemKNN
from recbole.model.general_recommender.itemknn import ComputeSimilarity
from torch import Tensor


class ItemKNN(RecBoleItemKNN):  # type: ignore[misc]
    """RecBole's ItemKNN with the same weights and scores.

    RecBole multiplies the whole interaction matrix by the similarities when it is built and keeps the product, whose
    entries are a good part of users x items.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        GeneralRecommender.__init__(self, config, dataset)
        self.k, self.method, self.shrink = config["k"], config["knn_method"], config["shrink"] or 0.0
        self.interaction_matrix = dataset.inter_matrix(form="csr").astype(np.float32)
        similarity = ComputeSimilarity(self.interaction_matrix, topk=self.k, shrink=self.shrink, method=self.method)
        self.w = similarity.compute_similarity()[1]
        self.fake_loss = torch.nn.Parameter(torch.zeros(1))
        self.other_parameter_name = ["w", "interaction_matrix"]

    def _factors(self) -> tuple[Any, Any]:
        """The two sparse matrices whose product are the scores of all users."""
        return (self.w, self.interaction_matrix) if self.method == "user" else (self.interaction_matrix, self.w)

    def predict(self, interaction: Any) -> Tensor:
        """Return the scores ``(B,)`` of the interaction's (user, item) pairs."""
        of_users, of_items = self._factors()
        users, items = (interaction[key].cpu().numpy() for key in (self.USER_ID, self.ITEM_ID))
        scores = of_users.tocsr()[users].multiply(of_items.tocsc()[:, items].T.tocsr()).sum(axis=1)
        return torch.from_numpy(np.asarray(scores).ravel()).to(self.device)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores ``(B * n_items,)`` of all items, a user's after the other's."""
        of_users, of_items = self._factors()
        scores = of_users.tocsr()[interaction[self.USER_ID].cpu().numpy()] @ of_items
        return torch.from_numpy(scores.toarray().ravel()).to(self.device)
