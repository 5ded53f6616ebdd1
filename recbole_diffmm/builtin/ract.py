"""RecBole's RaCT with the ideal DCG of a batch looked up in one table."""

from __future__ import annotations

import torch
from recbole.model.general_recommender import RaCT as RecBoleRaCT
from torch import Tensor


class RaCT(RecBoleRaCT):  # type: ignore[misc]
    """RecBole's RaCT (ICLR 2020, arXiv 1906.04281), whose critic's targets are its NDCGs to rounding.

    RecBole makes them user by user, from a list of tensors that PyTorch sometimes fails to read ("len() of a 0-d
    tensor").
    """

    def calculate_ndcg(self, predict_matrix: Tensor, true_matrix: Tensor, input_matrix: Tensor, k: int) -> Tensor:
        """Return the NDCG@k ``(B,)`` of scores ``(B, n_items)``, which lose what `input_matrix` has.

        Args:
            predict_matrix: ``(B, n_items)`` scores; overwritten, as by RecBole, where an item was given.
            true_matrix: ``(B, n_items)``, positive where an item is relevant.
            input_matrix: ``(B, n_items)``, not zero where an item was given.
            k: Length of the lists.
        """
        predict_matrix[input_matrix.nonzero(as_tuple=True)] = -torch.inf
        listed = predict_matrix.sort(dim=1, descending=True).indices[:, :k]
        discounts = 1.0 / torch.log2(torch.arange(2, k + 2, dtype=torch.float32, device=listed.device))
        dcg = (true_matrix.gather(1, listed) * discounts).sum(dim=1)
        of_n = torch.cat((discounts.new_zeros(1), discounts.cumsum(0)))  # with 0, 1, ..., k relevant items
        ideal = of_n[(true_matrix > 0).sum(dim=1).clamp(max=k)]
        return dcg / ideal.clamp(min=0.1)  # RecBole's bound: with nothing relevant, zero and not 0 / 0
