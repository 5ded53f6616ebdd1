"""Compares DiffMM's runs with the reference implementation's recorded curve (one seed) on the same data and settings.

Figures of validation and test: the mean over the epochs after the rise, which depends least on chance; how far epochs
scatter about it; the epoch that validation selects (the mean of all, where several are equally good); the best epoch.
The reference scores with the randomly dropped graph, so our epochs are described twice, scored with the full graph, our
default, and with the dropped one. `p` is how often one more seed of ours would lie at least as far from the mean of
ours as the reference's one seed does, if seeds are normal: Student's t with the seeds less one, two-sided, uncorrected.
Training losses are compared epoch by epoch.

    python benchmarks/against_reference.py benchmarks/results/diffmm-tiktok-va results/tiktok-paper
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from scipy import stats

# The reference names the second of its modalities text, whatever it is.
LOSSES = {
    "bpr": lambda losses: losses["BPR Loss"],
    "reg": lambda losses: losses["Loss"] - losses["BPR Loss"],
    "contrast": lambda losses: losses["CL loss"],
    "elbo_image + msi_image": lambda losses: losses["Di image loss"],
    "elbo_audio + msi_audio": lambda losses: losses["Di text loss"],
}
METRICS = {"Recall": "recall@20", "NDCG": "ndcg@20"}
AFTER_RISE = 10


def describe(valid: list[float], test: list[float], chooser: list[float]) -> dict[str, float]:
    """The figures of one curve; `chooser` is the validation recall of each epoch, which selects."""
    selected = [value for value, by in zip(test, chooser, strict=True) if by == max(chooser)]
    return {
        "valid_mean": statistics.mean(valid[AFTER_RISE:]),
        "test_mean": statistics.mean(test[AFTER_RISE:]),
        "valid_scatter_of_epochs": statistics.stdev(valid[AFTER_RISE:]),
        "test_scatter_of_epochs": statistics.stdev(test[AFTER_RISE:]),
        "valid_best": max(valid),
        "test_at_best_valid": statistics.mean(selected),
        "test_best": max(test),
    }


def scored_with(record: dict[str, Any], graph: str) -> list[dict[str, dict[str, float]]] | None:
    """Validation and test of every epoch, scored with one of the generated graphs; None if the run did not use it.

    A run scores with the graph that it is set to; those of `benchmarks/eval_graph.py` with both.
    """
    curve = record["curve"]
    if f"valid_{graph}" in curve[0]["diagnostics"]:
        return [{part: epoch["diagnostics"][f"{part}_{graph}"] for part in ("valid", "test")} for epoch in curve]
    return curve if record["config"]["eval_graph"] == graph else None


def compare(reference: float, ours: list[float]) -> dict[str, float]:
    """The reference's figure beside the mean, spread and largest of ours."""
    mean, deviation = statistics.mean(ours), statistics.stdev(ours)
    t = (reference - mean) / (deviation * (1 + 1 / len(ours)) ** 0.5)
    return {
        "reference": round(reference, 5),
        "mean": round(mean, 5),
        "standard_deviation": round(deviation, 5),
        "largest": round(max(ours), 5),
        "p": round(2 * float(stats.t.sf(abs(t), len(ours) - 1)), 3),
    }


def compare_curves(
    reference: list[dict[str, Any]], theirs: str, curves: list[list[dict[str, Any]]], ours: str
) -> dict[str, dict[str, float]]:
    """Every figure of a metric, which the reference calls `theirs` and we `ours`."""

    def described(epochs: list[dict[str, Any]], metric: str, chooser: str) -> dict[str, float]:
        valid, test = ([epoch[part][metric] for epoch in epochs] for part in ("valid", "test"))
        return describe(valid, test, [epoch["valid"][chooser] for epoch in epochs])

    runs = [described(curve, ours, "recall@20") for curve in curves]
    return {
        figure: compare(value, [run[figure] for run in runs])
        for figure, value in described(reference, theirs, "Recall").items()
    }


def compare_losses(reference: list[float], records: list[dict[str, Any]], name: str) -> dict[str, float]:
    """The reference's loss over the mean of ours, over the epochs after the rise."""
    ours = [
        statistics.mean(sum(r["curve"][epoch]["losses"][term] for term in name.split(" + ")) for r in records)
        for epoch in range(len(reference))
    ]
    ratios = [theirs / mean for theirs, mean in zip(reference, ours, strict=True)][AFTER_RISE:]
    return {key: round(f(ratios), 4) for key, f in (("mean", statistics.mean), ("min", min), ("max", max))}


def main() -> None:
    """Write the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/against_reference.json"))
    args = parser.parse_args()
    shared = Path(os.environ.get("RECBOLE_DIFFMM_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    epochs = json.loads((shared / "reference" / "diffmm_tiktok_va.json").read_text())["epochs"]
    records = [json.loads(path.read_text()) for folder in args.folders for path in sorted(folder.glob("DiffMM-*.json"))]
    report: dict[str, Any] = {"epochs_averaged": f"{AFTER_RISE} to {len(epochs) - 1}"}
    for graph in ("full", "dropped"):
        curves = {record["seed"]: scored_with(record, graph) for record in records}
        found = {seed: curve for seed, curve in curves.items() if curve is not None}
        report[f"scored_with_the_{graph}_graph"] = {"seeds": sorted(found)} | {
            ours: compare_curves(epochs, theirs, list(found.values()), ours) for theirs, ours in METRICS.items()
        }
    report["training_losses_reference_over_ours"] = {
        name: compare_losses([read(epoch["train_loss"]) for epoch in epochs], records, name)
        for name, read in LOSSES.items()
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
