"""Time and memory of the nearest items of a large catalogue, which no array of items x items may take.

python benchmarks/knn.py --items 100000 --features 1024
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from recbole_diffmm import provenance, record
from recbole_diffmm.graph import knn_graph


def main() -> None:
    """Build the graph of the nearest items of random features and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/knn-cpu.json"))
    args = parser.parse_args()
    features = torch.randn(args.items, args.features, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    graph = knn_graph(features, args.neighbours, "cosine")
    report = {
        "command": f"python benchmarks/knn.py --items {args.items} --features {args.features}",
        "items": args.items,
        "features": args.features,
        "neighbours": args.neighbours,
        "entries": graph.matrix.values().numel(),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mib": provenance.peak_memory_mb(torch.device("cpu"))["host"],
        "features_mib": round(features.nbytes / 2**20),
        "threads": torch.get_num_threads(),
        "device": provenance.device_name(torch.device("cpu")),
        "commit": (provenance.commit() or {}).get("hash"),
    }
    sys.stderr.write(json.dumps(report) + "\n")
    record.write_json(args.out, report)


if __name__ == "__main__":
    main()
