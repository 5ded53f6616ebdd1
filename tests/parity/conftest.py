"""Fixtures of the reference's recorded problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.problem import FILES, Problem


@pytest.fixture(params=FILES)
def problem(request: pytest.FixtureRequest, shared: Path) -> Problem:
    """Each recorded problem in turn."""
    return Problem(shared / "parity" / f"{request.param}.npz")
