"""What an evaluation keeps of a batch's scores."""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator.collector import Collector, DataStruct
from torch import Tensor


class JoinedOnce(DataStruct):
    """What batches give, joined when all are there.

    RecBole's copies what is there already for every batch, which takes time with the square of the number of users.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: dict[str, list[Tensor]] = {}

    def update_tensor(self, name: str, value: Tensor) -> None:
        """Add the rows of a batch."""
        self._parts.setdefault(name, []).append(value.detach().clone())

    def join(self) -> None:
        """Make one tensor of the rows of each name."""
        for name in list(self._parts):
            self.set(name, torch.cat(self._parts.pop(name)))


class TopCollector(Collector):
    """RecBole's collector, with hits looked up among the positives instead of in a matrix of users and items.

    What it collects is RecBole's, entry by entry. Metrics of scores or of ranks below the top k (AUC, GAUC, RMSE, ...)
    are collected by RecBole's own method.

    Attributes:
        largest: The largest score of every batch, or one that is not a number where there is any.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.data_struct = JoinedOnce()
        self.largest: list[Tensor] = []

    def eval_batch_collect(self, scores: Tensor, interaction: Any, positive_u: Tensor, positive_i: Tensor) -> None:
        """Add a batch to what the evaluator gets.

        Args:
            scores: ``(B, n_items)``, minus infinity for what must not be ranked.
            interaction: The batch.
            positive_u: ``(P,)`` rows of `scores`.
            positive_i: ``(P,)`` items that are relevant to the users of these rows; a pair counts once.
        """
        needed = self.register.need
        if needed("rec.meanrank") or needed("rec.score") or needed("data.label"):
            super().eval_batch_collect(scores, interaction, positive_u, positive_i)
            self.largest.append(scores.amax())
            return
        best = torch.topk(scores, max(self.topk), dim=-1)  # (B, K), once for lists and hits
        self.largest.append(best.values.amax())
        if needed("rec.items"):
            self.data_struct.update_tensor("rec.items", best.indices)
        if needed("rec.topk"):
            pairs = (positive_u.to(scores.device), positive_i.to(scores.device))
            self.data_struct.update_tensor("rec.topk", hits(best.indices, *pairs, n_items=scores.shape[1]))

    def get_data_struct(self) -> DataStruct:
        """Hand out what an evaluation collected, and forget it."""
        self.data_struct.join()
        return super().get_data_struct()


def hits(items: Tensor, positive_u: Tensor, positive_i: Tensor, n_items: int) -> Tensor:
    """Return which of the listed items are positives and, in one column more, how many positives there are.

    Args:
        items: ``(B, K)`` ids of the listed items.
        positive_u: ``(P,)`` rows of `items`.
        positive_i: ``(P,)`` ids of the positives of these rows; a pair that is there twice counts once.
        n_items: More than the largest id.

    Returns:
        ``(B, K + 1)`` int64.
    """
    rows = torch.arange(len(items), device=items.device).unsqueeze(1)
    # One number a pair, in order, so that repeated ones are neighbours: `unique` would have to wait for a GPU.
    positives = (positive_u * n_items + positive_i).sort().values
    first = torch.ones_like(positives)
    first[1:] = positives[1:] != positives[:-1]
    count = torch.zeros_like(rows).index_add_(0, positives // n_items, first.unsqueeze(1))
    listed = rows * n_items + items
    # After the end of all pairs comes one of no user, so that every pair has a place.
    positives = torch.nn.functional.pad(positives, (0, 1), value=len(items) * n_items)
    found = positives[torch.searchsorted(positives, listed)] == listed
    return torch.cat((found, count), dim=1)
