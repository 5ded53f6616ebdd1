"""What every test stands on: one thread, a folder of its own, and the shared data where they are."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is first imported; subprocesses inherit it

import logging
from pathlib import Path

import pytest
import torch

import recbole_diffmm  # noqa: F401 - mends RecBole before a test module imports it, whichever is run alone
from recbole_diffmm.cli import main

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the clone."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the real data and parity arrays, which lies beside the clone, not in it."""
    folder = Path(os.environ.get("RECBOLE_DIFFMM_SHARED", REPOSITORY.parent / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (RECBOLE_DIFFMM_SHARED says where else)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _session_in_scratch(tmp_path_factory: pytest.TempPathFactory):
    """Wider fixtures run before a test's own folder is there: they must not write into the clone either."""
    before = Path.cwd()
    scratch = tmp_path_factory.mktemp("cwd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(scratch / "cache"))
        os.chdir(scratch)
        yield
        os.chdir(before)


@pytest.fixture(autouse=True)
def _in_own_folder(_session_in_scratch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole writes its logs and checkpoints into the current folder: each test gets its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _anomaly_detection_stays_as_it_was():
    """Importing any sequential model of RecBole switches it on for the whole process (its sine.py does)."""
    before = torch.is_anomaly_enabled()
    yield
    torch.autograd.set_detect_anomaly(before)


@pytest.fixture(autouse=True)
def _log_level_stays_as_it_was():
    """RecBole's own functions set the root logger's, and tests of warnings would see none afterwards."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    """Call the command line and return the one line that it ends in with code 2."""

    def call(*arguments: str) -> str:
        code = main(list(arguments))
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert captured.err.count("\n") == 1, captured.err
        assert captured.err.startswith("error: ")
        return captured.err

    return call
