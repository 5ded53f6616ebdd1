"""How a metric of one's own gets beside RecBole's: a function over per-user hits, and a thin class that names it."""

from __future__ import annotations

from typing import TypeVar

from recbole.evaluator import register
from recbole.evaluator.base_metric import AbstractMetric

from recbole_diffmm.errors import UserError

MetricClass = TypeVar("MetricClass", bound=type[AbstractMetric])


def register_metric(metric: MetricClass) -> MetricClass:
    """Make a metric usable by its class name in ``metrics`` and ``valid_metric``; works as a class decorator.

    RecBole collects its metrics once, from a single module of its own, into the tables that this adds to.

    Raises:
        UserError: There is another metric of that name, in any case of letters.
    """
    name = metric.__name__.lower()
    known = register.metrics_dict.get(name)
    if known is not None and known is not metric:
        raise UserError(f"metric {metric.__name__} is already there as {known.__module__}.{known.__name__}; rename it")
    register.metrics_dict[name] = metric
    register.metric_types[name] = metric.metric_type
    register.metric_information[name] = metric.metric_need
    if metric.smaller and name not in register.smaller_metrics:
        register.smaller_metrics.append(name)
    return metric
