"""Does `torch.compile` pay? Times DiffMM's steps as they are and compiled, in turn, and the compilation itself.

python benchmarks/compiled.py --dataset tiktok --config_files properties/published/DiffMM-tiktok.yaml
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
from recbole.utils import init_seed

from recbole_diffmm import provenance, record, registry
from recbole_diffmm.config import Config
from recbole_diffmm.graph import propagation
from recbole_diffmm.model import diffmm
from recbole_diffmm.quick_start import load_splits


def seconds(function: Callable[..., Any], *args: Any) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function(*args)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Time both forms of both steps and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--config_files", nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/compiled-cpu.json"))
    args = parser.parse_args()
    config = Config("DiffMM", args.dataset, args.config_files, {"tensorboard": False, "show_progress": False})
    init_seed(config["seed"], config["reproducibility"])
    train, _, _ = load_splits(config, registry.create_dataset(config))
    model = config.model_class(config, train._dataset).to(config["device"])
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    batch = next(iter(train)).to(config["device"])
    # The compiler fails on the parts of a CSR matrix (PyTorch 2.13), so that sparse products stay as they are.
    for module in (propagation, diffmm):
        module.propagate = torch.compiler.disable(module.propagate)
    projected, targets = model.injection_targets()
    users = torch.arange(min(model.settings.denoiser_batch_size, len(targets)), device=config["device"])
    name = model.modality_names[0]

    def denoise(loss: Callable[..., Any]) -> None:
        t = torch.randint(model.settings.steps, users.shape, device=users.device)
        noise = torch.randn(len(users), model.row_size, device=users.device)
        elbo, msi = loss(name, users, t, noise, projected[name], targets[users])
        (elbo.mean() + msi.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()

    def rank(loss: Callable[..., Any]) -> None:
        sum(loss(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()

    model.rebuild_graphs()
    report: dict[str, Any] = {
        "what": "seconds of a step, plain PyTorch and under torch.compile, in turn; ratio: plain over compiled",
        "device": provenance.device_name(config["device"]),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "steps": {},
    }
    for step, run, loss in (("denoisers", denoise, model.denoiser_loss), ("ranking", rank, model.calculate_loss)):
        compiled = torch.compile(loss)
        run(loss)
        compilation = seconds(run, compiled)
        run(compiled)
        times = [(seconds(run, loss), seconds(run, compiled)) for _ in range(args.repeats)]
        plain, fast = (statistics.median(column) for column in zip(*times, strict=True))
        report["steps"][step] = {
            "plain": plain,
            "compiled": fast,
            "ratio": plain / fast,
            "compilation": compilation,
            "steps_until_it_pays": compilation / (plain - fast) if fast < plain else None,
        }
        sys.stdout.write(f"{step}: {report['steps'][step]}\n")
    record.write_json(args.out, report)


if __name__ == "__main__":
    main()
