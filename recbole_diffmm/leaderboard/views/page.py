"""What all pages share: a template, a style and scripts written into one file that loads nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from recbole_diffmm.extras import require
from recbole_diffmm.leaderboard.views.plotly_script import digest, pack, plotly_script

_TEMPLATES = Path(__file__).parent / "templates"


def page(template: str, scripts: Sequence[str] = (), pictures: Any = None, **values: Any) -> str:
    """Return a page.

    Args:
        template: Its file in `templates/`.
        scripts: Files there, which become one script of the page.
        pictures: What `pictures.js` draws, as JSON has it; None for a page without pictures.
        **values: What the template shows. All of it is escaped.

    Raises:
        UserError: Jinja2 is not installed.
    """
    script = "\n".join(_text(name) for name in scripts)
    # Names, titles and warnings come from files that others wrote. They are escaped wherever they stand; should one
    # slip through, the browser still runs no script but these and loads nothing at all.
    allowed = [digest(script.encode())] if script else []
    plotly = None
    if pictures is not None:
        plotly = plotly_script()
        allowed.append(plotly.digest)
    return str(
        _environment()
        .get_template(template)
        .render(
            style=_markup(_text("page.css")),
            script=_markup(script),
            script_sources=" ".join(allowed) or "'none'",
            plotly=plotly,
            packed_pictures=None if pictures is None else pack(compact(pictures).encode()),
            **values,
        )
    )


def compact(value: Any) -> str:
    """Return `value` as JSON without spaces; there is no NaN in JSON, and none may be in `value`."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def embedded(value: Any) -> Any:
    """Return `value` as JSON that may stand in a ``<script type="application/json">``, whatever its strings say."""
    text = compact(value)
    # A script element ends at the next `</script`, and `<!--` changes how it is read, wherever in a string they stand.
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return _markup(text)


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _markup(text: str) -> Any:
    _environment()  # tells first if Jinja2, and with it this package, is missing
    from markupsafe import Markup

    return Markup(text)


@cache
def _environment() -> Any:
    require("leaderboard", "a page", "jinja2")
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["embedded"] = embedded
    return environment
