"""Runs in processes: their numbers are those of one process, and no interruption or crash costs more than itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from recbole_diffmm import process
from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard.make import Made, make
from recbole_diffmm.leaderboard.plan import Planned
from recbole_diffmm.leaderboard.progress import Progress
from recbole_diffmm.leaderboard.spec import Task
from recbole_diffmm.quick_start import RunResult
from recbole_diffmm.trainer import checkpoint
from tests.leaderboard.test_spec import write
from tests.processes import gone, wait_for
from tests.trainer.small import SETTINGS, numbers, small_run

# What a board's runs are set to anyway is left out.
_SETTINGS = {key: value for key, value in SETTINGS.items() if key not in {"show_progress", "state"}}


def _records(folder: Path) -> list[dict[str, Any]]:
    paths = [path for path in sorted(folder.glob("*-s*.json")) if not path.name.endswith(".failure.json")]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    return numbers(RunResult(record, Path(), {}, {}))


class Sweep:
    """A board of three runs, made twice: in the first call one crashes and another one's process is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "results/b"
        self.running: set[str] = set()
        self.most = 0
        self.made: list[Made] = []
        self.failures: list[dict[str, Any]] = []
        self.threads: list[str] = []
        rows = [
            {"model": "BPR", "label": "bad", "settings": {"learning_rate": 1e30}},
            {"model": "BPR", "label": "killed", "settings": {"embedding_size": 8}},
            "BPR",
        ]
        write(folder / "b.yaml", models=rows, seeds=[1], settings=_SETTINGS)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            self._watch(patch)
            for _ in range(2):
                self.made.append(make("b.yaml", workers=2, progress=False))
                files = sorted(self.folder.glob("*.failure.json"))
                self.failures.append({x["label"]: x for x in (json.loads(file.read_text("utf-8")) for file in files)})

    def _watch(self, patch: pytest.MonkeyPatch) -> None:
        sweep = self
        start, end = Progress.start, Progress.end

        class Watched(process.WorkerProcess):
            def __init__(self, module: str, request: Any, environment: Any) -> None:
                super().__init__(module, request, environment)
                self.fated = request["settings"].get("embedding_size") == 8 and not sweep.made
                sweep.threads.append(environment["OMP_NUM_THREADS"])

            def message(self) -> dict[str, Any] | None:
                message = super().message()
                if self.fated and message and "epoch" in message:
                    os.kill(self.pid, signal.SIGKILL)
                return message

        def started(progress: Progress, run: Planned) -> None:
            sweep.running.add(run.name)
            sweep.most = max(sweep.most, len(sweep.running))
            start(progress, run)

        def ended(progress: Progress, run: Planned, reason: str | None) -> None:
            sweep.running.discard(run.name)
            end(progress, run, reason)

        patch.setattr(process, "WorkerProcess", Watched)
        patch.setattr(Progress, "start", started)
        patch.setattr(Progress, "end", ended)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(tmp_path_factory.mktemp("sweep"))


@pytest.mark.slow
def test_a_run_that_fails_is_recorded_with_its_reason_and_the_others_go_on(sweep: Sweep):
    first, failures = sweep.made[0], sweep.failures[0]
    assert first.done == 1 and set(failures) == {"bad", "killed"}
    assert set(first.failures.values()) == {failure["reason"] for failure in failures.values()}
    bad, killed = failures["bad"], failures["killed"]
    assert bad["reason"].startswith("loss term loss became") and "learning_rate=1e+30" in bad["reason"]
    assert "Traceback" in bad["details"] and bad["name"] in first.failures
    assert killed["reason"].startswith("the process was killed by signal 9")
    assert (bad["model"], bad["dataset"], bad["seed"]) == ("BPR", "toy", 1)


def test_what_failed_is_tried_again_and_a_success_forgets_the_failure(sweep: Sweep):
    second = sweep.made[1]
    assert second.done == 1 and set(sweep.failures[1]) == {"bad"} == {sweep.failures[1]["bad"]["label"]}
    assert list(second.failures) == [sweep.failures[1]["bad"]["name"]]
    assert len(_records(sweep.folder)) == 2


def test_two_runs_go_on_at_once(sweep: Sweep):
    assert sweep.most == 2
    assert set(sweep.threads) == {os.environ["OMP_NUM_THREADS"]}  # a user's own number wins


def test_records_have_the_numbers_of_one_process(sweep: Sweep):
    small, wide = sorted(_records(sweep.folder), key=lambda record: record["config"]["embedding_size"])
    for record in (wide, small):  # the small one was killed once
        alone = small_run("BPR", seed=1, embedding_size=record["config"]["embedding_size"])
        assert record["name"] == alone.record["name"]
        assert _numbers(record) == numbers(alone)
    assert (sweep.folder / f"{wide['name']}.per_user.parquet").is_file()


_LONG = {**_SETTINGS, "epochs": 90, "stopping_step": 90, "train_batch_size": 128}


@pytest.mark.slow
def test_an_interrupted_board_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    write(Path("b.yaml"), models=["Pop", "BPR"], seeds=[1], settings=_LONG)
    folder = Path("results/b")
    command = [sys.executable, "-m", "recbole_diffmm", "leaderboard", "b.yaml", "--workers", "1"]
    seen: list[list[dict[str, Any]]] = []
    mtimes: list[int] = []

    def interrupted_by(number: signal.Signals) -> tuple[int, str]:
        """Call the command and send it a signal when training has gone on for some epochs."""
        before = len(seen[-1]) if seen else 0
        parent = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            curve = wait_for(lambda: _state(before + 3))
            pids = [child.pid for child in psutil.Process(parent.pid).children()]
            assert len(pids) == 1
            if not seen:
                with pytest.raises(UserError, match="another leaderboard or tuning is at work in results/b"):
                    make("b.yaml", progress=False)
            parent.send_signal(number)
            code = parent.wait(20)
            wait_for(lambda: all(gone(pid) for pid in pids), 5)
        finally:
            parent.kill()
        seen.append(_state(len(curve)))
        assert len(seen[-1]) < _LONG["epochs"], "it was over too soon to be interrupted"
        assert [record["model"] for record in _records(folder)] == ["Pop"]
        assert not list(folder.glob("*.tmp")) and not list(folder.glob("*.failure.json"))
        mtimes.append(next(folder.glob("Pop-*.json")).stat().st_mtime_ns)
        assert parent.stderr
        return code, parent.stderr.read().splitlines()[-1]

    assert interrupted_by(signal.SIGINT) == (130, "stopped: 1 of 2 runs are done; the same command goes on")
    assert interrupted_by(signal.SIGKILL)[0] == -signal.SIGKILL
    made = make("b.yaml", workers=1, progress=False)
    assert made.done == 1 and not made.failures
    bpr, _ = _records(folder)
    assert {next(folder.glob("Pop-*.json")).stat().st_mtime_ns} == set(mtimes)  # it has run once
    # The epochs before each interruption are kept with the seconds that they took: they were not trained again.
    for curve in seen:
        assert bpr["curve"][: len(curve)] == curve
    assert len(seen[0]) < len(seen[1])
    Path("alone").mkdir()
    monkeypatch.chdir("alone")
    assert _numbers(bpr) == numbers(small_run("BPR", seed=1, **_LONG))
    monkeypatch.chdir(tmp_path)
    assert not list(Path().rglob("*.tmp")) and not list(Path().rglob("*.resume.pth"))


def _state(n_epochs: int) -> list[dict[str, Any]]:
    """The curve in the state that an unfinished run could be continued from, empty before it has so many epochs."""
    try:
        curve: list[dict[str, Any]] = checkpoint.load(*Path("saved").glob("*.resume.pth"))["curve"]
    except (TypeError, UserError):  # not there yet
        return []
    return curve if len(curve) >= n_epochs else []


def _run(label: str) -> Planned:
    return Planned(Task(label, "BPR", "toy", 1), f"{label}-toy-s1", "", "missing")


def test_the_bar_ends_full_and_counts(capsys: pytest.CaptureFixture[str]):
    a, b, c = map(_run, "abc")
    progress = Progress(4, 3)
    for run in (a, b):
        progress.start(run)
        progress.update(run, {"epochs": 3})
        progress.update(run, {"epoch": 2, "score": 0.5})
    progress.start(a)  # again, because its worker died
    progress.update(a, {"epoch": 1, "score": 0.5})
    progress.end(a, None)
    progress.update(a, {"epoch": 2, "score": 0.5})  # late
    progress.start(a)
    progress.end(b, "it broke")
    progress.start(c)
    progress.end(c, None)
    progress.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "failed: b on toy, seed 1: it broke" in shown.err
    last = shown.err.split("\r")[-1].split("failed: ")[-1].rstrip()
    assert last.startswith("100% |") and last.endswith("left, 6 done, 1 failed, 0 running")


def test_the_bar_says_what_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress(0, 2)
    progress.start(_run("a"))
    progress.update(_run("a"), {"epochs": 3})
    progress.update(_run("a"), {"epoch": 2, "score": 0.5})
    progress.close()
    last = capsys.readouterr().err.split("\r")[-1].strip()
    assert last.startswith("25% |") and last.endswith("left, 0 done, 0 failed, 1 running (a toy s1 2/3)")


def test_a_hidden_bar_shows_nothing(capsys: pytest.CaptureFixture[str]):
    progress = Progress(0, 1, shown=False)
    progress.start(_run("a"))
    progress.end(_run("a"), "it broke")
    progress.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("package", ["pyarrow", "statsmodels", "jinja2"])
def test_what_a_board_cannot_end_without_is_asked_for_first(package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    write(Path("b.yaml"), models=["Pop"], seeds=[1])
    with pytest.raises(UserError, match=rf'a board needs {package}, .* pip install "recbole-diffmm\[leaderboard\]"'):
        make("b.yaml", progress=False)
    assert not Path("results").exists()
