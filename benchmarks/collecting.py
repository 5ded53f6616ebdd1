"""How collecting an evaluation's lists and hits grows with users: RecBole's collector and this package's, by turns.

Every batch has the same random scores, which are not timed; batches are as large as those of a run by default.

    python benchmarks/collecting.py --out benchmarks/results/collecting-cpu.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import Collector

from recbole_diffmm import provenance, record
from recbole_diffmm.evaluator.collector import TopCollector

USERS_PER_BATCH, N_ITEMS, POSITIVES = 256, 1000, 5
SETTINGS = {
    "metrics": ["Recall", "ItemCoverage"],  # hits, and lists as a test keeps them
    "eval_args": {"mode": "full"},
    "topk": [20],
    "device": torch.device("cpu"),
}


def collecting(kind: type[Collector], n_batches: int) -> tuple[float, Any]:
    """Return the seconds of all batches, and what was collected."""
    torch.manual_seed(0)
    scores = torch.rand(USERS_PER_BATCH, N_ITEMS)
    rows = torch.arange(USERS_PER_BATCH).repeat_interleave(POSITIVES)
    items = torch.stack([torch.randperm(N_ITEMS)[:POSITIVES] for _ in range(USERS_PER_BATCH)]).flatten()
    collector = kind(SETTINGS)
    start = time.perf_counter()
    for _ in range(n_batches):
        collector.eval_batch_collect(scores, None, rows, items)
    collected = collector.get_data_struct()
    return time.perf_counter() - start, collected


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--out", type=Path, help="where the report goes; without it the points are only printed")
    args = parser.parse_args()
    points: list[dict[str, Any]] = []
    for kind in (Collector, TopCollector):
        collecting(kind, 8)  # to warm up
    for n_batches in args.batches:
        (before, expected), (here, found) = (collecting(kind, n_batches) for kind in (Collector, TopCollector))
        equal = all(torch.equal(expected.get(name), found.get(name)) for name in ("rec.topk", "rec.items"))
        users = n_batches * USERS_PER_BATCH
        points.append({"users": users, "recbole": round(before, 4), "here": round(here, 4), "equal": equal})
        sys.stdout.write(f"{points[-1]}\n")
    axis = np.log([point["users"] for point in points])
    report = {
        "what": "seconds of a collector in an evaluation, without the scores, and fitted exponents over users",
        "command": " ".join(["python", *sys.argv]),
        "device": provenance.device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "users_per_batch": USERS_PER_BATCH,
        "n_items": N_ITEMS,
        "points": points,
        "exponents": {
            kind: round(float(np.polyfit(axis, np.log([point[kind] for point in points]), 1)[0]), 2)
            for kind in ("recbole", "here")
        },
    }
    sys.stdout.write(f"{report['exponents']}\n")
    if args.out:
        record.write_json(args.out, report)


if __name__ == "__main__":
    main()
