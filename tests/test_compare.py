"""One table from records, and the runs that it is made of."""

from __future__ import annotations

from typing import Any

import pytest

from recbole_diffmm.cli import main
from recbole_diffmm.compare import compare, render
from recbole_diffmm.errors import UserError


def _record(model: str, recall: float, **changes: Any) -> dict[str, Any]:
    test = {f"{metric}@{k}": recall / k for metric in ("recall", "ndcg") for k in (10, 20)}
    record = {
        "model": model,
        "dataset": "toy",
        "protocol": "recbole",
        "masking": "train+valid",
        "selection": "validation Recall@20",
        "seed": 7,
        "config": {"metrics": ["Recall", "NDCG"], "topk": [10, 20]},
        "metrics": {"valid": {}, "test": test},
        "best_epoch": 3,
        "seconds": {"ranking": 1.0, "preparation": 9.0, "training": 1.75, "per_epoch": {"ranking": 0.5}},
    }
    return {**record, **changes}


def test_render_shows_each_run_in_its_row() -> None:
    table = render([_record("Strong", 0.8), _record("Weak", 0.4, best_epoch=None)]).splitlines()
    header, _, strong, weak = table[-4:]
    assert header.split() == "model Recall@10 NDCG@10 Recall@20 NDCG@20 best epoch seconds".split()
    assert strong.split() == "Strong 0.0800 0.0800 0.0400 0.0400 3 1.8".split()
    assert weak.split()[:2] == ["Weak", "0.0400"]
    assert weak.split()[-2:] == ["-", "1.8"]


def test_render_says_how_the_numbers_came_about() -> None:
    caption = " ".join(render([_record("A", 0.5)]).splitlines()[:2])
    masked = "training and validation items masked"
    for part in ("on toy", "protocol recbole", "validation Recall@20", masked, "seed 7"):
        assert part in caption


def test_render_does_not_hide_runs_that_cannot_be_compared() -> None:
    records = [_record("A", 0.5), _record("B", 0.5, protocol="paper", masking="train", seed=8)]
    caption = " ".join(render(records).splitlines()[:2])
    assert "protocol recbole and paper" in caption
    assert "training and validation items or training items masked at test" in caption
    assert "seed 7 and 8" in caption


def test_render_labels_what_test_data_selected() -> None:
    plain, published = _record("A", 0.5), _record("B", 0.5, protocol="paper")
    better = {name: 2 * value for name, value in published["metrics"]["test"].items()}
    published["metrics"]["test_selected"] = {"epoch": 9, "metrics": better, "selected_on": "test Recall@20"}
    assert "est-selected" not in render([plain])
    first, second = render([plain, published]).split("\n\n")
    assert second.startswith("Test-selected") and "best test Recall@20" in second
    assert second.splitlines()[-1].split() == "B 0.1000 0.1000 0.0500 0.0500 9".split()
    assert "0.1000" not in first


def test_render_of_nothing() -> None:
    assert render([]) == "no runs to compare"


def test_compare_runs_every_model() -> None:
    own = {"epochs": 2, "BPR.embedding_size": 8}
    records = compare(["Pop", "BPR"], dataset="toy", overrides=own, progress=False)
    assert [record["model"] for record in records] == ["Pop", "BPR"]
    assert records[1]["config"]["embedding_size"] == 8
    assert len(records[1]["curve"]) == 2
    assert len({record["data"]["split_hash"] for record in records}) == 1
    table = render(records)
    assert "Pop" in table and f"{records[1]['metrics']['test']['recall@20']:.4f}" in table


@pytest.mark.parametrize(
    ("models", "overrides", "named"),
    [
        ([], {}, "--models"),
        (["BPR", "BPR"], {}, "'BPR'"),
        (["BPR"], {"Pop.epochs": 1}, "--Pop.epochs"),
        (["Pop", "BRP"], {}, "BRP"),
        (["Pop", "BPR"], {"BPR.embeding_size": 8}, "embeding_size"),
    ],
)
def test_mistakes_end_before_anything_trains(models, overrides, named, tmp_path) -> None:
    with pytest.raises(UserError, match=named) as mistake:
        compare(models, dataset="toy", overrides=overrides, progress=False)
    assert "\n" not in str(mistake.value)
    assert not (tmp_path / "results").exists() and not (tmp_path / "saved").exists()


def test_a_model_that_fails_leaves_the_others_their_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recbole.model.general_recommender import BPR

    def broken(self: BPR, interaction: object) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(BPR, "calculate_loss", broken)
    assert main(["compare", "--models=Pop,BPR,EASE", "--dataset=toy", "--epochs=1"]) == 2
    printed = capsys.readouterr()
    assert "Pop" in printed.out and "EASE" in printed.out and "BPR" not in printed.out
    assert "error: 1 of 3 models failed: BPR: ValueError: no such luck" in printed.err
    with pytest.raises(ValueError, match="no such luck"):
        compare(["BPR"], "toy", config_dict={"epochs": 1}, progress=False)
