"""The README shows what the records say, and records that cannot be compared share no table."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from recbole_diffmm.model.diffmm import DiffMMConfig


@pytest.fixture(scope="module")
def tables(repository: Path) -> Any:
    spec = importlib.util.spec_from_file_location("render_table", repository / "benchmarks" / "render_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_shows_the_records(repository: Path, tables: Any) -> None:
    text = (repository / "README.md").read_text()
    names = re.findall(r"<!-- table: (\S+) -->", text)
    assert names == ["tiktok-va", "tiktok-va-recbole"], "results/runs holds the reader's own runs"
    for name in names:
        records = tables.read_records(repository / "results" / name)
        assert tables.insert(text, name, tables.render(records)) == text


def test_readme_tells_how_few_items_the_diffusion_reaches(repository: Path, tables: Any) -> None:
    records = [r for r in tables.read_records(repository / "results" / "tiktok-va") if r["model"] == "DiffMM"]
    graphs = [epoch["diagnostics"][name] for r in records for epoch in r["curve"] for name in r["data"]["features"]]
    reached = [int(graph["distinct_items"]) for graph in graphs]
    text = " ".join((repository / "README.md").read_text().split())
    assert f"reached between {min(reached)} and {max(reached)} of 6,710 items" in text


def test_full_graph_is_the_default_because_validation_prefers_it(repository: Path) -> None:
    report = json.loads((repository / "benchmarks" / "results" / "eval_graph-tiktok.json").read_text())
    better = [difference > 0 for difference in report["mean_difference_of_each_seed"]]
    assert len(better) == 5 and all(better)
    assert DiffMMConfig().eval_graph == "full"


@pytest.mark.parametrize(("folder", "protocol"), [("tiktok-va", "paper"), ("tiktok-va-recbole", "recbole")])
def test_records_name_their_provenance(repository: Path, tables: Any, folder: str, protocol: str) -> None:
    records = tables.read_records(repository / "results" / folder)
    assert {(record["model"], record["seed"]) for record in records} == {
        (model, seed) for model in ("DiffMM", "LightGCN", "BPR", "EASE") for seed in (1, 2, 3, 4, 5)
    }
    for record in records:
        assert record["commit"] and record["versions"]["torch"] and record["data"]["split_hash"]
        assert record["protocol"] == protocol
        assert ("test_selected" in record["metrics"]) == (protocol == "paper"), "test is looked at once"
        assert all(("test" in epoch) == (protocol == "paper") for epoch in record["curve"])
        assert len(record["curve"]) == record["epochs_run"]
        best = max(record["curve"], key=lambda epoch: (epoch["valid"]["recall@20"], epoch["epoch"]))
        assert record["best_epoch"] == best["epoch"], "validation selects"


@pytest.mark.parametrize("key", ["protocol", "masking", "selection", "dataset"])
def test_records_of_different_protocols_share_no_table(repository: Path, tables: Any, key: str) -> None:
    records = tables.read_records(repository / "results" / "tiktok-va")[:2]
    changed = copy.deepcopy(records)
    changed[1][key] = "another"
    with pytest.raises(ValueError, match=key):
        tables.render(changed)
