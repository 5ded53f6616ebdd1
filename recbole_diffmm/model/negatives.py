"""Negative items for models that contrast an interaction with many of them at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NegativeItems(nn.Module):
    """Draws items uniformly from those that occur in training and that a user, if possible, has no interaction with.

    Each draw is exact and needs no second try: a number below the count of a user's negatives is moved past the user's
    own items, which a search in their sorted places tells.

    Args:
        user_ids: ``(E,)`` users of the training interactions.
        item_ids: ``(E,)`` their items.
        n_users: number of users ``U``.
        n_items: number of items ``I``.
    """

    warm: Tensor  # (W,) the items that occur in training, ascending
    starts: Tensor  # (U,)
    counts: Tensor  # (U,)
    keys: Tensor  # (E,) ascending

    def __init__(self, user_ids: Tensor, item_ids: Tensor, n_users: int, n_items: int) -> None:
        super().__init__()
        pairs = torch.unique(user_ids * n_items + item_ids)
        users = torch.div(pairs, n_items, rounding_mode="floor")
        warm = torch.unique(item_ids)
        place = torch.searchsorted(warm, pairs % n_items)  # of each interaction's item among the warm ones
        counts = torch.bincount(users, minlength=n_users)
        starts = torch.cumsum(counts, 0) - counts
        within = torch.arange(len(pairs), device=pairs.device) - starts[users]
        self.n_items = n_items
        # How many negatives come before a user's j-th item; ascending within a user, and users apart by the key's size.
        self.register_buffer("keys", users * (n_items + 1) + place - within, persistent=False)
        self.register_buffer("warm", warm, persistent=False)
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("counts", counts, persistent=False)

    def has_any(self, users: Tensor) -> Tensor:
        """Return ``(B,)`` bool, whether ``users (B,)`` have a negative item at all."""
        return self.counts[users] < len(self.warm)

    def draw(self, users: Tensor, n_negatives: int) -> Tensor:
        """Return items ``(B, n_negatives)`` for ``users (B,)``, drawn with replacement.

        A user with every warm item has no negative and gets the last warm item.
        """
        free = (len(self.warm) - self.counts[users]).clamp(min=1).unsqueeze(1)  # (B, 1)
        uniform = torch.rand(len(users), n_negatives, device=users.device, dtype=torch.float64)
        number = (uniform * free).long()
        before = torch.searchsorted(self.keys, users.unsqueeze(1) * (self.n_items + 1) + number, right=True)
        place = number + before - self.starts[users].unsqueeze(1)
        return self.warm[place.clamp(max=len(self.warm) - 1)]
