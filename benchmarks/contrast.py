"""A training step of RecBole's SGL and NCL with RecBole's contrast and with this package's, in turn.

python benchmarks/contrast.py --dataset tiktok
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

from recbole_diffmm import provenance, record, registry
from recbole_diffmm.config import Config
from recbole_diffmm.quick_start import load_splits

# What each model contrasts in; the trainers of this package put another one in its place.
METHODS = {"SGL": "calc_ssl_loss", "NCL": "ssl_layer_loss"}


def measured(name: str, dataset: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Return the median seconds of a step both ways, and how far apart the losses are."""
    config = Config(name, dataset, [], {"train_batch_size": batch_size, "tensorboard": False, "show_progress": False})
    init_seed(config["seed"], True)
    train, _, _ = load_splits(config, registry.create_dataset(config))
    model = config.model_class(config, train._dataset).to(config["device"])
    trainer = registry.get_trainer_class(config)(config, model)
    model.train()
    if name == "NCL":
        model.e_step()
    ours, recboles = getattr(model, METHODS[name]), getattr(type(model), METHODS[name]).__get__(model)

    def step(contrast: Any, batch: Any) -> tuple[float, float]:
        setattr(model, METHODS[name], contrast)
        start = time.perf_counter()
        trainer.optimizer.zero_grad()
        losses = model.calculate_loss(batch)
        loss = sum(losses) if isinstance(losses, tuple) else losses
        loss.backward()
        value = loss.item()  # waits for the device
        return time.perf_counter() - start, value

    batches = [batch.to(config["device"]) for batch, _ in zip(train, range(steps + 1), strict=False)]
    # No step is taken, so that both see the same parameters; the first batch warms up.
    pairs = [(step(recboles, batch), step(ours, batch)) for batch in batches][1:]
    before, after = (statistics.median(pair[way][0] for pair in pairs) for way in (0, 1))
    return {
        "model": name,
        "batches_an_epoch": len(train),
        "recbole": before,
        "here": after,
        "ratio": before / after,
        "largest_relative_difference": max(abs(a[1] - b[1]) / abs(a[1]) for a, b in pairs),
    }


def main() -> None:
    """Measure both models and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--batch_size", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/contrast-tiktok-cpu.json"))
    args = parser.parse_args()
    report = {
        "what": "seconds of a step without the optimizer's, with RecBole's contrast and with this package's, in turn",
        "command": f"python benchmarks/contrast.py --dataset {args.dataset} --batch_size {args.batch_size}",
        "device": provenance.device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "models": [measured(name, args.dataset, args.batch_size, args.steps) for name in METHODS],
    }
    for row in report["models"]:
        sys.stdout.write(f"{row['model']}: {row['recbole']:.3f} s, {row['here']:.3f} s, {row['ratio']:.2f} times\n")
    record.write_json(args.out, report)


if __name__ == "__main__":
    main()
