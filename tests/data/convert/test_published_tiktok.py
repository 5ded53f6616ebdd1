"""What the README says of the published TikTok split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recbole_diffmm.data.convert.restricted import restricted_load


def test_validation_and_test_have_different_users(shared: Path) -> None:
    """So masking training items alone or those of validation too comes to the same at test."""
    folder = shared / "datasets" / "tiktok"
    users = {name: np.unique(restricted_load(folder / f"{name}Mat.pkl").tocoo().row) for name in ("val", "tst")}
    assert len(users["val"]) == 3051 and len(users["tst"]) == 6130
    assert not np.intersect1d(users["val"], users["tst"]).size
