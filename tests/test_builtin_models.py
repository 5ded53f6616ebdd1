"""Every general recommender of RecBole trains, reloads its best epoch and evaluates."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import pytest
import torch

from recbole_diffmm import registry, run
from recbole_diffmm.cli import main
from recbole_diffmm.errors import UserError
from recbole_diffmm.quick_start import RunResult, load

# What one epoch on 60 users needs that RecBole's defaults for thousands do not have.
SMALL = {
    "DGCF": {"train_batch_size": 64},  # it samples as many users as a batch has items
    "NCL": {"num_clusters": 5, "warm_up_step": 1, "m_step": 1, "epochs": 3},  # clusters from the second epoch on
}
QUICK = {"epochs": 1, "show_progress": False, "state": "ERROR"}
NEEDS = {"NCL": ("faiss", "ncl", {}), "LDiffRec": ("kmeans_pytorch", "ldiffrec", {"n_cate": 2})}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", [name for name in registry.recbole_model_names() if name != "RaCT"])
def test_trains_reloads_and_evaluates(model: str) -> None:
    result = run(model, "toy", overrides={**QUICK, **SMALL.get(model, {})})
    assert result.test
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in result.test.values())
    assert result.record["metrics"]["test"] == result.test
    checkpoint = next(path for path in result.record_path.parent.parent.parent.glob(f"saved/{model}-*.pth"))
    # Nothing but tensors and plain values: the strict reader takes it.
    assert torch.load(checkpoint, weights_only=True)["model"] == model


LEARNERS = ["BPR", "NGCF", "LightGCN", "SGL", "NCL", "SimpleX", "MultiVAE", "DiffRec", "LDiffRec"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", [*LEARNERS, "EASE", "ItemKNN", "SLIMElastic"])
def test_the_boards_models_recover_the_planted_groups(model: str) -> None:
    """Of a user's two test items one was trained on; chance would find it for an eighth of them."""
    settings = {
        **SMALL.get(model, {}),
        "epochs": 40,
        "stopping_step": 40,
        "learning_rate": 0.01,
        "train_batch_size": 16,
        "topk": [10],
        "valid_metric": "Recall@10",
    }
    result = run(model, "toy", overrides={**QUICK, **settings})
    groups = {group["group"]: group for group in result.record["slices"]["items_by_popularity"]}
    assert groups.pop("0")["metrics"]["recall@10"] < 0.5  # never trained on: nothing but luck finds them
    users = sum(group["n_users"] for group in groups.values())
    assert sum(group["n_users"] * group["metrics"]["recall@10"] for group in groups.values()) > 0.5 * users


@pytest.mark.filterwarnings("ignore")
def test_ract_goes_through_its_three_stages() -> None:
    stages = {"pretrain_epochs": 1, "save_step": 1, "metrics_k": 20}
    run("RaCT", "toy", overrides={**QUICK, **stages, "train_stage": "actor_pretrain"})
    pretrained = {"pre_model_path": "saved/RaCT-toy-1.pth"}
    assert "state_dict" in torch.load(pretrained["pre_model_path"], weights_only=True)
    run("RaCT", "toy", overrides={**QUICK, **stages, **pretrained, "train_stage": "critic_pretrain"})
    result = run("RaCT", "toy", overrides={**QUICK, **stages, **pretrained, "train_stage": "finetune"})
    assert result.valid and result.test


@pytest.mark.filterwarnings("ignore")
def test_racts_pretraining_is_tested_by_the_runs_own_checkpoint() -> None:
    """RecBole's file, which the next stage reads, is the same for every seed."""
    stages = {"pretrain_epochs": 3, "save_step": 2, "metrics_k": 20, "train_stage": "actor_pretrain"}

    def go(seed: int, **settings: Any) -> RunResult:
        return run("RaCT", "toy", overrides={**QUICK, **stages, "seed": seed, **settings})

    first, second = go(1), go(2)
    assert first.test != second.test
    for result in (first, second):
        config, model, *_, test = load(f"saved/{result.record_path.stem}.pth")
        trainer = registry.get_trainer_class(config)(config, model)
        assert trainer.evaluate(test, load_best_model=False) == result.test


@pytest.mark.filterwarnings("ignore")
def test_recvaes_loss_is_the_mean_over_its_decoders_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole.model.general_recommender import RecVAE

    losses: list[tuple[bool, float]] = []
    calculate_loss = RecVAE.calculate_loss

    def watched(self: Any, interaction: Any, encoder_flag: bool) -> Any:
        loss = calculate_loss(self, interaction, encoder_flag)
        losses.append((encoder_flag, loss.item()))
        return loss

    monkeypatch.setattr(RecVAE, "calculate_loss", watched)
    (entry,) = run("RecVAE", "toy", overrides={**QUICK, "epochs": 1, "train_batch_size": 20}).record["curve"]
    decoder = [loss for encoder, loss in losses if not encoder]
    assert 1 < len(decoder) < len(losses) and entry["losses"]["loss"] == pytest.approx(sum(decoder) / len(decoder))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ["BPR", "LightGCN", "EASE", "Pop", "ItemKNN", "MultiVAE"])
def test_a_checkpoint_gives_its_runs_test_metrics_again(model: str) -> None:
    result = run(model, "toy", overrides=QUICK)
    checkpoint = next(result.record_path.parent.parent.parent.glob(f"saved/{model}-*.pth"))
    config, network, _, _, _, test = load(checkpoint)
    trainer = registry.get_trainer_class(config)(config, network)
    again = trainer.evaluate(test, load_best_model=False)
    assert {name: float(value) for name, value in again.items()} == pytest.approx(result.test, abs=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", [*LEARNERS, "EASE", "ItemKNN", "SLIMElastic", "Pop"])
def test_the_boards_models_score_alike_twice_and_whatever_batch_came_last(model: str) -> None:
    result = run(model, "toy", overrides={**QUICK, **SMALL.get(model, {})})
    checkpoint = next(result.record_path.parent.parent.parent.glob(f"saved/{model}-*.pth"))
    _, network, dataset, train, _, _ = load(checkpoint)
    users = {network.USER_ID: torch.arange(1, dataset.user_num)}

    def scores() -> torch.Tensor:
        with torch.no_grad():
            return network.eval().full_sort_predict(users).view(dataset.user_num - 1, -1)

    before = scores()
    assert before.unique().numel() > 10
    assert torch.equal(scores(), before)
    if model not in LEARNERS:  # nothing is learned from batches, but by Pop, which learns nothing else
        return
    if model == "NCL":
        network.e_step()  # the trainer clusters before the batches
    for batch, _ in zip(train, range(2), strict=False):
        network.train().calculate_loss(batch)
        assert torch.equal(scores(), before)


@pytest.mark.parametrize("model", NEEDS)
def test_a_missing_extra_is_named_in_one_line(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, extra, settings = NEEDS[model]
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else there(name, *rest)
    )
    with pytest.raises(UserError, match=rf"{model} needs {package}.*recbole-diffmm\[{extra}\]"):
        run(model, "toy", overrides={**QUICK, **settings})
    code = main(["run", f"--model={model}", "--dataset=toy", *(f"--{key}={value}" for key, value in settings.items())])
    output = capsys.readouterr()
    assert code == 2
    assert output.err.count("\n") == 1
    assert f"recbole-diffmm[{extra}]" in output.err


def test_more_clusters_than_users_are_told_in_one_line() -> None:
    pytest.importorskip("faiss", reason="faiss-cpu comes with the extra ncl")
    with pytest.raises(UserError, match=r"num_clusters=1000 in RecBole: .* toy has 61 of one kind; give fewer") as told:
        run("NCL", "toy", overrides={"epochs": 1, "use_gpu": False})
    assert "\n" not in str(told.value)
