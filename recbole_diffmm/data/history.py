"""Rows of the training matrix, sparse as stored and dense per batch only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class History(nn.Module):
    """The binary training matrix ``R (U, I)`` in CSR form, without PAD; its memory grows with the interactions.

    Args:
        user_ids: ``(E,)`` users, ``0..U-1``.
        item_ids: ``(E,)`` items, ``0..I-1``; a repeated interaction counts once.
        n_users: number of users ``U``.
        n_items: number of items ``I``.
    """

    crow_indices: Tensor  # (U + 1,)
    col_indices: Tensor  # (E,)

    def __init__(self, user_ids: Tensor, item_ids: Tensor, n_users: int, n_items: int) -> None:
        super().__init__()
        self.n_users, self.n_items = n_users, n_items
        key = torch.unique(user_ids * n_items + item_ids)  # sorted: by user, then by item
        counts = torch.bincount(torch.div(key, n_items, rounding_mode="floor"), minlength=n_users)
        crow = torch.zeros(n_users + 1, dtype=torch.int64, device=key.device)
        torch.cumsum(counts, 0, out=crow[1:])
        self.register_buffer("crow_indices", crow, persistent=False)
        self.register_buffer("col_indices", key % n_items, persistent=False)

    def batches(self, users: Tensor, size: int) -> list[tuple[Tensor, int]]:
        """Split ``users`` into batches of ``size``, each with the number of its interactions.

        The numbers are read back from the device once for all batches; given them, the other methods need not wait.
        """
        length = self.crow_indices[users + 1] - self.crow_indices[users]
        counts = torch.stack([part.sum() for part in length.split(size)]).tolist()
        return list(zip(users.split(size), counts, strict=True))

    def sparse_rows(self, users: Tensor, n_entries: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the items of ``users (B,)`` one user after the other, and ``(B,)`` where each user's begin.

        ``n_entries`` is the number of those items, where it is known.
        """
        start = self.crow_indices[users]
        length = self.crow_indices[users + 1] - start
        end = torch.cumsum(length, 0)
        offsets = end - length
        # Position within the output minus the user's offset, moved to where the user's items are stored.
        shift = torch.repeat_interleave(start - offsets, length, output_size=n_entries)
        return self.col_indices[torch.arange(shift.numel(), device=shift.device) + shift], offsets

    def entries(self, users: Tensor, n_entries: int | None = None) -> tuple[Tensor, Tensor]:
        """Return where the dense rows of ``users (B,)`` have ones: ``row (E,)``, ``0..B-1``, and ``item (E,)``."""
        items, offsets = self.sparse_rows(users, n_entries)
        length = torch.diff(offsets, append=torch.full((1,), items.numel(), device=offsets.device))
        rows = torch.arange(users.numel(), device=items.device)
        return torch.repeat_interleave(rows, length, output_size=items.numel()), items

    def rows(self, users: Tensor, n_entries: int | None = None) -> Tensor:
        """Return the dense rows ``(B, I)`` of ``users (B,)``."""
        row, item = self.entries(users, n_entries)
        dense = torch.zeros(users.numel(), self.n_items, device=item.device)
        dense[row, item] = 1
        return dense
