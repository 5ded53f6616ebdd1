"""Packages that only some commands need, and the extras of this package that bring them."""

from __future__ import annotations

import importlib.util
import sys

from recbole_diffmm.errors import UserError


def require(extra: str, who: str, *packages: str) -> None:
    """Check that packages are installed before work begins that cannot end without them.

    Args:
        extra: The extra of this package that brings them.
        who: What needs them, for the message.
        packages: Their names, as they are imported.

    Raises:
        UserError: One is missing; the message has the command that installs it.
    """
    for package in packages:
        try:
            found: object = importlib.util.find_spec(package)
        except ValueError:  # imported, by something that gave it no spec
            found = sys.modules[package]
        if found is None:
            raise UserError(
                f'{who} needs {package}, which is not installed; run: pip install "recbole-diffmm[{extra}]"'
            )
