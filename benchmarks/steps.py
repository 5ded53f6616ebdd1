"""A model's training step with what this package put in place of RecBole's code or of its own earlier one, in turn.

python benchmarks/steps.py --dataset tiktok --out benchmarks/results/steps-tiktok-cpu.json
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from recbole.utils import init_seed
from torch import Tensor

from recbole_diffmm import graph, provenance, record, registry
from recbole_diffmm.config import Config
from recbole_diffmm.model import clcrec, grcn
from recbole_diffmm.quick_start import load_splits


def with_all_rows(picked: Tensor, x: Tensor) -> Tensor:
    """Products of a batch with all rows, of which the picked ones ``(B, n)`` are taken."""
    return (x[: len(picked)] @ x[len(picked) :].t()).gather(1, picked)


def of_the_class(name: str) -> Callable[[Any], list[tuple[Any, str, Any]]]:
    """A model's method as its class has it."""
    return lambda model: [(model, name, getattr(type(model), name).__get__(model))]


class Case(NamedTuple):
    """One model.

    Attributes:
        before: What stood there before, in words.
        places: From a model to the objects that hold what was replaced, its names there, and what stood there before.
        settings: What the model is built with.
    """

    before: str
    places: Callable[[Any], list[tuple[Any, str, Any]]]
    settings: tuple[tuple[str, Any], ...] = ()


CASES = {
    "SGL": Case("RecBole's contrast", of_the_class("calc_ssl_loss"), (("train_batch_size", 2048),)),
    "NCL": Case("RecBole's contrast", of_the_class("ssl_layer_loss"), (("train_batch_size", 2048),)),
    "LDiffRec": Case(
        "RecBole's dense encoder",
        lambda model: [(model.autoencoder.encoder.mlp_layers[1], "__class__", torch.nn.Linear)],
        (("train_batch_size", 400),),
    ),
    "GRCN": Case(
        "rows taken edge by edge",
        lambda model: [(grcn, "agreement", graph.agreement), (grcn, "aggregate", graph.aggregate)],
    ),
    "CLCRec": Case(
        "products with all items",
        lambda model: [
            (clcrec, "agreement", with_all_rows),
            (clcrec, "edges_to_picked", lambda picked, n_rows: picked),
        ],
    ),
}


def measured(name: str, dataset: str, steps: int) -> dict[str, Any]:
    """Return the median seconds of a step both ways, and how far apart the losses are."""
    case = CASES[name]
    config = Config(name, dataset, [], {"tensorboard": False, "show_progress": False, **dict(case.settings)})
    init_seed(config["seed"], True)
    train, _, _ = load_splits(config, registry.create_dataset(config))
    model = config.model_class(config, train._dataset).to(config["device"])
    trainer = registry.get_trainer_class(config)(config, model)
    model.train()
    if name == "NCL":
        model.e_step()
    before = case.places(model)
    here = [(holder, attribute, getattr(holder, attribute)) for holder, attribute, _ in before]

    def step(places: list[tuple[Any, str, Any]], batch: Any, seed: int) -> tuple[float, float]:
        for holder, attribute, value in places:
            setattr(holder, attribute, value)
        torch.manual_seed(seed)
        # What a model counts or keeps beside its parameters is the same both ways, too.
        kept = {key: copy.deepcopy(part) for key, part in vars(model).items() if isinstance(part, int | Tensor)}
        start = time.perf_counter()
        trainer.optimizer.zero_grad()
        losses = model.calculate_loss(batch)
        loss = sum(losses) if isinstance(losses, tuple) else losses
        loss.backward()
        value = loss.item()  # waits for the device
        seconds = time.perf_counter() - start
        vars(model).update(kept)
        return seconds, value

    batches = [batch.to(config["device"]) for batch, _ in zip(train, range(steps + 1), strict=False)]
    # No step is taken, so that both see the same parameters and draw the same; the first batch warms up.
    pairs = [(step(before, batch, i), step(here, batch, i)) for i, batch in enumerate(batches)][1:]
    for holder, attribute, value in here:
        setattr(holder, attribute, value)
    old, new = (statistics.median(pair[way][0] for pair in pairs) for way in (0, 1))
    return {
        "model": name,
        "before_is": case.before,
        "batch_size": config["train_batch_size"],
        "batches_an_epoch": len(train),
        "before": old,
        "here": new,
        "ratio": old / new,
        "largest_relative_difference": max(abs(a[1] - b[1]) / abs(a[1]) for a, b in pairs),
    }


def main() -> None:
    """Measure every model and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--models", default=",".join(CASES), help="separated by commas")
    parser.add_argument("--out", type=Path, help="where the report goes; by default it is printed alone")
    args = parser.parse_args()
    report = {
        "what": "seconds of a step without the optimizer's, as it was before and in this package, in turn",
        "command": " ".join(["python", *sys.argv]),
        "device": provenance.device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "models": [measured(name, args.dataset, args.steps) for name in args.models.split(",")],
    }
    for row in report["models"]:
        sys.stdout.write(f"{row['model']}: {row['before']:.3f} s, {row['here']:.3f} s, {row['ratio']:.2f} times\n")
    if args.out:
        record.write_json(args.out, report)


if __name__ == "__main__":
    main()
