"""Our collector collects what RecBole's does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_diffmm import registry
from recbole_diffmm.evaluator.collector import TopCollector, hits
from recbole_diffmm.quick_start import load_splits
from tests.test_counts import NewMemory
from tests.trainer.test_loop import build

N_USERS, N_ITEMS = 40, 90
TOP = ["Recall", "NDCG", "MRR", "Hit", "MAP", "Precision"]
LISTS = ["ItemCoverage", "AveragePopularity", "ShannonEntropy", "GiniIndex", "TailPercentage"]


def config(metrics: list[str], mode: str = "full") -> dict[str, Any]:
    return {"metrics": metrics, "eval_args": {"mode": mode}, "topk": [3, 7], "device": "cpu", "LABEL_FIELD": "label"}


def batch(seed: int) -> tuple[torch.Tensor, Interaction, torch.Tensor, torch.Tensor]:
    """Scores with ties and masked items, and one positive or more of every user, in an order of no meaning."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 12, (N_USERS, N_ITEMS), generator=generator).float()
    scores[torch.rand(scores.shape, generator=generator) < 0.2] = -torch.inf
    positive = torch.rand(scores.shape, generator=generator) < 0.1
    positive[:, seed] = True
    pairs = positive.nonzero()
    users, items = pairs[torch.randperm(len(pairs), generator=generator)].T
    return scores, Interaction({"label": positive.flatten().float()}), users, items


@pytest.mark.parametrize(
    "metrics",
    [TOP, LISTS, TOP + LISTS, [*TOP, "GAUC"], ["AUC", "LogLoss"]],
    ids=["top", "lists", "top and lists", "ranks of all", "scores"],
)
def test_collected_is_what_recbole_collects(metrics: list[str]) -> None:
    ours, recboles = TopCollector(config(metrics)), Collector(config(metrics))
    for seed in range(3):
        ours.eval_batch_collect(*batch(seed))
        recboles.eval_batch_collect(*batch(seed))
    expected, given = recboles.get_data_struct(), ours.get_data_struct()
    assert expected._data_dict
    assert given._data_dict.keys() == expected._data_dict.keys()
    assert not ours.data_struct._data_dict, "the next evaluation starts anew"
    for name, value in expected._data_dict.items():
        found = given.get(name)
        assert found.dtype == value.dtype, name
        assert torch.equal(found, value), name


def test_a_pair_that_is_there_twice_counts_once() -> None:
    items = torch.tensor([[4, 1], [0, 3]])
    positive_u, positive_i = torch.tensor([1, 0, 1, 1]), torch.tensor([3, 2, 3, 4])
    assert hits(items, positive_u, positive_i, n_items=5).tolist() == [[0, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize("mode", ["full", "uni20"])
def test_metrics_are_recboles(mode: str) -> None:
    values = {"eval_args": {"mode": mode}, "metrics": TOP + LISTS, "eval_users_per_batch": 7}
    values |= {"topk": [1, 5], "valid_metric": "Recall@5"}
    trainer, train_data = build("BPR", **values)
    _, valid, _ = load_splits(trainer.config, registry.create_dataset(trainer.config))
    trainer.identify(train_data)
    assert isinstance(trainer.eval_collector, TopCollector)
    found = []
    for kind in (TopCollector, Collector):
        trainer.eval_collector = kind(trainer.config)
        trainer.eval_collector.data_collect(train_data)
        init_seed(0, reproducibility=True)  # which items are sampled
        found.append(Trainer.evaluate(trainer, valid, load_best_model=False))
    assert found[0] == found[1]
    assert 0 < found[0]["recall@1"] < 1


def test_no_matrix_of_users_and_items_is_made() -> None:
    collector = TopCollector(config(TOP + LISTS))
    scores, users = torch.rand(N_USERS, 1000), torch.arange(N_USERS)
    with NewMemory() as memory:
        collector.eval_batch_collect(scores, Interaction({}), users, users)
    assert 0 < memory.bytes < scores.numel() * scores.element_size()


@pytest.mark.parametrize("metrics", [TOP + LISTS, ["GAUC"]])
def test_memory_is_moved_in_proportion_to_the_users(metrics: list[str]) -> None:
    def moved(n_batches: int) -> int:
        collector, given = TopCollector(config(metrics)), batch(0)
        with NewMemory() as memory:
            for _ in range(n_batches):
                collector.eval_batch_collect(*given)
            collector.get_data_struct()
        return memory.bytes

    # RecBole's share grows with the square, to several times what a batch itself makes.
    assert moved(400) <= 10.1 * moved(40)


@pytest.mark.parametrize("metrics", [TOP, ["AUC", "LogLoss"]])
@pytest.mark.parametrize("score", [torch.inf, torch.nan])
def test_scores_that_are_not_finite_are_seen(metrics: list[str], score: float) -> None:
    for value, finite in ((score, False), (1e30, True)):
        collector = TopCollector(config(metrics))
        scores, *rest = batch(0)
        scores[3, 5] = value
        collector.eval_batch_collect(scores, *rest)
        assert bool(collector.largest[0] < torch.inf) is finite
