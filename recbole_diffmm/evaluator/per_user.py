"""The metrics of every single user, of which RecBole only reports the means."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
from recbole.evaluator import Evaluator
from recbole.evaluator.base_metric import TopkMetric
from recbole.evaluator.collector import DataStruct


class PerUserEvaluator(Evaluator):
    """RecBole's evaluator, which also remembers the hits of the last evaluation.

    The numbers it returns are RecBole's, as Python floats.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._hits: DataStruct | None = None

    def evaluate(self, dataobject: DataStruct) -> dict[str, float]:
        """Return the mean of every metric, keyed like ``recall@20``."""
        self._hits = None
        if "rec.topk" in dataobject:
            # Only the hits are kept: they are (users, K + 1), while a struct may hold the scores of all items.
            self._hits = DataStruct()
            self._hits.set("rec.topk", dataobject.get("rec.topk"))
        return {name: float(value) for name, value in super().evaluate(dataobject).items()}

    def per_user(self) -> dict[str, np.ndarray]:
        """Metrics of the last evaluation, one value a user.

        Returns:
            Arrays ``(users,)`` of float64 keyed like ``recall@20``, in the order of the evaluated loader's users; only
            metrics that are a mean over users and need nothing but the hits, and none after another kind of evaluation.
        """
        if self._hits is None:
            return {}
        values: dict[str, np.ndarray] = {}
        for name, metric in self.metric_class.items():
            # A metric of the user's own may have no per-user form.
            if list(metric.metric_need) != ["rec.topk"] or type(metric).metric_info is TopkMetric.metric_info:
                continue
            hits, n_positives = metric.used_info(self._hits)
            arguments = (hits, n_positives) if len(signature(metric.metric_info).parameters) > 1 else (hits,)
            table = metric.metric_info(*arguments)  # (users, K)
            for k in metric.topk:
                values[f"{name}@{k}"] = np.asarray(table[:, k - 1], dtype=np.float64)
        return values


def write_parquet(path: Path, user_tokens: np.ndarray, values: Mapping[str, np.ndarray]) -> bool:
    """Write one row a user, with the raw user id in the column ``user``.

    Returns:
        False, having written nothing, where pyarrow (the extra ``parquet``) is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        getLogger(__name__).warning(
            'per-user metrics are not written: pyarrow is not installed; run: pip install "recbole-diffmm[parquet]"'
        )
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    columns = {"user": np.asarray(user_tokens).astype(str).tolist(), **values}
    pq.write_table(pa.table(columns), partial)
    partial.replace(path)
    return True
