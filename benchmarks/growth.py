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
import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
import yaml
from tabulate import tabulate
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from recbole_diffmm import UserError, provenance, record
from recbole_diffmm.data.modality import ModalityFeatures
from recbole_diffmm.diffusion import HiddenSpaceSampler, top_items
from recbole_diffmm.model.diffmm import DiffMM, DiffMMConfig
from recbole_diffmm.precision import autocast
from recbole_diffmm.sources import parse_overrides, properties_dir

Sizes = dict[str, int]
AXES = ("interactions", "users", "items")
PHASES = ("denoisers", "generation", "ranking", "evaluation")  # in the order of an epoch, whose optimisers all stay
QUANTITIES = ("step_seconds", "epoch_seconds", "peak_bytes", "added_bytes")
BASE = {"interactions": 500_000, "users": 50_000, "items": 20_000}
LARGE = {"interactions": 10_000_000, "users": 1_000_000, "items": 100_000}
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "sampled": {"contrast_negatives": 4096},
    "latent": {"latent_size": 256, "contrast_negatives": 4096},
}
MODALITIES = ("image", "audio")
N_FEATURES = 128
TOP_K = 20
ENOUGH_SECONDS = 20.0  # steps of a phase are timed until then, two at least
USER_EXPONENT, ITEM_EXPONENT = 0.4, 0.6  # of the popularity rank; steeper ones saturate the first items of small ones
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


# ---- data


def power_law(rng: np.random.Generator, n: int, size: int, exponent: float) -> np.ndarray:
    """Draw ``n`` of ``0..size-1`` with probabilities that fall as ``rank ** -exponent``."""
    return (size * rng.random(n) ** (1 / (1 - exponent))).astype(np.int64)


def check_sizes(sizes: Sizes) -> Sizes:
    """The same sizes.

    Raises:
        UserError: no such data can be drawn.
    """
    n_users, n_items, n_interactions = sizes["users"], sizes["items"], sizes["interactions"]
    if not 1 <= n_users <= n_interactions <= n_users * n_items // 2:
        raise UserError(
            f"{n_interactions} interactions of {n_users} users and {n_items} items: give at least one for each user, "
            "and at most half of all pairs"
        )
    return sizes


def draw_interactions(sizes: Sizes, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users and items ``(E,)``, 0-based: pairs that are all different, at least one of each user."""
    n_users, n_items, n_interactions = sizes["users"], sizes["items"], sizes["interactions"]
    rng = np.random.default_rng(seed)
    # Popular ones anywhere: neighbouring rows of an embedding table would be found in the cache too often.
    users, items = rng.permutation(n_users), rng.permutation(n_items)
    key = np.sort(np.arange(n_users) * n_items + items[power_law(rng, n_users, n_items, ITEM_EXPONENT)])
    while (missing := n_interactions - len(key)) > 0:
        drawn = users[power_law(rng, missing, n_users, USER_EXPONENT)] * n_items
        drawn += items[power_law(rng, missing, n_items, ITEM_EXPONENT)]
        # Not np.unique: where that goes by hashes, it takes a hundred times as long.
        key = np.sort(np.concatenate([key, drawn]))
        key = key[np.diff(key, prepend=-1) > 0]
    return key // n_items, key % n_items


def build_config(settings: dict[str, Any]) -> dict[str, Any]:
    """The published settings of TikTok over the reference's, and ``settings`` over both.

    Raises:
        UserError: there is no such setting, its value does not work, or it leaves out a phase.
    """
    files = ("overall.yaml", "model/DiffMM.yaml", "published/DiffMM-tiktok.yaml")
    config = {k: v for name in files for k, v in yaml.safe_load((properties_dir() / name).read_text("utf-8")).items()}
    if unknown := settings.keys() - config.keys() - DiffMMConfig.model_fields.keys():
        raise UserError(f"--set {min(unknown)}: DiffMM has no such setting")
    fields = {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "NEG_PREFIX": "neg_", "dataset": "synthetic"}
    config = {**config, **settings, **fields, "device": torch.device("cpu")}
    if not DiffMMConfig.from_config(config).use_generated_graph:
        raise UserError("--set use_generated_graph=false: leaves no denoisers and no generation to time")
    return config


def build_model(sizes: Sizes, config: dict[str, Any]) -> DiffMM:
    """DiffMM on synthetic data, with random generated graphs."""
    pairs = tuple(torch.from_numpy(x) + 1 for x in draw_interactions(sizes))  # RecBole's ids: 0 is PAD
    observed = torch.arange(sizes["items"] + 1) > 0
    features = {name: torch.randn(len(observed), N_FEATURES) * observed.unsqueeze(1) for name in MODALITIES}
    dataset = SimpleNamespace(
        num={"user_id": sizes["users"] + 1, "item_id": sizes["items"] + 1}.__getitem__,
        modalities={name: ModalityFeatures(name, matrix, observed) for name, matrix in features.items()},
        training_interactions=lambda: pairs,
    )
    model = DiffMM(config, dataset)
    draw_generated(model)
    _ = model.adj  # built once a run
    return model


def draw_generated(model: DiffMM) -> None:
    """Popular items for every user: the denoisers are not trained, and what they choose would be one item for all."""
    rng = np.random.default_rng(1)
    for name in model.generated_names:
        first = power_law(rng, model.user_count, model.item_count, ITEM_EXPONENT)
        items = (first[:, None] + np.arange(model.settings.rebuild_k)) % model.item_count  # no item twice
        model.set_generated_items(name, torch.from_numpy(items))


# ---- phases


class Phase(NamedTuple):
    """What an epoch does once in a phase, what it does in step ``n``, given what `once` returned, and how often."""

    once: Callable[[], Any]
    step: Callable[[Any, int], Any]
    steps_per_epoch: int
    warm_up: int = 1  # steps


def nth(order: Tensor, size: int, n: int) -> Tensor:
    """The ``n``-th batch of an order, which starts again at its end."""
    batches = order.split(size)
    return batches[n % max(len(batches) - 1, 1)]  # the last one may be smaller


def build_phases(model: DiffMM, config: dict[str, Any]) -> dict[str, Phase]:
    """The phases of an epoch, each step as the trainers of this package and of RecBole take it."""
    s, names = model.settings, model.generated_names
    user_order, pair_order = torch.randperm(model.user_count), torch.randperm(len(model.train_users))
    optimizers = {
        name: torch.optim.Adam(model.denoiser(name).parameters(), lr=s.denoiser_learning_rate, fused=True)
        for name in names
    }
    fields = (model.USER_ID, model.ITEM_ID, model.NEG_ITEM_ID)
    ranking_optimizer = torch.optim.Adam(model.recommender_parameters(), lr=config["learning_rate"])

    def prepare_denoisers() -> tuple[dict[str, Tensor], Tensor]:
        model.train()
        return model.injection_targets()

    def denoiser_step(state: tuple[dict[str, Tensor], Tensor], n: int) -> None:
        name, (projected, targets) = names[n % len(names)], state
        users = nth(user_order, s.denoiser_batch_size, n)
        t, noise = torch.randint(s.steps, users.shape), torch.randn(len(users), model.row_size)
        elbo, msi = model.denoiser_loss(name, users, t, noise, projected[name], targets[users])
        (elbo.mean() + s.msi_weight * msi.mean()).backward()
        optimizers[name].step()
        optimizers[name].zero_grad(set_to_none=True)

    def prepare_generation() -> HiddenSpaceSampler | None:
        for name in names:
            sampler = prepare_sampler(model, name)
        draw_generated(model)
        model.graph_diagnostics()
        return sampler

    def generation_step(sampler: HiddenSpaceSampler | None, n: int) -> Tensor:
        return generate(model, names[-1], sampler, nth(user_order, s.denoiser_batch_size, n))

    def prepare_ranking() -> None:
        model.train()
        for name in names:
            model.generated_adj(name)

    def ranking_step(_: None, n: int) -> None:
        chosen = nth(pair_order, config["train_batch_size"], n)
        columns = (model.train_users[chosen], model.train_items[chosen], torch.randint(model.item_count, chosen.shape))
        ids = (column + 1 for column in columns)
        ranking_optimizer.zero_grad()
        sum(model.calculate_loss(dict(zip(fields, ids, strict=True)))).backward()
        ranking_optimizer.step()

    @torch.no_grad()
    def prepare_evaluation() -> None:
        model.eval()
        model.full_sort_predict({model.USER_ID: user_order[:1] + 1})  # fills the cache of propagated rows

    @torch.no_grad()
    def evaluation_step(_: None, n: int) -> Tensor:
        users = nth(user_order, config["eval_users_per_batch"], n)
        scores = model.full_sort_predict({model.USER_ID: users + 1})
        row, item = model.history.entries(users)
        scores[:, 0] = -torch.inf
        scores[row, item + 1] = -torch.inf
        return torch.topk(scores, min(TOP_K, model.item_count), dim=-1).indices

    user_batches = len(names) * math.ceil(model.user_count / s.denoiser_batch_size)
    ranking_batches = math.ceil(len(model.train_users) / config["train_batch_size"])
    evaluation_batches = math.ceil(model.user_count / config["eval_users_per_batch"])
    phases = (
        Phase(prepare_denoisers, denoiser_step, user_batches, len(names)),  # until each optimiser has its state
        Phase(prepare_generation, generation_step, user_batches),
        Phase(prepare_ranking, ranking_step, ranking_batches),
        Phase(prepare_evaluation, evaluation_step, evaluation_batches),
    )
    return dict(zip(PHASES, phases, strict=True))


@torch.no_grad()
def prepare_sampler(model: DiffMM, name: str) -> HiddenSpaceSampler | None:
    """What `DiffMM.generate` does before its batches."""
    denoiser = model.denoiser(name).eval()
    if model.latent is not None or not HiddenSpaceSampler.applies(denoiser, model.settings.sampling_noise):
        return None
    with autocast(model.precision, torch.device("cpu")):
        return HiddenSpaceSampler(denoiser, model.diffusion.schedule)


@torch.no_grad()
def generate(model: DiffMM, name: str, sampler: HiddenSpaceSampler | None, users: Tensor) -> Tensor:
    """One batch of `DiffMM.generate`."""
    s = model.settings
    with autocast(model.precision, users.device):
        if sampler is None:
            start = model._generation_start(users)
            scores = model.diffusion.p_sample_loop(model.denoiser(name), start, sampling_noise=s.sampling_noise)
            scores = scores if model.latent is None else model.latent.decode(scores)
        else:
            noised = model._generation_start(users) if s.sampling_steps > 0 else None
            scores = sampler.scores(*model.history.sparse_rows(users), noisy_rows=noised)
        return top_items(scores, s.rebuild_k)


# ---- one point, in a process of its own


class Traffic(TorchDispatchMode):
    """Bytes that PyTorch's operations read and write: every operand once an operation, as if there were no caches."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if func.is_view or name.startswith(("empty", "new_empty", "_unsafe_view")):
            return out
        if name in {"index", "index_select"}:  # what is picked, not the table
            self.total += 2 * size_in_bytes(out) + size_in_bytes(args[1:])
        elif name == "index_put_":  # an index is as wide as the number that it reads and writes
            self.total += 2 * size_in_bytes(args[1:])
        elif name.startswith("_embedding_bag"):
            self.total += args[1].numel() * args[0][0].nbytes + size_in_bytes(args[1:]) + size_in_bytes(out[0])
        else:
            written = [a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments]
            self.total += sum(size_in_bytes(x) * (1 + w) for x, w in zip(args, written, strict=False))
            if not any(written):
                self.total += size_in_bytes(out)
        return out


def size_in_bytes(value: Any) -> int:
    """Bytes of a dense tensor, or of those in a list; a sparse one's parts are operands of their own."""
    if isinstance(value, Tensor):
        return value.nbytes if value.layout == torch.strided else 0
    return sum(map(size_in_bytes, value)) if isinstance(value, (list, tuple)) else 0


def reset_peak() -> None:
    """Let the peak start from now, where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # elsewhere the peak is that of all phases so far


def peak_bytes() -> int:
    """Peak of resident memory."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+)", status.read_text())):
        return int(found[1]) * 1024
    host = provenance.peak_memory_mb(torch.device("cpu"))["host"]
    return round(host * 2**20) if host else psutil.Process().memory_info().rss


def counted(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a function returns, and its GFLOP of dense products and GB moved."""
    with FlopCounterMode(display=False) as flop, Traffic() as traffic:
        value = function()
    return value, {"gflop": flop.get_total_flops() / 1e9, "gb_moved": traffic.total / 1e9}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its seconds."""
    start = time.perf_counter()
    value = function()
    return value, time.perf_counter() - start


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


def gemm_gflop_per_s(precision: str, size: int = 2048) -> float:
    """GFLOP/s of square products in a number format, the best of five."""
    x = torch.randn(size, size, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return 2e-9 * size**3 / min(timed(lambda: x @ x)[1] for _ in range(6))


def execute(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one point."""
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    base_bytes, config = psutil.Process().memory_info().rss, build_config(job["settings"])
    model, build_seconds = timed(lambda: build_model(job["sizes"], config))
    build_peak = peak_bytes()
    phases = {name: measure(phase, job["steps"], base_bytes) for name, phase in build_phases(model, config).items()}
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
    """Seconds of an epoch by the roofline's sum: products and bytes at half of what the device's sheet promises."""
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
    try:
        if args.job is None:
            benchmark(args)
        else:
            print(json.dumps(execute(args.job)))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
