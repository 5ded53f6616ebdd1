"""Mends RecBole at the moment that it is imported, so that what does without it need not wait for it and PyTorch."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType

from recbole_diffmm.errors import RecBoleMissingError

RECBOLE_VERSION = "1.2.1"
INSTALL_RECBOLE = f"pip install --no-deps recbole=={RECBOLE_VERSION}"


def require_recbole() -> None:
    """Raise RecBoleMissingError, naming the one command that helps, unless RecBole 1.2.1 is installed."""
    try:
        found = importlib.metadata.version("recbole")
    except importlib.metadata.PackageNotFoundError:
        raise RecBoleMissingError(f"RecBole is not installed; run: {INSTALL_RECBOLE}") from None
    if found != RECBOLE_VERSION:
        # On Python 3.12 and newer pip cannot resolve 1.2.1 (its ray has no build there) and quietly takes 1.2.0,
        # whose models give other numbers.
        raise RecBoleMissingError(f"RecBole {found} is installed, {RECBOLE_VERSION} is needed; run: {INSTALL_RECBOLE}")


def tell_of_recbole() -> bool:
    """Log how to get the RecBole that is needed where it is not there, and return whether it is.

    A warning, no error: records are read and boards are rendered without RecBole, and `doctor` has more to tell.
    """
    try:
        require_recbole()
    except RecBoleMissingError as error:
        logging.getLogger("recbole_diffmm").warning(str(error))
        return False
    return True


def mend_recbole() -> None:
    """Mend RecBole now where it is imported already, and otherwise as soon as it is."""
    if "recbole" in sys.modules:
        _mend()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _mend() -> None:
    from recbole_diffmm import compat, registry

    compat.apply()
    registry.register()


class _Finder(MetaPathFinder):
    """Answers the first import of `recbole` by importing and mending it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "recbole":
            return None
        sys.meta_path.remove(self)  # the import of RecBole inside goes the usual way
        try:
            _mend()
        except BaseException:
            sys.meta_path.insert(0, self)
            raise
        spec = sys.modules["recbole"].__spec__
        if spec is None:
            return None
        return importlib.machinery.ModuleSpec(name, _Imported(), origin=spec.origin, is_package=True)


class _Imported(Loader):
    """Hands out the module that `_Finder` has imported."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run."""
