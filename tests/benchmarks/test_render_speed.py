"""The pages about speed show what the reports say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conftest import load_script


@pytest.fixture(scope="module")
def speed(repository: Path) -> Any:
    return load_script(repository, "render_speed")


def test_the_page_shows_the_reports(speed: Any) -> None:
    page = speed.PAGE.read_text()
    assert speed.render(page) == page
    assert set(re.findall(r"<!-- table: (\S+) -->", page)) == set(speed.TABLES)


def test_the_readme_tells_what_was_measured(repository: Path) -> None:
    report = json.loads((repository / "benchmarks" / "results" / "epoch-tiktok-cpu.json").read_text())
    plain, fast = (report["variants"][name] for name in ("plain", "fast"))
    seconds, ratio = fast["seconds"]["total"], plain["seconds"]["total"] / fast["seconds"]["total"]
    text = " ".join((repository / "README.md").read_text().split())
    memory = fast["peak_memory_mb"]["host"]
    fp32 = plain["seconds"]["total"] / report["variants"]["fast-fp32"]["seconds"]["total"]
    measured = f"{ratio:.1f} times ({seconds:.1f} s on two cores, {memory:,.0f} MiB)"
    assert f"is {fp32:.1f} times as fast in float32, and {measured}" in text
    report = json.loads((repository / "benchmarks" / "results" / "epoch-tiktok-h200.json").read_text())
    plain, fast = (report["variants"][name]["seconds"]["total"] for name in ("plain", "fast"))
    assert f"On an NVIDIA H200 it takes {fast:.2f} s, where that computation takes {plain:.1f} s." in text


def test_the_page_links_to_files_that_are_there(speed: Any) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", speed.PAGE.read_text()):
        assert (speed.PAGE.parent / target).exists(), target


def test_bf16_is_the_default_because_it_is_not_worse(repository: Path) -> None:
    report = json.loads((repository / "benchmarks" / "results" / "variants-tiktok.json").read_text())
    fp32 = report["variants"]["fp32"]
    assert report["compared_with"] == "bf16" and len(fp32["seeds"]) == 5
    for metric in ("recall@20", "ndcg@20"):
        key = f"valid_mean_{metric}"
        gain = fp32["difference_of_the_same_seeds"][key]["mean"]
        assert gain < 0.2 * fp32["figures"][key]["standard_deviation"], "small against what a seed makes"
