"""plotly.js inside a page: compressed, and inflated by the browser only when a picture is first looked at.

The script has 4.8 MB, more than all the rest of a page. Gzip in base64 is 2 MB, and every browser of the last years
inflates it by itself (`DecompressionStream`), so that a page stays one file that loads nothing.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from recbole_diffmm.errors import UserError


@dataclass(frozen=True)
class Script:
    """A script to inflate in the browser.

    Attributes:
        packed: Gzip, in base64.
        digest: What the page's content security policy knows the inflated script by.
    """

    packed: str
    digest: str


@cache
def plotly_script() -> Script:
    """Return the plotly.js that the package plotly brings.

    Raises:
        UserError: There is none.
    """
    spec = find_spec("plotly")  # found, not imported: that alone takes longer than rendering a page
    places = (spec.submodule_search_locations if spec else None) or ()
    for place in places:
        path = Path(place) / "package_data" / "plotly.min.js"
        if path.is_file():
            text = path.read_bytes()
            return Script(pack(text), digest(text))
    raise UserError(
        "pictures need plotly.min.js of the package plotly, which is not installed; run: pip install plotly"
    )


def pack(content: bytes) -> str:
    """Return `content` as gzip in base64, the same bytes for the same content."""
    return base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode("ascii")


def digest(content: bytes) -> str:
    """Return the name that a content security policy gives to an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode('ascii')}'"
