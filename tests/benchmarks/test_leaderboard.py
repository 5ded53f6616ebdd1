"""The docs say of boards what the report says, and the report meets the goals."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median


def test_the_docs_tell_what_was_measured(repository: Path) -> None:
    report = json.loads((repository / "benchmarks" / "results" / "leaderboard-cpu.json").read_text())
    text = " ".join((repository / "docs" / "leaderboards.md").read_text().split())
    sixty, thousand, twelve = report["sixty"], report["thousand"], report["twelve"]
    assert f"is done takes {median(sixty['resuming_s']):.1f} s, its page has {sixty['page_mb']:.1f} MB" in text
    assert f"rendered in {median(thousand['process_s']):.1f} s" in text
    (one,), (two,) = twelve["seconds"]["one"], twelve["seconds"]["two"]
    assert f"takes {two} s with two workers of one thread and {one} s with one worker of two" in text
    assert max(sixty["resuming_s"]) < 2 and sixty["page_mb"] < 3
    assert max(thousand["process_s"]) < 5
    assert min(twelve["ratios"]) >= 1.6
