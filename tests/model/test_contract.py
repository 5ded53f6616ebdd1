"""What every model of this package owes its users, checked over all of them on data whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.utils import ModelType

from recbole_diffmm import registry
from recbole_diffmm.data import toy
from recbole_diffmm.quick_start import RunResult, load, run

MODELS = registry.own_model_names()
MODALITIES = (("smell",), ("look", "smell"), ("look", "sound", "smell"))
# What suits 60 users, alike for all; the rest of a model's configuration is what it ships with.
SMALL = {
    "train_batch_size": 64,
    "epochs": 60,
    "stopping_step": 60,
    "learning_rate": 0.002,
    "topk": [5, 10],
    "valid_metric": "Recall@10",
    "show_progress": False,
    "state": "WARNING",
    "tensorboard": False,
}
UNTRAINED = {name for name in MODELS if registry.get_model(name).type == ModelType.TRADITIONAL}
TRAINED = [name for name in MODELS if name not in UNTRAINED]
MULTIMODAL = [name for name in MODELS if registry.is_multimodal(registry.get_model(name))]
FIRST_TERMS = {"bpr", "ranking", "reconstruction"}  # the term of a loss that ranks


@dataclass(frozen=True)
class Trained:
    """A run on the toy dataset and what its checkpoint gives back."""

    result: RunResult
    folder: Path
    settings: dict[str, Any]

    def reload(self) -> tuple[Any, ...]:
        (checkpoint,) = (self.folder / "saved").glob("*.pth")
        return load(checkpoint)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Train a model on some modalities, once per combination."""

    @cache
    def trained(model: str, modalities: tuple[str, ...]) -> Trained:
        folder = tmp_path_factory.mktemp(model)
        settings = {
            **SMALL,
            "use_modalities": list(modalities),
            "data_path": str(folder / "dataset"),
            "checkpoint_dir": str(folder / "saved"),
            "results_dir": str(folder / "results"),
            "log_dir": str(folder / "log"),
        }
        return Trained(run(model, "toy", config_dict=settings), folder, settings)

    return trained


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("modalities", MODALITIES, ids=len)
@pytest.mark.parametrize("model", TRAINED)
def test_loss_is_finite_and_falls(model: str, modalities: tuple[str, ...], train: Any) -> None:
    curve = train(model, modalities).result.record["curve"]
    losses = curve[0]["losses"]
    term = next(iter(FIRST_TERMS & set(losses)), next(iter(losses)))  # a model with one loss need not name it
    assert curve[-1]["losses"][term] < 0.9 * curve[0]["losses"][term]
    assert all(torch.isfinite(torch.tensor(list(epoch["losses"].values()))).all() for epoch in curve)


@pytest.mark.parametrize("modalities", MODALITIES, ids=len)
def test_recovers_the_planted_groups(model: str, modalities: tuple[str, ...], train: Any) -> None:
    """Of a user's two test items one was trained on; chance would find it for an eighth of them."""
    groups = train(model, modalities).result.record["slices"]["items_by_popularity"]
    found = {group["group"]: (group["n_users"], group["metrics"]["recall@10"]) for group in groups}
    assert found.pop("0")[0] == 60
    bound = 0.75 if model in MULTIMODAL else 0.6  # features help
    assert sum(users * recall for users, recall in found.values()) > bound * sum(users for users, _ in found.values())


def test_items_never_trained_on_are_ranked_by_their_features(model: str, train: Any) -> None:
    _, loaded, dataset, train_data, _, _ = train(model, MODALITIES[-1]).reload()
    users = torch.arange(1, dataset.user_num)
    scores = loaded.full_sort_predict({loaded.USER_ID: users}).detach()
    seen = torch.unique(train_data._dataset.inter_feat[dataset.iid_field])
    unseen = [item for item in range(1, dataset.item_num) if item not in set(seen.tolist())]
    group = torch.tensor([toy.item_group(int(dataset.id2token("item_id", item)[-2:])) for item in unseen])
    own = torch.tensor([toy.user_group(int(dataset.id2token("user_id", user)[-2:])) for user in users.tolist()])
    best = group[scores[:, unseen].argmax(dim=1)]
    assert len(unseen) == toy.N_GROUPS * toy.UNSEEN_PER_GROUP
    share = (best == own).float().mean()
    if registry.get_model(model).ranks_cold_items:
        assert share > 0.8
        return
    assert share < 0.5, "it cannot know them"
    for name in getattr(loaded, "modality_names", ()):
        with loaded.without(name):  # it does not look at the features when it scores
            assert torch.equal(loaded.full_sort_predict({loaded.USER_ID: users}), scores)


def test_predict_is_a_cell_of_full_sort_predict(model: str, train: Any) -> None:
    _, loaded, dataset, *_ = train(model, MODALITIES[-1]).reload()
    users = torch.arange(1, dataset.user_num)
    items = torch.arange(1, dataset.item_num)
    scores = loaded.full_sort_predict({loaded.USER_ID: users}).view(len(users), -1)
    pairs = torch.cartesian_prod(users, items)
    cells = loaded.predict({loaded.USER_ID: pairs[:, 0], loaded.ITEM_ID: pairs[:, 1]})
    torch.testing.assert_close(cells.view(len(users), len(items)), scores[:, 1:], rtol=1e-5, atol=1e-5)


def test_scores_do_not_alias_a_cache(model: str, train: Any) -> None:
    """RecBole writes minus infinity into what `full_sort_predict` returns."""
    _, loaded, *_ = train(model, MODALITIES[-1]).reload()
    users = {loaded.USER_ID: torch.tensor([1, 2])}
    before = loaded.full_sort_predict(users).clone()
    loaded.full_sort_predict(users).fill_(-torch.inf)
    assert torch.equal(loaded.full_sort_predict(users), before)


def test_pad_is_never_recommended(model: str, train: Any) -> None:
    from recbole.utils.case_study import full_sort_topk

    trained = train(model, MODALITIES[-1])
    config, loaded, *_, test_data = trained.reload()
    users = test_data.uid_list.numpy()
    _, top = full_sort_topk(users, loaded, test_data, k=10, device=config["device"])
    assert (top > 0).all()
    assert top.shape == (len(users), 10)


def test_reloaded_checkpoint_gives_the_recorded_numbers(model: str, train: Any) -> None:
    trained = train(model, MODALITIES[-1])
    config, loaded, _, _, valid_data, test_data = trained.reload()
    trainer = registry.get_trainer_class(config)(config, loaded)
    assert trainer.evaluate(test_data, load_best_model=False) == trained.result.test
    assert trainer.evaluate(valid_data, load_best_model=False) == trained.result.valid


def test_the_same_seed_gives_the_same_scores(model: str, train: Any, tmp_path: Path) -> None:
    trained = train(model, MODALITIES[0])
    _, first, dataset, *_ = trained.reload()
    folders = {"checkpoint_dir": str(tmp_path / "saved"), "results_dir": str(tmp_path / "results")}
    again = run(model, "toy", config_dict={**trained.settings, **folders})
    _, second, *_ = Trained(again, tmp_path, {}).reload()
    users = {first.USER_ID: torch.arange(1, dataset.user_num)}
    assert torch.equal(first.full_sort_predict(users), second.full_sort_predict(users))
    assert again.test == trained.result.test


@pytest.mark.parametrize("model", MULTIMODAL)
def test_a_modality_is_only_a_key(model: str, train: Any, tmp_path: Path) -> None:
    """A name that any `nn.Module` has as a method must not matter, nor the order of words in it."""
    trained = train(model, MODALITIES[0])
    renamed = {"modalities": {"type": {"features": "smell.npy", "ids": "smell.ids"}}, "use_modalities": ["type"]}
    folders = {"checkpoint_dir": str(tmp_path / "saved"), "results_dir": str(tmp_path / "results")}
    assert run(model, "toy", config_dict={**trained.settings, **renamed, **folders}).test == trained.result.test


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("model", TRAINED)
def test_a_stopped_training_goes_on_as_if_it_had_not_been(model: str, tmp_path: Path) -> None:
    """What an epoch begins with, such as a graph that is drawn, must come again as it would have come."""

    def stop(epoch: int, score: float) -> None:
        if epoch == 1:
            raise _Stopped

    def settings(name: str) -> dict[str, Any]:
        places = {key: str(tmp_path / name / key) for key in ("checkpoint_dir", "results_dir", "log_dir")}
        return {**SMALL, "epochs": 4, "data_path": str(tmp_path / "dataset"), **places}

    whole = run(model, "toy", config_dict=settings("whole"))
    with pytest.raises(_Stopped):
        run(model, "toy", config_dict=settings("stopped"), on_epoch=stop)
    resumed = run(model, "toy", config_dict={**settings("stopped"), "resume": True})
    losses = [[epoch["losses"] for epoch in result.record["curve"]] for result in (whole, resumed)]
    assert len(losses[0]) == 4 and losses[0] == losses[1]
    assert resumed.test == whole.test
