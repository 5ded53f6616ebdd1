"""Random removal of edges."""

from __future__ import annotations

from torch import Tensor


def drop_edges(edge_index: Tensor, edge_weight: Tensor, keep: Tensor, edge_dropout: float) -> tuple[Tensor, Tensor]:
    """Keep the entries where ``keep (E,)`` is true and divide them by the probability ``1 - edge_dropout`` to keep.

    Each stored entry is its own draw, so the two directions of an edge are dropped independently of each other.
    """
    return edge_index[:, keep], edge_weight[keep] / (1.0 - edge_dropout)
