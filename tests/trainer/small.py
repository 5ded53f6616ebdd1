"""Small runs for tests: the toy dataset, a few epochs, nothing on the terminal."""

from __future__ import annotations

from typing import Any

import torch

from recbole_diffmm.quick_start import RunResult, run
from recbole_diffmm.trainer import checkpoint

SETTINGS: dict[str, Any] = {
    "epochs": 6,
    "train_batch_size": 256,
    "learning_rate": 0.01,
    "show_progress": False,
    "state": "WARNING",
    "use_gpu": False,
}


def small_run(model: str = "BPR", on_epoch: Any = None, **settings: Any) -> RunResult:
    """Run `model` on the toy dataset in the current folder."""
    return run(model, "toy", config_dict={**SETTINGS, **settings}, on_epoch=on_epoch)


def numbers(result: RunResult) -> dict[str, Any]:
    """Everything of a run that must not depend on whether and how it was interrupted: all but times and memory."""
    record = result.record
    curve = [{key: value for key, value in entry.items() if key != "seconds"} for entry in record["curve"]]
    kept = ("metrics", "best_epoch", "epochs_run", "data")
    return {"curve": curve, **{key: record[key] for key in kept}}


def best_parameters(result: RunResult) -> dict[str, torch.Tensor]:
    """The parameters and buffers of the run's best checkpoint."""
    content = checkpoint.load(f"saved/{result.record_path.stem}.pth")
    return {
        name: value.coalesce().to_dense() if value.is_sparse else value for name, value in content["state_dict"].items()
    }
