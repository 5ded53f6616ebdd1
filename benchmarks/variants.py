"""Compares variants of DiffMM by their run records: what each validates and tests at, over the same epochs and seeds.

Only seeds that both a variant and the first one have are compared, and only as many epochs as both ran. What an earlier
report says of other variants stays in it while the first is the same: their records need not lie there any more.

    python benchmarks/variants.py --out benchmarks/results/variants-tiktok.json \\
      'fp32=results/old/DiffMM-*.json' 'bf16=benchmarks/results/diffmm-tiktok-va/*.json'
"""

from __future__ import annotations

import argparse
import glob
import json
import statistics
import sys
from pathlib import Path
from typing import Any

METRICS = ("recall@20", "ndcg@20")
AFTER_RISE = 10


def read(pattern: str) -> dict[int, dict[str, Any]]:
    """The records that a pattern finds, by seed."""
    found = [json.loads(Path(path).read_text()) for path in sorted(glob.glob(pattern))]
    if not found:
        sys.exit(f"error: no record matches {pattern}")
    return {record["seed"]: record for record in found}


def describe(record: dict[str, Any], n_epochs: int) -> dict[str, float]:
    """Means over the epochs after the rise, the epoch that validation selects."""
    curve = record["curve"][:n_epochs]
    figures = {
        f"{part}_mean_{metric}": statistics.mean(epoch[part][metric] for epoch in curve[AFTER_RISE:])
        for part in ("valid", "test")
        for metric in METRICS
    }
    best = max(curve, key=lambda epoch: (epoch["valid"]["recall@20"], epoch["epoch"]))
    figures |= {f"{part}_selected_{metric}": best[part][metric] for part in ("valid", "test") for metric in METRICS}
    return figures


def commit(record: dict[str, Any]) -> str:
    """The commit that a record is of, which its first schema kept elsewhere."""
    return record["code"]["commit"] if "code" in record else record["commit"]["hash"]


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean and, of several values, standard deviation."""
    deviation = round(statistics.stdev(values), 5) if len(values) > 1 else None
    return {"mean": round(statistics.mean(values), 5), "standard_deviation": deviation}


def main() -> None:
    """Write the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="+", help="name=pattern of record files; the first is compared with")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    groups = {name: read(pattern) for name, pattern in (text.split("=", 1) for text in args.variants)}
    first, *others = groups
    entries: dict[str, dict[str, Any]] = {}
    for name in (first, *others):
        seeds = sorted(groups[name].keys() & groups[first].keys())
        n_epochs = min(len(groups[g][seed]["curve"]) for g in (name, first) for seed in seeds)
        ours, base = ([describe(groups[g][seed], n_epochs) for seed in seeds] for g in (name, first))
        entries[name] = {
            "seeds": seeds,
            "epochs": n_epochs,
            "epochs_averaged": f"{AFTER_RISE} to {n_epochs - 1}",
            "commits": sorted({commit(groups[name][seed])[:9] for seed in seeds}),
            "figures": {key: spread([figures[key] for figures in ours]) for key in ours[0]},
            "difference_of_the_same_seeds": {
                key: spread([a[key] - b[key] for a, b in zip(ours, base, strict=True)]) for key in ours[0]
            },
        }
    earlier = json.loads(args.out.read_text())["variants"] if args.out.is_file() else {}
    kept = earlier if earlier.get(first) == entries[first] else {}
    report = {"compared_with": first, "variants": {**kept, **entries}}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    for name, entry in entries.items():
        figures = {key: value["mean"] for key, value in entry["figures"].items()}
        sys.stdout.write(f"{name} (seeds {entry['seeds']}, {entry['epochs']} epochs): {figures}\n")


if __name__ == "__main__":
    main()
