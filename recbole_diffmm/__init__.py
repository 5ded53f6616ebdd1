"""DiffMM and its rivals under RecBole's own trainer, evaluator and metrics, on any number of item modalities.

Importing this package mends RecBole 1.2.1 for the installed NumPy, SciPy, PyTorch and pandas (`compat`) and makes
RecBole's own entry points know this package's models by name (`registry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_diffmm import compat

compat.apply()

from recbole_diffmm import registry  # noqa: E402 - RecBole cannot be imported before it is mended
from recbole_diffmm.errors import UserError  # noqa: E402

registry.register()

if TYPE_CHECKING:
    from recbole_diffmm.config import Config
    from recbole_diffmm.quick_start import run

__version__ = "0.1.0"
__all__ = ["Config", "UserError", "__version__", "run"]


def __getattr__(name: str) -> Any:
    # On first use: a script that only wants RecBole mended should not pay for more.
    if name == "run":
        from recbole_diffmm.quick_start import run

        return run
    if name == "Config":
        from recbole_diffmm.config import Config

        return Config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
