"""The package as a user gets it: a wheel, in an environment that has nothing of the clone, in another folder."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RECBOLE_"))}
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling (extra: test)")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, repository, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel installed and the heavy dependencies lent to it, but not the clone.

    A path line of a ``.pth`` file lends the packages of a site-packages folder without reading the ``.pth`` files in
    it, and it is by such a file that an editable install points at its clone.
    """
    environment = tmp_path_factory.mktemp("elsewhere") / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment.parent)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    _run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=environment.parent)
    (site_packages,) = (environment / "lib").glob("python*/site-packages")
    (site_packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_wheel_holds_package_and_properties(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for yaml in (repository / "properties").rglob("*.yaml"):
        assert f"recbole_diffmm/properties/{yaml.relative_to(repository / 'properties').as_posix()}" in names
    for path in (repository / "recbole_diffmm").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(repository).as_posix() in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/")) or name.endswith(".pyc")]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_trains_away_from_the_clone(elsewhere: Path, repository: Path, tmp_path: Path) -> None:
    where = _run(
        elsewhere / "bin" / "python", "-c", "import recbole_diffmm; print(recbole_diffmm.__file__)", cwd=tmp_path
    ).stdout.strip()
    assert Path(where).is_relative_to(elsewhere), f"imported from {where}: the clone leaked in"

    console = elsewhere / "bin" / "recbole-diffmm"
    _run(console, "run", "--model=DiffMM", "--dataset=toy", "--epochs=2", "--show_progress=false", cwd=tmp_path)
    (record,) = [path for path in tmp_path.rglob("*.json") if path.is_relative_to(tmp_path / "results")]
    test = json.loads(record.read_text())["metrics"]["test"]
    assert test and all(math.isfinite(value) for value in test.values())
    assert str(repository) not in record.read_text()


def test_makes_a_board_away_from_the_clone(elsewhere: Path, tmp_path: Path) -> None:
    board = "title: Away\ndatasets: [toy]\nseeds: [1, 2]\nsettings: {epochs: 2, use_gpu: false}\nmodels: [BPR, Pop]\n"
    (tmp_path / "away.yaml").write_text(board)
    told = _run(elsewhere / "bin" / "recbole-diffmm", "leaderboard", "away.yaml", cwd=tmp_path).stdout
    assert "users tested: 60" in told
    folder = tmp_path / "results" / "away"
    assert len(list(folder.glob("*.per_user.parquet"))) == 4
    for name in ("index.html", "board.md", "board.csv", "board.tex", "../index.html"):
        assert (folder / name).stat().st_size > 200


def test_every_import_is_declared(repository: Path) -> None:
    """What the lent packages would hide: an import that no dependency of the package brings."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    brought = [extras[name] for name in ("ncl", "ldiffrec", "leaderboard", "tune", "cluster", "energy")]
    lines = [*project["dependencies"], *(line for extra in brought for line in extra)]
    declared = {_normal(re.match(r"[\w.-]+", line).group()) for line in lines}
    providers = packages_distributions()
    missing = {}
    for path in (repository / "recbole_diffmm").rglob("*.py"):
        for module in _imported(path):
            if module in sys.stdlib_module_names or module == "recbole_diffmm":
                continue
            # ray is only looked for, and hyperopt belongs to whoever tunes with RecBole's own tools.
            if module in {"ray", "hyperopt"}:
                continue
            # Python 3.10 looks into top_level.txt alone, which scikit-learn has not.
            names = {_normal(name) for name in providers.get(module, [module.replace("sklearn", "scikit-learn")])}
            if not names & declared:
                missing[str(path.relative_to(repository))] = module
    assert not missing


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_agrees_with_metadata(repository: Path) -> None:
    """Every declared dependency is in the lock once for each supported Python, at a version the range admits."""
    from packaging.requirements import Requirement

    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = [line.split("#")[0].strip() for line in (repository / "constraints.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    for python in ("3.10", "3.11", "3.12", "3.13"):
        here = {"python_version": python, "sys_platform": "linux"}
        locked: dict[str, str] = {}
        for pin in pins:
            if pin.marker is None or pin.marker.evaluate(here):
                assert _normal(pin.name) not in locked, f"{pin.name} is locked twice for Python {python}"
                (version,) = pin.specifier
                assert version.operator == "=="
                locked[_normal(pin.name)] = version.version
        extras = project["optional-dependencies"]
        brought = [line for extra in ("test", "leaderboard", "tune", "cluster", "ncl") for line in extras[extra]]
        assert "recbole-diffmm[leaderboard,tune,cluster,ncl]" in brought
        for line in [*project["dependencies"], *brought]:
            if line.startswith("recbole-diffmm["):  # these very extras
                continue
            wanted = Requirement(line)
            if wanted.name == "recbole":  # installed beside the lock: see the Makefile
                continue
            assert wanted.specifier.contains(locked[_normal(wanted.name)]), f"Python {python}: {line}"
    assert "torch==2.13.0" in lines


def test_the_lowest_versions_are_those_of_the_metadata(repository: Path) -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = (repository / "constraints-lowest.txt").read_text().splitlines()
    lowest = {pin.name: str(pin.specifier) for pin in map(Requirement, filter(re.compile("^[a-z]").match, lines))}
    extras = project["optional-dependencies"]
    ours = [line for extra in ("leaderboard", "tune", "cluster", "ncl") for line in extras[extra]]
    ranges = [Requirement(line) for line in [*project["dependencies"], *ours, *extras["test"]]]
    bounds = {wanted.name: _lower_end(wanted.specifier) for wanted in ranges}
    # RecBole is installed beside; torch is pinned, and brings setuptools and a later typing-extensions.
    apart = {"recbole", "recbole-diffmm", "torch", "setuptools", "typing-extensions"}
    needed = {Requirement(line).name for line in [*project["dependencies"], *ours]} - apart
    assert needed <= lowest.keys()
    for name in lowest.keys() - apart:
        assert lowest[name] == bounds[name].replace(">=", "=="), name


def _lower_end(specifiers: Iterable[object]) -> str:
    return "".join(str(one) for one in specifiers if str(one).startswith((">=", "==")))
