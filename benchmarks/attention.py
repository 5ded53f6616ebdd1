"""A training step of GRCN and CLCRec whose products go edge by edge, with all rows, or as this package has them.

python benchmarks/attention.py --dataset tiktok
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from recbole.utils import init_seed
from torch import Tensor

from recbole_diffmm import graph, provenance, record, registry
from recbole_diffmm.config import Config
from recbole_diffmm.graph import Edges
from recbole_diffmm.model import clcrec, grcn
from recbole_diffmm.quick_start import load_splits


def with_all_rows(edges: Edges, x: Tensor) -> Tensor:
    """Products of a batch with all rows, of which the picked ones are taken: what CLCRec had before."""
    n_queries = int(edges.receiver[-1]) + 1
    picked = (edges.sender - n_queries).view(n_queries, -1)
    return (x[:n_queries] @ x[n_queries:].t()).gather(1, picked).flatten()


# By model: its module, and what it had in place of each function before.
BEFORE: dict[str, tuple[Any, dict[str, Any]]] = {
    "GRCN": (grcn, {"agreement": graph.agreement, "aggregate": graph.aggregate}),
    "CLCRec": (clcrec, {"agreement": with_all_rows}),
}


def measured(name: str, dataset: str, steps: int) -> dict[str, Any]:
    """Return the median seconds of a step both ways, and how far apart the losses are."""
    config = Config(name, dataset, [], {"tensorboard": False, "show_progress": False})
    init_seed(config["seed"], True)
    train, _, _ = load_splits(config, registry.create_dataset(config))
    model = config.model_class(config, train._dataset).to(config["device"])
    module, before = BEFORE[name]
    here = {function: getattr(module, function) for function in before}

    def step(functions: dict[str, Any], batch: Any, seed: int) -> tuple[float, float]:
        for function, implementation in functions.items():
            setattr(module, function, implementation)
        torch.manual_seed(seed)
        start = time.perf_counter()
        model.zero_grad()
        loss = sum(model.calculate_loss(batch))
        loss.backward()
        value = loss.item()  # waits for the device
        return time.perf_counter() - start, value

    batches = [batch.to(config["device"]) for batch, _ in zip(train, range(steps + 1), strict=False)]
    # No step is taken, so that both see the same parameters and draw the same; the first batch warms up.
    pairs = [(step(before, batch, i), step(here, batch, i)) for i, batch in enumerate(batches)][1:]
    old, new = (statistics.median(pair[way][0] for pair in pairs) for way in (0, 1))
    return {
        "model": name,
        "batches_an_epoch": len(train),
        "before": old,
        "here": new,
        "ratio": old / new,
        "largest_relative_difference": max(abs(a[1] - b[1]) / abs(a[1]) for a, b in pairs),
    }


def main() -> None:
    """Measure both models and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attention-tiktok-cpu.json"))
    args = parser.parse_args()
    report = {
        "what": "seconds of a step without the optimizer's: products edge by edge (GRCN) or with all rows (CLCRec), "
        "and this package's, in turn",
        "command": f"python benchmarks/attention.py --dataset {args.dataset}",
        "device": provenance.device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "models": [measured(name, args.dataset, args.steps) for name in BEFORE],
    }
    for row in report["models"]:
        sys.stdout.write(f"{row['model']}: {row['before']:.3f} s, {row['here']:.3f} s, {row['ratio']:.2f} times\n")
    record.write_json(args.out, report)


if __name__ == "__main__":
    main()
