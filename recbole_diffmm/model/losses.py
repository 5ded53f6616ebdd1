"""Losses that several recommenders share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_diffmm.precision import operand_dtype


def bpr_loss(pos_score: Tensor, neg_score: Tensor, batch_size: int) -> Tensor:
    r"""Bayesian personalised ranking, :math:`-\frac{1}{B}\sum \log \sigma(s^+ - s^-)` (UAI 2009; DiffMM, eq. 18).

    ``batch_size`` is the nominal ``B``: a last, smaller batch is divided by it too, as the reference does.
    """
    return -F.logsigmoid(pos_score - neg_score).sum() / batch_size


def squared_norm(*tensors: Tensor) -> Tensor:
    """Sum of the squared Frobenius norms."""
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()


# Entries of the one buffer that InfoNCE works in: on the CPU it should stay in the cache between its passes.
_BUFFER_ENTRIES = {"cpu": 1 << 21}
_BUFFER_ENTRIES_ELSEWHERE = 1 << 27
_ROUND = 64  # number of queries that a block is a multiple of
# Logits within plus and minus this are exponentiated as they are; beyond it a row's largest is taken off first.
_SAFE_LOGIT = 60.0


class _LogSumExp(torch.autograd.Function):
    r"""``sum_b w_b log sum_k exp(q_b . k / tau)`` for rows of unit norm, in blocks of queries.

    A block's gradients are computed while its exponentials are at hand, so that no ``(B, N)`` matrix is ever kept: with
    :math:`E_{bk} = \exp(q_b k / \tau)`, :math:`s_b = w_b / (\tau \sum_k E_{bk})`, they are
    :math:`\mathrm{diag}(s) E K` for the queries and :math:`E^T \mathrm{diag}(s) Q` for the keys ``K (N, D)``.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, weight: Tensor, temperature: float) -> Tensor:
        dtype = operand_dtype(queries)
        entries = _BUFFER_ENTRIES.get(queries.device.type, _BUFFER_ENTRIES_ELSEWHERE)
        rows = max(_ROUND, entries // max(len(keys), 1) // _ROUND * _ROUND)
        with torch.autocast(queries.device.type, enabled=False):
            operands = keys.to(dtype)
            grad_queries, grad_keys = torch.empty_like(queries), torch.zeros_like(keys)
            total = queries.new_zeros(())
            for start in range(0, len(queries), rows):
                block = slice(start, start + rows)
                q, w = queries[block], weight[block]
                logits = (q / temperature).to(dtype) @ operands.t()  # (b, N)
                if 1 / temperature > _SAFE_LOGIT:
                    largest = logits.amax(dim=1)
                    logits.sub_(largest.unsqueeze(1))
                    total += (w * largest).sum()
                exps = logits.exp_()
                sums = exps.sum(dim=1).to(q.dtype)  # added up in float32, whatever the operands
                total += (w * sums.log()).sum()
                scale = (w / (temperature * sums)).unsqueeze(1)
                grad_queries[block] = scale * (exps @ operands)
                grad_keys += exps.t() @ (scale * q).to(dtype)
        ctx.save_for_backward(grad_queries, grad_keys)
        return total

    @staticmethod
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
            in-batch negatives; by default all ``N`` rows are, as published.
    """
    if n_negatives is not None:
        drawn = torch.randint(len(keys), (n_negatives,), device=keys.device)
        candidates = F.normalize(keys[torch.cat([nodes, drawn])])  # (B + n_negatives, D)
    else:
        candidates = F.normalize(keys)  # (N, D)
    nodes, weight = distinct(nodes)
    picked = F.normalize(queries[nodes])  # (B, D)
    weight = weight.to(queries.dtype)
    positive = (weight * (picked * F.normalize(keys[nodes])).sum(dim=1)).sum() / temperature
    # Up to a round number, with rows that weigh nothing: the kernels of each new shape are made and kept anew.
    padding = -len(nodes) % _ROUND
    picked, weight = F.pad(picked, (0, 0, 0, padding)), F.pad(weight, (0, padding))
    return _LogSumExp.apply(picked, candidates, weight, temperature) - positive
