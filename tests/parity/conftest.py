"""Fixtures of the reference's recorded problems."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.problem import FILES, Problem

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Where the model is: the CPU, and a GPU where there is one."""
    return str(request.param)


@pytest.fixture(params=FILES)
def problem(request: pytest.FixtureRequest, shared: Path, device: str) -> Problem:
    """Each recorded problem in turn, on each device."""
    return Problem(shared / "parity" / f"{request.param}.npz", device)
