"""The scripts in benchmarks/, which are no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


def load_script(repository: Path, name: str) -> Any:
    """Return `benchmarks/NAME.py` as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, repository / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def plain(repository: Path) -> Any:
    """The plain implementation."""
    return load_script(repository, "plain")
