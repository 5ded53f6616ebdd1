"""Every model that can be run is listed with its paper, what it reads and what it was tuned on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recbole_diffmm import catalogue, registry
from recbole_diffmm.catalogue import OURS, THEIRS, Entry, render
from recbole_diffmm.sources import properties_dir, read_yaml


@pytest.fixture(scope="module")
def entries() -> dict[str, Entry]:
    return {entry.name: entry for entry in catalogue.catalogue()}


def test_every_model_is_listed_with_what_its_module_says_of_its_paper(entries: dict[str, Entry]) -> None:
    assert list(entries) == registry.model_names()
    for entry in entries.values():
        assert entry.title and not entry.title.endswith(".")
        assert (entry.year is None) == (entry.venue == "")
        assert entry.year is None or 2001 <= entry.year <= 2026
    papers = {name: (entry.venue, entry.year) for name, entry in entries.items()}
    compared = {name for name, entry in entries.items() if entry.year and (entry.package == OURS or entry.tuned)}
    links = {name: entries[name].link for name in compared}
    assert links["DiffMM"] == "https://arxiv.org/abs/2406.11781"
    assert links["MMGCN"] == "https://doi.org/10.1145/3343031.3351034"
    assert links["LightGCN"] == "https://arxiv.org/abs/2002.02126"
    assert links["ItemKNN"] == "https://doi.org/10.1145/2507157.2507189"
    form = r"https://(arxiv.org/abs/\d{4}\.\d{4,5}|doi.org/10\.\d{4}/\S+)"
    assert [name for name, link in links.items() if not re.fullmatch(form, link)] == []
    assert papers["DiffMM"] == ("ACM MM", 2024)
    assert papers["VBPR"] == ("AAAI", 2016)
    assert papers["LightGCN"] == ("SIGIR", 2020)
    assert papers["Pop"] == ("", None)
    assert entries["LightGCN"].title.startswith("LightGCN: Simplifying and Powering")


def test_what_a_model_reads_is_what_its_class_says(entries: dict[str, Entry]) -> None:
    for name, entry in entries.items():
        assert entry.multimodal == registry.is_multimodal(registry.get_model(name)) == ("features" in entry.reads)
    assert {entry.reads for entry in entries.values() if entry.package == THEIRS} == {"interactions"}
    assert entries["HCCF"].reads == "interactions"


def test_what_was_tuned_is_what_lies_there(entries: dict[str, Entry]) -> None:
    files = [path.relative_to(properties_dir() / "tuned") for path in (properties_dir() / "tuned").rglob("*.yaml")]
    reports = [properties_dir().parent / "results" / "tuning" / path.with_suffix(".json") for path in files]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in reports]
    there = {(one["model"], f"{path.parent}/{one['dataset']}") for one, path in zip(found, files, strict=True)}
    assert {(name, place) for name, entry in entries.items() for place in entry.tuned} == there
    text = render(list(entries.values()))
    assert "BPR" in text and "quick/ml-100k" in text


@pytest.mark.parametrize("name", registry.own_model_names())
def test_each_model_has_its_settings_and_ranges_that_its_configuration_takes(name: str) -> None:
    from recbole_diffmm.config import Config
    from recbole_diffmm.tuning.space import load_space

    values = read_yaml(properties_dir() / "model" / f"{name}.yaml")
    fields = registry.get_model(name).config_class.model_fields  # type: ignore[attr-defined]
    assert fields.keys() <= values.keys(), "every setting stands in the YAML"
    space, source = load_space(name, None)
    assert Path(source).name == f"{name}.yaml"
    config = Config(name, "toy")
    assert space.keys() <= config._known_keys()
    for key, value in space.items():
        for drawn in (value.values or (value.low, value.high)) if value.kind == "choice" else (value.low, value.high):
            Config(name, "toy", config_dict={key: int(drawn) if value.kind == "int" else drawn})


def test_a_model_without_a_paper_is_listed_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mymodel.py").write_text('"""MyModel: items are sums."""\n', encoding="utf-8")
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "catalogue.py"))
    assert catalogue._from_docstring("MyModel", OURS) == ("items are sums", "", None, "")
