"""The datasets that are made on first use."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy
import torch

from recbole_diffmm.config import Config
from recbole_diffmm.data import bundled, ml_100k, toy
from recbole_diffmm.data.dataset import MultimodalDataset
from recbole_diffmm.errors import UserError
from recbole_diffmm.provenance import hash_files

BLAS: str = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
QUICK = Path(__file__).parents[2] / "results" / "quick"


def load(name: str, data_path: Path) -> MultimodalDataset:
    bundled.prepare(name, data_path)
    values: dict[str, Any] = {"data_path": str(data_path), "use_gpu": False}
    return MultimodalDataset(Config(model="DiffMM", dataset=name, config_dict=values))


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dataset")


@pytest.fixture(scope="module")
def films(data_path: Path) -> MultimodalDataset:
    return load("ml-100k", data_path)


def test_ml_100k_is_the_liked_part_of_the_ratings(films: MultimodalDataset) -> None:
    assert (films.user_num - 1, films.item_num - 1, films.inter_num) == (942, 1447, 55375)
    assert list(films.inter_feat.columns) == ["user_id", "item_id"], "a rating would leak what is predicted"
    assert {name: round(one.coverage, 4) for name, one in films.modalities.items()} == {
        "text": 1.0,
        "knowledge": 0.9088,
    }


def test_ml_100k_is_split_per_user(films: MultimodalDataset) -> None:
    train, valid, test = load("ml-100k", Path(films.dataset_path).parent).build()
    assert len(train) + len(valid) + len(test) == 55375
    assert 0.78 < len(train) / 55375 < 0.82
    per_user = torch.bincount(train.training_interactions()[0], minlength=943)
    assert int(per_user[1:].min()) >= 1


def test_features_of_ml_100k_put_like_beside_like(films: MultimodalDataset) -> None:
    star_wars, empire, jedi, scream = (films.field2token_id["item_id"][token] for token in ("50", "172", "181", "288"))
    for name, (film, like) in {"text": (empire, jedi), "knowledge": (star_wars, empire)}.items():
        matrix, observed = films.modalities[name].matrix, films.modalities[name].observed
        assert torch.isfinite(matrix).all()
        norms = matrix[observed].norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        assert matrix[film] @ matrix[like] > 0.8
        assert matrix[film] @ matrix[scream] < 0.5


def genre_agreement(item_of_entity: pd.Series) -> pd.Series:
    """Per MovieLens genre: its highest correlation with one of Freebase's, over the films."""
    triples = ml_100k._read("kg")
    triples = triples[triples["relation_id"] == "film.film.genre"].drop_duplicates()
    freebase = pd.crosstab(triples["head_id"], triples["tail_id"]).astype(float)
    movielens = ml_100k._read("item").set_index("item_id")["class"].str.get_dummies(sep=" ").astype(float)
    known = item_of_entity[item_of_entity.index.isin(freebase.index)]
    one, other = (table.to_numpy() for table in (freebase.loc[known.index], movielens.loc[known.to_numpy()]))
    enough = one.sum(0) > 20, other.sum(0) > 20
    one, other = (
        (table[:, keep] - table[:, keep].mean(0)) / table[:, keep].std(0)
        for table, keep in zip((one, other), enough, strict=True)
    )
    best = np.abs(one.T @ other / len(known)).max(0)
    return pd.Series(best, index=movielens.columns[enough[1]])


def test_recboles_links_fit_its_items_only_through_the_table() -> None:
    link = ml_100k._read("link")
    as_shipped = genre_agreement(link.set_index("entity_id")["item_id"])
    numbering = pd.read_csv(Path(ml_100k.__file__).with_name("ml_100k_links.tsv"), sep="\t", dtype=str)
    assert not numbering["item_id"].duplicated().any()
    assert numbering["link_id"].isin(link["item_id"]).all()
    linked = link.rename(columns={"item_id": "link_id"}).merge(numbering, on="link_id")
    translated = genre_agreement(linked.set_index("entity_id")["item_id"])
    assert as_shipped.max() < 0.2, "a mended RecBole needs no table"
    assert translated[["Animation", "Documentary", "Horror", "Western"]].min() > 0.75
    assert translated.min() > 0.3


@pytest.mark.parametrize("name", bundled.BUNDLED)
def test_made_twice_it_is_the_same_and_made_once_it_is_kept(name: str, tmp_path: Path, data_path: Path) -> None:
    first, second = bundled.prepare(name, data_path), bundled.prepare(name, tmp_path)
    assert first is not None and second is not None
    files = sorted(file.name for file in first.iterdir())
    assert files == sorted(file.name for file in second.iterdir())
    for file in files:
        assert hash_files(first / file) == hash_files(second / file)
    assert list(second.parent.iterdir()) == [second], "no scratch folder stays"
    times = {file: file.stat().st_mtime_ns for file in second.iterdir()}
    assert bundled.prepare(name, tmp_path) == second
    assert times == {file: file.stat().st_mtime_ns for file in second.iterdir()}


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or "openblas" not in BLAS,
    reason="other kernels are OpenBLAS's for x86",
)
def test_ml_100k_is_the_same_on_processors_that_round_otherwise(tmp_path: Path) -> None:
    """A record of one machine would be stale on another. Without rounding, these two write different ones."""
    for kernels in ("Haswell", "Prescott"):
        code = "import sys; from recbole_diffmm.data import bundled; bundled.prepare('ml-100k', sys.argv[1])"
        environment = {**os.environ, "OPENBLAS_CORETYPE": kernels}
        subprocess.run([sys.executable, "-c", code, tmp_path / kernels], env=environment, check=True)
    for file in ("text.npy", "knowledge.npy"):
        assert len({hash_files(folder / "ml-100k" / file) for folder in tmp_path.iterdir()}) == 1


def test_ml_100k_is_what_the_records_that_ship_were_made_of(data_path: Path) -> None:
    folder = bundled.prepare("ml-100k", data_path)
    assert folder is not None
    paths = sorted(QUICK.glob("*-ml-100k-s*-*.json"))
    assert len(paths) == 18
    for path in paths:
        files = json.loads(path.read_text(encoding="utf-8"))["data"]["files"]
        assert "text.npy" in files and files == {name: hash_files(folder / name) for name in files}, path.name


def test_an_older_recipe_is_made_again_and_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    folder = bundled.prepare("toy", tmp_path)
    assert folder is not None
    (folder / bundled.STAMP).write_text("0\n")
    (folder / "look.npy").write_bytes(b"old")
    (folder / "poster.npy").write_bytes(b"a modality of the user's own")
    bundled.prepare("toy", tmp_path)
    assert (folder / "look.npy").stat().st_size > 3
    assert (folder / "poster.npy").read_bytes() == b"a modality of the user's own"
    (folder / bundled.STAMP).unlink()
    with pytest.raises(UserError, match="was not made by recbole_diffmm"):
        bundled.prepare("toy", tmp_path)


def test_a_folder_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bundled.prepare("toy", tmp_path)
    assert folder is not None
    (folder / bundled.STAMP).write_text("0\n")

    def broken(new: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recbole_diffmm.data.files._move", broken)
    with pytest.raises(KeyboardInterrupt):
        bundled.prepare("toy", tmp_path)
    assert (folder / bundled.STAMP).read_text() == "0\n" and (folder / "toy.train.inter").is_file()
    assert list(tmp_path.iterdir()) == [folder]


def test_an_interrupted_recipe_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> None:
        (folder / "toy.train.inter").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setitem(bundled._RECIPES, "toy", ("1", broken))
    with pytest.raises(KeyboardInterrupt):
        bundled.prepare("toy", tmp_path / "dataset")
    assert list((tmp_path / "dataset").iterdir()) == []


def test_the_cache_stands_in_where_the_data_path_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dataset").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = bundled.prepare("toy", tmp_path / "dataset")
    assert folder == tmp_path / "cache" / "recbole_diffmm" / "dataset" / "toy"
    assert (folder / "toy.train.inter").is_file()


def test_other_names_are_not_bundled(tmp_path: Path) -> None:
    assert bundled.prepare("baby", tmp_path) is None


def test_the_toy_has_the_structure_it_promises(data_path: Path) -> None:
    dataset = load("toy", data_path)
    assert (dataset.user_num - 1, dataset.item_num - 1) == (toy.N_USERS, toy.N_ITEMS)
    assert list(dataset.modalities) == ["look", "sound", "smell"]
    assert dataset.modalities["smell"].coverage == 0.9
    group = torch.tensor([-1, *(toy.item_group(int(token[-2:])) for token in dataset.field2id_token["item_id"][1:])])
    for name, features in dataset.modalities.items():
        seen = features.observed
        centres = torch.stack([features.matrix[seen & (group == one)].mean(0) for one in range(toy.N_GROUPS)])
        nearest = torch.cdist(features.matrix[seen], centres).argmin(1)
        assert (nearest == group[seen]).float().mean() > 0.95, f"{name} does not reveal the groups"

    frames = {
        split: pd.read_csv(data_path / "toy" / f"toy.{split}.inter", sep="\t").apply(
            lambda ids: ids.str[-2:].astype(int)
        )
        for split in ("train", "valid", "test")
    }
    held_out = pd.concat([frames["valid"], frames["test"]])
    users, items = held_out.to_numpy().T
    assert np.array_equal(toy.user_group(users), toy.item_group(items)), "a right model reaches a recall of 1"
    unseen = set(items) - set(frames["train"]["item_id:token"])
    assert len(unseen) == toy.N_GROUPS * toy.UNSEEN_PER_GROUP
    assert not pd.concat(frames.values()).duplicated().any()
