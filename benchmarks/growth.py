"""How DiffMM's phases grow: seconds and memory against interactions, users and items, on synthetic power-law data.

One axis varies at a time around a base problem. A phase is timed over a few steps (batches), not over an epoch: what an
epoch takes is `once + steps * step`, with what the phase does once an epoch and the median step. Each point is a
process of its own, so that none inherits another's peak. `--large` runs one large problem in several variants instead
and adds GFLOP, bytes moved and what a formula makes of them for a faster device.

    python benchmarks/growth.py
    python benchmarks/growth.py --large --variants sampled latent --set rebuild_k=2
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from exit_code import exit_code
from phases import PHASES, Phase, build_phases
from synthetic import Sizes, build_config, build_model, check_sizes
from tabulate import tabulate
from work import counted, gemm_gflop_per_s, peak_bytes, reset_peak, timed

from recbole_diffmm import UserError, provenance, record
from recbole_diffmm.sources import parse_overrides
from recbole_diffmm.trainer.memory import keeping_freed_memory
from recbole_diffmm.trainer.state import return_freed_memory

AXES = ("interactions", "users", "items")
QUANTITIES = ("step_seconds", "epoch_seconds", "peak_bytes", "added_bytes")
BASE = {"interactions": 500_000, "users": 50_000, "items": 20_000}
LARGE = {"interactions": 10_000_000, "users": 1_000_000, "items": 100_000}
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "sampled": {"contrast_negatives": 4096},
    "latent": {"latent_size": 256, "contrast_negatives": 4096},
}
ENOUGH_SECONDS = 20.0  # steps of a phase are timed until then, two at least
H200 = {"tflop_per_s": 790.0, "tb_per_s": 4.8, "share": 0.5}
NOTES = {
    "interactions, ranking, epoch_seconds": "Quadratic by the algorithm: an epoch has E / batch steps, and each "
    "propagates over all E edges. A step is linear.",
    "interactions, evaluation, step_seconds": "Scores do not depend on interactions; only the masked histories do.",
    "users, held": "A user has at least one interaction: along this axis interactions are held at twice the largest "
    "number of users, or at the base's if that is more.",
    "users, denoisers and generation, epoch_seconds": "A step's batch is fixed and an epoch has U / batch steps: "
    "linear in users, linear in items, hence with their product where both grow.",
    "epoch_seconds": "Extrapolated: once + steps * median step. Loading data and drawing negatives are not in it.",
    "peak_bytes": "Resident memory of the whole process, parameters and all optimisers included; added_bytes is that "
    "less what the interpreter and its imports take, whose constant flattens an exponent.",
}


# ---- one point, in a process of its own


def measure(phase: Phase, n_steps: int, base_bytes: int) -> dict[str, Any]:
    """Run a phase to warm up and to count its work, then time it: `n_steps` steps, fewer where they are long."""
    state, once_work = counted(phase.once)
    works = [counted(lambda n=n: phase.step(state, n))[1] for n in range(phase.warm_up)]
    state = None
    reset_peak()
    state, once_seconds = timed(phase.once)
    seconds: list[float] = []
    while len(seconds) < n_steps and (len(seconds) < 2 or sum(seconds) < ENOUGH_SECONDS):
        seconds.append(timed(lambda: phase.step(state, len(seconds)))[1])
    peak, step = peak_bytes(), statistics.median(seconds)
    return {
        "step_seconds": step,
        "once_seconds": once_seconds,
        "steps_per_epoch": phase.steps_per_epoch,
        "epoch_seconds": once_seconds + phase.steps_per_epoch * step,
        "peak_bytes": peak,
        "added_bytes": peak - base_bytes,
        "step_work": works[-1],
        "once_work": once_work,
        "seconds_of_each_step": seconds,
    }


def execute(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one point."""
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    base_bytes, config = psutil.Process().memory_info().rss, build_config(job["settings"])
    model, build_seconds = timed(lambda: build_model(job["sizes"], config))
    build_peak = peak_bytes()
    with keeping_freed_memory(model.largest_block):  # as the trainer does
        phases = {}
        for name, phase in build_phases(model, config).items():
            phases[name] = measure(phase, job["steps"], base_bytes)
            return_freed_memory()
    return {
        "sizes": job["sizes"],
        "precision": model.precision,
        "threads": torch.get_num_threads(),
        "gemm_gflop_per_s": gemm_gflop_per_s(model.precision),
        "build_seconds": build_seconds,
        "build_peak_bytes": build_peak,
        "epoch_seconds": sum(phase["epoch_seconds"] for phase in phases.values()),
        "peak_bytes": max(build_peak, *(phase["peak_bytes"] for phase in phases.values())),
        "phases": phases,
    }


def spawn(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one point in a process of its own.

    Raises:
        UserError: the job raised one, or ended otherwise.
    """
    done = subprocess.run([sys.executable, __file__, "--job", json.dumps(job)], capture_output=True, text=True)
    if done.returncode:
        last = f"ended by signal {-done.returncode}, as where memory is short"
        if done.returncode > 0:
            last = done.stderr.strip().splitlines()[-1].removeprefix("error: ")
        raise UserError(f"{told(job['sizes'])}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


# ---- all points


def plan(axes: dict[str, list[int]], base: Sizes) -> dict[str, list[Sizes]]:
    """The problems of each axis; see `NOTES` for what the users' holds.

    Raises:
        UserError: an axis has a single value, which has no slope, none has values, or a problem cannot be drawn.
    """
    if not any(axes.values()):
        raise UserError("no axis is left: give values for --interactions, --users or --items")
    points = {}
    for axis, values in axes.items():
        if len(set(values)) == 1:
            raise UserError(f"--{axis} {values[0]}: give at least two values, or none to leave the axis out")
        held = dict(base)
        if axis == "users" and values:
            held["interactions"] = max(base["interactions"], 2 * max(values))
        points[axis] = [check_sizes({**held, axis: value}) for value in sorted(set(values))]
    return {axis: sizes for axis, sizes in points.items() if sizes}


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent of ``y = c x^slope`` by least squares over the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def fit(axis: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    """Exponents of one axis by phase and quantity, over all points and over their upper half (two at least)."""
    x = [point["sizes"][axis] for point in points]
    upper = min(len(x) // 2, len(x) - 2)
    exponents: dict[str, Any] = {}
    for phase in PHASES:
        for quantity in QUANTITIES:
            y = [point["phases"][phase][quantity] for point in points]
            both = {"all": slope(x, y), "upper_half": slope(x[upper:], y[upper:])}
            exponents.setdefault(phase, {})[quantity] = both
    return exponents


def h200_estimate(phases: dict[str, Any]) -> dict[str, Any]:
    """Seconds of an epoch by the roofline's sum: half of the products' rate and of the bytes' that such cards have."""
    flop_rate, byte_rate = H200["tflop_per_s"] * 1e3 * H200["share"], H200["tb_per_s"] * 1e3 * H200["share"]
    seconds = {
        name: sum(
            times * (phase[work]["gflop"] / flop_rate + phase[work]["gb_moved"] / byte_rate)
            for work, times in (("once_work", 1), ("step_work", phase["steps_per_epoch"]))
        )
        for name, phase in phases.items()
    }
    return {
        "what": "AN ESTIMATE BY A FORMULA, NOT A MEASUREMENT: per step GFLOP / (790 TFLOP/s of bf16 * 0.5) + bytes / "
        "(4.8 TB/s * 0.5). Bytes are summed over PyTorch's operations as they run on the CPU (parameters, optimiser "
        "states, activations; no caches, the CPU's small blocks in InfoNCE), and products of fp32 are taken as bf16.",
        "epoch_seconds_by_phase": seconds,
        "epoch_seconds": sum(seconds.values()),
    }


def draw(report: dict[str, Any], path: Path) -> None:
    """Curves of an epoch's seconds and of peak memory, a column per axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(report["axes"]), 8), layout="constrained")
    panels = figure.subplots(2, len(report["axes"]), squeeze=False)
    for column, (axis, entry) in enumerate(report["axes"].items()):
        rows = (("epoch_seconds", 1, "seconds of an epoch"), ("peak_bytes", 2**30, "peak memory in GiB"))
        for row, (quantity, unit, label) in enumerate(rows):
            panel = panels[row][column]
            for phase in PHASES:
                x = [point["sizes"][axis] for point in entry["points"]]
                y = [point["phases"][phase][quantity] / unit for point in entry["points"]]
                panel.plot(x, y, "o-", label=f"{phase}: {entry['exponents'][phase][quantity]['all']:.2f}")
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel=label)
            panel.grid(True, which="both", alpha=0.3)
            panel.legend(title="exponent")
        held = ", ".join(f"{value:,} {name}" for name, value in entry["points"][0]["sizes"].items() if name != axis)
        panels[0][column].set_title(held)
    figure.savefig(path, dpi=100)


def told(sizes: Sizes) -> str:
    """Sizes in words."""
    return ", ".join(f"{value:,} {key}" for key, value in sizes.items())


def run(sizes: Sizes, settings: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Measure one point and say so."""
    steps = args.steps or (2 if args.large else 5)
    job = {"sizes": sizes, "settings": settings, "steps": steps, "threads": args.threads}
    result, seconds = timed(lambda: spawn(job))
    sys.stderr.write(f"{told(sizes)}: measured in {seconds:.0f} s\n")
    return result


def curves(report: dict[str, Any], points: dict[str, list[Sizes]], args: argparse.Namespace, out: Path) -> str:
    """Measure the points of all axes, write the report after each axis, and return the exponents as a table."""
    measured: dict[str, dict[str, Any]] = {}  # two axes share the base
    report["axes"], rows = {}, []
    for axis, problems in points.items():
        for sizes in problems:
            if told(sizes) not in measured:
                measured[told(sizes)] = run(sizes, report["settings"], args)
        results = [measured[told(sizes)] for sizes in problems]
        report["axes"][axis] = {"exponents": fit(axis, results), "points": results}
        record.write_json(out, report)
        for phase, exponents in report["axes"][axis]["exponents"].items():
            rows.append([axis, phase, *(f"{x['all']:.2f} ({x['upper_half']:.2f})" for x in exponents.values())])
    table = tabulate(rows, ["axis", "phase", *QUANTITIES], disable_numparse=True)
    return f"{table}\nexponents over all points (over the upper half)"


def large(report: dict[str, Any], sizes: Sizes, args: argparse.Namespace, out: Path) -> str:
    """Measure one problem in several variants, write the report after each, and return the figures as a table."""
    report["variants"], rows = {}, []
    for name in args.variants:
        settings = {**VARIANTS[name], **report["settings"]}
        point = run(sizes, settings, args)
        h200 = h200_estimate(point["phases"])
        report["variants"][name] = {"settings": settings, **point, "h200": h200}
        record.write_json(out, report)
        for phase, x in point["phases"].items():
            work, speed = x["step_work"], x["step_work"]["gflop"] / x["step_seconds"] / point["gemm_gflop_per_s"]
            times = (x["epoch_seconds"], h200["epoch_seconds_by_phase"][phase])
            figures = (x["step_seconds"], work["gflop"], f"{speed:.0%}", work["gb_moved"], x["peak_bytes"] / 2**30)
            rows.append([name, phase, *figures, *times])
        rows.append(
            [name, "all", *[None] * 4, point["peak_bytes"] / 2**30, point["epoch_seconds"], h200["epoch_seconds"]]
        )
    head = ["variant", "phase", "s/step", "GFLOP/step", "of GEMM", "GB/step", "peak GiB", "s/epoch", "s/epoch, H200*"]
    return f"{tabulate(rows, head, floatfmt='.3g')}\n* an estimate by a formula, not a measurement: see the report"


def benchmark(args: argparse.Namespace) -> None:
    """Measure, write the report and the picture, and print the table.

    Raises:
        UserError: something that was given does not work.
    """
    for key in ("steps", "threads"):
        if (value := getattr(args, key)) is not None and value < 1:
            raise UserError(f"--{key} {value}: give at least 1")
    settings = parse_overrides(f"--{text}" for text in args.set)
    build_config(settings)  # a mistake ends here, before anything is measured
    base = LARGE if args.large else BASE
    if args.base:
        base = check_sizes(dict(zip(("users", "items", "interactions"), args.base, strict=True)))
    out = args.out or Path(f"benchmarks/results/growth-{'large-' if args.large else ''}cpu.json")
    report: dict[str, Any] = {
        "what": "seconds and memory of DiffMM's phases on synthetic data; epochs are extrapolated from single steps",
        "published_settings": "properties/published/DiffMM-tiktok.yaml",
        "settings": settings,
        "device": provenance.device_name(torch.device("cpu")),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "notes": NOTES,
    }
    if args.large:
        print(large(report, base, args, out))
        return
    print(curves(report, plan({axis: getattr(args, axis) for axis in AXES}, base), args, out))
    if not args.no_picture:
        draw(report, out.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 where the user can put something right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interactions", type=int, nargs="*", default=[50_000, 500_000, 2_500_000, 10_000_000])
    parser.add_argument("--users", type=int, nargs="*", default=[10_000, 50_000, 250_000, 1_000_000])
    parser.add_argument("--items", type=int, nargs="*", default=[5_000, 20_000, 50_000, 100_000])
    parser.add_argument("--base", type=int, nargs=3, metavar=("USERS", "ITEMS", "INTERACTIONS"))
    parser.add_argument("--steps", type=int, help="timed steps of a phase (default: 5; 2 with --large)")
    parser.add_argument("--large", action="store_true", help="one large problem instead of curves")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="of --large")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of DiffMM")
    parser.add_argument("--threads", type=int, help="default: PyTorch's own choice, all cores")
    parser.add_argument("--no-picture", action="store_true")
    parser.add_argument("--out", type=Path, help="default: growth-cpu.json in benchmarks/results")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    drawing = not (args.job or args.large or args.no_picture)
    if drawing and importlib.util.find_spec("matplotlib") is None:
        sys.stderr.write("growth.py draws with matplotlib: pip install matplotlib\n")
        return 2
    if args.job is None:
        return exit_code(lambda: benchmark(args))
    return exit_code(lambda: print(json.dumps(execute(args.job))))


if __name__ == "__main__":
    sys.exit(main())
