"""A search spends its budget and no more, goes on where it stopped, and never sees test data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from recbole_diffmm import quick_start
from recbole_diffmm.cli import main
from recbole_diffmm.data import bundled
from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard.spec import load_spec, tasks
from recbole_diffmm.leaderboard.tuned import searches, tuning_words
from recbole_diffmm.process import Job, Watcher, only_one
from recbole_diffmm.quick_start import Validation, validate
from recbole_diffmm.sources import properties_dir
from recbole_diffmm.trainer.base import RunTrainer
from recbole_diffmm.tuning import study as studies
from recbole_diffmm.tuning import tune as tuning
from recbole_diffmm.tuning import worker
from recbole_diffmm.tuning.report import at_edge
from recbole_diffmm.tuning.search import Search
from recbole_diffmm.tuning.space import Range
from recbole_diffmm.tuning.tune import Found, _over, tune
from tests.leaderboard.test_spec import write

_SETTINGS = {"epochs": 4, "train_batch_size": 256, "use_gpu": False}
_SPACE = "learning_rate: {low: 1e-3, high: 1e-1, log: true}\nembedding_size: [8, 16]\n"
_SEARCH = Search("BPR", "toy", 3, settings=_SETTINGS, space=Path("space.yaml"))
_JOURNAL = "results/tuning/BPR-toy.journal"
_REPORT = Path("results/tuning/BPR-toy.json")


@pytest.fixture(autouse=True)
def _space() -> None:
    Path("space.yaml").write_text(_SPACE, encoding="utf-8")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials in this process, which has PyTorch in memory already; the names of their jobs."""
    names: list[str] = []

    def carry_out(jobs: Iterable[Job], places: Any, watcher: Watcher) -> None:
        for job in jobs:
            names.append(job.name)
            watcher.started(job)
            failed = None
            try:
                worker.trial(json.loads(json.dumps(job.request)), lambda message, job=job: watcher.told(job, message))
            except Exception as error:
                failed = {"failed": worker._reason(error)}
            watcher.ended(job, failed)

    monkeypatch.setattr(tuning, "carry_out", carry_out)
    return names


def found(search: Search = _SEARCH, **options: Any) -> Found:
    return tune(search, **{"progress": False, "workers": 1, **options})


def report(path: Path = _REPORT) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def trials(where: str = _JOURNAL) -> list[FrozenTrial]:
    (name,) = optuna.get_all_study_names(studies.storage(where))
    return optuna.load_study(study_name=name, storage=studies.storage(where)).get_trials()


def test_a_search_leaves_settings_that_work_and_a_report_of_all_trials(here: list[str]):
    best = found()
    content = report()
    assert len(here) == len(content["trials"]) == 3 and content["states"] == {"complete": 3}
    assert content["objective"] == "validation Recall@20" and content["budget"]["trials"] == 3
    for trial in content["trials"]:
        assert len(trial["curve"]) == trial["epochs_run"] == 4 and trial["score"] == max(trial["curve"])
        assert trial["curve"][trial["best_epoch"]] == trial["score"] and trial["settings"]["embedding_size"] in (8, 16)
    assert content["trials"][0]["settings"]["learning_rate"] == 0.001  # what it is set to anyway comes first
    assert best.score == content["best"]["score"] == max(trial["score"] for trial in content["trials"])
    assert best.files[0] == Path("properties/tuned/BPR-toy.yaml") and all(file.is_file() for file in best.files)
    settings = yaml.safe_load(best.files[0].read_text(encoding="utf-8"))
    assert settings == best.settings == content["best"]["settings"]
    again = validate("BPR", "toy", [str(best.files[0])], {**_SETTINGS, "state": "WARNING", "show_progress": False})
    assert again.score == best.score and again.best_epoch == content["best"]["best_epoch"]
    assert not list(Path().rglob("*.pth")) and not list(Path().rglob("*.tmp"))  # no checkpoint, nothing half-written


def test_a_search_begins_with_the_best_of_an_earlier_one(here: list[str]):
    found(replace(_SEARCH, trials=1))
    assert report()["earlier"] is None
    Path(_JOURNAL).unlink()
    ranges = "learning_rate: {low: 1e-3, high: 2e-2, log: true}\nweight_decay: {low: 1e-8, high: 1e-3, log: true}\n"
    Path("space.yaml").write_text(ranges, encoding="utf-8")
    earlier = {"learning_rate": 0.5, "embedding_size": 8}
    Path("properties/tuned/BPR-toy.yaml").write_text(yaml.safe_dump(earlier), encoding="utf-8")
    second = found()
    first, next_, _ = (trial["settings"] for trial in report()["trials"])
    assert first == {"learning_rate": 0.001, "weight_decay": 1e-8}, "zero is the range's end"
    assert next_ == {"learning_rate": 0.02, "weight_decay": 1e-8}, "what it does not say is as the model is set"
    assert report()["earlier"] == earlier and report()["sampler"].endswith("then the best of an earlier search")
    assert found().settings == second.settings and report()["earlier"] == earlier, "not its own"


def test_a_search_does_not_go_on_with_other_data(here: list[str], monkeypatch: pytest.MonkeyPatch):
    found(replace(_SEARCH, trials=1))
    (path,) = Path("dataset/toy").glob("*.train.inter")
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(True)[:-1]), encoding="utf-8")
    monkeypatch.setattr(RunTrainer, "fit", lambda *what, **options: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"the data of toy changed while BPR-toy was tuned; delete .* to begin anew"):
        found()


def test_weights_of_modalities_are_searched_by_their_names(here: list[str]):
    search = Search("ContentKNN", "toy", 6, settings={"use_modalities": ["look", "smell"], "use_gpu": False})
    Path("properties/tune").mkdir(parents=True)
    Path("properties/tune/ContentKNN.yaml").write_text("modality_weight: {share_of_one: [0.9]}\n", encoding="utf-8")
    best = found(search).settings["modality_weight"]
    told = report(Path("results/tuning/ContentKNN-toy.json"))
    known = [None, {"look": 0.9, "smell": 0.1}, {"look": 0.1, "smell": 0.9}]
    assert told["space"]["ranges"] == {"modality_weight": known} and best in known
    tried = [trial["settings"]["modality_weight"] for trial in told["trials"]]
    assert tried[0] is None and len({str(weight) for weight in tried}) > 1, "what it is set to first"
    assert yaml.safe_load(Path("properties/tuned/ContentKNN-toy.yaml").read_text(encoding="utf-8"))
    assert "{look: 0.9, smell: 0.1}" in Path("results/tuning/ContentKNN-toy.html").read_text(encoding="utf-8")


def test_a_second_search_draws_what_the_first_did_not(here: list[str]):
    found(replace(_SEARCH, trials=4))
    first = [trial["settings"] for trial in report()["trials"]]
    Path(_JOURNAL).unlink()
    found(replace(_SEARCH, trials=4))
    second = [trial["settings"] for trial in report()["trials"]]
    rates = [{trial["learning_rate"] for trial in trials} for trials in (first, second)]
    assert len(rates[0] & rates[1]) == 2, "what it is set to, and the best of the first"


def test_patience_is_told_in_epochs(here: list[str], monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    request = tuning._request
    monkeypatch.setattr(tuning, "_request", lambda *what: asked.append(what[5]) or request(*what))
    found(replace(_SEARCH, trials=1, settings={**_SETTINGS, "epochs": 6, "eval_step": 3, "stopping_step": 2}))
    assert asked == [6] and report()["pruner"].endswith("after 12 epochs")
    assert len(report()["trials"][0]["curve"]) == 2 and report()["trials"][0]["best_epoch"] in (2, 5)


def test_what_a_study_has_found_itself_is_no_earlier_search(here: list[str]):
    found(replace(_SEARCH, trials=1))
    (name,) = optuna.get_all_study_names(studies.storage(_JOURNAL))
    journal = Path(_JOURNAL)
    journal.write_text("".join(line for line in journal.read_text().splitlines(True) if '"earlier"' not in line))
    assert "earlier" not in optuna.load_study(study_name=name, storage=studies.storage(_JOURNAL)).user_attrs
    found()
    assert report()["earlier"] is None and len(report()["trials"]) == 3


def test_a_search_goes_on_to_its_budget_and_no_further(here: list[str]):
    found(replace(_SEARCH, trials=1))
    found()
    assert len(here) == 3
    score = found().score
    assert len(here) == 3 and len(report()["trials"]) == 3
    found(replace(_SEARCH, trials=2))  # the best of two is one of the first two
    assert len(here) == 3 and [trial["number"] for trial in report()["trials"]] == [0, 1]
    assert found().score == score


def test_a_search_ends_when_its_minutes_are_over(here: list[str]):
    found(replace(_SEARCH, minutes=1e-6))
    assert len(here) == len(report()["trials"]) == 1


def test_minutes_are_minutes():
    search = replace(_SEARCH, minutes=2)
    spent = [SimpleNamespace(user_attrs={"seconds": 60.0}), SimpleNamespace(user_attrs={"seconds": 59.0})]
    assert not _over(search, spent)
    assert _over(search, [*spent, SimpleNamespace(user_attrs={"seconds": 1.0})])


@pytest.mark.parametrize("where", ["sqlite:///study.db", "elsewhere/study.journal"])
def test_a_study_is_kept_where_it_is_asked_to_be(where: str, here: list[str]):
    first = found(storage=where)
    assert Path(where.removeprefix("sqlite:///")).is_file() and not Path(_JOURNAL).exists()
    assert found(storage=where).score == first.score and len(here) == 3 == len(trials(where))


def _other_settings() -> Search:
    return replace(_SEARCH, settings={**_SETTINGS, "epochs": 5})


def _other_ranges() -> Search:
    Path("space.yaml").write_text(_SPACE.replace("16", "32"), encoding="utf-8")
    return _SEARCH


def _other_properties() -> Search:
    Path("properties/overall.yaml").write_text("stopping_step: 3\n", encoding="utf-8")
    return _SEARCH


def _other_content_of_a_file() -> Search:
    Path("c.yaml").write_text("seed: 9\n", encoding="utf-8")
    return _SEARCH


@pytest.mark.parametrize("change", [_other_settings, _other_ranges, _other_properties, _other_content_of_a_file])
def test_a_study_of_other_settings_is_not_gone_on_with(change: Callable[[], Search], here: list[str]):
    Path("c.yaml").write_text("seed: 8\n", encoding="utf-8")
    Path("properties").mkdir()
    search = replace(_SEARCH, config_files=("c.yaml",), trials=1)
    found(search)
    other = replace(change(), config_files=("c.yaml",), trials=2)
    with pytest.raises(UserError, match=r"BPR-toy.journal was begun with other settings( or ranges)?; delete it"):
        found(other)
    found(replace(other, label="again", trials=1))
    assert here == ["BPR-toy trial 0", "again-toy trial 0"] and len(trials()) == 1


def test_trials_that_fail_count_and_are_reported(here: list[str]):
    Path("space.yaml").write_text("learning_rate: [0.01, 1.0e+30]\n", encoding="utf-8")
    found(replace(_SEARCH, trials=5))
    states = report()["states"]
    assert len(here) == 5 and set(states) == {"complete", "fail"} and sum(states.values()) == 5
    for trial in report()["trials"]:
        failed = trial["settings"]["learning_rate"] == 1e30
        assert (trial["state"] == "fail") is failed is bool(trial["error"])
        assert not failed or trial["error"].startswith("loss term loss became")
    assert report()["best"]["settings"] == {"learning_rate": 0.01}


def test_a_search_without_a_good_trial_ends_in_one_line(here: list[str]):
    Path("space.yaml").write_text("learning_rate: [1.0e+29, 1.0e+30]\n", encoding="utf-8")
    for _ in range(2):  # the second call finds the budget spent, and says the same
        with pytest.raises(UserError) as error:
            found(replace(_SEARCH, trials=2))
        assert str(error.value).startswith("no trial of BPR-toy ended well: loss term loss became")
        assert str(error.value).endswith("; delete results/tuning/BPR-toy.journal to begin anew")
        assert "\n" not in str(error.value)
    assert len(here) == 2 and not _REPORT.exists()


def test_a_trial_whose_process_dies_counts_with_its_reason(monkeypatch: pytest.MonkeyPatch):
    def carry_out(jobs: Iterable[Job], places: Any, watcher: Watcher) -> None:
        for number, job in enumerate(jobs):
            if number == 1:
                asked = job.request
                study = studies.open_study(asked["storage"], asked["study"], True, 0, 3, 3)
                watcher.told(job, {"trial": study.ask().number})
                time.sleep(0.1)
                watcher.ended(job, {"failed": "the process was killed by signal 9"})
            else:
                worker.trial(job.request, lambda message, job=job: watcher.told(job, message))
                watcher.ended(job, None)

    monkeypatch.setattr(tuning, "carry_out", carry_out)
    found()
    assert [trial["state"] for trial in report()["trials"]] == ["complete", "fail", "complete"]
    assert report()["trials"][1]["error"] == "the process was killed by signal 9"
    assert 0.1 <= report()["trials"][1]["seconds"] < 60, "it counts against minutes as well"


def test_processes_that_cannot_begin_spend_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tuning, "_WORKER", "no_such_module")
    with pytest.raises(UserError) as error:
        found(replace(_SEARCH, trials=2))
    assert str(error.value) == (
        "only 0 of 2 trials of BPR-toy ended (the process ended with code 1); the same command goes on"
    )


def _asked(search: Search = _SEARCH, n_trials: int = 10) -> dict[str, Any]:
    space, _ = tuning.load_space(search.model, search.space)
    return tuning._request(replace(search, label="s", trials=n_trials), space, "s.journal", True, 0, 3, 0)


def test_a_budget_that_others_have_spent_is_not_exceeded():
    told: list[dict[str, Any]] = []
    asked = _asked(n_trials=2)
    numbers = [worker.trial(asked, told.append) for _ in range(3)]
    assert numbers == [0, 1, None] and len(trials("s.journal")) == 2


def test_no_two_trials_draw_the_same_settings(here: list[str]):
    drawn = []
    for _ in range(4):  # as four machines would that begin at once
        worker.trial(_asked(), lambda message: None)
        drawn.append(str(trials("s.journal")[-1].params))
    assert len(set(drawn)) == 4
    found(replace(_SEARCH, label="alone"))
    alone = [str(trial.params) for trial in trials("results/tuning/alone-toy.journal")]
    assert alone[1:] == drawn[1:3]  # and one process as they would, but for the shipped settings, which it tries first


def test_what_a_killed_process_left_locked_is_free_again(here: list[str]):
    Path("results/tuning").mkdir(parents=True)
    Path(f"{_JOURNAL}.lock").touch()
    started = time.monotonic()
    found(replace(_SEARCH, trials=1))
    assert time.monotonic() - started < 10


def test_a_trial_is_pruned_by_its_validation_curve_alone(monkeypatch: pytest.MonkeyPatch):
    curves = [[0.5] * 9, [0.6] * 9, [0.4] * 9]
    # The best so far is held against the lowest quarter: the fourth is below the median and above that, a good start
    # saves the fifth, a late rise the sixth.
    curves += [[0.47] * 9, [0.5] * 6 + [0.3] * 3, [0.1] * 6 + [0.7] * 3, [0.1] * 9, [0.9] * 9]
    reached: list[int] = []

    def scripted(*what: Any) -> Validation:
        curve, on_epoch = curves[len(reached)], what[5]
        reached.append(0)
        for epoch, score in enumerate(curve):
            reached[-1] += 1
            on_epoch(epoch, score)
        return Validation(max(curve), {}, 0, len(curve), 1.0, "0" * 64, [])

    monkeypatch.setattr(quick_start, "validate", scripted)
    for _ in curves:
        worker.trial(_asked(), lambda message: None)
    states = [trial.state for trial in trials("s.journal")]
    assert states == [TrialState.COMPLETE] * 6 + [TrialState.PRUNED, TrialState.COMPLETE]
    assert reached == [9] * 6 + [7, 9]  # after twice a patience of three
    pruned = trials("s.journal")[6]
    assert pruned.intermediate_values == dict.fromkeys(range(7), 0.1)
    assert "seconds" in pruned.user_attrs  # which a budget of minutes counts
    assert len(studies.spent(optuna.load_study(study_name="s-toy", storage=studies.storage("s.journal")))) == 8


@pytest.mark.parametrize("model", ["BPR", "DiffMM"])
def test_no_number_of_a_search_depends_on_the_test_split(model: str, here: list[str]):
    bundled.prepare("toy", "original")
    Path("properties/dataset").mkdir(parents=True)
    seen = []
    for name in ("one", "two"):
        shutil.copy(properties_dir() / "dataset/toy.yaml", f"properties/dataset/{name}.yaml")
        folder = Path("dataset") / name
        folder.mkdir(parents=True)
        for file in Path("original/toy").iterdir():
            shutil.copy(file, folder / file.name.replace("toy.", f"{name}."))
        if name == "two":
            # The same users and items, differently paired; items keep their order, which decides their numbers.
            header, *lines = (folder / "two.test.inter").read_text(encoding="utf-8").splitlines()
            users, items = zip(*(line.split("\t") for line in lines), strict=True)
            paired = [f"{user}\t{item}" for user, item in zip(users[20:] + users[:20], items, strict=True)]
            assert len(set(paired) & set(lines)) < len(lines) / 4
            (folder / "two.test.inter").write_text("\n".join([header, *paired]) + "\n", encoding="utf-8")
        best = found(replace(_SEARCH, model=model, dataset=name, trials=4))
        content = report(Path(f"results/tuning/{model}-{name}.json"))
        runs = [(trial["settings"], trial["curve"], trial["score"]) for trial in content["trials"]]
        seen.append((runs, best.settings, best.score, content["split_hash"]))
    one, two = seen
    assert one[:3] == two[:3]
    assert one[3] != two[3] and len({str(curve) for _, curve, _ in one[0]}) > 1


@pytest.mark.parametrize(("model", "protocol"), [("BPR", "recbole"), ("BPR", "paper"), ("DiffMM", "recbole")])
def test_a_trial_never_reads_test_data(model: str, protocol: str, monkeypatch: pytest.MonkeyPatch):
    splits: dict[str, Any] = {}
    load_splits, evaluate = quick_start.load_splits, RunTrainer.evaluate

    def guarded(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
        train, valid, test = load_splits(config, dataset)

        def forbidden(*_: Any) -> None:
            raise AssertionError("a trial has asked for test data")

        test.__class__ = type("Forbidden", (type(test),), {"__iter__": forbidden, "collate_fn": forbidden})
        with pytest.raises(AssertionError, match="asked for test data"):
            next(iter(test))
        splits.update(valid=valid, test=test)
        return train, valid, test

    def validation_only(self: Any, eval_data: Any, *args: Any, **kwargs: Any) -> Any:
        assert eval_data is splits["valid"], "a trial has judged by something else than validation"
        splits["judged"] = splits.get("judged", 0) + 1
        return evaluate(self, eval_data, *args, **kwargs)

    monkeypatch.setattr(quick_start, "load_splits", guarded)
    monkeypatch.setattr(RunTrainer, "evaluate", validation_only)
    search = replace(_SEARCH, model=model, settings={**_SETTINGS, "protocol": protocol})
    assert worker.trial(_asked(search), lambda message: None) == 0
    assert splits["judged"] == 4 and trials("s.journal")[0].state == TrialState.COMPLETE


_LONG = {"epochs": 60, "stopping_step": 60, "train_batch_size": 128, "use_gpu": False}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_killed_search_tries_the_interrupted_settings_again(tmp_path: Path):
    Path("space.yaml").write_text("learning_rate: {low: 0.002, high: 0.1, log: true}\n", encoding="utf-8")
    settings = [f"--{key}={json.dumps(value)}" for key, value in _LONG.items()]
    command = [sys.executable, "-m", "recbole_diffmm", "tune", "-m", "BPR", "-d", "toy", "--trials", "3"]
    parent = subprocess.Popen(
        [*command, "--space", "space.yaml", "--workers", "1", *settings], stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 90
        interrupted: list[FrozenTrial] = []
        while not interrupted:
            assert time.monotonic() < end and parent.poll() is None
            time.sleep(0.05)
            if Path(_JOURNAL).exists():
                running = [trial for trial in _trials_so_far() if trial.state == TrialState.RUNNING]
                interrupted = [trial for trial in running if len(trial.intermediate_values) > 1]
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(10)
    search = replace(_SEARCH, settings=_LONG)
    best = found(search, workers=2)
    counted = studies.spent(optuna.load_study(study_name="BPR-toy", storage=studies.storage(_JOURNAL)))
    assert len(counted) == 3 == len(report()["trials"]) and report()["states"] == {"complete": 3}
    (lost,) = [trial for trial in trials() if trial not in counted]
    assert lost.number == interrupted[0].number and lost.state == TrialState.FAIL
    assert [trial.params for trial in counted].count(interrupted[0].params) == 1  # drawn from a continuous range
    assert len(lost.intermediate_values) < _LONG["epochs"]
    # Two at once on one study.
    late = [trial for trial in counted if trial.number > lost.number]
    spans = sorted((trial.datetime_start, trial.datetime_complete) for trial in late)
    assert any(second[0] < first[1] for first, second in pairwise(spans))
    again = validate("BPR", "toy", ["properties/tuned/BPR-toy.yaml"], {**_LONG, "show_progress": False})
    assert again.score == best.score


def _trials_so_far() -> list[FrozenTrial]:
    try:
        return trials()
    except (UserError, ValueError):  # before the study is in its file
        return []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-d", "toy"], "no model to tune: give --model NAME, or --board NAME"),
        (
            ["--board", "quick", "--space", "space.yaml"],
            "--board says everything but the row",
        ),
        (["--board", "quick", "--epochs=3"], "--board says everything but the row"),
        (["--board", "quick", "--trials", "3"], "--board says everything but the row"),
        (["--board", "quick", "-m", "LigthGCN"], "LigthGCN is no tuned row of board quick; did you mean LightGCN?"),
        (["--board", "nosuch"], "no leaderboard nosuch"),
        (["-m", "BRP", "-d", "toy", "--space", "space.yaml"], "unknown model 'BRP'; did you mean BPR?"),
        (["-m", "Pop", "-d", "toy"], "there is no properties/tune/Pop.yaml; write one, or give --space FILE"),
        (["-m", "BPR", "-d", "toy", "--trials", "0"], "--trials is 0; give at least 1"),
        (["-m", "BPR", "-d", "toy", "--minutes", "0"], "--minutes is 0; give more than 0"),
        (["-m", "BPR", "-d", "toy", "--workers", "0"], "--workers is 0; give at least 1"),
        (["-m", "BPR", "-d", "tyo"], "unknown dataset 'tyo'"),
        (["-m", "BPR", "-d", "toy", "--learning_rate=0.1"], "BPR.yaml searches learning_rate, which is set to 0.1"),
        (["-m", "BPR", "-d", "toy", "--space", "odd.yaml"], "odd.yaml searches 'learning_rat', which is no setting"),
        (["-m", "BPR", "-d", "toy", "--storage", "nosuch://x"], "storage nosuch://x cannot be opened"),
        (["-m", "BPR", "-d", "toy", "--storage", "broken"], "storage broken cannot be opened"),
    ],
)
def test_a_mistake_ends_with_code_2_and_one_line(
    arguments: list[str], line: str, here: list[str], capsys: pytest.CaptureFixture[str]
):
    Path("odd.yaml").write_text("learning_rat: [1, 2]\n", encoding="utf-8")
    Path("broken").write_text("no journal\n" * 3, encoding="utf-8")
    assert main(["tune", *arguments]) == 2
    assert here == []
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"error: {line}")


def test_the_best_values_at_an_end_of_their_range_are_told():
    space = {
        "log": Range(kind="float", low=1e-4, high=1.0, log=True),
        "whole": Range(kind="int", low=0, high=100),
        "choice": Range(kind="choice", values=(1, 2, 3)),
        "pair": Range(kind="choice", values=(1, 2)),
        "words": Range(kind="choice", values=("a", "b", "c")),
    }
    middle = {"log": 0.01, "whole": 50, "choice": 2, "pair": 1, "words": "a"}
    assert at_edge(space, middle) == []  # with two values each is an end, and words have none
    assert at_edge(space, {**middle, "log": 1.2e-4, "whole": 99, "choice": 3}) == ["log", "whole", "choice"]
    # Below zero there is nothing that a wider range could hold.
    assert at_edge(space, {**middle, "log": 0.9, "whole": 1, "choice": 1}) == ["log", "choice"]


def test_missing_optuna_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "recbole_diffmm.tuning.study")
    monkeypatch.delattr("recbole_diffmm.tuning.study", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r'optuna, which is not installed; run: pip install "recbole-diffmm\[tune\]"'):
        found()


def test_a_boards_rows_are_tuned_with_the_boards_budget(here: list[str], capsys: pytest.CaptureFixture[str]):
    Path("properties/tune").mkdir(parents=True)
    Path("properties/tune/BPR.yaml").write_text("learning_rate: [0.01, 0.02]\n", encoding="utf-8")
    rows = ["BPR", {"model": "BPR", "label": "wide", "settings": {"embedding_size": 128}}]
    models = [*rows, {"model": "Pop", "untuned": "it has no settings"}]
    board = write(Path("b.yaml"), models=models, settings=_SETTINGS, tuning={"trials": 2})
    spec = load_spec(board)
    with pytest.raises(UserError, match=r"BPR on toy is not tuned \(results/tuning/b/BPR-toy.json is missing\)"):
        tuning_words(spec)
    assert main(["tune", "--board", "b.yaml", "--workers", "1"]) == 0
    assert len(here) == 4 and "BPR-toy: validation 0." in capsys.readouterr().out
    split = report(Path("results/tuning/b/BPR-toy.json"))["split_hash"][:12]
    assert tuning_words(spec) == {
        ("BPR", "toy"): f"2 trials in under a minute, on validation Recall@20 of split {split}",
        ("wide", "toy"): f"2 trials in under a minute, on validation Recall@20 of split {split}",
        ("Pop", "toy"): "not tuned: it has no settings",
    }
    assert report(Path("results/tuning/b/wide-toy.json"))["settings"] == {**_SETTINGS, "embedding_size": 128}
    assert [run.config_files for run in tasks(spec)][::2] == [
        ("properties/tuned/b/BPR-toy.yaml",),
        ("properties/tuned/b/wide-toy.yaml",),
        (),
    ]
    Path("results/tuning/b/BPR-toy.journal").unlink()
    assert main(["tune", "--board", "b.yaml", "-m", "BPR", "--workers", "1"]) == 0
    assert tuning_words(spec)["BPR", "toy"] == (
        f"2 more trials in under a minute, on validation Recall@20 of split {split}"
    )
    tuned = Path("properties/tuned/b/BPR-toy.yaml")
    found_there = tuned.read_text(encoding="utf-8")
    tuned.write_text("learning_rate: 0.5\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"BPR-toy.yaml is not what results/tuning/b/BPR-toy.json found"):
        tuning_words(spec)
    tuned.write_text(found_there, encoding="utf-8")
    # neither another board's search nor one without a board touches what this one found
    other = load_spec(write(Path("other.yaml"), models=models, settings=_SETTINGS, tuning={"trials": 2}))
    with pytest.raises(UserError, match=r"results/tuning/other/BPR-toy.json is missing"):
        tuning_words(other)
    assert main(["tune", "-m", "BPR", "-d", "toy", "--trials", "1", "--epochs=2", "--use_gpu=false"]) == 0
    assert Path("properties/tuned/BPR-toy.yaml").is_file()
    assert tuned.read_text(encoding="utf-8") == found_there
    assert tuning_words(spec)
    bigger = load_spec(write(board, models=models, settings=_SETTINGS, tuning={"trials": 3}))
    with pytest.raises(UserError, match=r"BPR on toy was tuned with 2 trials, the board states 3 trials for all"):
        tuning_words(bigger)
    assert [search.name for search in searches(bigger, ["wide"])] == ["wide-toy"]
    path = Path("results/tuning/b/BPR-toy.json")
    whole = report(path)
    for change, words in (
        ({"trials": whole["trials"][:1]}, r"was tuned with 1 trials of 2 alone"),
        ({"model": "LightGCN"}, r"was tuned with model LightGCN, the board has BPR"),
        ({"dataset": "ml-100k"}, r"was tuned with dataset ml-100k, the board has toy"),
        ({"settings": {**whole["settings"], "epochs": 9}}, r"was tuned with settings .*, the board has "),
        ({"config_files": ["c.yaml"]}, r"was tuned with config_files \['c.yaml'\], the board has \[\]"),
        ({"config_hashes": ["0" * 64]}, r"was tuned before .* changed"),
        ({"objective": "test Recall@20"}, r"was tuned on test Recall@20 .*; only validation may choose"),
        ({"best": {**whole["best"], "settings": {"epochs": 2}}}, r"epochs was tuned, and the board sets it too"),
    ):
        path.write_text(json.dumps({**whole, **change}), encoding="utf-8")
        with pytest.raises(UserError, match=rf"BPR on toy:? {words}"):
            tuning_words(spec)
    path.write_text(json.dumps({**whole, "budget": {**whole["budget"], "minutes": 1e-9}}), encoding="utf-8")
    # Minutes that ended nothing are no other budget than more minutes, fewer are.
    assert tuning_words(spec)["BPR", "toy"].startswith("2 more trials in ")
    cut = {"trials": whole["trials"][:1], "budget": {**whole["budget"], "minutes": 1e-9}}
    path.write_text(json.dumps({**whole, **cut}), encoding="utf-8")
    with pytest.raises(UserError, match="BPR on toy was tuned with 2 trials or 1e-09 minutes, the board"):
        tuning_words(spec)
    timed = load_spec(write(board, models=models, settings=_SETTINGS, tuning={"trials": 2, "minutes": 1e-9}))
    with pytest.raises(UserError, match="wide on toy was tuned with 2 trials, the board states 2 trials or"):
        tuning_words(timed)
    for broken in ("{", "[]", "null", "{}"):
        Path("results/tuning/b/BPR-toy.json").write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match=r"BPR-toy.json is no report of recbole-diffmm tune; delete it"):
            tuning_words(spec)


def test_a_study_of_other_code_is_not_gone_on_with(here: list[str], monkeypatch: pytest.MonkeyPatch):
    found(replace(_SEARCH, trials=1))
    monkeypatch.setattr(tuning, "code_hash", lambda model: "c" * 64)
    with pytest.raises(UserError, match=r"BPR-toy.journal was begun with other code; delete it"):
        found(replace(_SEARCH, trials=2))


def test_data_that_change_during_a_search_end_it(here: list[str]):
    found(replace(_SEARCH, trials=1))
    with Path("dataset/toy/toy.valid.inter").open("a", encoding="utf-8") as file:
        file.write("user_00\titem_40\n")
    with pytest.raises(UserError, match=r"the data of toy changed while BPR-toy was tuned"):
        found(replace(_SEARCH, trials=2))


def test_several_searches_at_a_time_share_a_database_and_not_a_journal(here: list[str]):
    with only_one(Path("results/tuning")):
        with pytest.raises(UserError, match="another leaderboard or tuning is at work"):
            found(replace(_SEARCH, trials=1))
        assert found(replace(_SEARCH, trials=1), storage="sqlite:///study.db").score > 0


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused(workers: int, here: list[str]):
    with pytest.raises(UserError, match=rf"--workers is {workers}; give at least 1"):
        found(workers=workers)


def test_an_unknown_model_names_the_nearest(here: list[str]):
    with pytest.raises(UserError, match=r"unknown model 'BRP'; did you mean BPR\?"):
        found(replace(_SEARCH, model="BRP"))
