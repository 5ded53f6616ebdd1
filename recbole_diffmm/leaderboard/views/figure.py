"""A picture of a page: Plotly's dictionaries, words, and the same numbers as a table.

Colours are names of the style's variables, such as ``--c3``: `pictures.js` puts in their values, those of light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


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
        return {"data": self.data, "layout": self.layout, "name": self.key}


def plain(text: str) -> str:
    """Return `text` so that Plotly, which reads some tags, shows it as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis with a title."""
    return {"title": {"text": plain(title)}, **more}


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Return values to six decimals, which is what records have and halves a page."""
    return [None if value is None else round(value, 6) for value in values]


def along(epochs: list[int], values: Iterable[float | None]) -> dict[str, Any]:
    """Return the points of a curve, without their epochs where they count up by themselves."""
    if epochs and epochs == list(range(epochs[0], epochs[0] + len(epochs))):
        return {"x0": epochs[0], "dx": 1, "y": rounded(values)}
    return {"x": epochs, "y": rounded(values)}
