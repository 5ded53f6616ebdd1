"""RecBole's models that this package runs in another form give RecBole's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from recbole.model import general_recommender
from recbole.utils import init_seed

from recbole_diffmm import registry
from recbole_diffmm.config import Config
from recbole_diffmm.errors import UserError
from recbole_diffmm.quick_start import load_splits

QUIET = {"show_progress": False, "state": "WARNING", "tensorboard": False}


def both(name: str, **values: Any) -> tuple[Any, Any, Any]:
    """The class that runs and RecBole's, built alike, and the data."""
    config = Config(name, "toy", overrides={**QUIET, **values})
    train, _, _ = load_splits(config, registry.create_dataset(config))
    made = []
    for kind in (config.model_class, getattr(general_recommender, name)):
        init_seed(7, True)
        made.append(kind(config, train._dataset))
    assert type(made[0]) is not type(made[1]) and isinstance(made[0], type(made[1]))
    return made[0], made[1], train._dataset


def assert_same_scores(ours: Any, theirs: Any, dataset: Any) -> None:
    users = torch.tensor([3, 1, 3, 59, dataset.user_num - 1])
    all_items = {ours.USER_ID: users}
    scores = ours.full_sort_predict(all_items)
    np.testing.assert_array_equal(scores.cpu().numpy(), theirs.full_sort_predict(all_items).cpu().numpy())
    assert scores.any()
    items = torch.tensor([5, 2, 7, 1, dataset.item_num - 1])
    pairs = {ours.USER_ID: users, ours.ITEM_ID: items}
    np.testing.assert_allclose(ours.predict(pairs).cpu().numpy(), theirs.predict(pairs).cpu().numpy(), rtol=1e-6)
    cells = scores.view(len(users), -1)[torch.arange(len(users)), items]
    np.testing.assert_allclose(ours.predict(pairs).cpu().numpy(), cells.cpu().numpy(), rtol=1e-5)


@pytest.mark.parametrize("values", [{}, {"knn_method": "user"}, {"k": 3, "shrink": 5.0}], ids=str)
def test_itemknn_scores_as_recboles(values: dict[str, Any]) -> None:
    ours, theirs, dataset = both("ItemKNN", **values)
    assert (ours.w != theirs.w).nnz == 0
    assert_same_scores(ours, theirs, dataset)


def test_itemknn_keeps_no_scores_of_all_users() -> None:
    ours, _, dataset = both("ItemKNN")
    kept = [value for value in vars(ours).values() if getattr(value, "shape", None) == (ours.n_users, ours.n_items)]
    assert [matrix.nnz for matrix in kept] == [dataset.inter_num]


@pytest.mark.parametrize("values", [{}, {"hide_item": False}, {"alpha": 0.01, "positive_only": False}], ids=str)
def test_slimelastic_finds_recboles_weights(values: dict[str, Any]) -> None:
    ours, theirs, dataset = both("SLIMElastic", **values)
    np.testing.assert_array_equal(ours.item_similarity.toarray(), theirs.item_similarity.toarray())
    assert ours.item_similarity.nnz
    assert (ours.interaction_matrix != theirs.interaction_matrix.tocsr()).nnz == 0
    assert_same_scores(ours, theirs, dataset)


def test_ease_is_recboles_up_to_the_size_that_it_is_allowed() -> None:
    ours, theirs, dataset = both("EASE", max_items=80)
    np.testing.assert_array_equal(ours.item_similarity, theirs.item_similarity)
    assert_same_scores(ours, theirs, dataset)
    with pytest.raises(
        UserError, match=r"EASE inverts a matrix of all items, 80 here .*max_items=79; .* or take ItemKNN"
    ):
        both("EASE", max_items=79)


@pytest.mark.parametrize("values", [{}, {"center_columns": True}], ids=str)
def test_admmslim_is_recboles_up_to_the_size_that_it_is_allowed(values: dict[str, Any]) -> None:
    ours, theirs, _ = both("ADMMSLIM", max_items=80, **values)
    np.testing.assert_array_equal(ours.item_similarity, theirs.item_similarity)
    with pytest.raises(UserError, match=r"ADMMSLIM inverts a matrix of all items, 80 here .*max_items=79"):
        both("ADMMSLIM", max_items=79, **values)


def test_admmslim_refuses_a_matrix_of_too_many_users_and_items() -> None:
    config = Config("ADMMSLIM", "toy", overrides={**QUIET, "center_columns": True, "max_items": 80})
    many = type("Dataset", (), {"user_num": 1_000_001, "item_num": 81})
    with pytest.raises(
        UserError, match=r"center_columns=true in .* 1,000,000 x 80 here, more than max_items=80 squared"
    ):
        config.model_class(config, many())


@pytest.mark.parametrize("n_users", [1, 7])
def test_racts_targets_are_recboles(n_users: int) -> None:
    ours, theirs, _ = both("RaCT", train_stage="actor_pretrain")
    generator = torch.Generator().manual_seed(n_users)
    scores, relevant, given = (torch.rand(n_users, 50, generator=generator) for _ in range(3))
    relevant, given = (relevant < 0.3).float(), (given < 0.3).float()
    relevant[0] = 0  # its user has nothing to find
    expected = theirs.calculate_ndcg(scores.clone(), relevant, given, 10)
    torch.testing.assert_close(ours.calculate_ndcg(scores.clone(), relevant, given, 10), expected)
    assert expected[0] == 0 and (n_users == 1 or expected.any())
