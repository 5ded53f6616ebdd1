"""Every model that can be run: its paper, what it reads, and what its settings were tuned on."""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from recbole_diffmm import registry
from recbole_diffmm.sources import property_folders

OURS, THEIRS = "recbole_diffmm", "RecBole"

# Where RecBole's own words about a model have another form than title, "in", venue and year, or there are none.
_Paper = tuple[str, str, int | None, str]
_OTHERWISE: dict[str, tuple[str, str, int | None]] = {
    "ADMMSLIM": ("ADMM SLIM: Sparse Recommendations for Many Users", "WSDM", 2020),
    "AsymKNN": ("Efficient Top-N Recommendation for Very Large Scale Binary Rated Datasets", "RecSys", 2013),
    "CDAE": ("Collaborative Denoising Auto-Encoders for Top-N Recommender Systems", "WSDM", 2016),
    "ItemKNN": ("Efficient Top-N Recommendation for Very Large Scale Binary Rated Datasets", "RecSys", 2013),
    "Pop": ("the most popular items", "", None),
    "Random": ("items at random", "", None),
}
# RecBole's words give titles and no places. Here are those of the models that boards compare, and of two like them.
_PLACES = {
    "ADMMSLIM": "doi 10.1145/3336191.3371774",
    "BPR": "arXiv 1205.2618",
    "DiffRec": "arXiv 2304.04971",
    "EASE": "arXiv 1905.03375",
    "ItemKNN": "doi 10.1145/2507157.2507189",
    "LDiffRec": "arXiv 2304.04971",
    "LightGCN": "arXiv 2002.02126",
    "MultiDAE": "arXiv 1802.05814",
    "MultiVAE": "arXiv 1802.05814",
    "NCL": "arXiv 2202.06200",
    "NGCF": "arXiv 1905.08108",
    "SGL": "arXiv 2010.10783",
    "SLIMElastic": "doi 10.1109/ICDM.2011.134",
    "SimpleX": "arXiv 2109.12613",
}
_HEAD = re.compile(r"# (?P<model>\w+) on (?P<dataset>[^\s:]+): the best of ")
_OWN = re.compile(r"^[\w-]+: (?P<title>.+?) \((?P<venue>[^,()]+?) (?P<year>\d{4})\b.*\)")
_LINK = re.compile(r"\b(arXiv|doi) ([\w./]+\w)")
_SITES = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
_RECBOLE = re.compile(r'"(?P<title>[^"]+?)[.,]?"\s*,? [Ii]n (?P<venue>[A-Z]\w+) (?P<year>\d{4})')
_SETTINGS = (
    "A run begins with a model's defaults, which are its authors' where they are known and tuned on nothing; what was\n"
    "tuned for a board lies in properties/tuned/BOARD/, which the board's runs take and --config_files gives to others."
)


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: Its class's.
        package: Whose it is.
        title: Its paper's, or what it does.
        venue: Where the paper was published, empty without one.
        year: When; None without a paper.
        link: Where the paper is; empty without one, or where its address is not kept here.
        reads: ``interactions``, or ``interactions, features``.
        multimodal: Whether it reads item modalities.
        tuned: Boards and datasets that settings beside its defaults were tuned for, such as ``quick/ml-100k``.
    """

    name: str
    package: str
    title: str
    venue: str
    year: int | None
    link: str
    reads: str
    multimodal: bool
    tuned: tuple[str, ...]


def catalogue() -> list[Entry]:
    """Return every model, this package's first."""
    tuned = _tuned()
    return [_entry(name, OURS if registry.is_own(name) else THEIRS, tuned) for name in registry.model_names()]


def _entry(name: str, package: str, tuned: dict[str, list[str]]) -> Entry:
    told = (*_OTHERWISE[name], _link(_PLACES.get(name, ""))) if name in _OTHERWISE else _from_docstring(name, package)
    title, venue, year, link = told
    multimodal = registry.is_multimodal(registry.get_model(name))
    reads = "interactions, features" if multimodal else "interactions"
    return Entry(name, package, title, venue, year, link, reads, multimodal, tuple(tuned.get(name, ())))


def _from_docstring(name: str, package: str) -> _Paper:
    """What the first lines of a model's module say of its paper."""
    if package == OURS:
        folder, pattern = Path(__file__).parent / "model", _OWN
    else:
        spec = importlib.util.find_spec("recbole.model.general_recommender")
        assert spec is not None and spec.origin is not None
        folder, pattern = Path(spec.origin).parent, _RECBOLE
    module = ast.parse((folder / f"{name.lower()}.py").read_text(encoding="utf-8"))
    told = " ".join((ast.get_docstring(module) or "").split())
    found = pattern.search(told)
    if found is None:  # no paper: what follows the name says what the model is
        return told.partition(": ")[2].rstrip("."), "", None, ""
    return found["title"].rstrip("."), found["venue"], int(found["year"]), _link(_PLACES.get(name, told))


def _link(told: str) -> str:
    """The address of the first paper that some words name by its number."""
    return "".join(_SITES[kind] + number for kind, number in _LINK.findall(told)[:1])


def _tuned() -> dict[str, list[str]]:
    """By model, the boards and datasets that `recbole-diffmm tune` has left settings for."""
    found: dict[str, list[str]] = {}
    for folder in property_folders():
        for path in sorted((folder / "tuned").rglob("*.yaml")):
            # The file is named like the row, which may have a label; its first line names the model.
            try:
                head = _HEAD.match(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError):  # no file of `tune`
                continue
            if head is None:
                continue
            board = "" if path.parent.name == "tuned" else f"{path.parent.name}/"
            places = found.setdefault(head["model"], [])
            if (place := f"{board}{head['dataset']}") not in places:
                places.append(place)
    return found


def render(entries: list[Entry]) -> str:
    """Return the catalogue as text, one table a package."""
    parts = []
    for package in (OURS, THEIRS):
        rows = [
            [
                entry.name,
                entry.title if len(entry.title) <= 68 else f"{entry.title[:65].rstrip()}...",
                f"{entry.venue} {entry.year}" if entry.year else "-",
                entry.reads,
                ", ".join(entry.tuned) or "-",
                entry.link or "-",
            ]
            for entry in entries
            if entry.package == package
        ]
        headers = ["model", "paper", "published", "reads", "tuned settings for", "link"]
        parts.append(f"{package}\n" + tabulate(rows, headers=headers))
    return "\n\n".join([*parts, _SETTINGS])
