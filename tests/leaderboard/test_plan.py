"""What a board runs: what has no record, and nothing a second time unless that is asked for. Nothing trains here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_diffmm import provenance
from recbole_diffmm.cli import main
from recbole_diffmm.data import bundled
from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard import manifest, plan, runner
from recbole_diffmm.leaderboard.gather import gather
from recbole_diffmm.leaderboard.make import Made, make
from recbole_diffmm.leaderboard.render import render
from recbole_diffmm.leaderboard.spec import load_spec, tasks
from recbole_diffmm.process import Job, Watcher
from recbole_diffmm.record import load, write_json
from tests.leaderboard.boards import digest, record, write_board, write_run
from tests.leaderboard.test_spec import write

BOARD = Path("b.yaml")
FOLDER = Path("results/b")


class Stand:
    """Stands in for the processes of runs: writes records without training."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.data = Path("dataset/toy")

    def carry_out(self, jobs: Sequence[Job], places: Sequence[Any], watcher: Watcher) -> None:
        for job in jobs:
            watcher.started(job)
            self.done.append(job.name)
            self.requests.append(job.request)
            folder = Path(job.request["settings"]["results_dir"])
            files = {file.name: provenance.hash_file(file.resolve()) for file in sorted(self.data.glob("*.inter"))}
            write_run(
                folder,
                job.name,
                code={"hash": provenance.code_hash(job.request["model"]), "commit": None, "dirty": None},
                data={**record()["data"], "files": files},
                config={"data_path": str(self.data)},
            )
            watcher.ended(job, None)

    def made(self, **options: Any) -> tuple[Made, list[str]]:
        """Make the board; also return the names of the runs that it has done."""
        self.done.clear()
        made = make(str(BOARD), workers=1, progress=False, **options)
        return made, list(self.done)


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    stand = Stand()
    monkeypatch.setattr(runner, "carry_out", stand.carry_out)
    bundled.prepare("toy", "dataset")
    write(BOARD, settings={"use_gpu": False})
    return stand


def test_only_what_has_no_record_runs(stand: Stand):
    made, done = stand.made()
    assert len(done) == made.done == 4 and not made.failures and not made.stale
    assert sorted(f"{name}.json" for name in done) == sorted(file.name for file in FOLDER.glob("*-s*.json"))
    assert made.manifest == manifest.read(FOLDER)
    assert [[run.name for run in row.runs] for row in made.manifest.rows] == [done[:2], done[2:]]
    assert stand.made()[1] == []
    (FOLDER / f"{done[2]}.json").unlink()
    assert stand.made()[1] == [done[2]]
    write(BOARD, settings={"use_gpu": False}, seeds=[1, 2, 3])
    assert [name.rsplit("-", 1)[0] for name in stand.made()[1]] == ["BPR-toy-s3", "Pop-toy-s3"]
    write(BOARD, settings={"use_gpu": False, "learning_rate": 0.5}, models=["BPR"])
    _, other = stand.made()
    assert len(other) == 2 and not set(other) & set(done)  # other settings are other runs
    write(BOARD, settings={"use_gpu": False, "show_progress": True, "eval_batch_size": 8})
    assert stand.made()[1] == []  # these cannot move a number


def test_named_rows_run_and_the_others_stay_as_they_are(stand: Stand):
    made, done = stand.made(rows=["Pop"])
    assert [name.split("-")[0] for name in done] == ["Pop", "Pop"]
    assert [len(row.runs) for row in made.manifest.rows] == [2, 2]  # the others have no record, and their names already
    assert gather(FOLDER, made.manifest, Path("dataset")).empty == [("BPR", "toy", "no run yet")]
    assert [name.split("-")[0] for name in stand.made()[1]] == ["BPR", "BPR"]
    with pytest.raises(UserError, match=r"^Popp is no row of board b; did you mean Pop"):
        stand.made(rows=["Pop", "Popp"])


@pytest.mark.parametrize(
    "given", [["--render", "results/b", "--models", "Pop"], ["b.yaml", "-m", ","], ["b.yaml", "-m", ""]]
)
def test_rows_without_a_name_or_a_board_run_nothing(given: list[str], stand: Stand, capsys: pytest.CaptureFixture[str]):
    assert main(["leaderboard", *given]) == 2
    assert "give a board and names of its rows" in capsys.readouterr().err
    assert stand.done == [] and not FOLDER.exists()


def test_named_rows_need_no_other_rows_tuning(stand: Stand, capsys: pytest.CaptureFixture[str]):
    write(
        BOARD,
        settings={"use_gpu": False},
        tuning={"trials": 1},
        models=["BPR", {"model": "Pop", "untuned": "it has no settings"}, {"model": "BPR", "label": "other"}],
    )
    for rows in ([], ["BPR"], ["Pop", "other"]):
        with pytest.raises(UserError, match="is not tuned"):
            stand.made(rows=rows)
    assert not FOLDER.exists() or not list(FOLDER.glob("*.json"))
    assert main(["leaderboard", str(BOARD), "--models", "Pop", "--workers", "1"]) == 0
    assert [name.split("-")[0] for name in stand.done] == ["Pop", "Pop"]
    assert "BPR on toy: not tuned yet" in capsys.readouterr().out
    made, done = stand.made(rows=["Pop"])
    assert done == [] and [(row.label, len(row.runs)) for row in made.manifest.rows] == [
        ("BPR", 0),
        ("Pop", 2),
        ("other", 0),
    ]


def _searched(*names: str, n_trials: int = 1) -> None:
    """Write what a search of so many trials leaves for rows of BPR."""
    for name in names:
        report = {
            "budget": {"trials": n_trials, "minutes": None},
            "objective": "validation Recall@20",
            "trials": [{"seconds": 1.0}] * n_trials,
            "best": {"settings": {"learning_rate": 0.01 * len(name)}},
            "split_hash": digest("split"),
            "model": "BPR",
            "dataset": "toy",
            "settings": {"use_gpu": False},
            "config_files": [],
        }
        write_json(Path(f"results/tuning/b/{name}-toy.json"), report)
        Path("properties/tuned/b").mkdir(parents=True, exist_ok=True)
        Path(f"properties/tuned/b/{name}-toy.yaml").write_text(yaml.safe_dump(report["best"]["settings"]))


def test_named_rows_leave_those_that_another_budget_has_tuned(stand: Stand, capsys: pytest.CaptureFixture[str]):
    models = [*({"model": "BPR", "label": name} for name in ("a", "bc")), {"model": "Pop", "untuned": "no settings"}]
    board = {"settings": {"use_gpu": False}, "models": models}
    _searched("a", "bc")
    write(BOARD, **board, tuning={"trials": 1})
    before, done = stand.made()
    assert len(done) == 6
    models += [{"model": "BPR", "label": "new"}, {"model": "BPR", "label": "later"}]
    write(BOARD, **board, tuning={"trials": 2})
    _searched("bc", n_trials=2)
    _searched("new")
    assert main(["leaderboard", str(BOARD), "--models", "Pop,bc", "--workers", "1"]) == 0
    after = manifest.read(FOLDER)
    assert after is not None
    rows = {row.label: row for row in after.rows}
    assert rows["a"] == before.manifest.rows[0] and rows["a"].tuned.startswith("1 trials in")
    assert rows["bc"].tuned.startswith("2 trials in") and len(rows["bc"].runs) == 2
    shown = capsys.readouterr().out
    assert "new on toy: was tuned with 1 trials, the board states 2 trials for all: recbole-diffmm tune" in shown
    assert "later on toy: not tuned yet" in shown
    assert json.loads((FOLDER / "summary.json").read_text(encoding="utf-8"))["n_rows"] == 3
    with pytest.raises(UserError, match=r"^a on toy was tuned with 1 trials"):
        stand.made()


def test_a_board_that_is_done_wakes_neither_pytorch_nor_recbole(stand: Stand):
    stand.made()
    code = (
        "import sys; from recbole_diffmm.leaderboard.make import make\n"
        "made = make('b.yaml')\n"
        "print(made.done, made.stale, sorted({'torch', 'recbole', 'pandas', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0 {} []\n" and done.stderr == ""


def test_changed_data_make_a_record_stale(stand: Stand):
    _, done = stand.made()
    before = {file: file.read_bytes() for file in FOLDER.iterdir()}
    with Path("dataset/toy/toy.test.inter").open("a", encoding="utf-8") as file:
        file.write("user_00\titem_00\n")
    made, again = stand.made()  # the same process: what it knows of files must not be older than the call
    assert again == [] and made.stale == dict.fromkeys(done, "toy.test.inter of toy changed")
    assert {file: file.read_bytes() for file in before} == before
    Path("dataset/toy/toy.valid.inter").unlink()
    assert "toy.test.inter, toy.valid.inter of toy changed" in str(stand.made()[0].stale)
    shutil.rmtree("dataset/toy")  # records without their data are as good as ever
    assert stand.made()[0].stale == {}


def test_changed_code_makes_the_records_of_its_models_stale(stand: Stand, monkeypatch: pytest.MonkeyPatch):
    _, done = stand.made()
    hashes = {"BPR": "b" * 64, "Pop": provenance.code_hash("Pop")}
    monkeypatch.setattr(provenance, "code_hash", hashes.__getitem__)
    made, again = stand.made()
    assert again == [] and made.stale == dict.fromkeys(done[:2], "the code of BPR has changed")


def test_a_changed_feature_file_makes_a_record_stale(tmp_path: Path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "smell.npy").write_bytes(b"features")
    digest = provenance.hash_file(tmp_path / "toy" / "smell.npy")
    path = write_run(
        tmp_path / "records", "BPR-toy-s1-00000000", data={**record()["data"], "files": {"smell.npy": digest}}
    )
    changes = plan.changed(load(path), tmp_path, {})
    assert "smell.npy of toy changed" not in changes
    (tmp_path / "toy" / "smell.npy").write_bytes(b"other")
    assert "smell.npy of toy changed" in plan.changed(load(path), tmp_path, {})


def test_what_became_stale_is_written_into_the_views(stand: Stand, capsys: pytest.CaptureFixture[str]):
    assert main(["leaderboard", "b.yaml", "--workers", "1"]) == 0
    assert "stale" not in (FOLDER / "board.md").read_text(encoding="utf-8")
    assert main(["leaderboard", "b.yaml", "--workers", "1"]) == 0
    assert "nothing has changed" in capsys.readouterr().out
    with Path("dataset/toy/toy.test.inter").open("a", encoding="utf-8") as file:
        file.write("user_00\titem_00\n")
    assert main(["leaderboard", "b.yaml", "--workers", "1"]) == 0
    assert "nothing has changed" not in capsys.readouterr().out
    for view in ("board.md", "board.csv", "board.tex", "index.html"):
        assert "toy.test.inter of toy changed since" in (FOLDER / view).read_text(encoding="utf-8").replace("\\_", "_")


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        (["Recall@20", "Recal@10"], "metrics names Recal@10, which its runs do not give; did you mean Recall@10?"),
        (["Hit@20"], "metrics names Hit@20, which its runs do not give"),
    ],
)
def test_a_metric_that_runs_do_not_give_is_told_before_any_runs(metrics: list[str], line: str, stand: Stand):
    write(BOARD, settings={"use_gpu": False}, metrics=metrics)
    with pytest.raises(UserError, match=rf"b.yaml: .*{re.escape(line)}"):
        stand.made()
    assert stand.done == []


def test_stale_runs_are_repeated_when_asked_and_the_old_records_kept(stand: Stand, monkeypatch: pytest.MonkeyPatch):
    _, done = stand.made()
    (FOLDER / f"{done[0]}.per_user.parquet").write_text("users", encoding="utf-8")
    old = {file.name: file.read_bytes() for file in FOLDER.glob(f"{done[0]}*")}
    hashes = {"BPR": "b" * 64, "Pop": provenance.code_hash("Pop")}
    monkeypatch.setattr(provenance, "code_hash", hashes.__getitem__)
    made, again = stand.made(rerun_stale=True)
    assert again == done[:2] and made.stale == {} and made.done == 2
    assert {file.name: file.read_bytes() for file in (FOLDER / "stale").glob(f"{done[0]}*")} == old
    assert json.loads((FOLDER / f"{done[0]}.json").read_text(encoding="utf-8"))["code"]["hash"] == "b" * 64
    assert not (FOLDER / f"{done[0]}.per_user.parquet").exists()
    assert stand.made(rerun_stale=True)[1] == []
    second = (FOLDER / f"{done[0]}.json").read_bytes()
    hashes["BPR"] = "c" * 64
    assert stand.made(rerun_stale=True)[1] == done[:2]
    assert {file.name: file.read_bytes() for file in (FOLDER / "stale").glob(f"{done[0]}*")} == old
    assert (FOLDER / "stale" / "2" / f"{done[0]}.json").read_bytes() == second
    assert load(FOLDER / "stale" / "2" / f"{done[0]}.json").code.hash == "b" * 64


@pytest.mark.parametrize("options", [{"workers": 0}, {"scheduler": "nosuch"}])
def test_old_records_stay_where_nothing_can_run(options: Any, stand: Stand, monkeypatch: pytest.MonkeyPatch):
    stand.made()
    monkeypatch.setattr(provenance, "code_hash", lambda model: "b" * 64)
    with pytest.raises(UserError):
        make(str(BOARD), rerun_stale=True, progress=False, **options)
    assert len(list(FOLDER.glob("*-s*.json"))) == 4 and not (FOLDER / "stale").exists()


def test_a_changed_config_file_makes_other_runs(stand: Stand):
    Path("c.yaml").write_text("learning_rate: 0.1\n", encoding="utf-8")
    write(BOARD, models=["BPR"], config_files=["c.yaml"], settings={"use_gpu": False})
    first = stand.made()[1]
    Path("c.yaml").write_text("learning_rate: 0.2\n", encoding="utf-8")
    second = stand.made()[1]
    assert len(first) == len(second) == 2 and not set(first) & set(second)
    Path("properties").mkdir()
    Path("properties/overall.yaml").write_text("epochs: 7\n", encoding="utf-8")
    assert len(stand.made()[1]) == 2


@pytest.mark.parametrize("file", ["c", "properties/overall", "properties/model/BPR", "properties/dataset/toy"])
def test_data_lie_where_a_file_says(stand: Stand, file: str):
    bundled.prepare("toy", "elsewhere")
    stand.data = Path("elsewhere/toy")
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{file}.yaml").write_text("data_path: elsewhere\n", encoding="utf-8")
    files = ["c.yaml"] if file == "c" else []
    write(BOARD, models=["BPR"], config_files=files, settings={"use_gpu": False})
    stand.made()
    shutil.rmtree("dataset/toy")
    Path("dataset/toy").mkdir()
    assert stand.made()[0].stale == {}
    Path("elsewhere/toy/toy.test.inter").write_text("user_id:token\titem_id:token\n", encoding="utf-8")
    assert len(stand.made()[0].stale) == 2


def test_two_rows_of_one_configuration_are_refused(stand: Stand):
    models = ["BPR", {"model": "BPR", "label": "again", "settings": {"show_progress": True}}]
    write(BOARD, models=models, settings={"use_gpu": False})
    with pytest.raises(UserError) as error:
        stand.made()
    line = "again on toy, seed 1 and BPR on toy, seed 1 have the same configuration"
    assert line in str(error.value) and stand.done == []


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"model": "BRP"}, "b.yaml: odd on toy, seed 1: unknown model 'BRP'; did you mean BPR?"),
        ({"model": "BPR", "settings": {"epochs": "many"}}, "b.yaml: odd on toy, seed 1: epochs in "),
        ({"model": "BPR", "settings": {"emb_size": 3}}, "b.yaml: odd on toy, seed 1: unknown key 'emb_size'"),
        (
            {"model": "LightGCN", "settings": {"valid_metric": "Recal@20"}},
            "b.yaml: odd on toy, seed 1: valid_metric is ",
        ),
    ],
)
def test_a_wrong_row_is_named_before_anything_trains(row: dict[str, Any], line: str, stand: Stand):
    write(BOARD, models=["Pop", {**row, "label": "odd"}], settings={"use_gpu": False})
    with pytest.raises(UserError) as error:
        stand.made()
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert stand.done == [] and not list(FOLDER.glob("*.json"))


def test_a_board_on_unknown_data_is_refused_before_anything_trains(stand: Stand):
    write(BOARD, datasets=["toy", "tyo"])
    with pytest.raises(UserError, match="BPR on tyo, seed 1: unknown dataset 'tyo'"):
        stand.made()
    assert stand.done == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"schema_version": 3, "name"', "is no JSON, so it is no record of a run, or one cut short"),
        (json.dumps({"schema_version": 99, "metrics": {}, "curve": []}), "has schema version 99, this package reads 3"),
        ("[]", "is no record of a run"),
        (json.dumps({"schema_version": 3, "metrics": {}, "curve": []}), "field required; move it away and run again"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_in_one_line(text: str, line: str, stand: Stand):
    _, done = stand.made()
    path = FOLDER / f"{done[1]}.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        stand.made()
    assert str(error.value).startswith(f"record {path}: ") and line in str(error.value)
    assert "\n" not in str(error.value) and stand.done == [] and path.read_text(encoding="utf-8") == text


def test_a_manifest_that_cannot_be_read_is_told_in_one_line(stand: Stand):
    stand.made()
    text = (FOLDER / manifest.FILE).read_text(encoding="utf-8")
    for broken in (text[:-100], "[]", text.replace('"rows"', '"wors"')):
        (FOLDER / manifest.FILE).write_text(broken, encoding="utf-8")
        with pytest.raises(UserError) as error:
            stand.made()
        assert "board.json: is no board" in str(error.value) and "\n" not in str(error.value)
    (FOLDER / manifest.FILE).unlink()
    assert stand.made()[1] == [] and (FOLDER / manifest.FILE).read_text(encoding="utf-8") == text


def test_only_a_training_by_the_same_code_is_continued(stand: Stand, monkeypatch: pytest.MonkeyPatch):
    def planned() -> list[plan.Planned]:
        known = manifest.read(FOLDER)
        return plan.plan(tasks(load_spec(BOARD)), FOLDER, known.names() if known else {})

    def resumed() -> list[bool]:
        return [runner.request(run, FOLDER)["settings"]["resume"] for run in planned()]

    assert resumed() == [False] * 4  # whatever lies in saved/ is not this board's
    _, done = stand.made()
    for name in done:
        (FOLDER / f"{name}.json").unlink()  # as if they had been interrupted
    assert resumed() == [True] * 4
    stand.requests.clear()
    stand.made()
    assert [request["settings"]["resume"] for request in stand.requests] == [True] * 4
    pop = provenance.code_hash("Pop")
    monkeypatch.setattr(provenance, "code_hash", {"BPR": "b" * 64, "Pop": pop}.__getitem__)
    assert resumed() == [False, False, True, True]


def test_a_record_under_another_name_is_no_record(stand: Stand, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.leaderboard.test_plan.write_run", lambda *args, **kwargs: None)
    made, done = stand.made()
    assert made.done == 0 and set(made.failures) == set(done) and "another name" in made.failures[done[0]]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"settings": {"use_gpu": False, "learning_rat": 1}}, "unknown key 'learning_rat'"),
        ({"datasets": ["nosuch"]}, "unknown dataset 'nosuch'"),
        ({"tuning": {"trials": 3}}, r"is not tuned \(results/tuning/b/.*-toy.json is missing\): .* tune --board b"),
    ],
)
def test_a_board_that_cannot_begin_leaves_nothing_behind(changes: dict[str, Any], line: str, stand: Stand):
    write(BOARD, **changes)
    with pytest.raises(UserError, match=line):
        stand.made()
    assert not FOLDER.exists()
    write(BOARD, settings={"use_gpu": False})
    stand.made()
    kept = {path: path.read_bytes() for path in FOLDER.iterdir()}
    write(BOARD, **changes)
    with pytest.raises(UserError, match=line):
        stand.made()
    assert {path: path.read_bytes() for path in FOLDER.iterdir()} == kept


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"models": ["BPR", {"model": "DiffMM", "settings": {"use_modalities": ["smel"]}}]},
            "names 'smel', but dataset toy",
        ),
        ({"metrics": []}, "metrics"),
        ({"settings": {"seed": 3}}, "seed is given, and `seeds` gives it to each run"),
    ],
)
def test_what_would_end_a_board_half_way_is_told_before_it_begins(changes: dict[str, Any], line: str, stand: Stand):
    write(BOARD, **{"settings": {"use_gpu": False}, **changes})
    with pytest.raises(UserError, match=rf"^b.yaml: .*{re.escape(line)}") as error:
        stand.made()
    assert "command line" not in str(error.value) and stand.done == []


def test_an_edited_per_user_file_is_found_by_the_same_command():
    board = write_board(FOLDER, {"BPR": 0.1, "Pop": 0.0}, n_users=20)
    assert render(FOLDER) is not None
    assert render(FOLDER, only_if_changed=True) is None
    file = FOLDER / f"{board.rows[0].runs[0].name}.per_user.parquet"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(UserError, match="were edited since the run wrote them"):
        render(FOLDER, only_if_changed=True)
