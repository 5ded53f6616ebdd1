"""Processes for runs: what they are told, what they tell, and that none of them is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recbole_diffmm import process
from recbole_diffmm.errors import UserError
from recbole_diffmm.process import Job, Slot, WorkerProcess, carry_out, gpu_settings, only_one, same_environment, slots
from tests.processes import gone, wait_for

# Stands in for a run: it imports neither PyTorch nor RecBole.
_WORKER = """
import os, pathlib, signal, sys, time
from recbole_diffmm.process import leave, told_to_parent

with told_to_parent() as (asked, tell):
    print("what libraries print", end="", flush=True)
    os.write(1, b"and what C code prints")
    tell({"pid": os.getpid(), "began": time.monotonic(), "place": os.environ.get("PLACE")})
    if asked["do"] == "meet":
        pathlib.Path(asked["me"]).touch()
        end = time.monotonic() + 30
        while not pathlib.Path(asked["other"]).exists() and time.monotonic() < end:
            time.sleep(0.01)
        if not pathlib.Path(asked["other"]).exists():
            leave(4)
    if asked["do"] == "sleep":
        pathlib.Path(f"{os.getpid()}.sleeps").touch()
        time.sleep(60)
    if asked["do"] == "raise":
        raise RuntimeError("the last straw")
    if asked["do"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    tell({"done": asked["do"], "ended": time.monotonic()})
leave(0)
"""


class Told:
    """Remembers all that a watcher is told."""

    def __init__(self, on_message: Callable[[Job, dict[str, Any]], None] = lambda job, message: None) -> None:
        self.started_: list[str] = []
        self.messages: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, dict[str, Any] | None] = {}
        self._on_message = on_message

    def started(self, job: Job) -> None:
        self.started_.append(job.name)

    def told(self, job: Job, message: dict[str, Any]) -> None:
        self.messages.setdefault(job.name, {}).update(message)
        self._on_message(job, message)

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        self.failed[job.name] = failed


@pytest.fixture(autouse=True)
def _worker(tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text(_WORKER, encoding="utf-8")


def _jobs(*what: str) -> list[Job]:
    return [Job(f"{number} {do}", "stand_in", {"do": do}) for number, do in enumerate(what)]


def test_a_job_that_fails_takes_nobody_with_it():
    told = Told()
    jobs = _jobs("raise", "fine", "die", "fine")
    carry_out(jobs, [Slot({"PLACE": "a"})], told)
    assert told.started_ == list(told.failed) == ["0 raise", "1 fine", "2 die", "3 fine"]
    raised, fine, died, fine_too = told.failed.values()
    assert fine is None and fine_too is None
    assert raised and raised["failed"] == "the process ended with code 1" and "the last straw" in raised["details"]
    assert died and died["failed"].startswith("the process was killed by signal 9")
    assert {message["place"] for message in told.messages.values()} == {"a"}
    # One place: each begins after the one before it has ended.
    assert told.messages["3 fine"]["began"] > told.messages["1 fine"]["ended"]


def test_two_places_work_at_the_same_time():
    jobs = [
        Job(me, "stand_in", {"do": "meet", "me": me, "other": other})
        for me, other in (("a", "b"), ("b", "a"), ("c", "d"), ("d", "c"))
    ]
    told = Told()
    carry_out(jobs, [Slot({"PLACE": "1"}), Slot({"PLACE": "2"})], told)
    assert told.failed == dict.fromkeys("abcd")
    assert {told.messages[first]["place"] for first in "ab"} == {told.messages[x]["place"] for x in "cd"} == {"1", "2"}


def test_an_interruption_ends_all_processes():
    pids: list[int] = []

    def interrupt(job: Job, message: dict[str, Any]) -> None:
        pids.append(message["pid"])
        if len(pids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(_jobs("sleep", "sleep", "sleep"), [Slot({}), Slot({})], Told(interrupt))
    assert len(pids) == 2 and all(gone(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_parent(number: signal.Signals, tmp_path: Path):
    code = (
        "from recbole_diffmm.process import *\n"
        "class Quiet:\n"
        "    def __getattr__(self, name): return lambda *_: None\n"
        "carry_out([Job(str(i), 'stand_in', {'do': 'sleep'}) for i in range(2)], [Slot({}), Slot({})], Quiet())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    try:
        wait_for(lambda: len(list(tmp_path.glob("*.sleeps"))) == 2)
        pids = [int(file.stem) for file in tmp_path.glob("*.sleeps")]
        parent.send_signal(number)
        assert parent.wait(10) == -number
        wait_for(lambda: all(gone(pid) for pid in pids), 10)
    finally:
        parent.kill()


def test_a_worker_that_nobody_hears_ends_before_it_calls_that_a_failure(tmp_path: Path):
    """Where a parent dies, its end of the messages may be seen before the end of standard input is."""
    code = """
import time
from pathlib import Path
from recbole_diffmm.process import told_to_parent

with told_to_parent() as (asked, tell):
    try:
        while True:
            tell({"epoch": 1})
            time.sleep(0.01)
    except Exception:
        Path("failed").touch()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        assert worker.stdin is not None and worker.stdout is not None and worker.stderr is not None
        worker.stdin.write(b"{}\n")
        worker.stdin.flush()
        assert worker.stdout.readline()
        worker.stdout.close()
        assert worker.wait(30) == 1
        assert worker.stderr.read() == b"" and not Path("failed").exists()


def test_messages_end_when_nobody_wants_more():
    worker = WorkerProcess("stand_in", {"do": "sleep"}, {})
    messages = worker.messages(lambda: not told)
    told: list[dict[str, Any]] = []
    started = time.monotonic()
    for message in messages:
        told.append(message)
    worker.kill()
    assert "signal 9" in worker.end()["failed"]
    assert told[0]["pid"] == worker.pid and time.monotonic() - started < 30 and gone(worker.pid)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores, much memory, no GPU."""
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(process, "_cores", lambda: 8)
    monkeypatch.setattr(process, "_MEMORY_PER_RUN", 1)
    return monkeypatch


def test_cores_are_shared_among_places(machine: pytest.MonkeyPatch):
    def threads(workers: int | None, n_jobs: int) -> list[str]:
        return [place.environment["OMP_NUM_THREADS"] for place in slots(workers, n_jobs)]

    assert threads(2, 10) == ["4", "4"]
    assert threads(3, 10) == ["2"] * 3
    assert threads(16, 100) == ["1"] * 16
    assert threads(None, 100) == ["1"] * 8
    assert threads(None, 2) == ["4", "4"]  # no more places than jobs
    assert all("CUDA_VISIBLE_DEVICES" not in place.environment for place in slots(2, 2))
    assert slots(1, 1)[0].environment["OMP_WAIT_POLICY"] == "PASSIVE"
    machine.setenv("OMP_NUM_THREADS", "3")
    assert threads(2, 10) == ["3", "3"]
    machine.setattr(process, "_MEMORY_PER_RUN", process.psutil.virtual_memory().total)
    assert len(slots(None, 100)) == 1
    with pytest.raises(UserError, match="--workers is 0; give at least 1"):
        slots(0, 3)


def test_each_place_gets_one_gpu(machine: pytest.MonkeyPatch, tmp_path: Path):
    def gpus(workers: int | None) -> list[str]:
        return [place.environment["CUDA_VISIBLE_DEVICES"] for place in slots(workers, 10)]

    machine.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert gpus(None) == ["2", "5"]
    assert gpus(3) == ["2", "5", "2"]
    assert gpus(1) == ["2"]
    machine.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert process._gpus() == []
    machine.delenv("CUDA_VISIBLE_DEVICES")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: a (UUID: b)'\necho 'GPU 1: c'\n", encoding="utf-8")
    (tmp_path / "nvidia-smi").chmod(0o755)
    machine.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpus(None) == ["0", "1"]


def test_a_run_uses_the_gpu_that_it_may_see(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert gpu_settings({"seed": 1}) == {"seed": 1, "gpu_id": "5"}
    assert gpu_settings({"gpu_id": "2"}) == {"gpu_id": "2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_settings({"seed": 1}) == {"seed": 1}


def test_a_second_process_is_kept_out_of_a_folder(tmp_path: Path):
    folder = tmp_path / "results" / "board"
    code = "import sys; from pathlib import Path; from recbole_diffmm.process import only_one\n"
    with only_one(folder):
        with pytest.raises(UserError, match=f"another leaderboard or tuning is at work in {folder}"), only_one(folder):
            pass
        second = [sys.executable, "-c", f"{code}with only_one(Path(sys.argv[1])): pass", str(folder)]
        done = subprocess.run(second, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "another leaderboard or tuning" in done.stderr.splitlines()[-1]
    with only_one(folder):
        pass
    # Whoever was killed in it has left it free.
    subprocess.run([*second[:2], f"{code}with only_one(Path(sys.argv[1])): __import__('os')._exit(9)", str(folder)])
    with only_one(folder):
        pass


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/board cannot be written \(not a directory\)"):
        with only_one(tmp_path / "file" / "board"):
            pass


def test_environment_variables_are_put_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KEPT", "a")
    monkeypatch.delenv("NEW", raising=False)
    with pytest.raises(ValueError), same_environment():
        os.environ.update(KEPT="b", NEW="c")
        raise ValueError
    assert os.environ["KEPT"] == "a" and "NEW" not in os.environ


def test_what_was_wrong_leaves_no_folders(tmp_path: Path):
    with pytest.raises(UserError), only_one(tmp_path / "results" / "board"):
        raise UserError("wrong")
    assert not (tmp_path / "results").exists()
    (tmp_path / "results").mkdir()
    with pytest.raises(UserError), only_one(tmp_path / "results" / "board"):
        raise UserError("wrong")
    assert (tmp_path / "results").is_dir() and not list((tmp_path / "results").iterdir())
