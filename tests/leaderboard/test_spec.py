"""A board's YAML: what it means, and one clear line for every mistake in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_diffmm.cli import main
from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard.spec import find_spec, load_spec, tasks

BOARD: dict[str, Any] = {"title": "T", "datasets": ["toy"], "models": ["BPR", "Pop"], "seeds": [1, 2]}


def write(path: Path, **changes: Any) -> Path:
    """Write a board with some of its values changed; None leaves one out."""
    values = {key: value for key, value in {**BOARD, **changes}.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"modles": ["BPR"]}, "unknown key 'modles' in b.yaml; did you mean models?"),
        ({"title": None}, "b.yaml: title: field required"),
        ({"models": None}, "b.yaml: models: field required"),
        ({"models": []}, "b.yaml: models: tuple should have at least 1 item"),
        ({"models": "BPR"}, "b.yaml: models must be a list such as [BPR], got 'BPR'"),
        ({"models": [{"label": "x"}]}, "b.yaml: models.0.model: field required"),
        ({"models": [{"model": "BPR", "lable": "x"}]}, "b.yaml: unknown key 'lable' in models.0; did you mean label?"),
        ({"models": [{"model": "BPR", "settings": ["x"]}]}, "b.yaml: models.0.settings: input should be a valid dict"),
        ({"seeds": ["one"]}, "b.yaml: seeds.0: input should be a valid integer"),
        ({"seeds": 1}, "b.yaml: seeds must be a list such as [1], got 1"),
        ({"seeds": [3, 1, 3]}, "b.yaml: seeds: 3 is listed 2 times, name each once"),
        ({"datasets": ["toy", "toy"]}, "b.yaml: datasets: toy is listed 2 times, name each once"),
        ({"models": ["BPR", {"model": "Pop", "label": "BPR"}]}, "two rows are called BPR, give each a label"),
        (
            {"models": [{"model": "BPR", "label": "Light GCN"}, {"model": "BPR", "label": "light-gcn"}]},
            "b.yaml: models: Light GCN and light-gcn would share files, give them other labels",
        ),
        ({"reference": "BRP"}, "b.yaml: reference: BRP is no row; did you mean BPR?"),
        ({"tuning": {"trials": 0}}, "b.yaml: tuning.trials: input should be greater than or equal to 1"),
        ({"tuning": {"trials": 2, "minuets": 3}}, "b.yaml: unknown key 'minuets' in tuning; did you mean minutes?"),
        ({"published": [{"model": "X", "dataset": "toy"}]}, "b.yaml: published.0.metrics: field required"),
    ],
)
def test_a_mistake_is_told_in_one_line(changes: dict[str, Any], line: str):
    with pytest.raises(UserError) as error:
        load_spec(write(Path("b.yaml"), **changes))
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [("title: [", "config file b.yaml, line 2: not valid YAML"), ("- a", "expected lines of 'key: value', got list")],
)
def test_what_is_no_yaml_of_keys_is_told_in_one_line(text: str, line: str):
    Path("b.yaml").write_text(text + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_spec(Path("b.yaml"))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_board_is_found_by_path_or_by_name():
    mine = write(Path("properties/leaderboard/mine.yaml"))
    assert find_spec("mine") == Path.cwd() / mine and find_spec(str(mine)) == mine
    assert load_spec(find_spec("mine")).folder == Path("results/mine")
    write(Path("properties/leaderboard/quick.yaml"), title="Not the shipped one")
    assert load_spec(find_spec("quick")).title == "Not the shipped one"
    with pytest.raises(UserError, match=r"no leaderboard qick; did you mean quick\?"):
        find_spec("qick")


@pytest.mark.parametrize("arguments", [["nosuch"], ["nosuch.yaml"], []])
def test_the_command_tells_a_wrong_board_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["leaderboard", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and ("nosuch" in line or not arguments) and "quick" in line
    assert not Path("results").exists()


def test_runs_in_the_order_of_datasets_rows_and_seeds():
    models = ["BPR", {"model": "BPR", "label": "wide", "settings": {"embedding_size": 128, "epochs": 9}}]
    spec = load_spec(write(Path("b.yaml"), datasets=["toy", "ml-100k"], models=models, settings={"epochs": 5}))
    runs = list(tasks(spec))
    assert [(run.dataset, run.label, run.seed) for run in runs] == [
        (dataset, label, seed) for dataset in ("toy", "ml-100k") for label in ("BPR", "wide") for seed in (1, 2)
    ]
    assert {run.model for run in runs} == {"BPR"}
    assert runs[0].settings == {"epochs": 5, "seed": 1}  # for all rows
    assert runs[3].settings == {"epochs": 9, "embedding_size": 128, "seed": 2}  # a row's own win
    assert str(runs[3]) == "wide on toy, seed 2"


def test_config_files_name_model_and_dataset_by_placeholders():
    touch("all.yaml", "of/BPR-toy.yaml", "of/Pop-toy.yaml", "own.yaml")
    models = ["BPR", {"model": "Pop", "config_files": ["own.yaml"]}]
    spec = load_spec(write(Path("b.yaml"), models=models, config_files=["all.yaml", "of/{model}-{dataset}.yaml"]))
    first, *_, last = tasks(spec)
    assert first.config_files == ("all.yaml", "of/BPR-toy.yaml")
    assert last.config_files == ("all.yaml", "of/Pop-toy.yaml", "own.yaml")
    Path("of/Pop-toy.yaml").unlink()
    with pytest.raises(UserError, match=r"config file of/Pop-toy.yaml is missing"):
        list(tasks(spec))


def test_shipped_config_files_are_found_from_anywhere():
    spec = load_spec(write(Path("b.yaml"), models=["BPR"], config_files=["properties/overall.yaml"]))
    assert {Path(*run.config_files).is_file() for run in tasks(spec)} == {True}


def test_rows_of_a_board_with_a_budget_bring_their_tuned_settings():
    row = {"model": "BPR", "label": "BPR (wide)", "config_files": ["own.yaml"]}
    models = [row, {"model": "Pop", "untuned": "it has no settings"}]
    spec = load_spec(write(Path("b.yaml"), models=models, tuning={"trials": 3}))
    touch("own.yaml")
    with pytest.raises(UserError, match=r"BPR-wide--toy.yaml is missing; if it is a tuned one, recbole-diffmm tune"):
        list(tasks(spec))
    touch("properties/tuned/b/BPR-wide--toy.yaml")
    runs = list(tasks(spec))
    assert runs[0].config_files == ("own.yaml", "properties/tuned/b/BPR-wide--toy.yaml")
    assert runs[-1].config_files == ()
