"""Random removal of edges."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_edges(edge_index: Tensor, edge_weight: Tensor, keep: Tensor, edge_dropout: float) -> tuple[Tensor, Tensor]:
    """Keep the entries where ``keep (E,)`` is true and divide them by the probability ``1 - edge_dropout`` to keep.

    Each stored entry is its own draw, so the two directions of an edge are dropped independently of each other.
    """
    return edge_index[:, keep], edge_weight[keep] / (1.0 - edge_dropout)


def sample_edges(weight: Tensor, n_edges: int) -> Tensor:
    """Return the places ``(n_edges,)``, at most ``E``, of edges drawn without replacement, likely as ``weight (E,)``.

    The largest of ``log w + Gumbel noise`` are such a draw (Efraimidis and Spirakis, 2006; Vieira, 2014), of any number
    of edges: ``torch.multinomial`` takes at most ``2**24``.
    """
    noise = -torch.empty_like(weight).exponential_().log()
    return (weight.log() + noise).topk(n_edges, sorted=False).indices
