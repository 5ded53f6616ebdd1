"""Slices, against plain loops over users and items."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_diffmm.config import Config
from recbole_diffmm.evaluator import slices
from recbole_diffmm.evaluator.per_user import PerUserEvaluator
from recbole_diffmm.evaluator.slices import Lists
from recbole_diffmm.model.base import MultimodalRecommender
from recbole_diffmm.quick_start import load
from tests.trainer.small import SETTINGS, small_run

K = 20
GROUPS = {"0": (0, 0), "1-4": (1, 4), "5-9": (5, 9), "10-19": (10, 19), "20-49": (20, 49), "50+": (50, 10**9)}


@pytest.fixture
def lists() -> Lists:
    generator = torch.Generator().manual_seed(3)
    n_users, n_items = 41, 90
    users = torch.randperm(n_users - 1, generator=generator)[:30] + 1
    items = torch.stack([torch.randperm(n_items - 1, generator=generator)[:K] + 1 for _ in users])
    # item i has about 60 / i training interactions, so that every group has items; some have none
    history = [(1 + (i * 7 + j) % (n_users - 1), i) for i in range(1, 60) for j in range(min(60 // i, n_users - 1))]
    history += [(1, i) for i in range(30, 59)] + [(u, 1) for u in range(1, n_users)]
    positives = [(int(u), int(i)) for u in users for i in torch.randperm(n_items - 1, generator=generator)[:4] + 1]
    has = {user: {i for u, i in positives if u == user} for user in users.tolist()}
    hits = torch.tensor(
        [[int(i in has[u]) for i in row] + [len(has[u])] for u, row in zip(users.tolist(), items.tolist(), strict=True)]
    )
    pairs = torch.tensor(sorted(set(history))).t()
    return Lists(users, items, hits, torch.tensor(positives).t(), pairs, n_users, n_items)


@pytest.fixture
def evaluator() -> PerUserEvaluator:
    return PerUserEvaluator(Config("BPR", "toy", config_dict=SETTINGS))


def _group(count: int) -> str:
    return next(name for name, (low, high) in GROUPS.items() if low <= count <= high)


def test_users_by_history(lists, evaluator):
    history = [len({i for u, i in lists.history.t().tolist() if u == user}) for user in lists.users.tolist()]
    expected: dict[str, list[float]] = {}
    for row, count in zip(lists.hits.tolist(), history, strict=True):
        expected.setdefault(_group(count), []).append(sum(row[:10]) / row[-1])
    found = {part["group"]: part for part in slices.users_by_history(lists, evaluator.per_user)}
    assert found.keys() == expected.keys()
    assert len(found) > 1
    for name, values in expected.items():
        assert found[name]["n_users"] == len(values)
        assert found[name]["metrics"]["recall@10"] == pytest.approx(np.mean(values))


def test_items_by_popularity_count_only_their_own_test_items_but_rank_all(lists, evaluator):
    counts = np.zeros(lists.n_items, dtype=int)
    for _, item in lists.history.t().tolist():
        counts[item] += 1
    recall: dict[str, list[float]] = {}
    reciprocal: dict[str, list[float]] = {}
    for user, ranked in zip(lists.users.tolist(), lists.items.tolist(), strict=True):
        wanted = [i for u, i in lists.positives.t().tolist() if u == user]
        for name in GROUPS:
            own = {i for i in wanted if _group(counts[i]) == name}
            if own:
                recall.setdefault(name, []).append(len(own & set(ranked)) / len(own))
                ranks = [1 / rank for rank, i in enumerate(ranked, 1) if i in own]
                reciprocal.setdefault(name, []).append(max(ranks, default=0.0))
    found = {part["group"]: part for part in slices.items_by_popularity(lists, evaluator.per_user)}
    assert found.keys() == recall.keys()
    assert "0" in found  # cold items
    for name, values in recall.items():
        assert found[name]["n_users"] == len(values)
        assert found[name]["n_items"] == sum(_group(count) == name for count in counts[1:])
        assert found[name]["metrics"]["recall@20"] == pytest.approx(np.mean(values))
        assert found[name]["metrics"]["mrr@20"] == pytest.approx(np.mean(reciprocal[name]))


def test_what_lists_are_made_of(lists):
    config = Config("BPR", "toy", config_dict=SETTINGS)
    found = slices.beyond_accuracy(lists, config)
    top = lists.items[:, :10].flatten().tolist()
    counts = np.sort([top.count(item) for item in range(1, lists.n_items)])  # PAD is no item
    n = len(counts)
    gini = sum((2 * i - n - 1) * count for i, count in enumerate(counts, 1)) / (n * counts.sum())
    assert found["itemcoverage@10"] == pytest.approx(np.mean(counts > 0), abs=1e-6)
    assert found["giniindex@10"] == pytest.approx(gini, abs=1e-6)
    popularity = torch.bincount(lists.history[1], minlength=lists.n_items)
    expected = np.mean([popularity[item].item() for item in top])
    assert found["averagepopularity@10"] == pytest.approx(expected, abs=1e-6)


def test_coverage_of_the_items_with_and_without_a_modality(lists):
    observed = torch.arange(lists.n_items) % 3 == 0  # PAD among them
    found = slices.coverage_by_modality(lists, {"smell": observed, "all": torch.ones(lists.n_items)}, [10])
    recommended = set(lists.items[:, :10].flatten().tolist())
    with_it = [i for i in range(1, lists.n_items) if i % 3 == 0]
    without = [i for i in range(1, lists.n_items) if i % 3]
    expected = {
        "observed": {"itemcoverage@10": len(recommended & set(with_it)) / len(with_it)},
        "missing": {"itemcoverage@10": len(recommended & set(without)) / len(without)},
    }
    assert {k: pytest.approx(v) for k, v in expected.items()} == found["smell"]
    assert found["all"].keys() == {"observed"}


def test_a_run_records_its_slices_and_scores_without_each_modality():
    result = small_run("DiffMM", epochs=3)
    record = result.record
    parts = record["slices"]
    assert sum(part["n_users"] for part in parts["users_by_history"]) == record["per_user"]["n_users"]
    weighted = sum(part["n_users"] * part["metrics"]["recall@20"] for part in parts["users_by_history"])
    assert weighted / record["per_user"]["n_users"] == pytest.approx(result.test["recall@20"], abs=1e-6)
    assert parts["without_modality"].keys() == {"look", "sound", "smell"}
    assert record["metrics"]["test"] not in parts["without_modality"].values()
    assert record["coverage_by_modality"].keys() == {"look", "sound", "smell"}
    assert record["modalities"] == ["look", "sound", "smell"]
    # scoring without a modality is what a loaded checkpoint gives without it, and leaves nothing behind
    _, model, _, _, _, test = load(f"saved/{record['name']}.pth")
    batch = next(iter(test))[0]
    before = model.full_sort_predict(batch)
    with model.without("smell"):
        during = model.full_sort_predict(batch)
    assert not torch.equal(before, during)
    assert torch.equal(before, model.full_sort_predict(batch))


@pytest.mark.parametrize("names", [["look"], ["look", "smell"]])
def test_without_takes_the_modality_out_of_the_fusion(names):
    """Left out, it is as if its weight were zero: features, generated graph and share of the softmax."""
    record = small_run("DiffMM", epochs=2, use_modalities=names).record
    _, model, _, _, _, test = load(f"saved/{record['name']}.pth")
    assert isinstance(model, MultimodalRecommender)
    batch = next(iter(test))[0]
    with model.without(names[-1]):
        without = model.full_sort_predict(batch)
    if len(names) > 1:
        with torch.no_grad():
            model.modal_weight[-1] = -torch.inf
            model.get_buffer(f"features_{names[-1]}").zero_()
        model.invalidate()
        assert torch.allclose(model.full_sort_predict(batch), without, atol=1e-6)
    assert torch.isfinite(without).all()
