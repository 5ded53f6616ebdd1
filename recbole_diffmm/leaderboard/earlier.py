"""Another checkout of this package, whose code trains in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_diffmm.errors import UserError
from recbole_diffmm.process import Slot
from recbole_diffmm.record import Code

_ASKED = """
import json, sys
from recbole_diffmm import provenance
codes = {name: provenance.code(name) for name in sys.argv[1:]}
print(json.dumps({"package": str(provenance.PACKAGE), "codes": codes}))
"""


@dataclass(frozen=True)
class Earlier:
    """A folder that holds `recbole_diffmm/` as it was, such as a clone or a worktree of an earlier commit.

    Its code runs with the packages of this environment, and in the current folder, so that data and files are found.

    Raises:
        UserError: There is no such package in the folder, or Python is older than 3.11.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "recbole_diffmm" / "__init__.py").is_file():
            raise UserError(
                f"--against {self.folder}: no recbole_diffmm/ there; give a checkout of the code that made the records"
            )
        if sys.version_info < (3, 11):
            raise UserError("--against needs Python 3.11: an older one imports the current folder's code first")

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a process imports this code and no other."""
        paths = [str(self.folder.resolve()), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "PYTHONSAFEPATH": "1"}

    def place(self, slot: Slot) -> Slot:
        """Return a place whose process runs this code."""
        return Slot({**slot.environment, **self.environment})

    def codes(self, models: Sequence[str]) -> dict[str, Code]:
        """Return what records of these models would say of this code.

        Raises:
            UserError: It does not start, or does not tell.
        """
        done = subprocess.run(
            [sys.executable, "-c", _ASKED, *models],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            told = json.loads(done.stdout)
            if Path(told["package"]) == self.folder.resolve() / "recbole_diffmm":
                return {name: Code(**code) for name, code in told["codes"].items()}
            reason = f"{told['package']} was imported"
        except (ValueError, LookupError, TypeError):
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"--against {self.folder}: its code does not tell what it is ({reason[:160]})")
