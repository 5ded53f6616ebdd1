"""Where the time of each phase goes: PyTorch's profiler over one epoch of DiffMM, and what RecBole's own parts take.

python benchmarks/profile_phases.py --dataset tiktok --config_files properties/published/DiffMM-tiktok.yaml
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from recbole.data.transform import construct_transform
from recbole.evaluator.collector import Collector
from recbole.utils import get_flops, init_seed
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from recbole_diffmm import provenance, record, registry
from recbole_diffmm.config import Config
from recbole_diffmm.evaluator.collector import TopCollector
from recbole_diffmm.quick_start import load_splits
from recbole_diffmm.trainer.loop import BatchLoop

ROWS = 8


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    wait()
    start = time.perf_counter()
    function()
    wait()
    return round(time.perf_counter() - start, 6)


def wait() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def profiled(function: Callable[[], Any], gpu: bool) -> dict[str, Any]:
    """Seconds of a call, and the share of each operation in its time, the largest first.

    On a GPU also the seconds in kernels, their share of the seconds without a profiler, and how many there were; the
    shares of operations are of the kernels' time then.
    """
    elapsed = seconds(function)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as profiler:
        function()
        wait()
    events = profiler.key_averages()
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    times = {event.key: event.self_device_time_total if gpu else event.self_cpu_time_total for event in on_host}
    total = sum(times.values())
    largest = sorted(times.items(), key=lambda item: -item[1])[:ROWS]
    result: dict[str, Any] = {"seconds": elapsed}
    if gpu:
        kernels = [e for e in events if e.device_type != DeviceType.CPU and not e.is_user_annotation]
        inside = sum(event.self_device_time_total for event in kernels) / 1e6
        result["seconds_in_kernels"] = round(inside, 4)
        result["share_in_kernels"] = round(inside / elapsed, 3)
        result["kernels"] = sum(event.count for event in kernels)
    return {**result, "shares": {name: round(value / total, 3) for name, value in largest}}


def main() -> None:
    """Profile the phases in the order of an epoch and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--config_files", nargs="*", default=[])
    parser.add_argument(
        "--beside", nargs="*", default=["BPR", "LightGCN"], help="RecBole's models, for its parts alone"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/profile-tiktok-cpu.json"))
    args = parser.parse_args()
    config, model, trainer, train, test = build("DiffMM", args.dataset, args.config_files)
    phases: dict[str, Callable[[], Any]] = {
        "denoisers": trainer._train_denoisers,
        "generation": model.rebuild_graphs,
        "ranking": lambda: BatchLoop._train_epoch(trainer, train, 0),
        "evaluation": lambda: trainer.evaluate(test, load_best_model=False),
    }
    for phase in phases.values():
        phase()  # to warm up
    gpu = config["device"].type == "cuda"
    report = {
        "what": "seconds of a phase, and the share of each operation in it (PyTorch's profiler, self time)",
        "dataset": args.dataset,
        "device": provenance.device_name(config["device"]),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "phases": {name: profiled(phase, gpu) for name, phase in phases.items()},
        "recbole": {"DiffMM": recboles_parts(config, model, trainer, train, test)},
    }
    for name in args.beside:
        # In the boards' batches.
        report["recbole"][name] = recboles_parts(*build(name, args.dataset, [], train_batch_size=2048))
    record.write_json(args.out, report)
    for name, entry in [*report["phases"].items(), *report["recbole"].items()]:
        sys.stdout.write(f"{name}: {entry}\n")


def build(name: str, dataset: str, config_files: list[str], **values: Any) -> tuple[Any, Any, Any, Any, Any]:
    """The configuration, the model, its trainer, and the loaders of training and test."""
    config = Config(name, dataset, config_files, {"tensorboard": False, "show_progress": False, **values})
    init_seed(config["seed"], config["reproducibility"])
    train, _, test = load_splits(config, registry.create_dataset(config))
    model = config.model_class(config, train._dataset).to(config["device"])
    return config, model, registry.get_trainer_class(config)(config, model), train, test


class RecBolesCollector(Collector):
    """What RecBole's trainer has, and the pass over all scores that says whether they are finite."""

    def begin(self) -> None:
        """Begin an evaluation."""
        self.largest: list[Any] = []

    def eval_batch_collect(self, scores: Any, *batch: Any) -> None:
        """Add a batch to what the evaluator gets."""
        super().eval_batch_collect(scores, *batch)
        self.largest.append(scores.amax())


def recboles_parts(config: Any, model: Any, trainer: Any, train: Any, test: Any) -> dict[str, float]:
    """Seconds of what is RecBole's in an epoch and in an evaluation, and of the whole they are parts of."""

    def evaluate() -> Any:
        return trainer.evaluate(test, load_best_model=False)

    batches = list(train)
    BatchLoop._train_epoch(trainer, batches[:2], 0)  # to warm up
    handed = collected(trainer, test)
    here, in_evaluation = trainer.eval_collector, {}
    # In turn, each a few times; the first round warms up.
    for kind in [RecBolesCollector, TopCollector] * 6:
        trainer.eval_collector = kind(config)
        in_evaluation.setdefault(kind, []).append((seconds(evaluate), collecting(trainer, evaluate)))
    trainer.eval_collector = here
    (with_recboles, in_recboles), (whole, in_ours) = (
        [round(statistics.median(column), 4) for column in zip(*rows[1:], strict=True)]
        for rows in in_evaluation.values()
    )
    return {
        "loader_and_negative_sampler_of_an_epoch": seconds(lambda: list(train)),
        "ranking_of_an_epoch_without_them": seconds(lambda: BatchLoop._train_epoch(trainer, batches, 0)),
        "evaluation_loader_of_test": seconds(lambda: list(test)),
        "evaluation_of_test": whole,
        "collector_of_test": in_ours,
        "evaluation_of_test_with_recboles_collector": with_recboles,
        "recboles_collector_of_test": in_recboles,
        "metrics_of_test": seconds(lambda: trainer.evaluator.evaluate(handed)),
        "counting_flops_as_run_recbole_does": seconds(
            lambda: get_flops(model, train._dataset, config["device"], trainer.logger, construct_transform(config))
        ),
    }


def collecting(trainer: Any, evaluate: Callable[[], Any]) -> float:
    """Seconds that the collector takes of an evaluation."""
    collector, spent = trainer.eval_collector, 0.0

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal spent
            start = time.perf_counter()
            result = method(*args)
            wait()
            spent += time.perf_counter() - start
            return result

        return call

    collector.eval_batch_collect = timed(collector.eval_batch_collect)
    collector.get_data_struct = timed(collector.get_data_struct)
    evaluate()
    return spent


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
