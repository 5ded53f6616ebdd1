"""Our collector collects what RecBole's does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector, DataStruct
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_diffmm import registry
from recbole_diffmm.evaluator.collector import TopCollector, hits
from recbole_diffmm.quick_start import load_splits
from tests.test_counts import NewMemory
from tests.trainer.test_loop import Readings, build

N_USERS, N_ITEMS = 40, 90
TOP = ["Recall", "NDCG", "MRR", "Hit", "MAP", "Precision"]
LISTS = ["ItemCoverage", "AveragePopularity", "ShannonEntropy", "GiniIndex", "TailPercentage"]


def config(metrics: list[str], mode: str = "full") -> dict[str, Any]:
    return {"metrics": metrics, "eval_args": {"mode": mode}, "topk": [3, 7], "device": "cpu", "LABEL_FIELD": "label"}


def batch(seed: int) -> tuple[torch.Tensor, Interaction, torch.Tensor, torch.Tensor]:
    """Scores with ties and masked items, and a few positives of most users, in an order of no meaning."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 12, (N_USERS, N_ITEMS), generator=generator).float()
    scores[torch.rand(scores.shape, generator=generator) < 0.2] = -torch.inf
    positive = torch.rand(scores.shape, generator=generator) < 0.02
    pairs = positive.nonzero()
    users, items = pairs[torch.randperm(len(pairs), generator=generator)].T
    return scores, Interaction({"label": positive.flatten().float()}), users, items


@pytest.mark.parametrize(
    "metrics",
    [TOP, LISTS, TOP + LISTS, [*TOP, "GAUC"]],
    ids=["top", "lists", "top and lists", "ranks of all"],
)
def test_collected_is_what_recbole_collects(metrics: list[str]) -> None:
    ours, recboles = TopCollector(config(metrics)), Collector(config(metrics))
    for seeds in (range(3), range(3, 5)):  # two evaluations
        for seed in seeds:
            ours.eval_batch_collect(*batch(seed))
            recboles.eval_batch_collect(*batch(seed))
        same(ours.get_data_struct(), recboles.get_data_struct())


def same(found: DataStruct, expected: DataStruct) -> None:
    assert expected._data_dict
    assert found._data_dict.keys() == expected._data_dict.keys()
    for name, value in expected._data_dict.items():
        assert found.get(name).dtype == value.dtype, name
        assert torch.equal(found.get(name), value), name


def test_single_pairs_are_collected_by_recboles_own_method() -> None:
    ours, recboles = (kind(config(["AUC", "LogLoss"], "labeled")) for kind in (TopCollector, Collector))
    for collector in (ours, recboles):
        for labels in ([1.0, 0.0, 1.0], [0.0]):
            pairs = Interaction({"label": torch.tensor(labels)})
            collector.eval_batch_collect(torch.linspace(0, 1, len(labels)), pairs, None, None)
    same(ours.get_data_struct(), recboles.get_data_struct())


def test_users_without_positives() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert hits(torch.tensor([[4, 1], [0, 3]]), none, none, n_items=5).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_pair_that_is_there_twice_counts_once() -> None:
    items = torch.tensor([[4, 1], [0, 3]])
    positive_u, positive_i = torch.tensor([1, 0, 1, 1]), torch.tensor([3, 2, 3, 4])
    assert hits(items, positive_u, positive_i, n_items=5).tolist() == [[0, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize("mode", ["full", "uni20", "pop20"])
def test_metrics_are_recboles(mode: str) -> None:
    values = {"eval_args": {"mode": mode}, "metrics": TOP + LISTS, "eval_users_per_batch": 7}
    values |= {"topk": [1, 5], "valid_metric": "Recall@5"}
    trainer, train_data = build("BPR", **values)
    _, valid, _ = load_splits(trainer.config, registry.create_dataset(trainer.config))
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
    def made(n_items: int) -> int:
        collector, users = TopCollector(config(TOP + LISTS)), torch.arange(N_USERS)
        scores = torch.rand(N_USERS, n_items)
        with NewMemory() as memory:
            collector.eval_batch_collect(scores, Interaction({}), users, users)
            collector.get_data_struct()
        return memory.bytes

    assert 0 < made(1000) == made(4000)


def test_batches_do_not_make_the_host_wait() -> None:
    collector, given = TopCollector(config(TOP + LISTS)), batch(0)
    with Readings() as readings:
        collector.eval_batch_collect(*given)
    assert not readings.seen


@pytest.mark.parametrize("metrics", [TOP + LISTS, ["GAUC"]])
def test_an_interrupted_evaluation_leaves_nothing(metrics: list[str]) -> None:
    collector, anew = TopCollector(config(metrics)), TopCollector(config(metrics))
    collector.eval_batch_collect(*batch(0))
    collector.begin()
    for each in (collector, anew):
        each.eval_batch_collect(*batch(1))
    assert len(collector.largest) == 1
    same(collector.get_data_struct(), anew.get_data_struct())


def test_the_trainer_begins_anew() -> None:
    trainer, train_data = build("BPR", eval_users_per_batch=7)
    _, valid, _ = load_splits(trainer.config, registry.create_dataset(trainer.config))
    trainer.eval_collector.data_collect(train_data)
    expected = trainer.evaluate(valid, load_best_model=False)
    left = torch.full((3, trainer.model.n_items), torch.inf)  # as of an evaluation that was interrupted
    trainer.eval_collector.eval_batch_collect(left, Interaction({}), torch.arange(3), torch.arange(3))
    assert trainer.evaluate(valid, load_best_model=False) == expected
    assert len(trainer.evaluator.hits) == len(valid.uid_list)


def test_memory_is_moved_in_proportion_to_the_users() -> None:
    def moved(n_batches: int) -> int:
        collector, given = TopCollector(config(TOP + LISTS)), batch(0)
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
