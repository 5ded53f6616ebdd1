"""RecBole's SLIMElastic, fitted on columns that are emptied in place."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.general_recommender import SLIMElastic as RecBoleSLIMElastic
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet


class SLIMElastic(RecBoleSLIMElastic):  # type: ignore[misc]
    """RecBole's SLIMElastic (ICDM 2011) with the same weights and scores.

    RecBole keeps the training matrix as lists, and scikit-learn makes columns of all of them for every item.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        GeneralRecommender.__init__(self, config, dataset)
        self.hide_item, self.alpha, self.l1_ratio = config["hide_item"], config["alpha"], config["l1_ratio"]
        self.positive_only = config["positive_only"]
        self.dummy_param = torch.nn.Parameter(torch.zeros(1))
        self.interaction_matrix = dataset.inter_matrix(form="csr").astype(np.float32)
        self.item_similarity = self._fitted(self.interaction_matrix.tocsc())
        self.other_parameter_name = ["interaction_matrix", "item_similarity"]

    def _fitted(self, columns: Any) -> Any:
        """The weights ``(I, I)`` of all items, a column each, with what RecBole fits them by."""
        model = ElasticNet(
            alpha=self.alpha,
            l1_ratio=self.l1_ratio,
            positive=self.positive_only,
            fit_intercept=False,
            copy_X=False,
            precompute=True,
            selection="random",
            max_iter=100,
            tol=1e-4,
        )
        weights = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=ConvergenceWarning)
            for item in range(columns.shape[1]):
                target = columns[:, [item]].toarray().ravel()
                entries = slice(columns.indptr[item], columns.indptr[item + 1])
                own = columns.data[entries].copy()
                if self.hide_item:
                    columns.data[entries] = 0  # entries of zero, not none: nothing has to move
                model.fit(columns, target)
                columns.data[entries] = own
                weights.append(model.sparse_coef_)
        return sp.vstack(weights).T
