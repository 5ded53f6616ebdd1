"""The metrics of every single user, of which RecBole only reports the means."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from inspect import signature
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
from recbole.evaluator import Evaluator
from recbole.evaluator.base_metric import TopkMetric
from recbole.evaluator.collector import DataStruct
from torch import Tensor


class PerUserEvaluator(Evaluator):
    """RecBole's evaluator, which also remembers the hits of the last evaluation.

    The numbers it returns are RecBole's, as Python floats.

    Attributes:
        hits: ``(users, K)`` of the last evaluation and, in one column more, the users' numbers of positives.
        items: ``(users, K)`` what was ranked first, where it was asked for.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.hits: Tensor | None = None
        self.items: Tensor | None = None

    def evaluate(self, dataobject: DataStruct) -> dict[str, float]:
        """Return the mean of every metric, keyed like ``recall@20``."""
        # Only these are kept: they are (users, K + 1) and (users, K), while a struct may hold the scores of all items.
        self.hits = dataobject.get("rec.topk") if "rec.topk" in dataobject else None
        self.items = dataobject.get("rec.items") if "rec.items" in dataobject else None
        return {name: float(value) for name, value in super().evaluate(dataobject).items()}

    def per_user(self, hits: Tensor | None = None) -> dict[str, np.ndarray]:
        """One value a user of every metric that is a mean over users and needs nothing but hits.

        Args:
            hits: ``(users, K + 1)`` as :attr:`hits` has them; those of the last evaluation by default.

        Returns:
            Arrays ``(users,)`` of float64 keyed like ``recall@20``, in the order of the evaluated loader's users; none
            after another kind of evaluation than a ranking of all items.
        """
        hits = self.hits if hits is None else hits
        if hits is None:
            return {}
        struct = DataStruct()
        struct.set("rec.topk", hits)
        values: dict[str, np.ndarray] = {}
        for name, metric in self.metric_class.items():
            # A metric of the user's own may have no per-user form.
            if list(metric.metric_need) != ["rec.topk"] or type(metric).metric_info is TopkMetric.metric_info:
                continue
            found, n_positives = metric.used_info(struct)
            arguments = (found, n_positives) if len(signature(metric.metric_info).parameters) > 1 else (found,)
            table = metric.metric_info(*arguments)  # (users, K)
            for k in metric.topk:
                values[f"{name}@{k}"] = np.asarray(table[:, k - 1], dtype=np.float64)
        return values


def write_parquet(
    path: Path, user_tokens: np.ndarray, values: Mapping[str, np.ndarray], history: np.ndarray
) -> dict[str, Any] | None:
    """Write one row a user: the raw id as ``user``, the number of training interactions as ``history``, the metrics.

    Returns:
        What a record says of the file; None, nothing being written, where pyarrow (the extra ``leaderboard``) is not
        installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        getLogger(__name__).warning(
            'per-user metrics are not written: pyarrow is not installed; run: pip install "recbole-diffmm[leaderboard]"'
        )
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    users = np.asarray(user_tokens).astype(str).tolist()
    pq.write_table(pa.table({"user": users, "history": history, **values}), partial, compression="zstd")
    partial.replace(path)
    return {
        "file": path.name,
        "n_users": len(users),
        "users_hash": hashlib.sha256("\n".join(users).encode()).hexdigest(),
        "hash": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
