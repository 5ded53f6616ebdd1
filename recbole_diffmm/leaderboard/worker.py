"""One run in a process of its own.

It has memory of its own to measure, takes nobody with it when it is killed, and seeds nobody else's random numbers.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from recbole_diffmm.errors import UserError
from recbole_diffmm.process import gpu_settings, leave, told_to_parent
from recbole_diffmm.record import plain


def main() -> int:
    """Run what standard input says and return the exit code."""
    with told_to_parent() as (asked, tell):
        try:
            tell({"done": _run(asked, tell)})
        except Exception as error:  # whatever it was, it is told, and the board goes on
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            tell({"failed": " ".join(reason.split()), "details": traceback.format_exc()})
            return 1
    return 0


def _run(asked: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> str:
    """Train, test and record what was asked, and return the path of the record.

    Where `validate` asks for no more, test is left alone and the curve is told in place of a record.
    """
    from recbole_diffmm.compare import budget
    from recbole_diffmm.config import Config
    from recbole_diffmm.quick_start import run, validate
    from recbole_diffmm.quiet import quiet_libraries

    quiet_libraries()
    what = asked["model"], asked["dataset"], asked["config_files"], None, gpu_settings(asked["settings"])
    tell({"epochs": budget(Config(*what))})
    if asked.get("validate"):
        tell({"curve": plain(validate(*what).curve)})
        return ""
    return str(run(*what, lambda epoch, score: tell({"epoch": epoch + 1, "score": score})).record_path)


if __name__ == "__main__":
    leave(main())
