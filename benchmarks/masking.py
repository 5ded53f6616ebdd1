"""What a board's runs score on test when training items alone are masked, as the paper does.

python benchmarks/masking.py saved/*-baby-*.pth --out benchmarks/results/masking-baby.json

The checkpoints are those that validation selected under the board's own protocol; nothing is trained.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from recbole_diffmm import provenance, record, registry
from recbole_diffmm.quick_start import load

METRICS = ("recall@20", "ndcg@20")


def scored(path: Path) -> tuple[str, dict[str, Any]]:
    """Return a checkpoint's model and what it scores on test."""
    config, model, _, _, _, test = load(path, {"protocol": "paper", "use_gpu": False, "state": "WARNING"})
    trainer = registry.get_trainer_class(config)(config, model)
    values = trainer.evaluate(test, load_best_model=False, show_progress=False) or {}
    return config["model"], {"run": path.stem, "seed": config["seed"], **{name: values[name] for name in METRICS}}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return each metric's mean and standard deviation over the runs, beside them."""
    values = {name: [run[name] for run in runs] for name in METRICS}
    return {name: {"mean": round(mean(v), 5), "std": round(stdev(v), 5)} for name, v in values.items()} | {"runs": runs}


def main() -> None:
    """Score every checkpoint and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(args.checkpoints):
        model, values = scored(path)
        runs[model].append(values)
    report = {
        "what": "test metrics of the epochs that validation selected, training items alone masked",
        "commit": (provenance.commit() or {}).get("hash"),
        "models": {model: summary(found) for model, found in runs.items()},
    }
    record.write_json(args.out, report)


if __name__ == "__main__":
    main()
