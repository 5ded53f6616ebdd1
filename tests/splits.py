"""A training split as models see it, without RecBole's dataset."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def training_split(n_users: int, n_items: int, users: Tensor, items: Tensor, modalities: dict[str, Any]) -> Any:
    """What a model reads of a split with ``users`` and ``items`` ``(E,)`` from 0: RecBole's ids have PAD in front."""
    return SimpleNamespace(
        num={"user_id": n_users + 1, "item_id": n_items + 1}.__getitem__,
        modalities=modalities,
        training_interactions=lambda: (users + 1, items + 1),
    )


def recbole_keys() -> dict[str, Any]:
    """What RecBole's base class reads from the configuration."""
    return {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "NEG_PREFIX": "neg_",
        "device": torch.device("cpu"),
        "dataset": "random",
    }
