"""A metric of one's own, from its function to a run that selects by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.evaluator import register
from recbole.evaluator.base_metric import TopkMetric
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.metrics import Recall

from recbole_diffmm.errors import UserError
from recbole_diffmm.evaluator.metrics import register_metric
from recbole_diffmm.evaluator.per_user import PerUserEvaluator


def first_hit(hits: np.ndarray) -> np.ndarray:
    """Per user, 1 at every cut-off if the first item is a hit; ``(users, K)`` to ``(users, K)``."""
    return np.repeat(hits[:, :1], hits.shape[1], axis=1).astype(float)


class FirstHit(TopkMetric):
    def metric_info(self, hits):
        return first_hit(hits)

    def calculate_metric(self, dataobject):
        hits, _ = self.used_info(dataobject)
        return self.topk_result("firsthit", self.metric_info(hits))


@pytest.fixture
def registered():
    yield register_metric(FirstHit)
    for table in (register.metrics_dict, register.metric_types, register.metric_information):
        table.pop("firsthit")


def test_run_selects_by_a_registered_metric(registered) -> None:
    from recbole_diffmm.quick_start import run

    settings = {"metrics": ["Recall", "FirstHit"], "topk": [5], "valid_metric": "FirstHit@5", "epochs": 2}
    result = run("BPR", "toy", overrides={**settings, "show_progress": False})
    assert set(result.test) == {"recall@5", "firsthit@5"}
    assert 0 <= result.test["firsthit@5"] <= 1
    assert result.record["selection"] == "validation FirstHit@5"


def test_registering_twice_is_harmless_but_a_taken_name_is_refused(registered) -> None:
    assert register_metric(FirstHit) is FirstHit
    taken = type("RECALL", (FirstHit,), {})
    with pytest.raises(UserError, match="already there"):
        register_metric(taken)
    assert register.metrics_dict["recall"] is Recall


def test_a_metric_without_per_user_values_is_left_out_of_them() -> None:
    class OnlyMeans(TopkMetric):
        def calculate_metric(self, dataobject):
            return {}

    register_metric(OnlyMeans)
    try:
        evaluator = PerUserEvaluator({"metrics": ["Recall", "OnlyMeans"], "topk": [2], "metric_decimal_place": 6})
        struct = DataStruct()
        struct.set("rec.topk", torch.tensor([[1, 0, 1], [0, 0, 1]]))
        evaluator.evaluate(struct)
        assert set(evaluator.per_user()) == {"recall@2"}
    finally:
        for table in (register.metrics_dict, register.metric_types, register.metric_information):
            table.pop("onlymeans")
