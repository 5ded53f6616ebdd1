"""Which generated graph to score with: validates every epoch of the same training with the full and the dropped one.

The choice changes no training step, so that one run compares both. It is made on validation alone; under
`--protocol=paper`, which watches test anyway, test is scored with both as well, for `against_reference.py`.

    python benchmarks/eval_graph.py --dataset tiktok --config_files properties/published/DiffMM-tiktok.yaml --seeds 1 2
"""

from __future__ import annotations

import argparse
import json
import operator
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
            for part, data in (("valid", valid_data), ("test", self._test_data)):
                if data is not None:
                    values = self.evaluate(data, load_best_model=False)
                    self.curve[-1]["diagnostics"][f"{part}_{graph}"] = dict(values)
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
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="reports of single seeds to put together, without training"
    )
    args = parser.parse_args()
    if args.merge:
        reports = [json.loads(path.read_text()) for path in args.merge]
        write(
            args.out, reports[0]["what"], [run for report in reports for run in report["runs"]], reports[0]["versions"]
        )
        return
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
    what = f"validation {args.metric} of DiffMM on {args.dataset}, scored with each generated graph, per epoch"
    write(args.out, what, runs, record["versions"])


def write(path: Path, what: str, runs: list[dict[str, Any]], versions: dict[str, Any]) -> None:
    """Summarise the runs and write them.

    The choice goes by the mean over all epochs: dropping makes every epoch's score noisier, and the best of many noisy
    scores is high for that reason alone.
    """
    differences = [full - dropped for run in runs for full, dropped in zip(*run["curves"].values(), strict=True)]
    per_seed = [statistics.mean(map(operator.sub, *run["curves"].values())) for run in runs]
    report = {
        "what": what,
        "mean_difference_full_minus_dropped": statistics.mean(differences),
        "mean_difference_of_each_seed": per_seed,
        "epochs_where_full_is_better": sum(d > 0 for d in differences),
        "epochs_where_dropped_is_better": sum(d < 0 for d in differences),
        "mean_of_best_epochs": {graph: statistics.mean(run["best"][graph] for run in runs) for graph in GRAPHS},
        "versions": versions,
        "runs": runs,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps({key: value for key, value in report.items() if key != "runs"}, indent=1) + "\n")


if __name__ == "__main__":
    main()
