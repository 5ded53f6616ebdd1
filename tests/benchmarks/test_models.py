"""What is written of the models is what was measured of them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from recbole_diffmm import registry


def _report(repository: Path, name: str) -> dict:
    return json.loads((repository / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def test_the_document_of_the_models_is_made_of_the_reports(repository: Path) -> None:
    made = runpy.run_path(str(repository / "docs" / "models.py"))["text"]()
    assert (repository / "docs" / "models.md").read_text(encoding="utf-8") == made, "run python docs/models.py"


def test_every_model_was_measured(repository: Path) -> None:
    rows = _report(repository, "models-tiktok-cpu.json")["models"]
    assert not [row for row in rows if "failed" in row]
    assert set(registry.own_model_names()) <= {row["model"] for row in rows}


def test_no_model_stays_far_below_its_public_figure(repository: Path) -> None:
    points = _report(repository, "public_points-tiktok.json")["points"]
    assert {point["model"] for point in points} == {"LightGCN", "FREEDOM", "BM3"}
    for point in points:
        assert point["recall@20"] > 0.93 * point["public_recall@20"]
        assert point["ndcg@20"] > 0.93 * point["public_ndcg@20"]


def test_nearest_items_of_a_large_catalogue_fit(repository: Path) -> None:
    report = _report(repository, "knn-cpu.json")
    assert (report["items"], report["features"], report["neighbours"]) == (100_000, 1024, 10)
    assert report["seconds"] < 600 and report["peak_mib"] < 2048
    assert report["entries"] == 1_000_000
