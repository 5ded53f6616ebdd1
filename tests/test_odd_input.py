"""Files and arguments that nobody writes on purpose end in one line and code 2, before anything is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_diffmm.cli import main
from recbole_diffmm.data.bundled import prepare
from recbole_diffmm.record import write_text
from recbole_diffmm.sources import load_yaml, yaml

QUICK = ["--epochs=1", "--show_progress=false", "--state=ERROR", "--use_gpu=false"]
BPR = ["run", "-m", "BPR", "-d", "toy", *QUICK]


# Settings


@pytest.mark.parametrize(
    "text",
    [
        "2024-13-45",
        "!!int abc",
        "!!float abc",
        "!!bool x",
        "!!timestamp foo",
        "!!map [1, 2]",
        "!!map foo",
        "!!set [1]",
        "0x_",
        "9" * 5000,
        "[" * 3000,
        "&a [*a]",
    ],
    ids=lambda text: text[:20],
)
def test_yaml_that_cannot_be_built(text: str, refused) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
    assert "cannot read the value of --seed" in refused(*BPR, f"--seed={text}")
    Path("odd.yaml").write_text(f"seed: {text}\n")
    assert "config file odd.yaml" in refused(*BPR, "--config_files=odd.yaml")


def test_aliases_may_be_shared() -> None:
    levels = "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}' if i else '1'] * 9)}]" for i in range(40))
    assert load_yaml(levels)["k1"][8] == [1] * 9


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "-m", "BPR", "-d", ""], "no dataset is given"),
        (["run", "-m", "", "-d", "toy"], "no model is given"),
        (["tune", "-m", "BPR", "-d", "", "--trials=1"], "no dataset is given"),
        (["run", "-m", "BPR", "-d", "./toy"], "dataset './toy' is no name of a folder"),
        (["run", "-m", "BPR", "-d", ".."], "dataset '..' is no name of a folder"),
        (["run", "-m", "BPR", "-d", "x" * 5000], "is no name of a folder"),
        (["run", "-m", "BPR", "-d", "a\nb"], "is no name of a folder"),
        (["compare", "-m", "BPR", "--model=Pop", "-d", "toy"], "model is BPR and, in the command line, 'Pop'"),
        (["compare", "-m", "BPR", "--BPR.dataset=x", "-d", "toy"], "dataset is toy and, in the command line, 'x'"),
        (["run", "-m", "SASRec", "-d", "toy"], "SASRec is no general recommender but a sequential one"),
        (["leaderboard", "x" * 5000], "file name too long"),
        (["evaluate", "a.pth", "a.resume.pth"], "evaluate takes one checkpoint, got a.pth and a.resume.pth"),
        ([*BPR, "--x=[a\nb"], "cannot read the value of --x=[a b as YAML"),
        ([*BPR, '--checkpoint_dir="a\\0b"'], "cannot be written"),
        ([*BPR, "--embedding_size=-5"], "BPR cannot be built with its settings (RuntimeError"),
        ([*BPR, "--train_neg_sample_args={dynamic: true, candidate_num: 0}"], "candidate_num of at least 1"),
        (["run", "-m", "VBPR", "-d", "toy", *QUICK, "--use_modalities=[[look]]"], "names ['look'], but dataset toy"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_names_and_values(arguments: list[str], told: str, refused) -> None:
    assert told in refused(*arguments)
    assert not Path("saved").exists() or not list(Path("saved").rglob("*.pth"))


@pytest.mark.parametrize("settings", [{"model": "Pop"}, {"dataset": "ml-100k"}], ids=str)
def test_a_boards_settings_name_no_other_model_or_data(settings: dict[str, str], refused) -> None:
    (key,) = settings
    for where in ({"settings": settings}, {"models": [{"model": "BPR", "settings": settings}]}):
        spec = {"title": "t", "datasets": ["toy"], "seeds": [1], "models": ["BPR"], **where}
        Path("b.yaml").write_text(json.dumps(spec))
        assert f"{key} is given, and `{key}s` gives it to each run" in refused("leaderboard", "b.yaml")


def test_a_published_figure_is_a_number(refused) -> None:
    entry = "{model: A, dataset: toy, source: s, protocol: p, metrics: {recall@20: .nan}}"
    Path("b.yaml").write_text(f"title: t\ndatasets: [toy]\nseeds: [1]\nmodels: [BPR]\npublished: [{entry}]\n")
    assert "finite number" in refused("leaderboard", "b.yaml")


# Data


def test_a_quotation_mark_does_not_swallow_rows(refused) -> None:
    prepare("toy", Path("dataset"))
    folder = Path("dataset/q")
    folder.mkdir()
    rows = [f"u{row % 20}\ti{row % 13}" for row in range(100)]
    rows[20], rows[80] = '"big\ti1', 'x"\ti2'
    (folder / "q.inter").write_text("\n".join(["user_id:token\titem_id:token", *rows, "", " "]) + "\n")
    load = ["--load_col={inter: [user_id, item_id]}", "--topk=[5]", "--valid_metric=Recall@5"]
    told = refused("run", "-m", "Pop", "-d", "q", *load, *QUICK)
    assert "q.inter has 100 lines below its header, and 40 rows were read" in told and "as in line 22," in told
    rows[20], rows[80] = '"big"\ti1', '"x""y"\ti2'
    (folder / "q.inter").write_text("\n".join(["user_id:token\titem_id:token", *rows, "", " "]) + "\n")
    assert main(["run", "-m", "Pop", "-d", "q", *load, *QUICK]) == 0
    (record,) = Path("results/runs").glob("Pop-q-*.json")
    assert json.loads(record.read_text())["data"]["n_inter"] == 100


@pytest.mark.parametrize("model", ["BPR", "VBPR"])
def test_an_id_that_is_recboles_padding(model: str, refused) -> None:
    folder = prepare("toy", Path("dataset"))
    path = folder / "toy.train.inter"
    header, first, *rest = path.read_text(encoding="utf-8").splitlines()
    user, _ = first.split("\t")
    path.write_text("\n".join([header, f"{user}\t[PAD]", *rest, ""]), encoding="utf-8")
    assert "toy has a item_id '[PAD]', which is RecBole's name of none" in refused(
        "run", "-m", model, "-d", "toy", *QUICK
    )


@pytest.mark.parametrize("header", ["'shape': (4,", "'''abc", "((((", "shape: (-4, -2)", "(True, 4)", "(4, 2**62)"])
def test_damaged_headers_of_features(header: str, refused) -> None:
    prepare("toy", Path("dataset"))
    if header in {"shape: (-4, -2)", "(True, 4)", "(4, 2**62)"}:
        shape = header.removeprefix("shape: ").replace("2**62", str(2**62))
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    text = header.encode().ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)
    Path("dataset/toy/look.npy").write_bytes(content)
    told = refused("run", "-m", "VBPR", "-d", "toy", *QUICK)
    assert "look.npy" in told and ("header" in told or "is truncated" in told)


def test_features_that_tell_no_item_from_another_are_warned_of() -> None:
    prepare("toy", Path("dataset"))
    look = np.load("dataset/toy/look.npy")
    np.save("dataset/toy/look.npy", np.zeros_like(look))
    assert main(["run", "-m", "VBPR", "-d", "toy", "--epochs=1", "--show_progress=false", "--state=WARNING"]) == 0
    (record,) = Path("results/runs").glob("VBPR-toy-*.json")
    (warning,) = json.loads(record.read_text())["warnings"]
    assert "modality look: all" in warning and "have the same features, zeros" in warning


# Places


@pytest.mark.parametrize("place", ["log/BPR", "log_tensorboard", "results/runs/earlier"])
def test_what_cannot_be_written_is_told_before_training(place: str, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).write_text("in the way")
    monkeypatch.setattr("recbole_diffmm.quick_start._prepare_data", lambda config: pytest.fail("began"))
    assert f"{place} cannot be written" in refused(*BPR)


def test_a_searchs_places_are_tried_before_its_trials(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    Path("s.yaml").write_text("learning_rate: [0.1, 0.01]\n")
    Path("taken").write_text("in the way")
    monkeypatch.setattr("recbole_diffmm.tuning.tune.carry_out", lambda *_: pytest.fail("began"))
    tune = ["tune", "-m", "BPR", "-d", "toy", "--trials=1", "--space=s.yaml", "--epochs=1"]
    assert "taken cannot be written" in refused(*tune, "--out=taken")


def test_a_folder_in_the_place_of_a_file_is_told(refused) -> None:
    from recbole_diffmm.errors import UserError

    Path("board.md").mkdir()
    with pytest.raises(UserError, match=r"board\.md cannot be written"):
        write_text(Path("board.md"), "text")
    assert [path.name for path in Path().iterdir()] == ["board.md"]


def test_a_second_process_is_kept_out_of_a_run(refused) -> None:
    from filelock import FileLock

    from recbole_diffmm.config import Config
    from recbole_diffmm.record import run_name

    overrides = {"epochs": 1, "show_progress": False, "state": "ERROR", "use_gpu": False}
    Path("saved").mkdir()
    with FileLock(f"saved/{run_name(Config('BPR', 'toy', overrides=overrides))}.lock"):
        assert "another process is at work on this run" in refused(*BPR)
    assert main(BPR) == 0
    assert not list(Path("saved").glob("*.lock"))


# Files that were edited or cut


def _checkpoint() -> Path:
    assert main(BPR) == 0
    (path,) = Path("saved").glob("*.pth")
    return path


@pytest.mark.parametrize("content", [b"hello\n", b"\x80\x02]q\x00e.", b"", b"PK\x03\x04"])
def test_files_that_are_no_checkpoints(content: bytes, refused) -> None:
    Path("t.pth").write_bytes(content)
    assert "checkpoint t.pth: " in refused("evaluate", "t.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"x": {"__type__": "array"}},
        {"x": {"__type__": "sparse", "layout": "__class__", "new_style": True}},
        {"config": {}},
        {"config": []},
        {"config": None},
        {"state_dict": []},
        {"state_dict": None},
        {"other_parameter": [1]},
    ],
    ids=str,
)
def test_checkpoints_with_other_content(change: dict, refused) -> None:
    path = _checkpoint()
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    assert "checkpoint" in refused("evaluate", str(path))


@pytest.mark.parametrize(
    "change",
    [{"MODEL_TYPE": "FOO"}, {"model": 5}, {"seed": None}, {"data_path": 5}, {"topk": ["a"]}, {"metrics": ["No"]}],
)
def test_checkpoints_with_another_configuration(change: dict, refused) -> None:
    path = _checkpoint()
    content = torch.load(path, weights_only=True)
    torch.save({**content, "config": {**content["config"], **change}}, path)
    refused("evaluate", str(path))


@pytest.mark.parametrize("lost", ["state_dict", "attributes", "optimizers", "next_epoch", "random"])
def test_states_that_lack_something(lost: str, refused, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_diffmm.trainer.base import RunTrainer

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "release", killed)
        assert main(BPR) == 130
    (state,) = Path("saved").glob("*.resume.pth")
    content = torch.load(state, weights_only=True)
    del content[lost]
    torch.save(content, state)
    capsys.readouterr()
    assert f"checkpoint {state}: " in refused(*BPR, "--resume=true")


@pytest.mark.parametrize("content", ["{", "", "[]", "null", "\xe9", "[" * 100_000], ids=lambda text: text[:5])
def test_a_note_of_a_failure_that_cannot_be_read(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.leaderboard.boards import write_board

    folder = Path("results/board")
    write_board(folder, {"DiffMM": 0.1, "BPR": 0.0})
    lost = next(iter(folder.glob("BPR-*.json")))
    lost.rename("kept")
    lost.with_suffix(".failure.json").write_bytes(content.encode("latin-1"))
    assert main(["leaderboard", "--render", str(folder)]) == 0
    assert "1 of 3 runs are missing: unknown" in capsys.readouterr().out


def test_an_index_of_somebody_elses_stays() -> None:
    from tests.leaderboard.boards import write_board

    folder = Path("results/board")
    write_board(folder, {"DiffMM": 0.1, "BPR": 0.0})
    Path("results/index.html").write_bytes("<p>caf\xe9</p>".encode("latin-1"))
    assert main(["leaderboard", "--render", str(folder)]) == 0
    assert b"caf\xe9" in Path("results/index.html").read_bytes()


def test_models_are_listed_beside_odd_files(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("properties/tuned")
    (folder / "folder.yaml").mkdir(parents=True)
    (folder / "latin.yaml").write_bytes(b"\xff\xfe\xe9")
    os.symlink("nowhere", folder / "dangling.yaml")
    assert main(["models"]) == 0
    assert "DiffMM" in capsys.readouterr().out


def test_a_journal_whose_last_line_was_cut_is_gone_on_with() -> None:
    pytest.importorskip("optuna")
    Path("s.yaml").write_text("learning_rate: [0.1, 0.01]\n")
    tune = ["tune", "-m", "BPR", "-d", "toy", "--space=s.yaml", "--workers=1", "--epochs=1", "--use_gpu=false"]
    assert main([*tune, "--trials=1"]) == 0
    journal = Path("results/tuning/BPR-toy.journal")
    os.truncate(journal, journal.stat().st_size - 7)
    assert main([*tune, "--trials=2"]) == 0
    assert len(json.loads(Path("results/tuning/BPR-toy.json").read_text())["trials"]) == 2


def test_the_best_of_an_earlier_search_may_be_anything() -> None:
    pytest.importorskip("optuna")
    Path("s.yaml").write_text("learning_rate: [0.1, 0.01]\n")
    Path("properties/tuned").mkdir(parents=True)
    Path("properties/tuned/BPR-toy.yaml").write_text("learning_rate: 2024-01-02\nother: !!binary aGk=\n")
    tune = ["tune", "-m", "BPR", "-d", "toy", "--space=s.yaml", "--workers=1", "--epochs=1", "--use_gpu=false"]
    assert main([*tune, "--trials=1"]) == 0


# The terminal


def test_a_terminal_without_the_letters_or_none_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import io
    import sys

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    from recbole_diffmm.cli import _say

    assert main(["models", "BPR"]) == 0
    _say("0.1°")
    assert raw.getvalue().endswith(b"0.1?\n")
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["models", "BPR"]) == 0
