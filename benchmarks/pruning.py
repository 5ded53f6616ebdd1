"""How early a validation curve tells how far a setting gets: whether the best setting of a search was behind at first.

python benchmarks/pruning.py results/tuning/*/*.json

A search is counted where three or more other trials ran to their end. The best trial's best value so far is held
against the median and the lowest quarter of theirs, as a pruner would have done, at some epochs and at some times the
patience. Searches that were pruned themselves have lost slow starters, so that the shares are the least that it costs.

`given_up` counts, of every search that gave up so until commit c23635b, the pruned trials, and those among them that
were, by the best they had reached, in the worst quarter of all that had ended by then. Optuna's percentile pruner,
which `tune` used until then, holds a trial against those alone that got as far.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from recbole_diffmm import record

EPOCHS = (5, 15, 30, 45)  # before which nothing is pruned
PATIENCES = (1, 2, 3)
WORST = (25, 50)  # per cent


def behind(report: dict[str, Any], after: int, worst: int) -> bool | None:
    """Whether the best trial would have been pruned after so many epochs; None where nothing can be said."""
    complete = [trial["curve"] for trial in report["trials"] if trial["state"] == "complete" and trial["curve"]]
    best = max(complete, key=max, default=[])
    others = [max(curve[: after + 1]) for curve in complete if curve is not best]
    if len(others) < 3 or len(best) <= after:
        return None
    return bool(max(best[: after + 1]) < np.percentile(others, worst))


def given_up(report: dict[str, Any]) -> dict[str, int]:
    """Count the pruned trials of a search, and those among the worst quarter of all that had ended before."""
    pruned = worst = 0
    ended: list[list[float]] = []
    for trial in report["trials"]:
        if trial["state"] == "pruned":
            reached = [max(curve[: len(trial["curve"])]) for curve in ended]
            pruned += 1
            worst += max(trial["curve"]) < np.percentile(reached, 25, method="lower")
        if trial["curve"]:
            ended.append(trial["curve"])
    return {"pruned": pruned, "among_worst_quarter": int(worst)}


def counted(reports: dict[str, Any], epochs: int | None, patiences: int | None, worst: int) -> dict[str, Any]:
    """Count the searches whose best trial would have been pruned, by one rule."""
    found = {}
    for name, report in reports.items():
        after = epochs if epochs is not None else (patiences or 0) * report["budget"]["stopping_step"]
        if (was := behind(report, after, worst)) is not None:
            found[name] = was
    when = {"epochs": epochs} if epochs is not None else {"patiences": patiences}
    lost = [name for name, was in found.items() if was]
    return {**when, "worst_per_cent": worst, "best_pruned": len(lost), "searches": len(found), "lost": lost}


def main() -> None:
    """Count and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pruning.json"))
    args = parser.parse_args()
    read = {
        f"{path.parent.name}/{path.stem}": json.loads(path.read_text(encoding="utf-8")) for path in sorted(args.reports)
    }
    rules = [counted(read, epochs, None, worst) for worst in WORST for epochs in EPOCHS]
    rules += [counted(read, None, patiences, worst) for worst in WORST for patiences in PATIENCES]
    late = {name: given_up(report) for name, report in read.items() if "of validation curves" in report["pruner"]}
    commits = sorted({report["code"]["commit"] for report in read.values()})
    record.write_json(
        args.out,
        {
            "rules": rules,
            "given_up": {name: counts for name, counts in late.items() if counts["pruned"]},
            "commits": commits,
            "pruners": sorted({r["pruner"] for r in read.values()}),
        },
    )


if __name__ == "__main__":
    main()
