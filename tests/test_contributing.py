"""The walk-throughs of CONTRIBUTING.md and dataset/README.md do what they say."""

from __future__ import annotations

import importlib.util
import re
import runpy
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


def test_features_from_texts(repository: Path) -> None:
    """The recipe of dataset/README.md gives files that a run reads."""
    recipe = re.findall(r"```python\n(.*?)```", (repository / "dataset" / "README.md").read_text(), re.DOTALL)[0]
    Path("dataset/mine").mkdir(parents=True)
    pairs = [f"u{user}\tb{(user * 7 + step) % 30}" for user in range(20) for step in range(8)]
    Path("dataset/mine/mine.inter").write_text("\n".join(["user_id:token\titem_id:token", *pairs]) + "\n")
    titles = [f"b{item},the {('red', 'blue', 'green')[item % 3]} book {item % 5}" for item in range(29)]
    Path("titles.csv").write_text("\n".join(["item_id,title", *titles, "b29,"]) + "\n")
    Path("recipe.py").write_text(recipe)
    runpy.run_path("recipe.py")
    modalities = {"text": {"features": "text.npy"}}
    result = run(
        "VBPR",
        "mine",
        overrides={
            **QUIET,
            "load_col": {"inter": ["user_id", "item_id"]},
            "modalities": modalities,
            "data_path": "dataset",
        },
    )
    assert result.record["data"]["features"]["text"]["coverage"] == pytest.approx(29 / 30)


def test_metric(load_block) -> None:
    load_block("A metric")
    try:
        result = run("BPR", "toy", overrides={**QUIET, "metrics": ["Recall", "FirstHit"], "topk": [20]})
    finally:
        for table in (register.metrics_dict, register.metric_types, register.metric_information):
            table.pop("firsthit", None)
    assert set(result.test) == {"recall@20", "firsthit@20"}
