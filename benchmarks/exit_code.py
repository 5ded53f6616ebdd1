"""How a benchmark ends: like the package's commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from recbole_diffmm import UserError


def exit_code(action: Callable[[], Any]) -> int:
    """Carry out a benchmark and return 0, or 2 after one line where something that was given does not work."""
    try:
        action()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0
