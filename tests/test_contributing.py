"""The walk-throughs of CONTRIBUTING.md do what they say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from recbole.evaluator import register

from recbole_diffmm.quick_start import run

QUIET = {"epochs": 2, "show_progress": False}


@pytest.fixture
def load_block(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Import the Python block that comes under a heading of CONTRIBUTING.md."""

    def load(heading: str):
        section = (repository / "CONTRIBUTING.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
        path = tmp_path / f"{heading.split()[-1]}_of_contributing.py"
        path.write_text(re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_model(load_block) -> None:
    result = run(load_block("A model").MyModel, "toy", overrides={**QUIET, "epochs": 5, "learning_rate": 0.01})
    losses = [entry["losses"]["loss"] for entry in result.record["curve"]]
    assert losses[-1] < losses[0]
    assert result.record["model"] == "MyModel"


def test_metric(load_block) -> None:
    load_block("A metric")
    try:
        result = run("BPR", "toy", overrides={**QUIET, "metrics": ["Recall", "FirstHit"], "topk": [20]})
    finally:
        for table in (register.metrics_dict, register.metric_types, register.metric_information):
            table.pop("firsthit", None)
    assert set(result.test) == {"recall@20", "firsthit@20"}
