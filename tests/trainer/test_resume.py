"""A run that was stopped at any moment ends with the numbers of a run that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_diffmm.errors import UserError
from recbole_diffmm.quick_start import load
from recbole_diffmm.trainer import checkpoint
from tests.trainer.small import SETTINGS, best_parameters, numbers, small_run

# What a process does that is killed at a chosen moment of its training.
_KILLED = """
import json, os, signal, sys
model, moment, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
import recbole_diffmm
from recbole_diffmm.quick_start import run
from recbole_diffmm.registry import get_model
from recbole_diffmm.trainer import checkpoint

def die():
    os.kill(os.getpid(), signal.SIGKILL)

epochs, batches, states = 0, 0, 0
def on_epoch(epoch, score):
    global epochs
    epochs = epoch + 1
    if moment == "after validation" and epochs == 3:
        die()

kind = get_model(model)
loss = kind.calculate_loss
def calculate_loss(self, interaction):
    global batches
    batches += 1
    if moment == "between batches" and epochs == 3 and batches % 2 == 0:
        die()
    return loss(self, interaction)
kind.calculate_loss = calculate_loss

replace = os.replace
def dying_replace(source, target):
    global states
    if str(target).endswith(".resume.pth"):
        states += 1
        if moment == "writing the state" and states == 3:
            die()
    replace(source, target)
os.replace = dying_replace

run(model, "toy", config_dict=settings, on_epoch=on_epoch)
"""


def _same(first, second) -> None:
    assert numbers(first) == numbers(second)


@pytest.mark.parametrize(
    ("model", "moment"),
    [("BPR", "between batches"), ("BPR", "writing the state"), ("DiffMM", "after validation")],
)
def test_a_run_killed_by_sigkill_ends_as_if_it_had_not_been(model, moment, repository, monkeypatch):
    settings = {**SETTINGS, "stopping_step": 2}
    Path("killed").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, model, moment, json.dumps(settings)],
        cwd="killed",
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list(Path("killed").glob("results/**/*.json"))
    assert list(Path("killed").glob("saved/*.resume.pth"))

    whole = small_run(model, **settings)
    expected = best_parameters(whole)
    monkeypatch.chdir("killed")
    trained = []
    resumed = small_run(model, on_epoch=lambda epoch, score: trained.append(epoch), **settings, resume=True)
    assert trained[0] in {2, 3}
    _same(resumed, whole)
    parameters = best_parameters(resumed)
    assert parameters.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(parameters[name], value), name
    left = {path.suffixes[-1] for path in Path("saved").iterdir()}
    assert left == {".pth"}
    assert not list(Path("saved").glob("*.resume.pth"))


class _Stopped(Exception):
    pass


def _stop_after(epoch_to_stop):
    def on_epoch(epoch, score):
        if epoch == epoch_to_stop:
            raise _Stopped

    return on_epoch


STATEFUL = ["LightGCN", "SGL", "NCL", "MultiVAE", "RecVAE", "NeuMF", "DiffRec", "LINE", "DiffMM"]


@pytest.mark.parametrize("model", STATEFUL)
def test_every_kind_of_state_is_restored(model, tmp_path, monkeypatch):
    """Rows, graphs, clusters, step counters, several optimisers, point-wise sampling, loss histories, arrays."""
    settings = {}
    if model == "NCL":
        pytest.importorskip("faiss")
        # Stopped between two clusterings, once while it warms up and once after.
        settings = {"num_clusters": 5, "m_step": 2, "warm_up_step": 2, "proto_reg": 0.01}
    whole = small_run(model, **settings)
    (tmp_path / "stopped").mkdir()
    monkeypatch.chdir(tmp_path / "stopped")
    for epoch in (1, 3):
        with pytest.raises(_Stopped):
            small_run(model, on_epoch=_stop_after(epoch), **settings, resume=True)
    resumed = small_run(model, **settings, resume=True)
    _same(resumed, whole)


@pytest.mark.parametrize("protocol", ["recbole", "paper"])
def test_a_finished_run_gives_its_record_without_training(protocol):
    first = small_run(protocol=protocol)
    written = first.record_path.read_bytes()
    again = small_run(protocol=protocol, resume=True, on_epoch=lambda *_: pytest.fail("trained again"))
    assert again.record == first.record
    assert first.record_path.read_bytes() == written


def test_other_code_begins_anew(monkeypatch):
    """A record names one code, which has made all of its numbers; a finished one of other code is no answer."""
    from recbole_diffmm import provenance

    whole = small_run("VBPR", epochs=4)
    whole.record_path.unlink()
    with pytest.raises(_Stopped):
        small_run("VBPR", epochs=4, resume=True, on_epoch=_stop_after(1))
    (state,) = Path("saved").glob("*.resume.pth")
    monkeypatch.setattr(provenance, "code_hash", lambda model: "0" * 64)
    epochs: list[int] = []
    resumed = small_run("VBPR", epochs=4, resume=True, on_epoch=lambda epoch, score: epochs.append(epoch))
    assert epochs == [0, 1, 2, 3]
    _same(resumed, whole)
    told = f"{state} was written by other code of VBPR: training from the start"
    assert told in resumed.record["warnings"] and resumed.record["code"]["hash"] == "0" * 64
    monkeypatch.setattr(provenance, "code_hash", lambda model: "1" * 64)
    again = small_run("VBPR", epochs=4, resume=True, on_epoch=lambda epoch, score: epochs.append(epoch))
    assert epochs == [0, 1, 2, 3] * 2
    assert f"{resumed.record_path} is of other code of VBPR: training from the start" in again.record["warnings"]
    assert len(list((resumed.record_path.parent / "earlier").glob("*.json"))) == 1, "and is kept"


def test_a_run_stopped_between_training_and_its_record_is_only_tested(monkeypatch):
    from recbole_diffmm import record as records

    whole = small_run()
    whole.record_path.unlink()

    def stopped(*_):
        raise _Stopped

    with monkeypatch.context() as patch:
        patch.setattr(records, "write", stopped)
        with pytest.raises(_Stopped):
            small_run()
    again = small_run(resume=True, on_epoch=lambda *_: pytest.fail("trained again"))
    _same(again, whole)


def _without_the_last_row(file: str) -> None:
    path = Path("dataset/toy") / file
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def _with_other_features(file: str) -> None:
    np.save(f"dataset/toy/{file}", -np.load(f"dataset/toy/{file}"))


_CHANGES = [
    (_without_the_last_row, "toy.train.inter", "training split"),
    (_without_the_last_row, "toy.valid.inter", "split into training, validation and test"),
    (_without_the_last_row, "toy.test.inter", "split into training, validation and test"),
    (_with_other_features, "look.npy", "features file of look"),
]


@pytest.mark.parametrize(("change", "file"), [change[:2] for change in _CHANGES], ids=[c[1] for c in _CHANGES])
def test_other_data_are_not_answered_with_an_old_record(change, file):
    first = small_run("DiffMM", epochs=1)
    kept = first.record_path.read_bytes()
    change(file)
    epochs = []
    again = small_run("DiffMM", epochs=1, resume=True, on_epoch=lambda epoch, score: epochs.append(epoch))
    assert epochs == [0]
    assert again.record["data"] != first.record["data"]
    assert (first.record_path.parent / "earlier" / first.record_path.name).read_bytes() == kept


@pytest.mark.parametrize(("change", "file", "told"), _CHANGES, ids=[change[1] for change in _CHANGES])
def test_other_data_are_not_trained_on_or_evaluated_further(change, file, told):
    with pytest.raises(_Stopped):
        small_run("DiffMM", on_epoch=_stop_after(3))
    (best,) = (path for path in Path("saved").glob("*.pth") if "resume" not in path.name)
    load(best)
    change(file)
    for attempt in (lambda: small_run("DiffMM", resume=True), lambda: load(best)):
        with pytest.raises(UserError, match=f"its {told} is"):
            attempt()


def test_a_state_that_says_less_of_its_data_is_continued():
    """As those have it that were written before splits and features were compared."""
    whole = small_run("DiffMM")
    whole.record_path.unlink()
    with pytest.raises(_Stopped):
        small_run("DiffMM", on_epoch=_stop_after(3))
    for path in Path("saved").glob("*.pth"):
        content = checkpoint.load(path)
        checkpoint.save(path, {key: content[key] for key in content.keys() - {"split_hash", "features"}})
    _same(small_run("DiffMM", resume=True), whole)


@pytest.mark.parametrize("model", ["BPR", "DiffMM"])
def test_a_run_that_began_with_replayed_steps_goes_on_without(model, tmp_path, monkeypatch):
    """On a GPU the optimiser keeps its count of steps there, which PyTorch refuses elsewhere."""
    whole = small_run(model)
    (tmp_path / "stopped").mkdir()
    monkeypatch.chdir(tmp_path / "stopped")
    save = checkpoint.save

    def as_on_a_gpu(path, content):
        states = [content.get("optimizers", {}), content.get("extra_state", {}).get("optimizers", {})]
        for group in (group for kind in states for state in kind.values() for group in state["param_groups"]):
            group["capturable"] = True
        save(path, content)

    with monkeypatch.context() as patch, pytest.raises(_Stopped):
        patch.setattr(checkpoint, "save", as_on_a_gpu)
        small_run(model, on_epoch=_stop_after(3), resume=True)
    _same(small_run(model, resume=True), whole)


def test_without_resume_an_old_state_is_left_behind_for_good():
    with pytest.raises(_Stopped):
        small_run(on_epoch=_stop_after(3))
    (state,) = Path("saved").glob("*.resume.pth")
    stamp = checkpoint.load(state)["next_epoch"]
    assert stamp == 3
    epochs = []
    small_run(on_epoch=lambda epoch, score: epochs.append(epoch))
    assert epochs[0] == 0
    assert not state.exists()


def test_a_state_of_other_data_is_refused():
    with pytest.raises(_Stopped):
        small_run(on_epoch=_stop_after(3))
    (state,) = Path("saved").glob("*.resume.pth")
    checkpoint.save(state, {**checkpoint.load(state), "train_hash": "another"})
    with pytest.raises(UserError, match="training split is another"):
        small_run(resume=True)


def test_seconds_of_earlier_sessions_are_counted():
    def slowly(epoch, score):
        if epoch == 0:
            time.sleep(1.0)
        if epoch == 2:
            raise _Stopped

    with pytest.raises(_Stopped):
        small_run(epochs=4, on_epoch=slowly)
    epochs = []
    resumed = small_run(epochs=4, resume=True, on_epoch=lambda epoch, score: epochs.append(epoch))
    assert epochs == [2, 3]
    phases = sum(sum(entry["seconds"].values()) for entry in resumed.record["curve"][:2])
    assert resumed.record["seconds"]["training"] > 1.0 + phases


@pytest.mark.parametrize(("every", "expected"), [(1, 3), (2, 2), (0, None)])
def test_states_are_kept_as_often_as_asked(every, expected):
    whole = small_run()
    with pytest.raises(_Stopped):
        small_run(on_epoch=_stop_after(3), resume_every=every)
    states = list(Path("saved").glob("*.resume.pth"))
    assert [checkpoint.load(state)["next_epoch"] for state in states] == ([] if expected is None else [expected])
    whole.record_path.unlink()
    epochs = []
    resumed = small_run(resume=True, on_epoch=lambda epoch, score: epochs.append(epoch))
    assert epochs[0] == (expected or 0)
    _same(resumed, whole)
