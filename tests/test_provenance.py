"""What makes a record stale: the code that its numbers come from, and nothing else of the package."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from recbole_diffmm import provenance
from recbole_diffmm.provenance import _significant, describe_files

_SOURCE = '''"""Of a module."""

# Of a line.
SIGN = "# not a comment"  # but this is


class Model:
    """Of a class."""

    text = """
    # kept
    """

    async def step(self, x):  # why
        """Of a method

        over lines.
        """

        return x + 1
'''


def test_comments_docstrings_and_empty_lines_are_no_code():
    assert _significant(_SOURCE).splitlines() == [
        'SIGN = "# not a comment"',
        "class Model:",
        '    text = """',
        "    # kept",
        '    """',
        "    async def step(self, x):",
        "        return x + 1",
    ]


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# Of a line.", "# Of another line, longer.", True),
        ('"""Of a class."""', '"""Of\n    several lines."""', True),
        ("  # why", "", True),
        ("\n\n\nclass", "\n\nclass", True),
        ("x + 1", "x + 2", False),
        ("# kept", "# changed", False),
        ("# not a comment", "# another text", False),
        ("        return x", "        self.x = x\n        return x", False),
    ],
)
def test_what_counts_as_an_edit(old: str, new: str, same: bool):
    assert old in _SOURCE
    assert (_significant(_SOURCE.replace(old, new)) == _significant(_SOURCE)) is same


def forget() -> None:
    """Empty the caches, which hold for a process."""
    for value in vars(provenance).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


class Copy:
    """A copy of the package, to edit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def hash(self, model: str) -> str:
        forget()
        return provenance.code_hash(model)

    def edit(self, module: str, text: str = "\nEDITED = 1\n") -> None:
        path = self.folder / f"{module}.py"
        path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + text, encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / provenance.PACKAGE.name
    shutil.copytree(provenance.PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    yield Copy(folder)
    forget()


def test_the_hash_is_of_the_code_that_a_model_runs(copy: Copy):
    bpr, diffmm = copy.hash("BPR"), copy.hash("DiffMM")
    assert bpr != diffmm  # DiffMM has files of its own
    for module in ("model/xyz", "trainer/xyz", "leaderboard/make", "tuning/tune", "doctor", "data/ml_100k"):
        copy.edit(module)
    copy.edit("trainer/base", "\n# A comment.\n")
    assert (copy.hash("BPR"), copy.hash("DiffMM")) == (bpr, diffmm)
    copy.edit("model/diffmm")  # another model's file
    assert copy.hash("BPR") == bpr and copy.hash("DiffMM") != diffmm
    copy.edit("model/bpr")  # its own
    assert copy.hash("BPR") != bpr


def test_a_module_that_every_run_needs_changes_every_hash(copy: Copy):
    seen = [copy.hash("BPR"), copy.hash("DiffMM")]
    for module in ("quick_start", "config", "trainer/base", "evaluator/per_user", "data/dataset"):
        copy.edit(module)
        seen += [copy.hash("BPR"), copy.hash("DiffMM")]
    assert len(set(seen)) == len(seen)


def test_another_version_of_recbole_is_other_code(monkeypatch: pytest.MonkeyPatch):
    before = provenance.code_hash("BPR")
    forget()
    monkeypatch.setattr(provenance, "_version", lambda package: "9.9")
    assert provenance.code_hash("BPR") != before
    forget()


def test_the_files_of_the_data_are_told_by_their_content(tmp_path: Path):
    names = ["d.train.inter", "d.valid.inter", "d.test.inter", "d.item", "look.npy", "look.ids"]
    for name in [*names, "d.inter", "other.npy"]:
        (tmp_path / name).write_text(name, encoding="utf-8")
    config = {
        "benchmark_filename": ["train", "valid", "test"],
        "modalities": {"look": {"features": "look.npy", "ids": "look.ids"}},
    }
    files = describe_files(tmp_path, SimpleNamespace(dataset_name="d"), config)
    assert files == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    unnamed = {**config, "modalities": {"look": {"features": "look.npy"}}}  # look.ids is found beside it
    assert describe_files(tmp_path, SimpleNamespace(dataset_name="d"), unnamed) == files
    whole = describe_files(tmp_path, SimpleNamespace(dataset_name="d"), {"benchmark_filename": None, "modalities": {}})
    assert list(whole) == ["d.inter", "d.item"]


@pytest.mark.parametrize(
    ("changes", "dirty", "of_bpr"),
    [
        ("", False, False),
        (" M recbole_diffmm/quick_start.py\0", True, True),
        ("?? recbole_diffmm/model/mine.py\0 M recbole_diffmm/model/vbpr.py\0", True, False),
        ("?? recbole_diffmm/model/mine.py\0 M recbole_diffmm/config.py\0", True, True),
    ],
)
def test_code_that_was_not_committed_is_told_of_what_it_moves(
    monkeypatch: pytest.MonkeyPatch, changes: str, dirty: bool, of_bpr: bool
):
    head = f"0123abc\n{provenance.PACKAGE.parent}"
    monkeypatch.setattr(provenance, "_git", lambda folder, command, *rest: changes if command == "status" else head)
    provenance._checkout.cache_clear()
    try:
        assert provenance.commit() == {"hash": "0123abc", "dirty": dirty}
        assert provenance.code("BPR")["dirty"] is of_bpr
        monkeypatch.setattr(provenance, "_git", lambda *_: "0123abc\n/somewhere/else")
        provenance._checkout.cache_clear()
        assert provenance.commit() is None  # an environment inside another repository
    finally:
        provenance._checkout.cache_clear()


def test_a_files_hash_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.inter"
    path.write_text("one")
    before = provenance.hash_file(path)
    assert before == provenance.hash_file(path) == provenance.hash_files(path)
    path.write_text("two, of another length")
    assert provenance.hash_file(path) != before
