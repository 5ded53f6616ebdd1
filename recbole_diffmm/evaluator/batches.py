"""Batches of an evaluation that are made once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from recbole.data.dataloader import FullSortEvalDataLoader


class RepeatedBatches(FullSortEvalDataLoader):
    """The batches of a full-ranking loader on the device: RecBole puts them together user by user, in every evaluation.

    Args:
        loader: the loader, whose batches are the same whenever it is gone through.
        device: where the model is.
    """

    def __init__(self, loader: FullSortEvalDataLoader, device: torch.device) -> None:
        # Not the loader's own constructor, which would sort the data again: what stands here is all that is read.
        self._dataset = loader._dataset
        self.uid_list = loader.uid_list
        self._batches = [
            (interaction.to(device), (users.to(device), items.to(device)), positive_u.to(device), positive_i.to(device))
            for interaction, (users, items), positive_u, positive_i in loader
        ]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)
