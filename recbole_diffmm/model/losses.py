"""Losses that several recommenders share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_diffmm.graph import unit_rows
from recbole_diffmm.precision import operand_dtype


def bpr_loss(pos_score: Tensor, neg_score: Tensor, batch_size: int) -> Tensor:
    r"""Bayesian personalised ranking, :math:`-\frac{1}{B}\sum \log \sigma(s^+ - s^-)` (UAI 2009; DiffMM, eq. 18).

    ``batch_size`` is the nominal ``B``: a last, smaller batch is divided by it too, as the reference does.
    """
    return -F.logsigmoid(pos_score - neg_score).sum() / batch_size


def squared_norm(*tensors: Tensor) -> Tensor:
    """Sum of the squared Frobenius norms."""
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()


def mean_bpr_loss(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """:func:`bpr_loss` of the inner products of user, positive and negative rows, each ``(B, D)``, over the batch."""
    return bpr_loss((users * positives).sum(dim=1), (users * negatives).sum(dim=1), len(users))


def norm_loss(*rows: Tensor) -> Tensor:
    r"""Return :math:`\frac{1}{B} \sum \lVert X \rVert_F` over blocks ``X (B, D)``, RecBole's default ``EmbLoss``.

    The norms are not squared: the gradient of each block has the same length however large the rows are, so that a
    weight from a paper that squares them does not carry over.
    """
    return torch.stack([torch.linalg.vector_norm(block) for block in rows]).sum() / len(rows[-1])


def half_squared_norm(*rows: Tensor) -> Tensor:
    r"""Return :math:`\frac{1}{2B} \sum \lVert X \rVert_F^2` over blocks ``X (B, D)``."""
    return 0.5 * squared_norm(*rows) / len(rows[-1])


def in_batch_infonce(queries: Tensor, keys: Tensor, temperature: float, *, cosine: bool = True) -> Tensor:
    """InfoNCE of ``queries (B, D)`` and ``keys (B, D)``: a row's own key against all keys of the batch.

    Args:
        queries: one view.
        keys: the other view.
        temperature: what similarities are divided by.
        cosine: whether rows are scaled to unit norm first.
    """
    if cosine:
        queries, keys = unit_rows(queries), unit_rows(keys)
    return F.cross_entropy(queries @ keys.t() / temperature, torch.arange(len(queries), device=queries.device))


# Entries of a block of InfoNCE: on the CPU it should stay in the cache between its passes.
_BLOCK_ENTRIES = {"cpu": 1 << 21}
_BLOCK_ENTRIES_ELSEWHERE = 1 << 27
# Entries up to which the exponentials of all blocks are kept for the second pass instead of being computed again: the
# CPU's peak is to stay low, a GPU has the room.
_KEPT_ENTRIES = {"cpu": 1 << 25}
_KEPT_ENTRIES_ELSEWHERE = 1 << 27
_ROUND = 64  # numbers of queries and of keys in a block are multiples of this
# Logits within plus and minus this are exponentiated as they are; beyond it a row's largest is taken off first.
_SAFE_LOGIT = 60.0


class _LogSumExp(torch.autograd.Function):
    r"""``sum_b w_b log sum_k exp(q_b . k / tau)`` for rows of unit norm, in blocks of keys.

    The gradients are computed on the way forward, so that no ``(B, N)`` matrix waits for the backward pass: with
    :math:`E_{bk} = \exp(q_b k / \tau)` and :math:`s_b = w_b / (\tau \sum_k E_{bk})` they are
    :math:`\mathrm{diag}(s) E K` for the queries, summed up block by block, and :math:`E^T \mathrm{diag}(s) Q` for the
    keys ``K (N, D)``, in a second pass, because only then is ``s`` known.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, weight: Tensor, temperature: float) -> Tensor:
        dtype = operand_dtype(queries)
        entries = _BLOCK_ENTRIES.get(queries.device.type, _BLOCK_ENTRIES_ELSEWHERE)
        size = max(_ROUND, entries // len(queries) // _ROUND * _ROUND)
        kept_entries = _KEPT_ENTRIES.get(queries.device.type, _KEPT_ENTRIES_ELSEWHERE)
        keep = queries.shape[0] * keys.shape[0] <= kept_entries
        with torch.autocast(queries.device.type, enabled=False):
            scaled = (queries / temperature).to(dtype)
            blocks = [block.to(dtype) if keep else block for block in keys.split(size)]
            shift: Tensor | None = None
            if 1 / temperature > _SAFE_LOGIT:
                largest = [(scaled @ block.to(dtype).t()).amax(dim=1) for block in blocks]
                shift = torch.stack(largest).amax(dim=0).unsqueeze(1)  # (B, 1)

            def exponentials(block: Tensor) -> Tensor:
                logits = scaled @ block.to(dtype).t()  # (B, n)
                return (logits if shift is None else logits.sub_(shift)).exp_()

            sums = queries.new_zeros(len(queries))
            grad_queries = torch.zeros_like(queries)
            kept: list[Tensor | None] = []
            for block in blocks:
                exps = exponentials(block)
                sums += exps.sum(dim=1)  # in float32, though each block's sum is rounded to the operands' format
                grad_queries += exps @ block.to(dtype)
                kept.append(exps if keep else None)
            scale = (weight / (temperature * sums)).unsqueeze(1)
            rows = (scale * queries).to(dtype)
            grad_keys = torch.empty_like(keys)
            for part, block, stored in zip(grad_keys.split(size), blocks, kept, strict=True):
                part.copy_((exponentials(block) if stored is None else stored).t() @ rows)
            total = (weight * sums.log()).sum()
            if shift is not None:
                total += (weight * shift.squeeze(1)).sum()
        ctx.save_for_backward(grad_queries.mul_(scale), grad_keys)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        grad_queries, grad_keys = ctx.saved_tensors
        return grad_outputs[0] * grad_queries, grad_outputs[0] * grad_keys, None, None


def distinct(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Return each of ``nodes (B,)`` once and ``(B,)`` its share of them, so that a weighted mean is the mean over all.

    On a GPU all come back with equal shares: how many are left would have to be waited for.
    """
    if nodes.device.type != "cpu":
        return nodes, torch.full(nodes.shape, 1 / len(nodes), device=nodes.device)
    nodes, counts = torch.unique(nodes, return_counts=True)
    return nodes, counts / counts.sum()


def infonce_loss(
    queries: Tensor, keys: Tensor, nodes: Tensor, temperature: float, n_negatives: int | None = None
) -> Tensor:
    r"""InfoNCE between two views of the same nodes (DiffMM, eq. 15 and 16).

    .. math:: -\frac{1}{B} \sum_n \Big[\cos(p_n, q_n)/\tau - \log \sum_{k=1}^{N} \exp(\cos(p_n, q_k)/\tau)\Big]

    Args:
        queries: ``(N, D)`` one view ``p``.
        keys: ``(N, D)`` the other view ``q``.
        nodes: ``(B,)`` rows that are contrasted; repeated ones count as often as they occur.
        temperature: ``tau``.
        n_negatives: how many uniformly drawn rows of ``keys`` are in the denominator beside those of ``nodes``, 0 being
            in-batch negatives (a node that is there twice counts twice); by default all ``N`` rows are, as published.
    """
    if n_negatives is not None:
        drawn = torch.randint(len(keys), (n_negatives,), device=keys.device)
        candidates = unit_rows(keys[torch.cat([nodes, drawn])])  # (B + n_negatives, D)
    else:
        candidates = unit_rows(keys)  # (N, D)
    nodes, weight = distinct(nodes)
    picked = unit_rows(queries[nodes])  # (B, D)
    weight = weight.to(queries.dtype)
    positive = (weight * (picked * unit_rows(keys[nodes])).sum(dim=1)).sum() / temperature
    # Up to a round number, with rows that weigh nothing: the kernels of each new shape are made and kept anew.
    padding = -len(nodes) % _ROUND
    picked, weight = F.pad(picked, (0, 0, 0, padding)), F.pad(weight, (0, padding))
    return _LogSumExp.apply(picked, candidates, weight, temperature) - positive
