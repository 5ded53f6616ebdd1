"""What an evaluation keeps of its batches' scores."""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator.collector import Collector, DataStruct
from torch import Tensor


class TopCollector(Collector):
    """RecBole's collector, with hits looked up among the positives, once for all batches.

    RecBole's makes a matrix of users and items in every batch, and copies for each what all before it gave. What comes
    out is the same to the entry. Where a metric needs scores or ranks below the top k (AUC, GAUC, RMSE, ...), RecBole's
    own method collects everything.

    Attributes:
        largest: The largest score of every batch of this evaluation; NaN where a score is NaN.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.begin()

    def begin(self) -> None:
        """Forget the evaluation before, which may have been interrupted."""
        self.largest: list[Tensor] = []
        self._items: list[Tensor] = []  # (B, K) of every batch
        self._positives: list[Tensor] = []  # (2, P) of every batch: rows among those of all batches, and items
        self._n_rows = self._n_items = 0
        for name in [name for name in self.data_struct._data_dict if name.startswith("rec.") or name == "data.label"]:
            del self.data_struct[name]

    def eval_batch_collect(
        self, scores: Tensor, interaction: Any, positive_u: Tensor | None, positive_i: Tensor | None
    ) -> None:
        """Add a batch to what the evaluator gets.

        Args:
            scores: ``(B, n_items)``, minus infinity for what must not be ranked; ``(B,)`` with single pairs.
            interaction: The batch.
            positive_u: ``(P,)`` int64, rows of `scores`; None with single pairs.
            positive_i: ``(P,)`` int64, items that are relevant to the users of these rows; a pair counts once.
        """
        needed = self.register.need
        listed = needed("rec.topk") or needed("rec.items")
        beyond = needed("rec.meanrank") or needed("rec.score") or needed("data.label")
        if positive_u is None or positive_i is None or beyond or not listed:
            super().eval_batch_collect(scores, interaction, positive_u, positive_i)
            self.largest.append(scores.amax())
            return
        best = torch.topk(scores, max(self.topk), dim=-1)
        self.largest.append(best.values.amax())
        self._items.append(best.indices)
        self._positives.append(torch.stack((positive_u + self._n_rows, positive_i)))
        self._n_rows += len(scores)
        self._n_items = scores.shape[1]

    def get_data_struct(self) -> DataStruct:
        """Hand out what an evaluation collected."""
        if self._items:
            items = torch.cat(self._items)  # (U, K)
            if self.register.need("rec.items"):
                self.data_struct.set("rec.items", items)
            if self.register.need("rec.topk"):
                rows, positives = torch.cat(self._positives, dim=1).to(items.device)
                self.data_struct.set("rec.topk", hits(items, rows, positives, self._n_items))
            self._items, self._positives, self._n_rows = [], [], 0
        return super().get_data_struct()


def hits(items: Tensor, positive_u: Tensor, positive_i: Tensor, n_items: int) -> Tensor:
    """Return which of the listed items are positives and, in one column more, how many positives there are.

    Args:
        items: ``(U, K)`` int64, ids of the listed items.
        positive_u: ``(P,)`` int64, rows of `items`.
        positive_i: ``(P,)`` int64, ids of the positives of these rows; a pair that is there twice counts once.
        n_items: More than the largest id.

    Returns:
        ``(U, K + 1)`` int64.
    """
    positives = torch.unique(positive_u * n_items + positive_i)  # one number a pair, in order
    count = torch.bincount(positives // n_items, minlength=len(items)).unsqueeze(1)
    listed = torch.arange(len(items), device=items.device).unsqueeze(1) * n_items + items
    # After all pairs comes one of no row, so that every listed pair has a place.
    positives = torch.nn.functional.pad(positives, (0, 1), value=len(items) * n_items)
    found = positives[torch.searchsorted(positives, listed)] == listed
    return torch.cat((found, count), dim=1)
