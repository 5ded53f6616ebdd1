"""Runs from their arguments to their record."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.quick_start import run_recbole

from recbole_diffmm import provenance, quick_start
from recbole_diffmm import record as records
from recbole_diffmm.compare import render
from recbole_diffmm.config import Config
from recbole_diffmm.data.bundled import prepare
from recbole_diffmm.errors import UserError
from recbole_diffmm.evaluator.batches import RepeatedBatches
from recbole_diffmm.precision import resolve_precision
from recbole_diffmm.registry import create_dataset
from recbole_diffmm.trainer import checkpoint
from recbole_diffmm.trainer.base import RunTrainer
from tests.trainer.small import SETTINGS, best_parameters, numbers, small_run


def _loaders(protocol, model="BPR"):
    config = Config(model, "toy", config_dict={**SETTINGS, "protocol": protocol})
    return quick_start.load_splits(config, create_dataset(config))


def _items_of(loader, user):
    features = loader._dataset.inter_feat
    return set(features[loader._dataset.iid_field][features[loader._dataset.uid_field] == user].tolist())


@pytest.mark.parametrize("model", ["BPR", "EASE", "MultiVAE"])
@pytest.mark.parametrize("protocol", ["recbole", "paper"])
def test_paper_hides_training_items_only_and_recbole_those_of_validation_too(protocol, model):
    train, valid, test = _loaders(protocol, model)
    with_validation = 0
    for user in test.uid_list.tolist():
        hidden = set(test.uid2history_item[user].tolist())
        expected = _items_of(train, user)
        if protocol == "recbole":
            expected |= _items_of(valid, user)
        assert hidden == expected - _items_of(test, user)
        assert set(test.uid2positive_item[user].tolist()) == _items_of(test, user)
        with_validation += bool(_items_of(valid, user))
    assert with_validation  # or both protocols would be the same
    for user in valid.uid_list.tolist():
        assert set(valid.uid2history_item[user].tolist()) == _items_of(train, user)


def _watch_loaders(monkeypatch):
    """The loaders that are iterated, in order, and where training ends."""
    events, seen, being_repeated = [], {}, set()
    load_splits, iterate, fit = quick_start.load_splits, FullSortEvalDataLoader.__iter__, RunTrainer.fit
    made = RepeatedBatches.__init__  # they go through their loader once
    repeat = RepeatedBatches.__iter__

    def watched_splits(config, dataset):
        loaders = load_splits(config, dataset)
        seen.update({id(loader): name for name, loader in zip(("train", "valid", "test"), loaders, strict=True)})
        return loaders

    def watched_iterate(self):
        if id(self) not in being_repeated:
            events.append(seen[id(self)])
        return iterate(self)

    def watched_making(self, loader, device):
        being_repeated.add(id(loader))
        seen[id(self)] = seen[id(loader)]
        made(self, loader, device)

    def watched_repeat(self):
        events.append(seen[id(self)])
        return repeat(self)

    def watched_fit(self, *args, **kwargs):
        result = fit(self, *args, **kwargs)
        events.append("trained")
        return result

    monkeypatch.setattr(quick_start, "load_splits", watched_splits)
    monkeypatch.setattr(FullSortEvalDataLoader, "__iter__", watched_iterate)
    monkeypatch.setattr(RepeatedBatches, "__init__", watched_making)
    monkeypatch.setattr(RepeatedBatches, "__iter__", watched_repeat)
    monkeypatch.setattr(RunTrainer, "fit", watched_fit)
    return events


@pytest.mark.parametrize("model", ["BPR", "DiffMM"])
def test_recbole_looks_at_test_once_and_after_training(model, monkeypatch):
    events = _watch_loaders(monkeypatch)
    small_run(model, epochs=3)
    # the selected epoch once, and DiffMM's once more without each of three modalities
    assert events == ["valid"] * 3 + ["trained"] + ["test"] * (4 if model == "DiffMM" else 1)


def test_paper_looks_at_test_after_every_validation_and_says_so(monkeypatch):
    events = _watch_loaders(monkeypatch)
    result = small_run("BPR", epochs=4, stopping_step=1, protocol="paper", learning_rate=0.3, state="INFO")
    assert events == ["valid", "test"] * 4 + ["trained", "test"]
    record = result.record
    assert record["masking"] == "train"
    chosen = record["metrics"]["test_selected"]
    best = max(entry["test"]["recall@20"] for entry in record["curve"])
    assert chosen["metrics"]["recall@20"] == best
    assert chosen["metrics"] == record["curve"][chosen["epoch"]]["test"]
    assert chosen["selected_on"] == "test Recall@20"
    # the headline number stays that of the epoch which validation chose
    valid = [entry["valid"]["recall@20"] for entry in record["curve"]]
    assert valid[record["best_epoch"]] == max(valid)
    assert record["metrics"]["test"] == record["curve"][record["best_epoch"]]["test"]
    (log,) = Path("log/BPR").iterdir()
    assert "test-selected (protocol: paper" in log.read_text()


def test_recbole_stops_early_and_paper_does_not():
    settings = {"epochs": 30, "stopping_step": 1, "learning_rate": 0.3}
    stopped = small_run("BPR", **settings)
    assert stopped.record["epochs_run"] < 30
    assert stopped.record["metrics"]["test_selected"] is None
    full = small_run("BPR", **settings, protocol="paper")
    assert full.record["epochs_run"] == 30


def test_test_data_cannot_be_handed_to_training_under_recbole():
    config = Config("BPR", "toy", config_dict=SETTINGS)
    trainer = object.__new__(RunTrainer)
    trainer.config = config
    with pytest.raises(UserError, match="only protocol: paper"):
        trainer.watch_test(object())


def test_paper_needs_full_ranking():
    with pytest.raises(UserError, match="ranks all items"):
        small_run("BPR", protocol="paper", eval_args={"split": {"RS": [0.8, 0.1, 0.1]}, "mode": "uni50"})


def test_built_in_models_give_recboles_own_numbers():
    for model in ("BPR", "LightGCN"):
        ours = small_run(model)
        settings = {key: value for key, value in ours.record["config"].items() if key not in {"device", "protocol"}}
        kept = ("topk", "metrics", "valid_metric", "metric_decimal_place", "eval_batch_size", "seed", "epochs")
        kept += ("train_batch_size", "learning_rate", "stopping_step", "benchmark_filename", "load_col", "state")
        kept += ("USER_ID_FIELD", "ITEM_ID_FIELD", "use_gpu", "show_progress")
        theirs = run_recbole(
            model=model,
            dataset="toy",
            config_dict={**{key: settings[key] for key in kept if key in settings}, "data_path": "dataset"},
        )
        assert dict(theirs["best_valid_result"]) == ours.valid
        assert dict(theirs["test_result"]) == ours.test


def test_the_same_seed_gives_the_same_numbers_in_one_process_and_in_another(repository):
    first, second = small_run("DiffMM"), small_run("DiffMM")
    assert numbers(first) == numbers(second)
    other = small_run("DiffMM", seed=7)
    assert numbers(other)["curve"] != numbers(first)["curve"]
    code = (
        "import json, sys\nfrom recbole_diffmm import run\nrun('DiffMM', 'toy', config_dict=json.loads(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps({**SETTINGS, "results_dir": "elsewhere"})],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    third = json.loads((Path("elsewhere") / first.record_path.name).read_text())
    assert third["metrics"] == first.record["metrics"]
    assert [e["losses"] for e in third["curve"]] == [e["losses"] for e in first.record["curve"]]


def test_the_record_says_what_was_run():
    result = small_run("DiffMM", epochs=2)
    record = json.loads(result.record_path.read_text())
    assert record == result.record
    for key, value in {
        "schema_version": 3,
        "model": "DiffMM",
        "dataset": "toy",
        "protocol": "recbole",
        "masking": "train+valid",
        "selection": "validation Recall@20",
        "seed": 2026,
        "epochs_run": 2,
        "threads": torch.get_num_threads(),
        "precision": resolve_precision("auto", torch.device("cpu")),
    }.items():
        assert record[key] == value
    assert record["data"]["n_users"] == 60
    assert record["data"]["n_items"] == 80
    assert record["data"]["features"]["smell"].keys() == {"hash", "coverage"}
    assert record["versions"].keys() == {"python", "torch", "numpy", "scipy", "pandas", "recbole", "recbole_diffmm"}
    assert record["config"]["learning_rate"] == 0.01
    assert record["peak_memory_mb"]["host"] > 10
    assert result.record_path.name.startswith("DiffMM-toy-s2026-")
    assert [entry["epoch"] for entry in record["curve"]] == [0, 1]
    assert record["warnings"] == []


def test_a_run_leaves_only_what_it_names():
    folders = {"log_dir": "logs", "checkpoint_dir": "kept", "results_dir": "records"}
    small_run("BPR", epochs=2, tensorboard=False, state="INFO", **folders)
    name = next(Path("records").glob("*.json")).stem
    files = {str(path) for path in Path().rglob("*") if path.is_file() and path.parts[0] != "dataset"}
    expected = {f"records/{name}.json", f"kept/{name}.pth", f"logs/BPR/{name}.log"}
    assert files - {f"records/{name}.per_user.parquet"} == expected


def test_the_name_follows_what_can_change_a_number():
    def name(**settings):
        return records.run_name(Config("BPR", "toy", config_dict={**SETTINGS, **settings}))

    assert name() == name(resume=True, checkpoint_dir="x", results_dir="y", show_progress=True, state="INFO")
    for change in ({"seed": 1}, {"learning_rate": 0.02}, {"protocol": "paper"}, {"topk": [5, 20]}, {"epochs": 7}):
        assert name() != name(**change)


def test_values_of_single_users_average_to_the_reported_metrics():
    parquet = pytest.importorskip("pyarrow.parquet")
    result = small_run("BPR", epochs=2)
    table = parquet.read_table(result.record_path.with_suffix(".per_user.parquet")).to_pydict()
    users = table.pop("user")
    _, _, test = _loaders("recbole")
    assert users == list(test._dataset.id2token("user_id", test.uid_list.numpy()))
    history = table.pop("history")
    assert history == [len(_items_of(_loaders("recbole")[0], user)) for user in test.uid_list.tolist()]
    said = result.record["per_user"]
    assert said["file"] == result.record_path.with_suffix(".per_user.parquet").name
    assert said["n_users"] == len(users)
    assert said["users_hash"] == hashlib.sha256("\n".join(users).encode()).hexdigest()
    assert table.keys() == result.test.keys()
    for name, values in table.items():
        assert np.mean(values) == pytest.approx(result.test[name], abs=1e-6)


def test_without_pyarrow_the_record_says_what_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = small_run("BPR", epochs=1)
    assert not list(Path().rglob("*.parquet"))
    (warning,) = result.record["warnings"]
    assert "pyarrow" in warning and "recbole-diffmm[leaderboard]" in warning


@pytest.mark.parametrize("key", ["checkpoint_dir", "results_dir", "log_dir"])
def test_folders_that_cannot_be_written_are_told_before_training(key):
    Path("file").write_text("")
    started = []
    with pytest.raises(UserError, match=rf"{key} in config_dict: .*file/inner cannot be written"):
        small_run("BPR", on_epoch=lambda *_: started.append(1), **{key: "file/inner"})
    assert not started


def test_load_rebuilds_the_model_that_was_tested():
    result = small_run("DiffMM", epochs=3)
    path = f"saved/{result.record_path.stem}.pth"
    config, model, dataset, _, _, test = quick_start.load(path)
    assert config["learning_rate"] == 0.01
    expected = best_parameters(result)
    for name, value in model.state_dict().items():
        value = value.coalesce().to_dense() if value.is_sparse else value
        assert torch.equal(value, expected[name]), name
    trainer = RunTrainer(config, model)
    assert trainer.evaluate(test, load_best_model=False) == result.test
    assert dataset.item_num == 81


def test_load_refuses_other_data():
    small_run("BPR", epochs=1)
    (path,) = Path("saved").glob("BPR*.pth")
    train = Path("dataset/toy/toy.train.inter")
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="training split"):
        quick_start.load(path)


def test_a_cut_off_beyond_the_catalogue_is_refused():
    with pytest.raises(UserError, match="81"):
        small_run("BPR", topk=[10, 81], valid_metric="Recall@10")
    small_run("BPR", topk=[10, 80], valid_metric="Recall@10", epochs=1)


def split_by(shares, **settings):
    """A run on toy's interactions in one file, split by these shares."""
    toy, folder = prepare("toy", Path("dataset")), Path("dataset/whole")
    if not folder.exists():
        folder.mkdir()
        rows = [(toy / f"toy.{split}.inter").read_text().splitlines() for split in ("train", "valid", "test")]
        lines = [rows[0][0], *(line for of_split in rows for line in of_split[1:])]
        (folder / "whole.inter").write_text("\n".join(lines) + "\n")
    columns = {"inter": ["user_id", "item_id"]}
    given = {**SETTINGS, "load_col": columns, "eval_args": {"split": {"RS": shares}}, **settings}
    return quick_start.run("BPR", "whole", config_dict=given)


def test_without_validation_the_record_says_that_the_last_epoch_was_tested():
    result = split_by([8, 0, 2], epochs=3)
    record = result.record
    assert (record["best_epoch"], record["selection"], record["metrics"]["valid"]) == (2, "last epoch", None)
    assert checkpoint.load(f"saved/{result.record_path.stem}.pth")["epoch"] == 2
    assert "epoch selected by last epoch" in render([record])
    assert split_by([8, 1, 1], epochs=3).record["selection"] == "validation Recall@20"


def test_a_run_without_a_test_split_is_refused_before_training():
    with pytest.raises(UserError, match="whole has no test split: eval_args in config_dict"):
        split_by([8, 2, 0])
    assert not list(Path("saved").iterdir())


def test_json_has_no_nan_and_the_old_record_survives_a_failed_write(monkeypatch):
    path = Path("r/x.json")
    records.write_json(path, {"a": float("nan"), "b": np.float32(0.5), "c": {1: torch.ones(2)}})
    assert json.loads(path.read_text()) == {"a": None, "b": 0.5, "c": {"1": [1.0, 1.0]}}
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(UserError, match=r"x\.json cannot be written \(disk\)"):
        records.write_json(path, {"a": 1})
    assert json.loads(path.read_text())["b"] == 0.5


def test_a_second_run_in_a_process_has_a_log_of_its_own():
    first, second = small_run("BPR", epochs=1, state="INFO"), small_run("Pop", epochs=1, state="INFO")
    for model, result in (("BPR", first), ("Pop", second)):
        text = Path(f"log/{model}/{result.record_path.stem}.log").read_text()
        assert f"Saving current: saved/{model}" in text.replace("\x1b", "")
        assert f"saved/{'Pop' if model == 'BPR' else 'BPR'}" not in text


@pytest.mark.filterwarnings("error::FutureWarning")
def test_with_a_bar_the_terminal_has_no_line_an_epoch_and_the_file_has_all(capsys):
    result = small_run("BPR", epochs=2, state="INFO", show_progress=True)
    terminal = capsys.readouterr().err
    log = Path(f"log/BPR/{result.record_path.stem}.log").read_text()
    assert "BPR on toy: 100%" in terminal
    assert "2/2" in terminal
    for line in ("epoch 1 training", "epoch 1 evaluating", "Saving current"):
        assert line in log
        assert line not in terminal
    assert "recall@20" in terminal  # the result
    small_run("BPR", epochs=2, state="INFO")
    assert "epoch 1 training" in capsys.readouterr().err


def test_peak_memory_is_this_process_own() -> None:
    """A process that is started inherits its parent's `ru_maxrss` on Linux."""
    code = (
        "import psutil; from recbole_diffmm.provenance import _host_peak_mb; "
        "print(_host_peak_mb(), psutil.Process().memory_info().rss / 2**20)"
    )
    ballast = bytearray(900 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    peak, resident = map(float, child.stdout.split())  # what PyTorch alone takes depends on its build
    assert 0.9 * resident < peak < resident + 300
    assert provenance._host_peak_mb() > 900


def test_energy_is_measured_where_asked_and_its_extra_named_where_missing(monkeypatch):
    assert small_run("BPR", epochs=1).record["energy"] == {}
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(UserError, match=r"recbole-diffmm\[energy\]"):
        small_run("BPR", epochs=1, energy=True, seed=5)

    class Tracker:
        final_emissions_data = SimpleNamespace(energy_consumed=0.25)

        def __init__(self, **settings):
            assert settings["save_to_file"] is False
            assert settings["tracking_mode"] == "process"

        def start(self):
            pass

        def stop(self):
            return 0.1

    monkeypatch.setitem(sys.modules, "codecarbon", SimpleNamespace(OfflineEmissionsTracker=Tracker))
    measured = small_run("BPR", epochs=1, energy=True)
    assert measured.record["energy"] == {"kwh": 0.25}
    assert measured.record_path == small_run("BPR", epochs=1).record_path  # it moves no number


def test_records_are_validated_when_written_and_when_read():
    result = small_run("BPR", epochs=1)
    record, path = result.record, Path("x.json")
    for broken, words in (
        ({**record, "seed": "one"}, "seed"),
        ({**record, "more": 1}, "more"),
        ({key: value for key, value in record.items() if key != "code"}, "code"),
        ({**record, "data": {**record["data"], "split_hash": "short"}}, "data.split_hash"),
    ):
        with pytest.raises(ValidationError):
            records.write(path, broken)
        assert not path.exists()
        records.write_json(path, broken)
        with pytest.raises(UserError, match=rf"record x.json: {words}"):
            records.load(path)
        path.unlink()
    records.write_json(path, {**record, "schema_version": 1})
    with pytest.raises(UserError, match="schema version 1, this package reads 3"):
        records.load(path)
    for no_record in ({}, {"schema_version": 1, "rows": []}):
        records.write_json(path, no_record)
        with pytest.raises(UserError, match="is no record of a run"):
            records.load(path)


def test_an_edited_or_renamed_record_is_refused():
    result = small_run("BPR", epochs=1)
    record, path = result.record, result.record_path
    assert records.load(path).model_dump() == record
    edited = {**record, "metrics": {**record["metrics"], "test": {**record["metrics"]["test"], "recall@20": 0.2}}}
    records.write_json(path, edited)
    with pytest.raises(UserError, match="was edited since its run wrote it"):
        records.load(path)
    records.write_json(path, {**record, "config": {**record["config"], "learning_rate": 1.0}})
    with pytest.raises(UserError, match="was edited"):
        records.load(path)
    records.write_json(Path("other.json"), record)
    with pytest.raises(UserError, match=f"is the record of {record['name']}"):
        records.load(Path("other.json"))


def test_a_run_again_keeps_the_record_of_the_first():
    runs = [small_run("BPR", epochs=1)]
    kept = [runs[0].record_path.read_bytes()]
    for place in ("earlier", "earlier/2"):
        runs.append(small_run("BPR", epochs=1))
        path = runs[0].record_path.parent / place / runs[0].record_path.name
        assert runs[-1].record_path == runs[0].record_path and path.read_bytes() == kept[-1]
        assert path.with_suffix(".per_user.parquet").is_file()
        assert records.load(path).metrics.test == runs[-2].test, "it can be read, and so compared"
        kept.append(runs[-1].record_path.read_bytes())


def test_the_cost_up_to_the_best_epoch_counts_what_a_model_learns_while_it_is_built():
    seconds = small_run("EASE").record["seconds"]
    assert seconds["building"] > 0
    assert seconds["to_best_epoch"] > seconds["building"]
    curve = [{"epoch": n, "seconds": {"a": 1.0, "b": 0.5}} for n in range(4)]
    totals = records.summarise_seconds(curve, 2, building=10.0)
    assert totals["to_best_epoch"] == 10.0 + 3 * 1.5
    assert totals["a"] == 4.0
    assert totals["per_epoch"] == {"a": 1.0, "b": 0.5}
