"""What `make lint` checks, so that the one command of continuous integration checks it too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = {
    "ruff-check": ["ruff", "check", "--no-cache", "."],
    "ruff-format": ["ruff", "format", "--no-cache", "--check", "."],
    "mypy": ["mypy"],
}


@pytest.mark.parametrize("check", CHECKS)
def test_lint(check: str, repository: Path) -> None:
    tool, *arguments = CHECKS[check]
    pytest.importorskip(tool, reason=f"{tool} comes with the extra `test`")
    result = subprocess.run(
        [sys.executable, "-m", tool, *arguments], cwd=repository, capture_output=True, text=True, timeout=540
    )
    assert result.returncode == 0, result.stdout + result.stderr
