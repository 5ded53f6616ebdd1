"""Records of changed code are stale until their first epochs have come out the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from recbole_diffmm import provenance
from recbole_diffmm import record as records
from recbole_diffmm.cli import main
from recbole_diffmm.data import bundled
from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard import confirmed
from recbole_diffmm.leaderboard.make import make
from recbole_diffmm.leaderboard.render import render
from tests.leaderboard.test_spec import write

FOLDER = Path("results/b")
OTHER = "b" * 64  # the hash of code that came later


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a board whose four runs are done."""
    folder = tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        bundled.prepare("toy", "dataset")
        write(Path("b.yaml"), settings={"use_gpu": False, "epochs": 6})
        assert make("b.yaml", workers=1, progress=False).done == 4
    return folder


@pytest.fixture
def stale(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A copy of that folder is the current one, the code has changed, and these are the runs."""
    import shutil

    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(provenance, "code_hash", lambda model: OTHER)
    names = sorted(path.stem for path in FOLDER.glob("*-s*.json"))
    assert sorted(make("b.yaml", workers=1, progress=False).stale) == names
    return names


def confirm(epochs: int = 2, **options: Any) -> Any:
    return make("b.yaml", workers=1, progress=False, confirm_stale=epochs, **options)


def test_what_comes_out_the_same_is_not_stale_any_more(stale: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in FOLDER.glob("*-s*.json")}
    assert confirm().stale == {}
    assert make("b.yaml", workers=1, progress=False).stale == {}, "it is remembered"
    assert {path.name: path.read_bytes() for path in FOLDER.glob("*-s*.json")} == before, "no record is edited"
    found = confirmed.read(FOLDER)
    assert sorted(found) == stale
    assert {entry.code.hash for entry in found.values()} == {OTHER}
    assert {name: entry.epochs for name, entry in found.items()} == {
        name: 1 if name.startswith("Pop") else 2 for name in stale
    }
    board = render(FOLDER)
    assert board is not None
    assert not [note for group in board.groups for row in group.rows for note in row.notes if "stale" in note]
    told = "the first epochs (up to 2) of all runs were trained again by"
    assert told in (FOLDER / "board.md").read_text(encoding="utf-8")
    (FOLDER / f"{stale[0]}.json").unlink()
    confirmed.write(FOLDER, found)
    assert sorted(confirmed.read(FOLDER)) == stale[1:], "a record that is gone has no confirmation"


def test_what_comes_out_otherwise_stays_stale_and_is_told_where(stale: list[str]) -> None:
    path = FOLDER / f"{stale[0]}.json"
    content = records.load(path).model_dump()
    content["curve"][1]["losses"] = {"loss": 0.5}
    records.write(path, content)
    left = confirm().stale
    assert left == {stale[0]: "the code of BPR has changed, and so have its numbers: losses of epoch 1"}
    assert stale[0] not in confirmed.read(FOLDER)
    assert list(make("b.yaml", workers=1, progress=False).stale) == [stale[0]]


def test_what_could_not_be_trained_again_is_not_said_to_differ(
    stale: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(jobs: Any, places: Any, watcher: Any) -> None:
        for job in jobs:
            watcher.started(job)
            watcher.ended(job, {"failed": "the process was killed by signal 9"})

    monkeypatch.setattr("recbole_diffmm.leaderboard.confirm.carry_out", killed)
    told = "and whether its numbers have is not known: the process was killed by signal 9"
    assert {why.partition(", ")[2] for why in confirm().stale.values()} == {told}
    assert not (FOLDER / "confirmed.json").exists()


def test_a_confirmation_ends_with_a_validation_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole validates in the last epoch where `eval_step` is more, which the record's training did not."""
    monkeypatch.chdir(tmp_path)
    bundled.prepare("toy", "dataset")
    rows = [{"model": "BPR", "label": f"every {step}", "settings": {"eval_step": step}} for step in (4, 9)]
    write(Path("b.yaml"), models=rows, seeds=[1], settings={"use_gpu": False, "epochs": 6})
    assert make("b.yaml", workers=1, progress=False).done == 2
    monkeypatch.setattr(provenance, "code_hash", lambda model: OTHER)
    assert confirm(3).stale == {}
    assert {entry.epochs for entry in confirmed.read(FOLDER).values()} == {4, 6}


def test_a_confirmation_is_of_one_record_and_one_code(stale: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert confirm().stale == {}
    path = FOLDER / f"{stale[0]}.json"
    records.write(path, {**records.load(path).model_dump(), "finished": "later"})
    assert list(make("b.yaml", workers=1, progress=False).stale) == [stale[0]]
    monkeypatch.setattr(provenance, "code_hash", lambda model: "c" * 64)
    assert sorted(make("b.yaml", workers=1, progress=False).stale) == stale


def test_changed_data_are_not_confirmed(stale: list[str]) -> None:
    with Path("dataset/toy/toy.test.inter").open("a", encoding="utf-8") as file:
        file.write("user_00\titem_00\n")
    assert sorted(confirm().stale) == stale
    assert not (FOLDER / "confirmed.json").exists()


def test_rows_are_confirmed_one_by_one(stale: list[str]) -> None:
    assert sorted(confirm(1, rows=["Pop"]).stale) == [name for name in stale if not name.startswith("Pop")]


def test_test_is_left_alone(stale: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_diffmm.trainer.base import RunTrainer

    told: list[dict[str, Any]] = []
    settings = {"epochs": 1, "state": "WARNING", "use_gpu": False}
    asked = {"model": "BPR", "dataset": "toy", "config_files": [], "settings": settings, "validate": True}
    monkeypatch.setattr(RunTrainer, "test", lambda *_: pytest.fail("looked at test"))
    from recbole_diffmm.leaderboard.worker import _run

    assert _run(asked, told.append) == ""
    assert set(told[-1]["curve"][0]) == {"epoch", "losses", "seconds", "valid", "diagnostics"}


def test_a_record_without_epochs_is_not_confirmed(stale: list[str]) -> None:
    record = records.load(FOLDER / f"{stale[0]}.json")
    assert confirmed.first_difference([], [], 0) is not None
    assert confirmed.first_difference(record.curve, record.curve[:1], 2) == "it ended after 1 epochs"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--confirm_stale", "-1"], "--confirm_stale is -1; give at least 1 epoch"),
        (["--confirm_stale", "0"], "--confirm_stale is 0; give at least 1 epoch"),
        (["--confirm_stale", "--scheduler", "x"], "--confirm_stale trains on this machine; leave --scheduler out"),
    ],
)
def test_what_cannot_be_is_told(
    arguments: list[str], line: str, stale: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["leaderboard", "b.yaml", *arguments]) == 2
    assert line in capsys.readouterr().err


def test_a_list_that_cannot_be_read_is_told(stale: list[str]) -> None:
    for text in ("{", json.dumps({"schema_version": 1, "runs": {"a": {}}})):
        (FOLDER / "confirmed.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"confirmed.json: is no list of confirmed runs .*delete it"):
            make("b.yaml", workers=1, progress=False)


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """The package of now, in another folder."""
    import shutil

    folder = tmp_path / "before"
    for part in ("recbole_diffmm", "properties"):
        shutil.copytree(repository / part, folder / part)
    return folder


def _on_another_machine(names: list[str]) -> None:
    """Records whose digits are not those of this machine."""
    for name in names:
        path = FOLDER / f"{name}.json"
        content = records.load(path).model_dump()
        content["curve"][0]["losses"] = {"loss": 0.5}
        records.write(path, content)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="--against needs Python 3.11")
def test_the_code_of_the_records_is_asked_where_digits_differ(stale: list[str], checkout: Path) -> None:
    _on_another_machine(stale)
    assert sorted(confirm().stale) == stale
    assert confirm(against=checkout).stale == {}
    found = confirmed.read(FOLDER)
    assert sorted(found) == stale
    for name, entry in found.items():
        assert entry.against is not None
        assert entry.against.hash == records.load(FOLDER / f"{name}.json").code.hash != entry.code.hash
    assert make("b.yaml", workers=1, progress=False).stale == {}
    render(FOLDER)
    told = "of all runs were trained again by"
    text = (FOLDER / "board.md").read_text(encoding="utf-8")
    assert told in text and "both on one machine, the same to the last digit" in text
    assert sorted(path.name for path in FOLDER.glob("*-s*.json")) == [f"{name}.json" for name in stale]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="--against needs Python 3.11")
def test_code_that_gives_other_numbers_is_not_confirmed(
    stale: list[str], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held against the present code is the other checkout's training, and only code that made the records."""
    loop = checkout / "recbole_diffmm" / "trainer" / "loop.py"
    text = loop.read_text(encoding="utf-8")
    told = "return torch.stack([term.detach().reshape(()) for term in terms])"
    assert text.count(told) == 1
    loop.write_text(text.replace(told, f"{told} + 1"), encoding="utf-8")
    left = confirm(against=checkout).stale
    assert sorted(left) == stale
    assert all("holds other code of" in why for why in left.values())
    # As if that code had made them.
    from recbole_diffmm.leaderboard import earlier

    hashes = {name: records.load(FOLDER / f"{name}.json").code.hash for name in stale}
    codes = earlier.Earlier.codes
    asked = lambda self, models: {  # noqa: E731
        model: code.model_copy(update={"hash": next(h for n, h in hashes.items() if n.startswith(model))})
        for model, code in codes(self, models).items()
    }
    monkeypatch.setattr(earlier.Earlier, "codes", asked)
    left = confirm(against=checkout).stale
    assert sorted(left) == stale
    for name, why in left.items():
        assert why.endswith("and so have its numbers: losses of epoch 0"), name


@pytest.mark.skipif(sys.version_info < (3, 11), reason="--against needs Python 3.11")
def test_a_checkout_that_cannot_be_asked_is_told(
    stale: list[str], checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"--against nowhere: no recbole_diffmm/ there; give a checkout"):
        confirm(against=Path("nowhere"))
    (checkout / "recbole_diffmm" / "provenance.py").write_text("import nothing_such\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"its code does not tell what it is .*nothing_such"):
        confirm(against=checkout)
    assert main(["leaderboard", "b.yaml", "--against", "before"]) == 2
    assert "give that too" in capsys.readouterr().err
