"""Compares DiffMM's runs with the reference implementation's recorded curve (one seed) on the same data and settings.

Three figures each, on validation and test: the mean over the epochs after the rise, which depends least on chance; the
epoch that validation selects; the epoch with the best test value. The reference scores with the randomly dropped graph,
whose draw makes its epochs scatter more, so that the best of many epochs is higher at the same level.

    python benchmarks/against_reference.py results/tiktok-va
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

METRICS = {"Recall": "recall@20", "NDCG": "ndcg@20"}
AFTER_RISE = 10


def describe(valid: list[float], test: list[float], chooser: list[float]) -> dict[str, float]:
    """The figures of one curve; `chooser` is the validation recall of each epoch, of which the last best one counts."""
    best = max(range(len(chooser)), key=lambda epoch: (chooser[epoch], epoch))
    return {
        "valid_mean": statistics.mean(valid[AFTER_RISE:]),
        "test_mean": statistics.mean(test[AFTER_RISE:]),
        "valid_scatter_of_epochs": statistics.stdev(valid[AFTER_RISE:]),
        "test_scatter_of_epochs": statistics.stdev(test[AFTER_RISE:]),
        "valid_best": max(valid),
        "test_at_best_valid": test[best],
        "test_best": max(test),
    }


def main() -> None:
    """Write the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/against_reference.json"))
    args = parser.parse_args()
    shared = Path(os.environ.get("RECBOLE_DIFFMM_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    epochs = json.loads((shared / "reference" / "diffmm_tiktok_va.json").read_text())["epochs"]
    records = [json.loads(path.read_text()) for path in sorted(args.folder.glob("DiffMM-*.json"))]
    report: dict[str, Any] = {"epochs_averaged": f"{AFTER_RISE} to {len(epochs) - 1}", "seeds": len(records)}
    for theirs, ours in METRICS.items():
        recall = [epoch["valid"]["Recall"] for epoch in epochs]
        reference = describe(
            [epoch["valid"][theirs] for epoch in epochs], [epoch["test"][theirs] for epoch in epochs], recall
        )
        runs = [
            describe(
                [epoch["valid"][ours] for epoch in record["curve"]],
                [epoch["test"][ours] for epoch in record["curve"]],
                [epoch["valid"]["recall@20"] for epoch in record["curve"]],
            )
            for record in records
        ]
        report[ours] = {
            figure: {
                "reference": round(value, 5),
                "mean": round(statistics.mean(run[figure] for run in runs), 5),
                "standard_deviation": round(statistics.stdev(run[figure] for run in runs), 5),
            }
            for figure, value in reference.items()
        }
        if "valid_dropped" in records[0]["curve"][0]["diagnostics"]:
            dropped = [[epoch["diagnostics"]["valid_dropped"][ours] for epoch in r["curve"]] for r in records]
            report[ours]["valid_best_with_the_dropped_graph"] = {
                "reference": round(reference["valid_best"], 5),
                "mean": round(statistics.mean(map(max, dropped)), 5),
                "standard_deviation": round(statistics.stdev(map(max, dropped)), 5),
            }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
