"""Times an epoch of DiffMM in several implementations on the same data: seconds by phase, memory, products, ratios.

`plain` is benchmarks/plain.py, `fast` the package as shipped, `fast-fp32` the package with float32 products; any other
variant of the package is its name and settings, such as `wide:denoiser_hidden_sizes=[2000]`. A ratio is the first
variant's figure over another's. The variants alternate, and each run is a process of its own because a process's peak
memory never falls. A run's first epoch warms up and is not counted. Besides the epoch, all items are ranked for the
users of the test split and for all users.

    python benchmarks/epoch.py --dataset tiktok --config_files properties/published/DiffMM-tiktok.yaml
    python benchmarks/epoch.py --variants plain fast-fp32 fast large:precision=fp32,denoiser_batch_size=4096
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import plain
import torch
from exit_code import exit_code
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.sampler import Sampler
from recbole.utils import init_seed
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from recbole_diffmm import UserError, provenance, record, registry
from recbole_diffmm.config import Config
from recbole_diffmm.model.diffmm import DiffMMConfig
from recbole_diffmm.precision import float32_products
from recbole_diffmm.quick_start import load_splits
from recbole_diffmm.sources import parse_overrides

BUILT_IN: dict[str, dict[str, Any]] = {"plain": {}, "fast": {}, "fast-fp32": {"precision": "fp32"}}
EPOCH = ("denoisers", "generation", "ranking", "evaluation")  # in this order; `total` is their sum
RANKINGS = ("evaluation", "test", "all_users")  # the users of validation, of test, and all who have training items
GEMM_SIZE = {"cpu": 2048, "cuda": 8192}


# ---- variants


def parse_variant(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the settings of ``name`` or ``name:key=value,key=value``.

    Raises:
        UserError: it has another form, or takes the name of a built-in variant.
    """
    if text in BUILT_IN:
        return text, BUILT_IN[text]
    name, _, settings = text.partition(":")
    if name in BUILT_IN or not re.fullmatch(r"[\w.-]+:\w+=.+", text):
        known = ", ".join(BUILT_IN)
        raise UserError(f"cannot read variant {text!r}; write one of {known}, or another name:key=value,key=value")
    # A comma inside a list is followed by no key.
    return name, parse_overrides(f"--{setting}" for setting in re.split(r",(?=\w+=)", settings))


def build_config(job: dict[str, Any]) -> Config:
    """The configuration of a variant of the package; `plain` takes its data and settings from one too."""
    values = {"tensorboard": False, "show_progress": False, "resume_every": 0, "stopping_step": 10**6}
    return Config("DiffMM", job["dataset"], job["config_files"], {**values, **job["values"]}, job["settings"])


def plain_settings(config: Config) -> plain.Settings:
    """The package's settings as the plain implementation names them.

    Raises:
        UserError: it does not have one of them.
    """
    s = DiffMMConfig.from_config(config)
    lacking = {
        "use_generated_graph": not s.use_generated_graph,
        "contrast": s.contrast == "none",
        "projection": isinstance(s.projection, dict),
        "denoiser_hidden_sizes": len(s.denoiser_hidden_sizes) != 1,
        "denoiser_batch_size": s.denoiser_batch_size != config["train_batch_size"],
        "normalize_input": s.normalize_input,
        "sampling_noise": s.sampling_noise,
        "contrast_negatives": s.contrast_negatives is not None,
        "latent_size": s.latent_size is not None,
        "clip_grad_norm": bool(config["clip_grad_norm"]),
        "learner": config["learner"] != "adam",
        "weight_decay": config["weight_decay"] != 0,
    }
    for key in (key for key, value in lacking.items() if value):
        raise UserError(
            f"variant plain does not have {key}={config[key]} (it has one hidden layer, one batch size and one kind of "
            "projection); change it, or leave plain out of --variants"
        )
    shared = {field.name: getattr(s, field.name) for field in fields(plain.Settings) if hasattr(s, field.name)}
    return plain.Settings(
        **shared,
        hidden_size=s.denoiser_hidden_sizes[0],
        learning_rate=config["learning_rate"],
        batch_size=config["train_batch_size"],
    )


# ---- one run, in a process of its own


class PackageRun:
    """The package, timed by its own trainer."""

    def __init__(self, config: Config, train: Any, valid: Any, rankings: dict[str, Any]) -> None:
        model = config.model_class(config, train._dataset).to(config["device"])
        self.clock = registry.get_trainer_class(config)(config, model)
        self.train, self.valid, self.rankings = train, valid, rankings
        self.precision = model.precision
        self.sizes = {"users": model.user_count, "items": model.item_count, "interactions": len(model.train_users)}

    def epochs(self, n_epochs: int) -> list[dict[str, float]]:
        """Run epochs and return the seconds of each by phase."""
        before, self.clock.epochs = len(self.clock.curve), n_epochs
        self.clock.fit(self.train, self.valid, saved=False, show_progress=False, callback_fn=self._rank)
        return [entry["seconds"] for entry in self.clock.curve[before:]]

    def _rank(self, epoch: int, score: float) -> None:
        for name, loader in self.rankings.items():
            with self.clock.phase(name):
                self.clock.evaluate(loader, load_best_model=False)


class PlainRun:
    """The plain implementation on what the package's model would get; it is its own clock."""

    precision = "fp32"

    def __init__(self, config: Config, train: Any, valid: Any, rankings: dict[str, Any]) -> None:
        dataset, self.device = train._dataset, config["device"]
        sizes = dataset.user_num - 1, dataset.item_num - 1
        # Without PAD.
        features = {name: part.matrix[1:].to(self.device) for name, part in dataset.modalities.items()}
        with self.device:
            self.model = plain.Plain(*sizes, *self._pairs(train), features, plain_settings(config))
        self.rankings = {name: self._pairs(loader) for name, loader in {"evaluation": valid, **rankings}.items()}
        self.k = max(config["topk"])
        self.clock, self.seconds = self, {}
        # Counted in the matrix: it holds a repeated interaction once, and then the variants' work would differ.
        n_interactions = int(self.model.history.sum(dtype=torch.float64))
        self.sizes = {"users": self.model.n_users, "items": self.model.n_items, "interactions": n_interactions}

    def _pairs(self, loader: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The user and item ids of a loader's split, 0-based."""
        dataset = loader._dataset
        users, items = (dataset.inter_feat[field].long() - 1 for field in (dataset.uid_field, dataset.iid_field))
        return users.to(self.device), items.to(self.device)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the seconds spent inside."""
        start = time.perf_counter()
        with self.device:
            yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = time.perf_counter() - start

    def epochs(self, n_epochs: int) -> list[dict[str, float]]:
        """Run epochs and return the seconds of each by phase."""
        return [self._epoch() for _ in range(n_epochs)]

    def _epoch(self) -> dict[str, float]:
        self.seconds = {}
        steps = (self.model.train_denoisers, self.model.rebuild_graphs, self.model.train_ranking)
        evaluations = (partial(self.model.evaluate, *self.rankings[name], k=self.k) for name in RANKINGS)
        for name, step in zip((*EPOCH, *RANKINGS[1:]), (*steps, *evaluations), strict=True):
            with self.clock.phase(name):
                step()
        return self.seconds


def every_user(config: Config, train: Any) -> FullSortEvalDataLoader:
    """A loader that ranks all items for all users: one training item of each is sought, the others are masked."""
    dataset = train._dataset
    _, first = np.unique(dataset.inter_feat[dataset.uid_field].numpy(), return_index=True)
    sought = dataset.copy(dataset.inter_feat[torch.from_numpy(first)])
    return FullSortEvalDataLoader(config, sought, Sampler(["train"], [dataset]).set_phase("train"))


def execute(job: dict[str, Any]) -> dict[str, Any]:
    """Time one variant's epochs, then the device's own products; a variant's first run also counts its products."""
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    with tempfile.TemporaryDirectory() as folder:
        config = build_config({**job, "values": {**job["values"], "checkpoint_dir": folder}})
        init_seed(config["seed"], config["reproducibility"])
        train, valid, test = load_splits(config, registry.create_dataset(config))
        if not isinstance(test, FullSortEvalDataLoader):
            raise UserError("all items are ranked here; set eval_args.mode to full")
        init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
        rankings = {"test": test, "all_users": every_user(config, train)}
        run = (PlainRun if job["variant"] == "plain" else PackageRun)(config, train, valid, rankings)
        seconds = run.epochs(1 + job["epochs"])[1:]
        result = {
            "seconds": [{**epoch, "total": sum(epoch[name] for name in EPOCH)} for epoch in seconds],
            "peak_memory_mb": {k: v for k, v in provenance.peak_memory_mb(config["device"]).items() if v is not None},
            "data": run.sizes,
            "precision": run.precision,
            "ranked_users": dict(zip(RANKINGS, (len(x.uid_list) for x in (valid, *rankings.values())), strict=True)),
            "device": provenance.device_name(config["device"]),
            "threads": torch.get_num_threads(),
        }
        if job["first"]:
            result["gflop"] = count_products(run)
        result["gemm_gflop_per_s"] = measure_products(config["device"])
        return result


def count_products(run: PackageRun | PlainRun) -> dict[str, float]:
    """GFLOP of the dense matrix products by phase, counted over one more epoch."""
    gflop: dict[str, float] = {}
    if isinstance(run, PackageRun):
        run.clock.config["cuda_graphs"] = False  # what a graph replays goes past the counter
    run.clock.phase = partial(_counted, run.clock.phase, gflop)
    run.epochs(1)
    return {**gflop, "total": sum(gflop[name] for name in EPOCH)}


@contextmanager
def _counted(phase: Any, gflop: dict[str, float], name: str) -> Iterator[None]:
    products = {op: _if_dense(flop_registry[op]) for op in (torch.ops.aten.mm, torch.ops.aten.addmm)}
    with phase(name), FlopCounterMode(display=False, custom_mapping=products) as counter:
        yield
    gflop[name] = counter.get_total_flops() / 1e9


def _if_dense(formula: Any) -> Any:
    # PyTorch's formula goes by the shapes alone and would count the zeros of a sparse matrix.
    def flop(*args: Any, **kwargs: Any) -> int:
        sparse = any(isinstance(x, torch.Tensor) and x.layout != torch.strided for x in args)
        return 0 if sparse else formula(*args, **kwargs)

    flop._get_raw = True  # asks the counter for the tensors, not for their shapes
    return flop


def measure_products(device: torch.device) -> dict[str, float]:
    """GFLOP/s of square dense products by number format, the best of three."""
    size, best = GEMM_SIZE[device.type], {}
    for name in ("fp32", "bf16") if device.type == "cpu" else ("fp32", "tf32", "bf16"):
        x = torch.randn(size, size, device=device, dtype=torch.bfloat16 if name == "bf16" else torch.float32)
        seconds = []
        with float32_products(name):
            for _ in range(4):  # the first warms up
                start = time.perf_counter()
                (x @ x)[0, 0].item()  # reading a number waits for the device
                seconds.append(time.perf_counter() - start)
        best[name] = 2 * size**3 / min(seconds[1:]) / 1e9
    return best


# ---- all runs


def spawn(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a process of its own.

    Raises:
        UserError: the job raised one.
    """
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
    if done.returncode:
        sys.exit(f"{done.stderr}variant {job['variant']} ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def summarise(results: list[dict[str, Any]], gemm: dict[str, float]) -> dict[str, Any]:
    """One variant's medians over its counted epochs, and what follows from them.

    The share of `gemm` is of the variant's own format, which its small products do without: they stay in float32.
    """
    first = results[0]
    seconds = {
        phase: [epoch[phase] for result in results for epoch in result["seconds"]]
        for phase in (*EPOCH, "total", *RANKINGS[1:])
    }
    peaks = {kind: [result["peak_memory_mb"][kind] for result in results] for kind in first["peak_memory_mb"]}
    median = {phase: statistics.median(values) for phase, values in seconds.items()}
    speed = {phase: first["gflop"][phase] / value for phase, value in median.items()}
    return {
        "precision": first["precision"],
        "seconds": median,
        "peak_memory_mb": {kind: statistics.median(values) for kind, values in peaks.items()},
        "gflop": first["gflop"],
        "gflop_per_s": speed,
        "share_of_gemm": {phase: value / gemm[first["precision"]] for phase, value in speed.items()},
        "users_ranked_per_s": {phase: n_users / median[phase] for phase, n_users in first["ranked_users"].items()},
        "seconds_of_each_epoch": seconds,
        "peak_memory_mb_of_each_run": peaks,
    }


def divide(base: dict[str, Any], other: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times another variant's seconds and memory the base's are."""
    return {
        key: {part: value / other[key][part] for part, value in base[key].items()}
        for key in ("seconds", "peak_memory_mb")
    }


def render(report: dict[str, Any]) -> str:
    """The report as text: what was run and on what, a row per phase and variant, and peak memory."""
    variants, ratios, data, commit = (report[key] for key in ("variants", "ratios", "data", "commit"))
    base = next(iter(variants))
    rows, memory = [], []
    for phase in variants[base]["seconds"]:
        for name, v in variants.items():
            times, users = v["seconds_of_each_epoch"][phase], v["users_ranked_per_s"].get(phase)
            rows.append([
                phase, name, f"{v['seconds'][phase]:.3f}", f"{min(times):.3f} to {max(times):.3f}",
                f"{ratios[name]['seconds'][phase]:.2f}" if name in ratios else "",
                short(v["gflop"][phase]), short(v["gflop_per_s"][phase]),
                f"{v['share_of_gemm'][phase]:.0%} of {v['precision']}", f"{users:,.0f}" if users else "",
            ])  # fmt: skip
    for name, v in variants.items():
        peaks = [f"{kind} {value:,.0f} MiB" for kind, value in v["peak_memory_mb"].items()]
        if name in ratios:
            peaks += [f"{base}/{name} {kind} {r:.2f}" for kind, r in ratios[name]["peak_memory_mb"].items()]
        memory.append(f"peak memory of {name}: {', '.join(peaks)}")
    head = ["phase", "variant", "seconds", "range", f"{base}/it", "GFLOP", "GFLOP/s", "of GEMM", "users/s"]
    return "\n".join([
        f"an epoch of DiffMM on {report['dataset']}: {data['users']:,} users, {data['items']:,} items, "
        f"{data['interactions']:,} training interactions; medians of {report['repeats'] * report['epochs']} epochs",
        f"{report['device']} ({report['processor']}), threads: {report['threads']}, GFLOP/s of GEMM: "
        + ", ".join(f"{name} {short(value)}" for name, value in report["gemm_gflop_per_s"].items()),
        ", ".join(f"{name} {version}" for name, version in report["versions"].items())
        + (f", commit {commit['hash'][:9]}{' and changes' if commit['dirty'] else ''}" if commit else ""),
        "",
        tabulate(rows, head, disable_numparse=True, colalign=("left", "left", *["right"] * 7)),
        "",
        *memory,
    ])  # fmt: skip


def short(value: float) -> str:
    """Three digits, and whole numbers from a hundred on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def processor() -> str:
    """The processor's name where Linux tells it, else the kind of machine."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.machine()


def prepare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One job for each variant, checked before the first of them takes its time.

    Raises:
        UserError: a variant, a setting, a number or the device does not work.
    """
    for key in ("epochs", "repeats", "threads"):
        if (value := getattr(args, key)) is not None and value < 1:
            raise UserError(f"--{key} {value}: give at least 1")
    gpu = torch.cuda.is_available()
    if args.device == "cuda" and not gpu:
        raise UserError("--device cuda: PyTorch finds no GPU; use --device cpu")
    use_gpu = gpu and args.device != "cpu"
    variants = [parse_variant(text) for text in args.variants]
    if len(dict(variants)) < len(variants):
        raise UserError("--variants: a name is given twice; give each variant its own")
    values = {"use_gpu": use_gpu, **({"data_path": args.data_path} if args.data_path else {})}
    shared = {key: getattr(args, key) for key in ("dataset", "config_files", "epochs", "threads")}
    jobs = [{**shared, "values": values, "variant": name, "settings": settings} for name, settings in variants]
    for job in jobs:
        config = build_config(job)
        if job["variant"] == "plain":
            plain_settings(config)
    return jobs


def benchmark(args: argparse.Namespace) -> None:
    """Run all variants in turn, write the report and print it.

    Raises:
        UserError: something that was given does not work.
    """
    jobs, commit = prepare(args), provenance.commit()
    runs: dict[str, list[dict[str, Any]]] = {job["variant"]: [] for job in jobs}
    for repeat in range(args.repeats):
        for job in jobs:
            result = spawn({**job, "first": repeat == 0})
            runs[job["variant"]].append(result)
            firsts = [results[0] for results in runs.values() if results]
            if result["data"] != firsts[0]["data"]:
                raise UserError(
                    "plain counts a repeated user-item pair once, so it has less to do; set rm_dup_inter: first"
                )
            epochs = ", ".join(f"{epoch['total']:.2f} s" for epoch in result["seconds"])
            sys.stderr.write(f"run {repeat + 1} of {args.repeats}, {job['variant']}: {epochs}\n")
    reached = [result["gemm_gflop_per_s"] for results in runs.values() for result in results]
    gemm = {name: max(speed[name] for speed in reached) for name in reached[0]}
    variants = {name: summarise(results, gemm) for name, results in runs.items()}
    base, *others = variants
    report = {
        "what": "an epoch of DiffMM: median seconds (`total`: of four phases), peak memory, GFLOP of dense products",
        "dataset": args.dataset,
        "config_files": args.config_files,
        "settings": {job["variant"]: job["settings"] for job in jobs},
        **{key: firsts[0][key] for key in ("data", "ranked_users", "device", "threads")},
        "processor": processor(),
        "epochs": args.epochs,
        "repeats": args.repeats,
        "versions": provenance.versions(),
        "commit": commit,
        "gemm_gflop_per_s": gemm,
        "base": base,
        "ratios": {name: divide(variants[base], variants[name]) for name in others},
        "variants": variants,
    }
    kind = "cuda" if jobs[0]["values"]["use_gpu"] else "cpu"
    record.write_json(args.out or Path(f"benchmarks/results/epoch-{args.dataset}-{kind}.json"), report)
    print(render(report))


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 where the user can put something right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="tiktok")
    parser.add_argument("--config_files", nargs="*", default=[])
    parser.add_argument("--data_path")
    parser.add_argument("--variants", nargs="+", default=["plain", "fast"])
    parser.add_argument("--epochs", type=int, default=1, help="counted epochs of a run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each variant")
    parser.add_argument("--threads", type=int, help="default: PyTorch's own choice, all cores")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.job is None:
        return exit_code(lambda: benchmark(args))
    return exit_code(lambda: print(json.dumps(execute(args.job))))


if __name__ == "__main__":
    sys.exit(main())
