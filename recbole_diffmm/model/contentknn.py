"""ContentKNN: items like those of the history, by their features alone."""

from __future__ import annotations

from torch import Tensor

from recbole_diffmm.model.neighbourhood import NeighbourhoodRecommender, NeighbourhoodSettings


class ContentKNNConfig(NeighbourhoodSettings):
    """Hyper-parameters of :class:`ContentKNN`."""


class ContentKNN(NeighbourhoodRecommender):
    r"""Nearest neighbours by features: the floor that a model reading features has to clear.

    .. math:: s_{ui} = \sum_m \alpha_m \sum_{j \in N_m(i) \cap H(u)} \cos(f_{m,i}, f_{m,j})

    with :math:`N_m(i)` the ``k`` items of the training split, without ``i``, that are nearest to it: the item-based
    neighbours of Sarwar et al. (WWW 2001) with features in place of interactions. Nothing is trained.
    """

    config_class = ContentKNNConfig
    settings: ContentKNNConfig

    def item_scores(self, histories: Tensor) -> Tensor:
        """Return the scores ``(I, B)`` of all items given ``histories (I, B)``."""
        return self.content_scores(histories)
