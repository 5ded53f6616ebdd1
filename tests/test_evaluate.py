"""A checkpoint evaluated under other settings than it was trained with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from recbole_diffmm import registry
from recbole_diffmm.cli import main
from recbole_diffmm.errors import UserError
from recbole_diffmm.quick_start import load
from tests.trainer.small import small_run


def test_the_protocol_of_a_checkpoint_can_be_changed() -> None:
    result = small_run("BPR", protocol="paper", epochs=3)
    path = Path("saved") / f"{result.record_path.stem}.pth"
    hidden = {}
    for protocol in ("paper", "recbole"):
        config, model, _, _, valid_data, test_data = load(path, {"protocol": protocol})
        hidden[protocol] = sum(len(items) for items in test_data.uid2history_item if items is not None)
        if protocol == "paper":
            trainer = registry.get_trainer_class(config)(config, model)
            assert trainer.evaluate(test_data, load_best_model=False) == result.test
    n_valid = len(valid_data._dataset.inter_feat)
    assert hidden["recbole"] == hidden["paper"] + n_valid, "toy's users all have validation and test items"


def test_the_graph_that_scores_can_be_changed() -> None:
    result = small_run("DiffMM", epochs=2, denoiser_hidden_sizes=[8])
    path = Path("saved") / f"{result.record_path.stem}.pth"
    scores = {}
    for graph in ("full", "dropped"):
        _, model, dataset, *_ = load(path, {"eval_graph": graph})
        scores[graph] = model.full_sort_predict({model.USER_ID: torch.arange(1, dataset.user_num)})
    assert not torch.allclose(scores["full"], scores["dropped"])


def test_unknown_settings_are_refused() -> None:
    result = small_run("BPR", epochs=1)
    path = Path("saved") / f"{result.record_path.stem}.pth"
    with pytest.raises(UserError, match=r"unknown key .protocl..*did you mean protocol"):
        load(path, {"protocl": "paper"})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"topk": "abc"}, "topk in the command line must be a list"),
        ({"topk": [0]}, "positive whole numbers"),
        ({"topk": [5]}, "valid_metric is Recall@20"),
        ({"topk": [20, 500]}, "asks for 500 items"),
        ({"protocol": "papr"}, "did you mean paper"),
        ({"metrics": ["Recal"]}, "Recal"),
        ({"metrics": [1]}, "metrics' names"),
        ({"eval_graph": "half"}, "eval_graph in the command line"),
        ({"steps": 5.0}, "steps in the command line"),
        ({"eval_args": {"mod": "full"}}, "eval_args.mod"),
        ({"model": "BPR"}, "cannot differ"),
        ({"dataset": "ml-100k"}, "cannot differ"),
    ],
)
def test_settings_of_a_checkpoint_are_checked_like_a_runs(settings, told, finished: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(finished, settings)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoints_data_may_lie_elsewhere(finished: Path) -> None:
    config, _, dataset, *_ = load(finished, {"data_path": "elsewhere"})
    assert (config["data_path"], dataset.item_num) == ("elsewhere/toy", 81)


def test_settings_of_a_checkpoint_are_completed_like_a_runs(finished: Path) -> None:
    config, *_, test_data = load(finished, {"topk": 5, "metrics": "Hit", "valid_metric": "Hit@5", "use_gpu": False})
    assert (config["topk"], config["metrics"]) == ([5], ["Hit"])
    batch = load(finished, {"eval_users_per_batch": 10})[0]["eval_batch_size"]
    assert batch == 10 * 81 and config["eval_batch_size"] != batch
    assert len(test_data.uid_list) == 60


@pytest.fixture
def finished() -> Path:
    return Path("saved") / f"{small_run('DiffMM', epochs=1, denoiser_hidden_sizes=[8]).record_path.stem}.pth"


def test_metrics_that_count_training_items_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = ["Recall", "ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage"]
    result = small_run("BPR", epochs=1, metrics=metrics)
    capsys.readouterr()
    assert main(["evaluate", f"saved/{result.record_path.stem}.pth"]) == 0
    valid, test = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert test == {"test": pytest.approx(result.test)} and valid == {"valid": pytest.approx(result.valid)}


@pytest.mark.parametrize(
    ("model", "setting", "told"),
    [
        ("BPR", "--embedding_size=-5", "cannot be built with its settings"),
        ("ItemKNN", "--knn_method=foo", "cannot be built with its settings"),
        ("MultiVAE", "--dropout_prob=5", "cannot be scored with its settings"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_settings_that_a_model_fails_with_are_told(
    model: str, setting: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = small_run(model, epochs=1)
    capsys.readouterr()
    assert main(["evaluate", f"saved/{result.record_path.stem}.pth", setting]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{model} {told}" in line


def test_settings_that_move_scores_do_so() -> None:
    """RecBole's LightGCN keeps the rows that it has propagated in its checkpoint."""
    path = Path("saved") / f"{small_run('LightGCN', epochs=2).record_path.stem}.pth"
    scores = []
    for layers in (None, 2, 1):
        _, model, dataset, *_ = load(path, {} if layers is None else {"n_layers": layers})
        users = {model.USER_ID: torch.arange(1, dataset.user_num)}
        scores.append(model.full_sort_predict(users))
    assert torch.equal(scores[0], scores[1]) and not torch.allclose(scores[1], scores[2])


def test_looking_writes_nothing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert main(["evaluate", str(finished)]) == 0
    assert "recall@20" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_the_state_of_an_unfinished_run_is_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: int, score: float) -> None:
        if epoch == 1:
            raise Stop

    with pytest.raises(Stop):
        small_run("BPR", epochs=3, on_epoch=stop)
    (state,) = Path("saved").glob("*.resume.pth")
    assert main(["evaluate", str(state)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(state) in line and "--resume=true" in line
