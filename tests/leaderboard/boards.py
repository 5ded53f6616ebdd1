"""Boards made without training: records of invented runs, written as a run writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_diffmm import record as records
from recbole_diffmm.evaluator.per_user import write_parquet
from recbole_diffmm.leaderboard import manifest
from recbole_diffmm.leaderboard.manifest import Manifest, Row, Run

METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
GROUPS = ("0", "1-4", "5-9", "10-19")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def record(name: str = "BPR-toy-s1-00000000", **changes: Any) -> dict[str, Any]:
    """A valid record; `changes` replace its keys."""
    model, dataset, seed, _ = name.split("-")
    test = {metric: 0.25 for metric in METRICS}
    content: dict[str, Any] = {
        "schema_version": records.SCHEMA_VERSION,
        "name": name,
        "model": model,
        "dataset": dataset,
        "modalities": ["smell", "text"] if model == "DiffMM" else [],
        "protocol": "recbole",
        "masking": "train+valid",
        "selection": "validation Recall@20",
        "seed": int(seed[1:]),
        "config": {
            "learning_rate": 0.001,
            "epochs": 5,
            "stopping_step": 2,
            "shuffle": True,
            "seed": int(seed[1:]),
            "topk": [10, 20],
        },
        "data": {
            "n_users": 60,
            "n_items": 80,
            "n_inter": 700,
            "hash": digest("data"),
            "split_hash": digest("split"),
            "files": {},
            "features": {"smell": {"hash": digest("smell"), "coverage": 0.9}},
        },
        "metrics": {"valid": test, "test": test, "test_selected": None},
        "beyond_accuracy": {"itemcoverage@20": 0.5, "giniindex@20": 0.8, "averagepopularity@20": 12.5},
        "coverage_by_modality": {"smell": {"observed": {"itemcoverage@20": 0.4}, "missing": {"itemcoverage@20": 0.1}}},
        "slices": {
            kind: [{"group": group, "n_users": 15, "n_items": 20, "metrics": test} for group in GROUPS]
            for kind in ("users_by_history", "items_by_popularity")
        }
        | {"without_modality": {"smell": test} if model == "DiffMM" else {}},
        "per_user": None,
        "best_epoch": 3,
        "epochs_run": 5,
        "curve": [
            {"epoch": epoch, "losses": {"bpr": 0.6 - 0.01 * epoch}, "valid": test, "seconds": {"ranking": 0.5}}
            for epoch in range(5)
        ],
        "seconds": {"ranking": 2.5, "per_epoch": {"ranking": 0.5}, "to_best_epoch": 2.0, "training": 2.6},
        "peak_memory_mb": {"host": 512.0, "device": None},
        "energy": {},
        "device": "cpu: x86_64",
        "threads": 1,
        "precision": "fp32",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "code": {"hash": digest("code"), "commit": "0123456789abcdef", "dirty": False},
        "finished": "2026-01-02T03:04:05+00:00",
        "warnings": [],
    }
    return {**content, **changes}


def write_run(folder: Path, name: str, values: Mapping[str, np.ndarray] | None = None, **changes: Any) -> Path:
    """Write a record, and with `values` its per-user file and the means of it."""
    content = record(name, **changes)
    if values is not None:
        users = np.array([f"u{number}" for number in range(len(next(iter(values.values()))))])
        history = np.full(len(users), 5)
        content["per_user"] = write_parquet(folder / f"{name}.per_user.parquet", users, values, history)
        means = {metric: float(value.mean()) for metric, value in values.items()}
        content["metrics"] = {"valid": means, "test": means, "test_selected": content["metrics"]["test_selected"]}
    records.write(folder / f"{name}.json", content)
    return folder / f"{name}.json"


def write_board(
    folder: Path,
    rows: Mapping[str, float],
    seeds: Sequence[int] = (1, 2, 3),
    n_users: int = 300,
    noise: float = 0.05,
    metrics: Sequence[str] = ("Recall@20", "NDCG@20"),
    reference: str = "",
    changes: Mapping[str, Any] | None = None,
    **words: Any,
) -> Manifest:
    """Write a board whose rows differ by the given offsets from one draw of users; labels are names of models."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    base = generator.random(n_users)
    entries = []
    for label, offset in rows.items():
        runs = []
        for seed in seeds:
            name = f"{label}-toy-s{seed}-{digest(label)[:8]}"
            values = {m: base + offset + generator.normal(0, noise, n_users) for m in METRICS}
            write_run(folder, name, values, **dict(changes or {}))
            runs.append(Run(name=name, fingerprint=digest(name)))
        entries.append(Row(label=label, model=label, dataset="toy", tuned="", runs=tuple(runs)))
    board = Manifest(
        name=folder.name,
        title=words.get("title", "A board"),
        about=words.get("about", ""),
        metrics=tuple(metrics),
        reference=reference,
        rows=tuple(entries),
        published=tuple(words.get("published", ())),
    )
    manifest.write(folder, board)
    return board
