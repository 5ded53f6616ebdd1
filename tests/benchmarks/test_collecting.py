"""Both collectors collect the same, in a time of which only this package's is in proportion to the users."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import load_script


def test_both_collect_the_same(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, out = load_script(repository, "collecting"), tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["collecting.py", "--batches", "2", "4", "--out", str(out)])
    script.main()
    report = json.loads(out.read_text())
    assert [point["users"] for point in report["points"]] == [512, 1024]
    assert all(point["equal"] for point in report["points"])


def test_what_was_measured(repository: Path) -> None:
    report = json.loads((repository / "benchmarks" / "results" / "collecting-cpu.json").read_text())
    assert all(point["equal"] for point in report["points"])
    assert report["exponents"]["here"] <= 1.05 < report["exponents"]["recbole"]
