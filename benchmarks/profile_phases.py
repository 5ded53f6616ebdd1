"""Where the time of each phase goes: PyTorch's profiler over one epoch of DiffMM, and what RecBole's own parts take.

python benchmarks/profile_phases.py --dataset tiktok --config_files properties/published/DiffMM-tiktok.yaml
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from recbole.data.transform import construct_transform
from recbole.utils import get_flops, init_seed
from torch.profiler import ProfilerActivity, profile

from recbole_diffmm import provenance, record, registry
from recbole_diffmm.config import Config
from recbole_diffmm.quick_start import load_splits
from recbole_diffmm.trainer.loop import BatchLoop

ROWS = 8


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return round(time.perf_counter() - start, 4)


def shares(function: Callable[[], Any]) -> dict[str, float]:
    """Share of each operation in the time that a call spends in operations, the largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        function()
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(times.values())
    largest = sorted(times.items(), key=lambda item: -item[1])[:ROWS]
    return {name: round(value / total, 3) for name, value in largest}


def main() -> None:
    """Profile the phases in the order of an epoch and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--config_files", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/profile-tiktok-cpu.json"))
    args = parser.parse_args()
    config = Config("DiffMM", args.dataset, args.config_files, {"tensorboard": False, "show_progress": False})
    init_seed(config["seed"], config["reproducibility"])
    train, _, test = load_splits(config, registry.create_dataset(config))
    model = config.model_class(config, train._dataset).to(config["device"])
    trainer = registry.get_trainer_class(config)(config, model)
    phases: dict[str, Callable[[], Any]] = {
        "denoisers": trainer._train_denoisers,
        "generation": model.rebuild_graphs,
        "ranking": lambda: BatchLoop._train_epoch(trainer, train, 0),
        "evaluation": lambda: trainer.evaluate(test, load_best_model=False),
    }
    for phase in phases.values():
        phase()  # to warm up
    batches, handed = list(train), collected(trainer, test)
    report = {
        "what": "seconds of a phase, and the share of each operation in it (PyTorch's profiler, self time)",
        "device": provenance.device_name(config["device"]),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "phases": {name: {"seconds": seconds(phase), "shares": shares(phase)} for name, phase in phases.items()},
        "recbole": {
            "loader_and_negative_sampler_of_an_epoch": seconds(lambda: list(train)),
            "ranking_of_an_epoch_without_them": seconds(lambda: BatchLoop._train_epoch(trainer, batches, 0)),
            "evaluation_loader_of_test": seconds(lambda: list(test)),
            "evaluation_of_test": seconds(phases["evaluation"]),
            "metrics_of_test": seconds(lambda: trainer.evaluator.evaluate(handed)),
            "counting_flops_as_run_recbole_does": seconds(
                lambda: get_flops(model, train._dataset, config["device"], trainer.logger, construct_transform(config))
            ),
        },
    }
    record.write_json(args.out, report)
    for name, entry in report["phases"].items():
        sys.stdout.write(f"{name}: {entry['seconds']} s, {entry['shares']}\n")
    sys.stdout.write(f"RecBole: {report['recbole']}\n")


def collected(trainer: Any, data: Any) -> Any:
    """What RecBole's collector hands to its evaluator."""
    handed: list[Any] = []
    evaluate = trainer.evaluator.evaluate
    trainer.evaluator.evaluate = lambda struct: handed.append(struct) or evaluate(struct)
    trainer.evaluate(data, load_best_model=False)
    trainer.evaluator.evaluate = evaluate
    return handed[0]


if __name__ == "__main__":
    main()
