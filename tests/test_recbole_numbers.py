"""For BPR and LightGCN the mended stack gives RecBole's own numbers, recorded where nothing needs mending."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import recbole
import torch

import recbole_diffmm

RECORDED = json.loads((Path(__file__).parent / "fixtures" / "recbole_numbers.json").read_text(encoding="utf-8"))
MODELS = sorted(RECORDED["models"])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same(got: Any, recorded: dict[str, float]) -> None:
    assert set(got) == set(recorded)
    if RECORDED["environment"]["torch"].split("+")[0] == torch.__version__.split("+")[0]:
        # Seed for seed: the recorded run kept ten decimals.
        assert {name: float(value) for name, value in got.items()} == recorded
    else:
        # Another PyTorch may draw or round otherwise; the metrics are then the same to about a user's worth.
        assert {name: float(value) for name, value in got.items()} == pytest.approx(recorded, abs=2e-3)


@pytest.mark.parametrize("model", MODELS)
def test_stock_run_recbole_gives_recboles_own_numbers(model: str) -> None:
    from recbole.quick_start import run_recbole  # after recbole_diffmm, which makes it importable

    result = run_recbole(model=model, dataset="ml-100k", config_dict=dict(RECORDED["config"]))
    assert_same(result["best_valid_result"], RECORDED["models"][model]["valid"])
    assert_same(result["test_result"], RECORDED["models"][model]["test"])


@pytest.mark.parametrize("model", MODELS)
def test_our_run_gives_recboles_own_numbers(model: str, tmp_path: Path) -> None:
    # RecBole's copy of ml-100k under a name that is not the bundled one, with RecBole's defaults.
    source = Path(recbole.__file__).parent / "dataset_example" / "ml-100k" / "ml-100k.inter"
    (tmp_path / "dataset" / "copy").mkdir(parents=True)
    os.symlink(source, tmp_path / "dataset" / "copy" / "copy.inter")
    settings = {
        **RECORDED["config"],
        "train_batch_size": 2048,
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "normalize_all": True,
    }
    result = recbole_diffmm.run(model, "copy", config_dict=settings)
    assert_same(result.valid, RECORDED["models"][model]["valid"])
    assert_same(result.test, RECORDED["models"][model]["test"])
