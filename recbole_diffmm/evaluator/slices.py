"""Test metrics of parts (users by history, items by popularity), and what the recommended lists are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.metrics import AveragePopularity, GiniIndex, ItemCoverage
from torch import Tensor

# Lower ends of the groups, in training interactions. The same for users and items and on every dataset, so that two
# boards mean the same by a word; 0 is what nothing was learnt about.
EDGES = (0, 1, 5, 10, 20, 50)


@dataclass(frozen=True)
class Lists:
    """The lists of one evaluation that ranked all items. Ids are RecBole's, PAD being 0.

    Attributes:
        users: ``(n,)`` the users that were ranked for.
        items: ``(n, K)`` their best items, best first.
        hits: ``(n, K + 1)`` which of them are the user's test items; in the last column how many those are.
        positives: ``(2, P)`` pairs of user and test item.
        history: ``(2, T)`` pairs of user and training item.
        n_users: Number of users, PAD included.
        n_items: Number of items, PAD included.
    """

    users: Tensor
    items: Tensor
    hits: Tensor
    positives: Tensor
    history: Tensor
    n_users: int
    n_items: int

    def user_history(self) -> np.ndarray:
        """Training interactions ``(n,)`` of the users."""
        return torch.bincount(self.history[0], minlength=self.n_users)[self.users].numpy()

    def item_popularity(self) -> np.ndarray:
        """Training interactions ``(n_items,)`` of every item."""
        return torch.bincount(self.history[1], minlength=self.n_items).numpy()


PerUser = Callable[[Tensor], Mapping[str, np.ndarray]]


def users_by_history(lists: Lists, per_user: PerUser) -> list[dict[str, Any]]:
    """Return the metrics of the users of each group of :data:`EDGES`, groups without users left out.

    Args:
        lists: The lists to judge.
        per_user: Turns hits ``(n, K + 1)`` into one value a user and metric.
    """
    group = _group(lists.user_history())
    values = per_user(lists.hits)
    return [
        {"group": label, "n_users": int(inside.sum()), "metrics": _means(values, inside)}
        for label, inside in _members(group)
    ]


def items_by_popularity(lists: Lists, per_user: PerUser) -> list[dict[str, Any]]:
    """Return the metrics of finding the test items of each group of :data:`EDGES`, all items being ranked.

    A test item of another group is neither found nor missed; a mean is over the users who have test items of the group.
    """
    group = torch.from_numpy(_group(lists.item_popularity()))
    place = torch.full((lists.n_users,), -1, dtype=torch.long)
    place[lists.users] = torch.arange(len(lists.users))
    row, item = place[lists.positives[0]], lists.positives[1]
    row, item = row[row >= 0], item[row >= 0]
    found = []
    real = group[1:].numpy()  # without PAD
    for label, inside in _members(real):
        number = int(real[inside][0])
        n_positives = torch.bincount(row[group[item] == number], minlength=len(lists.users))
        if not n_positives.any():
            continue
        hits = lists.hits[:, :-1] * (group[lists.items] == number)
        values = per_user(torch.cat([hits, n_positives.unsqueeze(1).to(hits.dtype)], dim=1)[n_positives > 0])
        found.append(
            {
                "group": label,
                "n_users": int((n_positives > 0).sum()),
                "n_items": int(inside.sum()),
                "metrics": _means(values, slice(None)),
            }
        )
    return found


def beyond_accuracy(lists: Lists, config: Any) -> dict[str, float]:
    """Return RecBole's ItemCoverage, GiniIndex and AveragePopularity (training interactions), PAD not counted."""
    data = DataStruct()
    data.set("rec.items", lists.items)
    data.set("data.num_items", lists.n_items - 1)
    data.set("data.count_items", {})
    popularity = lists.item_popularity()
    metrics: dict[str, float] = {}
    for metric in (ItemCoverage(config), GiniIndex(config), _AveragePopularity(config, popularity)):
        metrics.update({name: float(value) for name, value in metric.calculate_metric(data).items()})
    return metrics


class _AveragePopularity(AveragePopularity):
    """RecBole's, without its loop over users."""

    def __init__(self, config: Any, popularity: np.ndarray) -> None:
        super().__init__(config)
        self._popularity = popularity

    def get_pop(self, item_matrix: np.ndarray, item_count: Any) -> np.ndarray:
        return self._popularity[item_matrix]


def coverage_by_modality(
    lists: Lists, observed: Mapping[str, Tensor], topk: list[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the shares of the items with and without each modality that are in anyone's list.

    Args:
        lists: The lists to judge.
        observed: Per modality ``(n_items,)``, whether an item has features.
        topk: Lengths of the lists.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, has in observed.items():
        parts = {"observed": has.bool().cpu(), "missing": ~has.bool().cpu()}
        for part in parts.values():
            part[0] = False  # PAD
        result[name] = {
            label: {f"itemcoverage@{k}": float(part[torch.unique(lists.items[:, :k])].sum() / part.sum()) for k in topk}
            for label, part in parts.items()
            if part.any()
        }
    return result


def _group(counts: np.ndarray) -> np.ndarray:
    """The group ``(n,)`` of :data:`EDGES` that each count belongs to."""
    return np.searchsorted(np.asarray(EDGES), counts, side="right") - 1


def _members(group: np.ndarray) -> list[tuple[str, np.ndarray]]:
    ends = [*(edge - 1 for edge in EDGES[1:]), None]
    labels = [
        f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
        for low, high in zip(EDGES, ends, strict=True)
    ]
    members = [(label, group == number) for number, label in enumerate(labels)]
    return [(label, inside) for label, inside in members if inside.any()]


def _means(values: Mapping[str, np.ndarray], inside: Any) -> dict[str, float]:
    return {name: float(value[inside].mean()) for name, value in values.items()}
