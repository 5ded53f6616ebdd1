"""DiffMM and its rivals under RecBole's own trainer, evaluator and metrics, on any number of item modalities.

Importing this package sees to it that RecBole 1.2.1, as soon as anything imports it, is mended for the installed NumPy,
SciPy, PyTorch and pandas (`compat`), and that its own entry points know this package's models by name (`registry`).
Where another RecBole or none is installed, it says so with the one command that helps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_diffmm import on_import
from recbole_diffmm.errors import UserError

told_of_recbole = not on_import.tell_of_recbole()
on_import.mend_recbole()

if TYPE_CHECKING:
    from recbole_diffmm.config import Config
    from recbole_diffmm.quick_start import run

__version__ = "0.1.0"
__all__ = ["Config", "UserError", "__version__", "run"]


def __getattr__(name: str) -> Any:
    # On first use: reading a table of records should not wait for PyTorch.
    if name == "run":
        from recbole_diffmm.quick_start import run

        return run
    if name == "Config":
        from recbole_diffmm.config import Config

        return Config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
