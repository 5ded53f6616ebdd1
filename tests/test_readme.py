"""The README's commands are understood as they stand, and its set-up is the Makefile's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from recbole_diffmm.cli import _parser
from recbole_diffmm.compare import _split_overrides
from recbole_diffmm.config import Config
from recbole_diffmm.data.bundled import BUNDLED
from recbole_diffmm.sources import parse_overrides

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
BLOCKS = "\n".join(text for language, text in FENCES if not language).replace("\\\n", " ")
PROGRAM = re.compile(r"^(?:\.venv/bin/)?(python run\.py|recbole-diffmm)\b(.*)$", re.MULTILINE)
COMMANDS = [
    ["run", *words] if program.startswith("python") else words
    for program, rest in PROGRAM.findall(BLOCKS)
    if (words := shlex.split(rest, comments=True)) != ["run", "..."]
]


def test_there_are_commands() -> None:
    assert {words[0] for words in COMMANDS} >= {
        "run",
        "compare",
        "leaderboard",
        "tune",
        "convert",
        "evaluate",
        "models",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_understood(words: list[str], repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if words == ["--help"]:
        return
    given, settings = _parser().parse_known_args(words)
    assert given.takes_settings or not settings
    if given.command not in {"run", "compare"}:
        return
    for name in ("a.yaml", "b.yaml"):
        Path(name).write_text("epochs: 1\n")
    files = [str(repository / file) if file.startswith("properties/") else file for file in given.config_files.split()]
    dataset = given.dataset or "ml-100k"
    if dataset not in BUNDLED:
        (Path("dataset") / dataset).mkdir(parents=True)
    models = given.models.split(",") if given.command == "compare" else [given.model or "DiffMM"]
    shared, own = _split_overrides(models, parse_overrides(settings))
    for model in models:
        Config(model, dataset, files, None, {**shared, **own[model]})


def test_the_set_up_is_the_makefiles(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    (lock,) = re.findall(r"^CONSTRAINTS := (.*)$", makefile, re.MULTILINE)
    for line in re.findall(r"-m pip install (.*)", BLOCKS):
        assert line in makefile.replace("--disable-pip-version-check ", "").replace("$(CONSTRAINTS)", lock)
    (compare,) = re.findall(r"^\.venv/bin/recbole-diffmm compare (.*)$", BLOCKS, re.MULTILINE)
    assert compare in makefile
