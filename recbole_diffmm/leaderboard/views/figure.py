"""A picture of a page: Plotly's dictionaries, words, and the same numbers as a table.

Colours are names of the style's variables, such as ``--c3``: `pictures.js` puts in their values of light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 40  # rows that a picture shows; the others are in its numbers
COLOURS = 10  # of the style; rows beyond take them again, with other dashes
_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class Figure:
    """A picture and its numbers.

    Attributes:
        key: Its kind.
        title: What stands above it.
        about: How to read it, in a sentence.
        data: Plotly's traces. One says by ``row`` whose it is, so that the page's filter can hide it.
        layout: Plotly's layout, as far as it is this figure's own; ``height`` in pixels is always in it.
        header: Of the table of its numbers.
        table: Its rows.
        size: ``wide``, ``half`` or ``small``.
        swatches: Colours and their meaning, where Plotly's legend cannot tell.
    """

    key: str
    title: str
    about: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    header: list[str]
    table: list[list[str]]
    size: str = "half"
    swatches: list[tuple[str, str]] = field(default_factory=list)

    @property
    def drawn(self) -> dict[str, Any]:
        """What `pictures.js` needs of it."""
        return {"data": self.data, "layout": self.layout, "name": self.key, "most": MOST}


def plain(text: str) -> str:
    """Return `text` so that Plotly, which reads some tags, shows it as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def names(labels: Sequence[str]) -> list[str]:
    """Return labels short enough for a legend or an axis, still different from each other."""
    found: list[str] = []
    for label in labels:
        name = plain(label if len(label) <= 26 else f"{label[:24]}…")
        found.append(name if name not in found else f"{name} ({len(found) + 1})")
    return found


def colour(index: int) -> str:
    """Return the colour of a row by its rank, the same in every picture and in the table."""
    return f"--c{index % COLOURS}"


def dash(index: int) -> str:
    """Return the dashes of a row's lines by its rank."""
    return _DASHES[index // COLOURS % len(_DASHES)]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis with a title."""
    return {"title": {"text": plain(title)}, **more}


def log_axis(low: float, high: float, title: str = "") -> dict[str, Any]:
    """Return a logarithmic axis for values from `low` to `high`, marked at powers of ten; a short one between, too."""
    span = math.log10(high / low) if low > 0 else 0.0
    digits = "~g" if low >= 0.001 else ".0e"
    more = {"type": "log", "dtick": "D2" if span < 1.7 else 1, "tickformat": digits}
    return axis(title, **more) if title else more


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Return values to six decimals, which is what records have and halves a page."""
    return [None if value is None else round(value, 6) for value in values]


def along(epochs: list[int], values: Iterable[float | None]) -> dict[str, Any]:
    """Return the points of a curve, without their epochs where they count up by themselves."""
    if epochs and epochs == list(range(epochs[0], epochs[0] + len(epochs))):
        return {"x0": epochs[0], "dx": 1, "y": rounded(values)}
    return {"x": epochs, "y": rounded(values)}
