"""Names lead to models, and RecBole's own functions know ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recbole_diffmm import registry
from recbole_diffmm.config import Config
from recbole_diffmm.errors import UserError

QUICK = {"epochs": 1, "show_progress": False, "state": "ERROR", "train_batch_size": 256}


@pytest.fixture
def data_path(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def test_our_models_come_first_and_recboles_follow() -> None:
    names = registry.model_names()
    assert names[0] == "DiffMM" or "DiffMM" in registry.own_model_names()
    assert {"BPR", "LightGCN", "EASE", "Pop"} < set(registry.recbole_model_names())
    assert len(names) == len(set(names))
    for name in registry.own_model_names():
        assert registry.get_model(name).__name__ == name


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown model 'lightgcm'; did you mean LightGCN"):
        registry.get_model("lightgcm")
    with pytest.raises(UserError, match="unknown model 'DiffMm'; did you mean DiffMM"):
        registry.get_model("DiffMm")


def test_recboles_lookup_of_an_unknown_model_does_not_ask_for_lightgbm() -> None:
    from recbole.utils import get_model

    with pytest.raises(UserError, match="did you mean BPR"):
        get_model("BPRR")


def test_built_in_models_get_a_trainer_with_records() -> None:
    from recbole.trainer import NCLTrainer, RecVAETrainer, Trainer

    from recbole_diffmm.trainer.base import RunTrainer

    for name, base in (("BPR", Trainer), ("RecVAE", RecVAETrainer)):
        trainer = registry.get_trainer_class(Config(name, "toy"))
        assert issubclass(trainer, RunTrainer) and issubclass(trainer, base)
        assert not issubclass(trainer, NCLTrainer)


@pytest.mark.filterwarnings("ignore")
def test_stock_run_recbole_runs_our_model_by_name(data_path: str) -> None:
    from recbole.quick_start import load_data_and_model, run_recbole

    result = run_recbole(model="DiffMM", dataset="toy", config_dict={**QUICK, "data_path": data_path})
    assert set(result["test_result"]) >= {"recall@20", "ndcg@20"}
    (checkpoint,) = Path("saved").glob("DiffMM*.pth")
    config, model, dataset, _, _, _ = load_data_and_model(str(checkpoint))
    assert isinstance(config, Config) and type(model).__name__ == "DiffMM" and list(dataset.modalities)


@pytest.mark.filterwarnings("ignore")
def test_stock_objective_function_runs_our_model(data_path: str) -> None:
    from recbole.quick_start import objective_function

    settings: dict[str, Any] = {**QUICK, "model": "DiffMM", "dataset": "toy", "data_path": data_path}
    result = objective_function(config_dict=settings, saved=False)
    assert result["model"] == "DiffMM" and 0 <= result["best_valid_score"] <= 1


@pytest.mark.parametrize(("key", "value", "told"), [("protocol", "paper", "is paper"), ("resume", True, "is true")])
def test_stock_functions_refuse_what_run_alone_does(key: str, value: object, told: str, data_path: str) -> None:
    from recbole.quick_start import run_recbole

    settings = {**QUICK, "data_path": data_path, key: value}
    with pytest.raises(UserError, match=rf"{key} in config_dict {told}.*call recbole_diffmm\.run\('DiffMM', 'toy'"):
        run_recbole(model="DiffMM", dataset="toy", config_dict=settings)


@pytest.mark.filterwarnings("ignore")
def test_a_class_works_like_its_name(data_path: str) -> None:
    from recbole_diffmm import run
    from recbole_diffmm.model.diffmm import DiffMM

    by_class = run(DiffMM, "toy", overrides={**QUICK, "data_path": data_path})
    by_name = run("DiffMM", "toy", overrides={**QUICK, "data_path": data_path})
    assert by_class.test == by_name.test


def test_importing_the_package_loads_no_model_of_ours(repository: Path) -> None:
    code = "import sys, recbole_diffmm; assert not any(name.startswith('recbole_diffmm.model') for name in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, env={**os.environ, "PYTHONPATH": str(repository)}
    )
