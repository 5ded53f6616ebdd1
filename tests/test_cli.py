"""The console script: RecBole's command line, one line and code 2 for every mistake."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_diffmm import quick_start
from recbole_diffmm.cli import main
from recbole_diffmm.data.bundled import prepare

TWO_EPOCHS = ["--epochs=2", "--show_progress=false", "--state=ERROR"]
QUICK = ["--epochs=1", "--show_progress=false", "--state=ERROR"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model=LightGCN", "--dataset=toy"],
        ["-m", "LightGCN", "-d", "toy"],
        ["--model", "LightGCN", "--dataset", "toy", "--learning_rate=1e-2"],
    ],
)
def test_run_follows_recboles_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments, *QUICK]) == 0
    output = capsys.readouterr().out
    assert "LightGCN" in output and "Recall@20" in output and "toy" in output
    (record,) = Path("results/runs").glob("LightGCN-toy-*.json")
    assert str(record) in output
    rate = json.loads(record.read_text(encoding="utf-8"))["config"]["learning_rate"]
    assert rate == (0.01 if "--learning_rate=1e-2" in arguments else 0.001)


def test_config_files_are_a_list_in_one_argument(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: BPR\ndataset: toy\nlearning_rate: 0.5\nseed: 7\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("learning_rate: 0.25\n", encoding="utf-8")
    assert main(["run", "--config_files=a.yaml b.yaml", *QUICK]) == 0
    (record,) = Path("results/runs").glob("BPR-toy-s7-*.json")
    assert json.loads(record.read_text(encoding="utf-8"))["config"]["learning_rate"] == 0.25


def test_run_py_is_the_run_command(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--model=Pop", "--dataset=toy", *QUICK])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(repository / "run.py"), run_name="__main__")
    assert left.value.code == 0
    assert "Pop" in capsys.readouterr().out


def test_the_defaults_are_diffmm_on_the_bundled_data(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def stop(model: str, dataset: str, *_: object) -> None:
        seen.update(model=model, dataset=dataset)
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole_diffmm.quick_start.run", stop)
    assert main(["run"]) == 130
    assert seen == {"model": "DiffMM", "dataset": "ml-100k"}


@pytest.mark.filterwarnings("ignore")
def test_evaluate_repeats_a_runs_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-m", "BPR", "-d", "toy", *QUICK]) == 0
    (record,) = Path("results/runs").glob("*.json")
    (checkpoint,) = (path for path in Path("saved").glob("BPR-*.pth") if "resume" not in path.name)
    capsys.readouterr()
    assert main(["evaluate", str(checkpoint)]) == 0
    valid, test = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    metrics = json.loads(record.read_text(encoding="utf-8"))["metrics"]
    assert valid["valid"] == pytest.approx(metrics["valid"])
    assert test["test"] == pytest.approx(metrics["test"])


def test_doctor_tells_versions_device_mends_and_places(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    for part in ("recbole 1.2.1", torch.__version__, "cpu:", "ray_at_import", "graph_entries", "properties", "ml-100k"):
        assert part in output
    assert f"{Path.cwd() / 'properties'} (not there)" in output
    assert f"{Path('recbole') / 'properties'}, " in output, "RecBole's own"
    assert not Path("dataset").exists(), "looking is not making"


def test_models_lists_all_and_describes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert {"DiffMM", "LightGCN"} <= set(capsys.readouterr().out.replace(",", " ").split())
    assert main(["models", "DiffMM"]) == 0
    assert "temperature" in capsys.readouterr().out
    assert main(["models", "LightGCN"]) == 0
    assert "n_layers" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["compare", "--help"], ["--version"]])
def test_help_leaves_with_zero(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    assert "recbole-diffmm" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_help_names_the_settings_that_commands_are_asked_for_by(command: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    for setting in ("--protocol=", "--resume=", "--eval_graph=", "--user_inter_num_interval='\"[10,inf)\"'"):
        assert setting in told


# Bad input ---------------------------------------------------------------------------------------------------------


def test_unknown_names(refused) -> None:
    assert "did you mean DiffMM" in refused("run", "--model=DifMM")
    assert "did you mean toy" in refused("run", "--model=BPR", "--dataset=tooy")
    assert "did you mean learning_rate" in refused("run", "--model=BPR", "--dataset=toy", "--learning_rates=1")
    assert "did you mean LightGCN" in refused("compare", "--models=BPR,LightGNC", "--dataset=toy")
    assert "does not take" in refused("doctor", "--epochs=1")
    assert "did you mean BPR" in refused("models", "BRP")


def test_bad_arguments(refused) -> None:
    assert "write --key=value" in refused("run", "--model=BPR", "--dataset=toy", "epochs=3")
    assert "no such file" in refused("run", "--config_files=missing.yaml")
    assert "asks for 500 items" in refused("run", "--model=BPR", "--dataset=toy", "--topk=[20,500]", "--state=ERROR")


def test_zero_modalities(refused) -> None:
    assert "modalit" in refused("run", "--dataset=toy", "--use_modalities=[]", "--state=ERROR")
    assert "sight" in refused("run", "--dataset=toy", "--use_modalities=[sight]", "--state=ERROR")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A copy of the toy dataset under a name of its own, whose files a test may spoil."""
    source = prepare("toy", tmp_path / "made")
    assert source is not None
    folder = tmp_path / "dataset" / "mine"
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.name.startswith("."):
            continue
        (folder / path.name.replace("toy.", "mine.")).write_bytes(path.read_bytes())
    (folder / "mine.yaml").write_text(
        "load_col: {inter: [user_id, item_id]}\nbenchmark_filename: [train, valid, test]\n"
        "modalities: {look: {features: look.npy, ids: look.ids}}\n",
        encoding="utf-8",
    )
    return folder


def spoil_rows(folder: Path) -> None:
    np.save(folder / "look.npy", np.load(folder / "look.npy")[:-1])


def spoil_values(folder: Path) -> None:
    matrix = np.load(folder / "look.npy")
    matrix[3, 0] = np.nan
    np.save(folder / "look.npy", matrix)


def spoil_text(folder: Path) -> None:
    np.save(folder / "look.npy", np.load(folder / "look.npy").astype(str))


def spoil_objects(folder: Path) -> None:
    np.save(folder / "look.npy", np.array([{"a": 1}] * 80, dtype=object), allow_pickle=True)


def spoil_truncated(folder: Path) -> None:
    content = (folder / "look.npy").read_bytes()
    (folder / "look.npy").write_bytes(content[: len(content) // 2])


def spoil_empty(folder: Path) -> None:
    (folder / "look.npy").write_bytes(b"")


def spoil_missing(folder: Path) -> None:
    (folder / "look.npy").unlink()


def ids(folder: Path) -> list[str]:
    return (folder / "look.ids").read_text(encoding="utf-8").splitlines()


def spoil_duplicated(folder: Path) -> None:
    lines = ids(folder)
    (folder / "look.ids").write_text("\n".join([lines[1], *lines[1:]]) + "\n", encoding="utf-8")


def spoil_overlap(folder: Path) -> None:
    (folder / "look.ids").write_text("\n".join(f"x{line}" for line in ids(folder)) + "\n", encoding="utf-8")


def spoil_interactions(folder: Path) -> None:
    (folder / "mine.train.inter").write_text("", encoding="utf-8")


def spoil_no_interactions(folder: Path) -> None:
    (folder / "mine.train.inter").unlink()


def spoil_some_foreign(folder: Path) -> None:
    lines = ids(folder)
    (folder / "look.ids").write_text("\n".join([f"x{lines[0]}", *lines[1:]]) + "\n", encoding="utf-8")
    text = (folder / "mine.yaml").read_text(encoding="utf-8")
    (folder / "mine.yaml").write_text(text.replace("look.ids}", "look.ids, unknown_ids: refuse}"), encoding="utf-8")


def spoil_most_foreign(folder: Path) -> None:
    lines = ids(folder)
    few = len(lines) // 4
    foreign = [f"x{line}" for line in lines[few:]]
    (folder / "look.ids").write_text("\n".join([*lines[:few], *foreign]) + "\n", encoding="utf-8")


SPOILS = [
    (spoil_rows, "look.npy", "has 79 rows but"),
    (spoil_values, "look.npy", "row 3 (item "),
    (spoil_text, "look.npy", "holds text"),
    (spoil_objects, "look.npy", "holds Python objects"),
    (spoil_truncated, "look.npy", "is truncated"),
    (spoil_empty, "look.npy", "is empty"),
    (spoil_missing, "look.npy", "does not exist"),
    (spoil_duplicated, "look.ids", "in lines 1 and 2"),
    (spoil_overlap, "look.ids", "none of the 80 ids"),
    (spoil_some_foreign, "look.ids", "1 of the 80 ids"),
    (spoil_most_foreign, "look.ids", "60 of the 80 ids"),
    (spoil_interactions, "mine.train.inter", "is empty"),
    (spoil_no_interactions, "mine.train.inter", "does not exist"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("spoil", "named", "cause"), SPOILS, ids=[spoil.__name__ for spoil, *_ in SPOILS])
def test_spoiled_data(spoil, named: str, cause: str, toy: Path, refused) -> None:
    assert main(["run", "--model=DiffMM", "--dataset=mine", *QUICK]) == 0, "the copy itself is good"
    spoil(toy)
    message = refused("run", "--model=DiffMM", "--dataset=mine", *QUICK)
    assert named in message and cause in message


def unfinished(model: str, dataset: str) -> Path:
    """The training state of a run that stopped after its first epoch of two."""

    def stop(epoch: int, _score: float) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    real = quick_start.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_start, "run", lambda *arguments: real(*arguments, on_epoch=stop))
        assert main(["run", f"--model={model}", f"--dataset={dataset}", *TWO_EPOCHS]) == 130
    (state,) = Path("saved").glob(f"{model}-{dataset}-*.resume.pth")
    return state


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "dataset", "cause"),
    [("LightGCN", "mine", "its model is LightGCN, this run's is BPR"), ("BPR", "toy", "its dataset is toy")],
)
def test_states_of_another_model_or_dataset(
    model: str, dataset: str, cause: str, toy: Path, refused, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, other = unfinished("BPR", "mine"), unfinished(model, dataset)
    capsys.readouterr()
    shutil.copy(other, wanted)
    message = refused("run", "--model=BPR", "--dataset=mine", *TWO_EPOCHS, "--resume=true")
    assert str(wanted) in message and cause in message


@pytest.mark.filterwarnings("ignore")
def test_the_best_epoch_of_another_model(toy: Path, refused, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model=LightGCN", "--dataset=mine", *QUICK]) == 0
    (best,) = Path("saved").glob("LightGCN-*.pth")
    state = unfinished("BPR", "mine")
    capsys.readouterr()
    shutil.copy(best, state)
    assert "holds a trained model" in refused("run", "--model=BPR", "--dataset=mine", *TWO_EPOCHS, "--resume=true")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("--seed=-1", "seed in the command line"),
        ("--metrics=[1]", "metrics in the command line"),
        ("--metrics=[]", "metrics in the command line"),
        ("--topk=[a]", "topk in the command line"),
        ("--state=LOUD", "state in the command line"),
        ("--learning_rate=.nan", "learning_rate in the command line"),
        ("--clip_grad_norm=5", "{max_norm: 5}"),
        ("--learner=adamm", "did you mean adam?"),
        ("--nproc=2", "several processes"),
        ("--world_size=2", "several processes"),
        ("--load_col={inter: [user_id]}", "user_id and item_id"),
        ("--load_col={inter: [user_id, item_id, usr_id]}", "did you mean user_id?"),
        ("--checkpoint_dir=file/inner", "checkpoint_dir in the command line"),
        ("--results_dir=file/inner", "results_dir in the command line"),
        ("--log_dir=file/inner", "log_dir in the command line"),
        ("--eval_args={mod: full}", "did you mean mode?"),
        ("--eval_args={mode: uni}", "uniN or popN"),
        ("--train_neg_sample_args={sample: 3}", "did you mean sample_num?"),
        ("--eval_args={mode: labeled}", "labeled ranks nothing that ['Recall', "),
        ("--checkpoint_dir=~", "checkpoint_dir in the command line must be the name of a folder"),
        ("--data_path=~", "data_path in the command line must be the name of a folder"),
        ("--encoding=zzz", "encoding in the command line"),
        ("--rm_dup_inter=foo", "rm_dup_inter in the command line must be first or last"),
        ("--eval_batch_size=0", "eval_batch_size in the command line must be a whole number of at least 1"),
        ('--item_inter_num_interval="[3,1]"', "must be an interval of numbers such as '[10,inf)'"),
        ("--user_inter_num_interval=abc", "must be an interval of numbers such as '[10,inf)'"),
        ("--user_inter_num_interval=[10,inf)", "--user_inter_num_interval='\"[10,inf)\"'"),
        ("--neigh_info_method=louvain", "recbole-diffmm[nncf]"),
    ],
)
def test_wrong_values_end_with_two(setting: str, told: str, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("", encoding="utf-8")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "community" else found(name, *more)
    )
    model = "NNCF" if "neigh_info_method" in setting else "BPR"
    quiet = [] if "--state" in setting else ["--state=ERROR"]
    assert told in refused("run", f"--model={model}", "--dataset=toy", "--show_progress=false", *quiet, setting)


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_others(toy: Path, tmp_path: Path, refused) -> None:
    assert "no such file" in refused("evaluate", "missing.pth")

    class Code:
        def __reduce__(self):
            return os.system, ("touch ran",)

    (tmp_path / "code.pth").write_bytes(pickle.dumps(Code()))
    assert "code.pth" in refused("evaluate", "code.pth")
    assert not Path("ran").exists()

    assert main(["run", "--model=BPR", "--dataset=mine", *QUICK]) == 0
    (checkpoint,) = (path for path in Path("saved").glob("BPR-*.pth") if "resume" not in path.name)
    lines = (toy / "mine.train.inter").read_text(encoding="utf-8").splitlines()
    (toy / "mine.train.inter").write_text("\n".join(lines[:-3]) + "\n", encoding="utf-8")
    assert str(checkpoint) in refused("evaluate", str(checkpoint)), "the data behind the checkpoint have changed"


def test_a_pickle_with_code_is_not_converted(tmp_path: Path, refused) -> None:
    class Code:
        def __reduce__(self):
            return os.system, ("touch ran",)

    folder = tmp_path / "published"
    folder.mkdir()
    for name in ("trnMat.pkl", "valMat.pkl", "tstMat.pkl"):
        (folder / name).write_bytes(pickle.dumps(Code()))
    message = refused("convert", "diffmm", str(folder), "--name=x", "--out=out")
    assert "system" in message
    assert not Path("ran").exists() and not Path("out/x").exists()


def test_the_process_ends_with_two(repository: Path) -> None:
    command = [sys.executable, "-m", "recbole_diffmm", "run", "--model=Nope"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown model 'Nope'") and done.stderr.count("\n") == 1


@pytest.fixture
def with_recbole_1_2_0(repository: Path, tmp_path: Path):
    """Call this Python where metadata say that another RecBole is installed, as pip leaves it on Python 3.12+."""
    said = tmp_path / "other" / "recbole-1.2.0.dist-info"
    said.mkdir(parents=True)
    (said / "METADATA").write_text("Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.0\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(said.parent), str(repository)])}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)

    return call


WRONG_RECBOLE = "RecBole 1.2.0 is installed, 1.2.1 is needed; run: pip install --no-deps recbole==1.2.1\n"


@pytest.mark.parametrize("arguments", [["run", "--dataset=toy"], ["models"]])
def test_another_recbole_ends_a_command_in_one_line(arguments: list[str], with_recbole_1_2_0) -> None:
    done = with_recbole_1_2_0("-m", "recbole_diffmm", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", WRONG_RECBOLE)


def test_doctor_tells_of_another_recbole(with_recbole_1_2_0) -> None:
    done = with_recbole_1_2_0("-m", "recbole_diffmm", "doctor")
    assert (done.returncode, done.stderr) == (0, WRONG_RECBOLE)
    assert "recbole 1.2.0" in done.stdout and f"RecBole defects\n  {WRONG_RECBOLE}" in done.stdout


def test_importing_the_package_tells_of_another_recbole_and_waits_for_nothing(with_recbole_1_2_0) -> None:
    told = "import sys, recbole_diffmm; print({'torch', 'recbole', 'numpy'} & set(sys.modules))"
    done = with_recbole_1_2_0("-c", told)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", WRONG_RECBOLE)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["leaderbord", "quick"], "error: unknown command 'leaderbord'; did you mean leaderboard?; see "),
        (["leaderboard", "quick", "--workers", "x"], "error: argument --workers: invalid int value: 'x'; see "),
        (["leaderboard", "--compare", "a.json"], "error: argument --compare: expected 2 arguments; see "),
        (["leaderboard", "quick", "--workers", "0"], "error: --workers is 0; give at least 1"),
        (["convert", "mmrec", "x", "--name", "y"], "error: unknown format 'mmrec' (known: diffmm); see "),
    ],
)
def test_a_mistyped_command_ends_in_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(arguments)
    except SystemExit as left:
        code = int(left.code or 0)
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith(line) and error.count("\n") == 1
