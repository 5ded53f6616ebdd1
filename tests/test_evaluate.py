"""A checkpoint evaluated under other settings than it was trained with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recbole_diffmm import registry
from recbole_diffmm.errors import UserError
from recbole_diffmm.quick_start import load
from tests.trainer.small import small_run


def test_the_protocol_of_a_checkpoint_can_be_changed() -> None:
    result = small_run("BPR", protocol="paper", epochs=3)
    path = Path("saved") / f"{result.record_path.stem}.pth"
    hidden = {}
    for protocol in ("paper", "recbole"):
        config, model, _, _, valid_data, test_data = load(path, {"protocol": protocol})
        hidden[protocol] = sum(len(items) for items in test_data.uid2history_item if items is not None)
        if protocol == "paper":
            trainer = registry.get_trainer_class(config)(config, model)
            assert trainer.evaluate(test_data, load_best_model=False) == result.test
    n_valid = len(valid_data._dataset.inter_feat)
    assert hidden["recbole"] == hidden["paper"] + n_valid, "toy's users all have validation and test items"


def test_the_graph_that_scores_can_be_changed() -> None:
    result = small_run("DiffMM", epochs=2, denoiser_hidden_sizes=[8])
    path = Path("saved") / f"{result.record_path.stem}.pth"
    scores = {}
    for graph in ("full", "dropped"):
        _, model, dataset, *_ = load(path, {"eval_graph": graph})
        scores[graph] = model.full_sort_predict({model.USER_ID: torch.arange(1, dataset.user_num)})
    assert not torch.allclose(scores["full"], scores["dropped"])


def test_unknown_settings_are_refused() -> None:
    result = small_run("BPR", epochs=1)
    path = Path("saved") / f"{result.record_path.stem}.pth"
    with pytest.raises(UserError, match=r"unknown key .protocl..*did you mean protocol"):
        load(path, {"protocl": "paper"})
