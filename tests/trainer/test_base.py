"""What a run logs, refuses and keeps besides RecBole's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from recbole.model.general_recommender import BPR
from recbole.trainer import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_diffmm.errors import UserError
from recbole_diffmm.model.diffmm import DiffMM
from recbole_diffmm.trainer import base
from recbole_diffmm.trainer.base import RunTrainer
from recbole_diffmm.trainer.diffmm import DiffMMTrainer
from recbole_diffmm.trainer.state import AttributeWatch
from tests.trainer.small import small_run


def test_recboles_training_loop_is_called_not_copied():
    """The loop, the selection and the metrics stay RecBole's: overriding methods reach them through super()."""
    names = RunTrainer.fit.__code__.co_names
    assert "early_stopping" not in names
    assert "calculate_loss" not in RunTrainer.fit.__code__.co_names
    assert Trainer in RunTrainer.__mro__


def test_losses_phases_and_diagnostics_have_names_everywhere():
    result = small_run("DiffMM", epochs=2, state="INFO")
    phases = {"denoisers", "generation", "ranking", "evaluation", "saving"}
    for entry in result.record["curve"]:
        assert {"bpr", "reg", "contrast", "elbo_smell", "msi_smell"} <= entry["losses"].keys()
        assert entry["seconds"].keys() == phases
        assert all(seconds >= 0 for seconds in entry["seconds"].values())
        assert "smell" in entry["diagnostics"]
    seconds = result.record["seconds"]
    assert phases <= seconds.keys()
    assert seconds["per_epoch"].keys() == phases

    (log,) = Path("log/DiffMM").iterdir()
    (line,) = [line for line in log.read_text().splitlines() if "epoch 1 training" in line]
    for word in ("denoisers", "generation", "ranking", "bpr", "reg", "contrast", "elbo_smell", "smell/distinct_items"):
        assert f"{word}: " in line
    assert "\x1b" not in line

    events = EventAccumulator(f"log_tensorboard/{result.record_path.stem}").Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"Loss/bpr", "Loss/contrast", "Loss/elbo_smell", "Seconds/ranking", "Seconds/evaluation"} <= scalars
    assert "Diagnostics/smell/distinct_items" in scalars
    bpr = [entry["losses"]["bpr"] for entry in result.record["curve"]]
    assert [event.value for event in events.Scalars("Loss/bpr")] == pytest.approx(bpr)


def test_losses_are_means_over_batches(monkeypatch):
    calls = []

    def calculate_loss(self, interaction):
        calls.append(1)
        zero = self.user_embedding.weight.sum() * 0
        return zero + 1.0, zero + len(calls)

    monkeypatch.setattr(BPR, "calculate_loss", calculate_loss)
    monkeypatch.setattr(BPR, "loss_names", ("one", "count"), raising=False)
    result = small_run("BPR", epochs=1)
    n = len(calls)
    assert n > 1
    assert result.record["curve"][0]["losses"] == pytest.approx({"one": 1.0, "count": (n + 1) / 2})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_with_epoch_batch_term_and_rate(value, monkeypatch):
    calls = []

    def calculate_loss(self, interaction):
        calls.append(1)
        zero = self.user_embedding.weight.sum() * 0
        return zero + 1.0, zero + (value if len(calls) == 5 else 1.0)

    monkeypatch.setattr(BPR, "calculate_loss", calculate_loss)
    monkeypatch.setattr(BPR, "loss_names", ("fine", "broken"), raising=False)
    with pytest.raises(UserError) as error:
        small_run("BPR", train_batch_size=256)  # 3 batches an epoch
    message = str(error.value)
    for part in ("broken", str(value), "epoch 1", "batch 1", "learning_rate=0.01"):
        assert part in message
    assert "fine" not in message
    assert "\n" not in message
    assert not list(Path().glob("results/**/*.json"))


def test_a_broken_loss_before_the_ranking_batches_is_named_too(monkeypatch):
    monkeypatch.setattr(DiffMMTrainer, "on_epoch_start", lambda *_: {"elbo_smell": float("nan")})
    with pytest.raises(UserError, match=r"elbo_smell became nan in epoch 0.*learning_rate=0\.01") as error:
        small_run("DiffMM")
    remedy = yaml.safe_load(str(error.value).rpartition(", or ")[2])
    small_run("BPR", epochs=1, **remedy)


def test_real_divergence_is_caught():
    with pytest.raises(UserError, match=r"loss term .* in epoch \d+"):
        small_run("DiffMM", learning_rate=1e30)


@pytest.mark.parametrize("settings", [{}, {"eval_args": {"mode": "uni50"}}])
def test_divergence_in_the_last_step_is_caught_by_the_scores(settings):
    """No loss sees what the last step of the last epoch did."""
    with pytest.raises(UserError, match=r"scores of BPR are not finite, with learning_rate=1e\+30"):
        small_run("BPR", epochs=1, train_batch_size=4096, learning_rate=1e30, **settings)


def test_a_checkpoint_of_another_model_or_dataset_is_refused(repository):
    small_run("BPR", epochs=1)
    (bpr,) = Path("saved").glob("BPR*.pth")
    with pytest.raises(UserError, match="its model is BPR, this run's is LightGCN"):
        base.check_identity(bpr, base.checkpoint.load(bpr), _identity("LightGCN", "toy"))
    with pytest.raises(UserError, match="its dataset is toy, this run's is ml-100k"):
        base.check_identity(bpr, base.checkpoint.load(bpr), _identity("BPR", "ml-100k"))
    with pytest.raises(UserError, match=r"its number of items is 81, this run's is 7"):
        base.check_identity(bpr, base.checkpoint.load(bpr), {**_identity("BPR", "toy"), "n_items": 7})


def _identity(model, dataset):
    return {"model": model, "dataset": dataset, "n_users": None, "n_items": None, "train_hash": None}


def test_evaluate_refuses_another_models_file(monkeypatch):
    small_run("BPR", epochs=1)
    (bpr,) = Path("saved").glob("BPR*.pth")
    evaluate = RunTrainer.evaluate

    def with_file(self, eval_data, load_best_model=True, **kwargs):
        return evaluate(self, eval_data, load_best_model, model_file=str(bpr) if load_best_model else None)

    monkeypatch.setattr(RunTrainer, "evaluate", with_file)
    with pytest.raises(UserError, match="its model is BPR"):
        small_run("LightGCN", epochs=1)


def test_a_checkpoint_of_another_size_is_refused():
    model = torch.nn.Linear(2, 3)
    model.load_other_parameter = lambda value: None
    with pytest.raises(UserError, match=r"c\.pth: does not fit"):
        base.load_parameters(model, {"state_dict": torch.nn.Linear(2, 4).state_dict()}, "c.pth")


def test_the_best_checkpoint_holds_no_optimiser_and_the_best_epochs_graphs():
    result = small_run("DiffMM", epochs=4)
    (path,) = Path("saved").glob("DiffMM*.pth")
    content = base.checkpoint.load(path)
    assert "optimizer" not in content
    assert "optimizers" not in content
    assert content["epoch"] == result.record["best_epoch"]
    assert content["config"]["model"] == "DiffMM"
    assert any("generated" in name for name in content["state_dict"])


def test_phases_add_no_synchronisation_on_the_cpu_and_two_a_phase_elsewhere(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(device))
    trainer = object.__new__(RunTrainer)
    trainer._seconds = {}
    trainer.device = torch.device("cpu")
    with trainer.phase("a"), trainer.phase("b"):
        pass
    assert calls == []
    trainer.device = torch.device("cuda")
    with trainer.phase("a"):
        pass
    assert len(calls) == 2
    assert trainer._seconds.keys() == {"a", "b"}


def test_watch_sees_what_changed_and_nothing_else():
    class Inner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.steps, self.same, self.cached = 0, 1.5, None
            self.graph, self.table = torch.zeros(2), torch.zeros(3)
            self.register_buffer("hidden", torch.zeros(1), persistent=False)

    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

    model = Outer()
    watch = AttributeWatch(model)
    assert watch.changed() == []
    model.eval()
    assert watch.changed() == []
    model.inner.steps += 1
    model.inner.cached = torch.ones(2)
    model.inner.table[0] = 7
    model.inner.hidden += 1
    rows = watch.changed()
    assert {row["name"] for row in rows} == {"steps", "cached", "table", "hidden"}
    assert {row["module"] for row in rows} == {"inner"}
    again = Outer()
    AttributeWatch(again).restore(rows, torch.device("cpu"))
    assert again.inner.steps == 1
    assert again.inner.table.tolist() == [7, 0, 0]
    assert again.inner.hidden.tolist() == [1]
    assert "inner.hidden" not in again.state_dict()


def test_several_processes_are_refused():
    with pytest.raises(UserError, match="several processes"):
        RunTrainer({"single_spec": False}, torch.nn.Linear(1, 1))


def test_diffmm_declares_its_terms():
    assert DiffMM.loss_names == ("bpr", "reg", "contrast")
