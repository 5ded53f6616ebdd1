"""Batches of an evaluation are made once, and are RecBole's."""

from __future__ import annotations

import pytest
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.trainer import Trainer

from recbole_diffmm import registry
from recbole_diffmm.evaluator.batches import RepeatedBatches
from recbole_diffmm.quick_start import load_splits
from tests.trainer.small import small_run
from tests.trainer.test_loop import build


def test_metrics_are_those_of_the_loader() -> None:
    trainer, train_data = build("BPR", eval_users_per_batch=7)
    _, valid, _ = load_splits(trainer.config, registry.create_dataset(trainer.config))
    trainer.identify(train_data)
    assert all(len(history[0]) for _, history, _, _ in valid), "every batch has items to mask"
    # RecBole's own method, which goes through the loader itself.
    expected = Trainer.evaluate(trainer, valid, load_best_model=False)
    batches = RepeatedBatches(valid, torch.device("cpu"))
    assert len(batches) == len(valid) > 1
    for _ in range(2):
        assert trainer.evaluate(batches, load_best_model=False) == expected


def test_validation_goes_through_its_loader_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[int, int] = {}
    collate = FullSortEvalDataLoader.collate_fn

    def counting(self: FullSortEvalDataLoader, index: list[int]) -> object:
        made[id(self)] = made.get(id(self), 0) + 1
        return collate(self, index)

    monkeypatch.setattr(FullSortEvalDataLoader, "collate_fn", counting)
    result = small_run("BPR", epochs=3)
    assert len(result.record["curve"]) == 3
    assert sorted(made.values()) == [1, 1], "validation and test, 60 users being one batch"
