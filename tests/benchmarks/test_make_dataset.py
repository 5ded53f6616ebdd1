"""A dataset of a given size is one that runs read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recbole_diffmm.quick_start import run
from tests.trainer.small import SETTINGS


def made(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "benchmarks" / "make_dataset.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_has_the_sizes_and_is_trained_on(repository: Path) -> None:
    sizes = ["--sizes", "40", "30", "240"]
    done = made(repository, "dataset/drawn", *sizes, "--features", "image=6", "text=3")
    assert done.returncode == 0, done.stderr
    assert len(Path("dataset/drawn/drawn.train.inter").read_text().splitlines()) == 241
    assert np.load("dataset/drawn/image.npy").shape == (30, 6)
    data = run("DiffMM", "drawn", config_dict={**SETTINGS, "epochs": 1, "denoiser_hidden_sizes": [4]}).record["data"]
    assert data["n_users"] == 40
    assert set(data["features"]) == {"image", "text"}
    again = made(repository, "dataset/drawn", *sizes)
    assert (again.returncode, again.stderr) == (
        2,
        "error: dataset/drawn is there already; remove it, or give another folder\n",
    )


@pytest.mark.parametrize("text", ["image", "image=x", "image=0", "a/b=3"])
def test_features_that_cannot_be_read_are_told(text: str, repository: Path) -> None:
    done = made(repository, "dataset/drawn", "--sizes", "40", "30", "240", "--features", text)
    assert done.returncode == 2
    assert done.stderr == f"error: --features {text}: write a name and a width, such as image=4096\n"
    assert not Path("dataset/drawn").exists()
