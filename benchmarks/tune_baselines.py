"""Tunes built-in baselines over a small grid on validation alone and writes the best settings as YAML.

Every configuration trains with one seed; the test split is loaded with the others and never evaluated.

    python benchmarks/tune_baselines.py --dataset tiktok --models EASE BPR LightGCN
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from recbole.utils import init_seed

from recbole_diffmm import registry
from recbole_diffmm.config import Config
from recbole_diffmm.quick_start import load_splits

# Eight configurations each; what is not listed is as shipped.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "EASE": {"reg_weight": [1.0, 5.0, 20.0, 50.0, 100.0, 250.0, 500.0, 1000.0]},
    "BPR": {"learning_rate": [5e-4, 1e-3, 2e-3, 5e-3], "weight_decay": [0.0, 1e-5]},
    "LightGCN": {"n_layers": [2, 3], "reg_weight": [1e-4, 1e-3], "learning_rate": [2e-3, 5e-3]},
}
TRAINING = {"epochs": 200, "stopping_step": 10, "train_batch_size": 2048, "valid_metric": "Recall@20"}


def validate(model: str, dataset: str, values: dict[str, Any]) -> dict[str, Any]:
    """Train one configuration and return its best validation score with the epoch it was reached in."""
    config = Config(model, dataset, config_dict=values)
    init_seed(config["seed"], config["reproducibility"])
    data = registry.create_dataset(config)
    train_data, valid_data, _ = load_splits(config, data)
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    trainer = registry.get_trainer_class(config)(
        config, config.model_class(config, train_data._dataset).to(config["device"])
    )
    started = time.perf_counter()
    score, _ = trainer.fit(train_data, valid_data, saved=False)
    return {"score": score, "best_epoch": trainer.best_epoch, "seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    """Search the grid of every model and write one YAML and one JSON each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--models", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("properties/tuned"))
    parser.add_argument("--log", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    for model in args.models:
        trials = []
        for point in itertools.product(*GRIDS[model].values()):
            values = dict(zip(GRIDS[model], point, strict=True))
            common = {"seed": args.seed, "data_path": args.data_path, "show_progress": False, "tensorboard": False}
            trials.append({**values, **validate(model, args.dataset, {**TRAINING, **values, **common})})
            sys.stderr.write(f"{model} {trials[-1]}\n")
        best = max(trials, key=lambda trial: trial["score"])
        chosen = {**TRAINING, **{key: best[key] for key in GRIDS[model]}}
        lines = [
            f"# {model} on {args.dataset}: the best of {len(trials)} configurations by validation "
            f"{TRAINING['valid_metric']} ({best['score']:.4f}), seed {args.seed};",
            "# searched by benchmarks/tune_baselines.py; all trials stand in "
            f"benchmarks/results/tune_{model}-{args.dataset}.json.",
            *(f"{key}: {value}" for key, value in chosen.items()),
        ]
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{model}-{args.dataset}.yaml").write_text("\n".join(lines) + "\n")
        args.log.mkdir(parents=True, exist_ok=True)
        report = {"model": model, "dataset": args.dataset, "training": TRAINING, "seed": args.seed, "trials": trials}
        (args.log / f"tune_{model}-{args.dataset}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
