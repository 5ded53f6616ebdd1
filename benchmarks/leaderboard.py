"""Measures what a leaderboard costs besides training: resuming, rendering, size, and what several workers gain.

    python benchmarks/leaderboard.py --out benchmarks/results/leaderboard-cpu.json

Resuming is timed as its user sees it, a whole process each time, on a board of 60 runs whose records are all there
(made without training). The gain of two workers is that of a board of 12 short runs over the same board with one worker
that has all cores, in turn; measure it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from recbole_diffmm import provenance, record  # noqa: E402
from recbole_diffmm.leaderboard import plan  # noqa: E402
from recbole_diffmm.leaderboard.render import render  # noqa: E402
from recbole_diffmm.leaderboard.spec import load_spec, tasks  # noqa: E402
from tests.leaderboard.boards import METRICS, write_board, write_run  # noqa: E402

SIXTY = """
title: Sixty runs
datasets: [toy]
seeds: [1, 2, 3, 4, 5]
settings: {epochs: 3, use_gpu: false}
models: [%s]
"""
TWELVE = """
title: Twelve runs
datasets: [ml-100k]
seeds: [1, 2, 3]
settings: {epochs: %d, use_gpu: false, stopping_step: 1000, train_batch_size: 2048}
models: [DiffMM, BPR, LightGCN, {model: LightGCN, label: three layers, settings: {n_layers: 3}}]
"""


def seconds(arguments: list[str], **environment: str) -> float:
    """Wall-clock seconds of `recbole-diffmm` with these arguments."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "recbole_diffmm", *arguments],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=3000,
    )
    return time.perf_counter() - started


def sixty() -> dict[str, Any]:
    """A finished board of 60 runs: seconds to find that nothing is to do, and the size of its page."""
    import numpy as np

    rows = ["BPR", "LightGCN", "EASE", "Pop", "DiffMM"]
    rows += [f"{{model: BPR, label: BPR {n}, settings: {{embedding_size: {n}}}}}" for n in (8, 16, 24, 40, 48, 56, 72)]
    Path("sixty.yaml").write_text(SIXTY % ", ".join(rows))
    planned = plan.plan(tasks(load_spec(Path("sixty.yaml"))), Path("results/sixty"), {})
    generator = np.random.default_rng(0)
    base = generator.random(6000)
    for run in planned:
        epochs = [
            {
                "epoch": n,
                "losses": {"bpr": 0.5, "reg": 0.1},
                "valid": {m: 0.1 for m in METRICS},
                "seconds": {"ranking": 1.0},
            }
            for n in range(100)
        ]
        code = {"hash": provenance.code_hash(run.task.model), "commit": None, "dirty": None}
        name = f"{run.task.model}-toy-s{run.task.seed}-{run.name.rsplit('-', 1)[1]}"
        values = {m: base + generator.normal(0, 0.1, len(base)) for m in METRICS}
        config = {"seed": run.task.seed, **{f"key_{n}": n for n in range(80)}, **run.task.settings}
        write_run(Path("results/sixty"), name, values, code=code, curve=epochs, epochs_run=100, config=config)
    first = seconds(["leaderboard", "sixty.yaml"])
    again = [seconds(["leaderboard", "sixty.yaml"]) for _ in range(5)]
    page = Path("results/sixty/index.html")
    return {
        "runs": len(planned),
        "first_call_with_rendering_s": round(first, 2),
        "resuming_s": [round(value, 2) for value in again],
        "page_mb": round(page.stat().st_size / 1e6, 2),
    }


def thousand() -> dict[str, Any]:
    """1,000 records of 6,000 users each in 200 rows: seconds to read, test and render all views."""
    write_board(Path("results/thousand"), {f"M{n}": n / 2000 for n in range(200)}, range(1, 6), 6000, reference="M0")
    times = [round(seconds(["leaderboard", "--render", "results/thousand"]), 2) for _ in range(3)]
    started = time.perf_counter()
    render(Path("results/thousand"))
    within = time.perf_counter() - started
    page = Path("results/thousand/index.html")
    return {
        "records": 1000,
        "process_s": times,
        "rendering_s": round(within, 2),
        "page_mb": round(page.stat().st_size / 1e6, 2),
    }


def twelve(epochs: int, repeats: int) -> dict[str, Any]:
    """A board of 12 runs with one worker that has all cores and with two that share them."""
    Path("twelve.yaml").write_text(TWELVE % epochs)
    times: dict[str, list[float]] = {"one": [], "two": []}
    for _ in range(repeats):
        for name, workers in (("one", "1"), ("two", "2")):
            shutil.rmtree("results/twelve", ignore_errors=True)
            shutil.rmtree("saved", ignore_errors=True)
            times[name].append(round(seconds(["leaderboard", "twelve.yaml", "--workers", workers]), 1))
    ratios = [one / two for one, two in zip(times["one"], times["two"], strict=True)]
    return {"runs": 12, "epochs": epochs, "seconds": times, "ratios": [round(ratio, 2) for ratio in ratios]}


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", nargs="+", default=["sixty", "thousand", "twelve"])
    parser.add_argument("--epochs", type=int, default=30, help="of the twelve runs")
    parser.add_argument("--repeats", type=int, default=2, help="of the twelve runs")
    args = parser.parse_args()
    out = args.out.resolve() if args.out else None
    report: dict[str, Any] = {"cores": os.cpu_count(), "versions": provenance.versions()}
    if out and out.is_file():  # some parts anew, the others as they were measured
        report = {**json.loads(out.read_text(encoding="utf-8")), **report}
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        for part in args.parts:
            measured = twelve(args.epochs, args.repeats) if part == "twelve" else globals()[part]()
            report[part] = {**measured, "commit": provenance.commit()}
            sys.stderr.write(json.dumps({part: report[part]}) + "\n")
        os.chdir("/")
    if out:
        record.write_json(out, report)


if __name__ == "__main__":
    main()
