"""Seconds of an epoch and peak memory of every model that a leaderboard of TikTok compares, one after the other.

python benchmarks/models.py --epochs 4

Each model trains in a process of its own, with the settings that it ships with but for what `BATCH` and `LIKE_LIGHTGCN`
say, on TikTok with image and audio
(`recbole-diffmm convert diffmm <the published folder> --name tiktok --out dataset/` makes it). Epochs are compared by
their median without the first one, in which kernels and graphs are made; models without epochs by what building and
fitting them takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from recbole_diffmm import provenance, record, registry

# Of RecBole's, those that the paper's table and a fair board have.
THEIRS = "Pop BPR NGCF LightGCN SGL NCL SimpleX MultiVAE DiffRec LDiffRec EASE ItemKNN SLIMElastic Random".split()
# RecBole's graph models multiply sparse matrices in another form; all of them get the batch that ours ship with.
BATCH = {"train_batch_size": 2048}
# Two layers and one view each, to be held against LightGCN's.
LIKE_LIGHTGCN = {name: {"n_layers": 2} for name in ("LightGCN", "LightGCNM", "FREEDOM", "MGCN", "BM3", "LATTICE")}


def measured(model: str, dataset: str, epochs: int, threads: int) -> dict[str, Any]:
    """Train ``model`` in a process of its own and return what its record says of time and memory."""
    settings: dict[str, Any] = {
        **({} if registry.is_own(model) else BATCH),
        **LIKE_LIGHTGCN.get(model, {}),
        "epochs": epochs,
        "stopping_step": epochs,
        "show_progress": "false",
        "tensorboard": "false",
        "state": "WARNING",
        "use_gpu": "false",
    }
    with tempfile.TemporaryDirectory() as folder:
        places = {"results_dir": folder, "checkpoint_dir": folder, "log_dir": folder}
        command = [sys.executable, "-m", "recbole_diffmm", "run", f"--model={model}", f"--dataset={dataset}"]
        command += [f"--{key}={value}" for key, value in {**settings, **places}.items()]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, timeout=1800
        )
        if done.returncode:
            return {"model": model, "failed": done.stderr.strip().splitlines()[-1]}
        (path,) = Path(folder).glob(f"{model}-*.json")
        found = record.load(path)
    per_epoch = [sum(epoch["seconds"].values()) for epoch in found.curve]
    trains = len(per_epoch) > 1
    return {
        "model": model,
        "seconds": round(median(per_epoch[1:]) if trains else found.seconds["to_best_epoch"], 3),
        "of": "an epoch" if trains else "building and fitting",
        "peak_mib": found.peak_memory_mb["host"],
        "batch_size": found.config["train_batch_size"],
        "layers": found.config.get("n_layers"),
        "commit": (provenance.commit() or {}).get("hash"),
    }


def main() -> None:
    """Measure all models and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--models", default="", help="names, separated by commas (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/models-tiktok-cpu.json"))
    args = parser.parse_args()
    names = args.models.split(",") if args.models else [*registry.own_model_names(), *THEIRS]
    rows = []
    if args.models and args.out.is_file():  # some anew, the others as they were measured
        earlier = json.loads(args.out.read_text(encoding="utf-8"))["models"]
        rows = [row for row in earlier if row["model"] not in names]
    for name in names:
        rows.append(measured(name, args.dataset, args.epochs, args.threads))
        sys.stderr.write(json.dumps(rows[-1]) + "\n")
    report = {
        "command": f"python benchmarks/models.py --epochs {args.epochs}",
        "dataset": args.dataset,
        "epochs": args.epochs,
        "threads": args.threads,
        "device": provenance.device_name(torch.device("cpu")),
        "versions": provenance.versions(),
        "models": rows,
    }
    record.write_json(args.out, report)


if __name__ == "__main__":
    main()
