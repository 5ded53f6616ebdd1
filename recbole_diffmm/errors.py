"""The exceptions that a user's mistake ends in, and the parts that their messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """A mistake in what the user gave, told in one line: what was got, where, what to do.

    The command line prints the message and exits with code 2; nothing half-written is left behind.
    """


class RecBoleMissingError(UserError, ImportError):
    """RecBole is not installed, or another version than the one that this package mends."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The end of an error's line, "; did you mean X?", empty where nothing known is near.

    Args:
        name: what was given.
        known: what could have been meant.
        cutoff: share of letters in common from which a candidate counts as near.
    """
    by_lower = {candidate.lower(): candidate for candidate in sorted(known)}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def quoted(value: Any) -> str:
    """What was given, as it stands in a message: 80 characters at most."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
