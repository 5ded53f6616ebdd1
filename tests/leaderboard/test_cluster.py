"""A board on a Dask cluster of two workers on this machine, one of which is killed. All traffic is on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from recbole_diffmm.cli import main
from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard import cluster
from recbole_diffmm.leaderboard.cluster import connect
from recbole_diffmm.leaderboard.make import Made, make
from recbole_diffmm.leaderboard.plan import Planned
from recbole_diffmm.leaderboard.progress import Progress
from recbole_diffmm.quick_start import RunResult
from tests.leaderboard.test_spec import write
from tests.processes import gone, wait_for
from tests.trainer.small import SETTINGS, numbers, small_run

_SETTINGS = {key: value for key, value in SETTINGS.items() if key not in {"show_progress", "state"}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A scheduler and workers, each a process of its own that works in `folder`."""

    def __init__(self, folder: Path, n_workers: int) -> None:
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{_free_port()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        local = ["--host", "127.0.0.1", "--no-dashboard"]
        self._start("scheduler", *local, "--port", self.address.rpartition(":")[2])
        for number in range(n_workers):
            scratch = ["--local-directory", str(folder / f"dask{number}")]
            self._start("worker", self.address, *local, "--nthreads", "1", "--memory-limit", "0", *scratch)

    def _start(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "dask", *arguments]
        with (self.folder / "dask.log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))

    def runs(self) -> list[psutil.Process]:
        """The processes that train."""
        return [child for process in self.processes for child in _children(process.pid) if _is_run(child)]

    def close(self) -> None:
        for process in self.processes:
            for victim in [*_children(process.pid), process]:
                try:
                    victim.kill()
                except psutil.NoSuchProcess:
                    pass
            process.wait(10)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_run(process: psutil.Process) -> bool:
    try:
        return "recbole_diffmm.leaderboard.worker" in process.cmdline()
    except psutil.Error:
        return False


class Sweep:
    """Three runs and one that fails, on a cluster that loses a worker and its nanny while both workers are busy."""

    def __init__(self, cluster: Cluster) -> None:
        self.folder = cluster.folder / "results/b"
        self.starts: list[str] = []
        self.orphans: list[int] = []
        lock = threading.Lock()
        rows = [
            "BPR",
            "Pop",
            {"model": "BPR", "label": "bad", "settings": {"learning_rate": 1e30}},
            {"model": "BPR", "label": "narrow", "settings": {"embedding_size": 8}},
        ]
        write(cluster.folder / "b.yaml", models=rows, seeds=[1], settings=_SETTINGS)
        start = Progress.start

        def started(progress: Progress, run: Planned) -> None:
            start(progress, run)
            with lock:
                self.starts.append(run.name)
                if len(self.starts) == 2:
                    nanny = cluster.processes[1]
                    orphans = wait_for(lambda: [child for child in _children(nanny.pid) if _is_run(child)])
                    self.orphans = [child.pid for child in orphans]
                    others = [child for child in _children(nanny.pid) if child not in orphans]
                    for victim in (nanny, *others):
                        victim.kill()

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cluster.folder)
            patch.setattr(Progress, "start", started)
            self.made: Made = make("b.yaml", scheduler=cluster.address, progress=False)

    def records(self) -> list[dict[str, Any]]:
        paths = [path for path in sorted(self.folder.glob("*-s*.json")) if not path.name.endswith(".failure.json")]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


@contextmanager
def started(folder: Path, n_workers: int) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="it comes with the extra `cluster`")
    cluster = Cluster(folder, n_workers)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    with started(tmp_path_factory.mktemp("cluster"), n_workers=2) as cluster:
        return Sweep(cluster)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_worker_costs_no_record(sweep: Sweep):
    assert sweep.made.done == 3
    # Four runs, one of them twice: its first worker was killed, and its process ended with it.
    assert len(sweep.starts) == 5 and len(set(sweep.starts)) == 4
    assert len(sweep.orphans) == 1
    wait_for(lambda: all(map(gone, sweep.orphans)), 10)


def test_records_from_a_cluster_have_the_numbers_of_one_process(sweep: Sweep):
    found = sweep.records()
    assert [record["model"] for record in found] == ["BPR", "BPR", "Pop"]
    for record in found:
        size = {} if record["model"] == "Pop" else {"embedding_size": record["config"]["embedding_size"]}
        alone = small_run(record["model"], seed=record["seed"], **size)
        assert record["name"] == alone.record["name"]
        assert numbers(RunResult(record, Path(), {}, {})) == numbers(alone)
        assert (sweep.folder / record["per_user"]["file"]).is_file()
    assert not list(sweep.folder.glob("*.tmp"))


def test_a_run_that_fails_on_a_cluster_is_recorded(sweep: Sweep):
    (path,) = sweep.folder.glob("*.failure.json")
    failure = json.loads(path.read_text(encoding="utf-8"))
    assert failure["label"] == "bad" and failure["reason"].startswith("loss term loss became")
    assert sweep.made.failures == {failure["name"]: failure["reason"]} and "Traceback" in failure["details"]


@pytest.mark.parametrize("address", ["nosuchhost", "", "foo://127.0.0.1:1"])
def test_what_is_no_address_is_told_in_one_line(address: str):
    with pytest.raises(UserError, match=r"is no address of a Dask scheduler; write tcp://host:8786"):
        connect(address)


@pytest.mark.slow
def test_an_address_where_nobody_answers_is_told_in_one_line(capsys: pytest.CaptureFixture[str]):
    write(Path("b.yaml"), models=["Pop"], seeds=[1], settings=_SETTINGS)
    address = f"tcp://127.0.0.1:{_free_port()}"
    started = time.monotonic()
    assert main(["leaderboard", "b.yaml", "--scheduler", address]) == 2
    assert time.monotonic() - started < 20
    assert capsys.readouterr().err == f"error: no Dask scheduler answers at {address} (OSError)\n"


def test_missing_dask_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "distributed", None)
    write(Path("b.yaml"), models=["Pop"], seeds=[1], settings=_SETTINGS)
    assert main(["leaderboard", "b.yaml", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "distributed, which is not installed" in line and 'pip install "recbole-diffmm[cluster]"' in line


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nothing_trains_on_when_nobody_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(Path("b.yaml"), models=["BPR"], seeds=[1], settings={**_SETTINGS, "epochs": 5000, "stopping_step": 5000})
    with started(tmp_path, n_workers=1) as cluster:

        def ended_by(action: Callable[[], None], error: type[BaseException]) -> str:
            pids: list[int] = []

            def act(progress: Progress, run: Planned, message: dict[str, Any]) -> None:
                if "epoch" in message and not pids:
                    pids.extend(process.pid for process in cluster.runs())
                    action()

            monkeypatch.setattr(Progress, "update", act)
            with pytest.raises(error) as raised:
                make("b.yaml", scheduler=cluster.address, progress=False)
            assert len(pids) == 1
            wait_for(lambda: all(map(gone, pids)), 30)
            return str(raised.value)

        ended_by(lambda: os.kill(os.getpid(), signal.SIGINT), KeyboardInterrupt)
        line = ended_by(cluster.processes[0].kill, UserError)
        assert line.startswith("the connection to the Dask scheduler is lost") and "\n" not in line


def test_cores_are_shared_by_all_workers_of_a_machine():
    workers = {
        "tcp://a:1": {"host": "a", "nthreads": 1},
        "tcp://a:2": {"host": "a", "nthreads": 2},
        "tcp://b:1": {"host": "b", "nthreads": 4},
    }
    client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": workers})
    assert cluster._shares(client) == {"tcp://a:1": 3, "tcp://a:2": 3, "tcp://b:1": 4}


def test_a_worker_cannot_write_outside_the_boards_folder(tmp_path: Path):
    answer = {"files": {"../../outside.json": b"{}", "a.json": b"{}"}}
    told = cluster._gather(SimpleNamespace(exception=lambda: None, result=lambda: answer), tmp_path / "board")
    assert told is not None and "'../../outside.json'" in told["failed"]
    assert not list(tmp_path.rglob("*.json"))
