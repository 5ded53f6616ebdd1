"""Which generated graph to score with: validates every epoch of the same training with the full and the dropped one.

The choice changes no training step, so that one run compares both. It is made on validation alone; test is not read.

    python benchmarks/eval_graph.py --dataset tiktok --config_files properties/published/DiffMM-tiktok.yaml --seeds 1 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from recbole_diffmm import registry
from recbole_diffmm.quick_start import run
from recbole_diffmm.trainer.diffmm import DiffMMTrainer

GRAPHS = ("full", "dropped")


class BothGraphsTrainer(DiffMMTrainer):
    """Validates with both graphs; selection goes by the configured one."""

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        result = super()._valid_epoch(valid_data, show_progress)
        chosen = self.model.settings
        for graph in GRAPHS:
            self.model.settings = chosen.model_copy(update={"eval_graph": graph})
            self.model.invalidate()
            values = self.evaluate(valid_data, load_best_model=False)
            self.curve[-1]["diagnostics"][f"valid_{graph}"] = dict(values)
        self.model.settings = chosen
        self.model.invalidate()
        return result


def main() -> None:
    """Train once per seed and write both validation curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--config_files", nargs="*", default=[])
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--protocol", default="recbole", choices=["recbole", "paper"])
    parser.add_argument("--metric", default="recall@20")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/eval_graph.json"))
    args = parser.parse_args()
    registry.get_trainer_class = lambda config: BothGraphsTrainer
    runs = []
    for seed in args.seeds:
        values = {
            "seed": seed,
            "epochs": args.epochs,
            "stopping_step": args.epochs,
            "protocol": args.protocol,
            "data_path": args.data_path,
        }
        record = run("DiffMM", args.dataset, args.config_files, values).record
        curves = {
            graph: [epoch["diagnostics"][f"valid_{graph}"][args.metric] for epoch in record["curve"]]
            for graph in GRAPHS
        }
        runs.append({"seed": seed, "curves": curves, "best": {graph: max(curve) for graph, curve in curves.items()}})
    summary = {graph: statistics.mean(run["best"][graph] for run in runs) for graph in GRAPHS}
    differences = [full - drop for run in runs for full, drop in zip(*run["curves"].values(), strict=True)]
    report = {
        "what": f"validation {args.metric} of DiffMM on {args.dataset}, scored with each generated graph, per epoch",
        "mean_of_best_epochs": summary,
        "mean_difference_full_minus_dropped_per_epoch": statistics.mean(differences),
        "epochs_where_full_is_better": sum(d > 0 for d in differences),
        "epochs": len(differences),
        "versions": record["versions"],
        "device": record["device"],
        "runs": runs,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps({k: v for k, v in report.items() if k != "runs"}, indent=1) + "\n")


if __name__ == "__main__":
    main()
