"""MovieLens-100K from the copy inside RecBole's wheel, with two modalities made of what lies beside it.

Ratings of 4 and more count as interactions; the rating itself is not kept, so no model can read it. ``text`` stands
for title, release year and genres, ``knowledge`` for the Freebase triples of the film that an item is linked to. Both
are TF-IDF weights reduced by a truncated SVD, rows scaled to length 1 (latent semantic analysis). Neither sees an
interaction.

RecBole's ``ml-100k.link`` does not fit its ``ml-100k.item``: it numbers films as MovieLens-1M does (it skips each of
the numbers below 1683 that MovieLens-1M skips), so joined as it is, every film gets the facts of another. The table
``ml_100k_links.tsv`` beside this module translates. It was reconstructed without a copy of MovieLens-1M at hand, from
knowledge of which film has which number there, matched to ``.item`` by title; pairs whose genres contradict each other
were left out. Single rows can therefore be wrong. A test holds that with it a film's Freebase genres go with its
MovieLens genres, and that without it they do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from recbole_diffmm.data.features import require_file
from recbole_diffmm.data.files import write_interactions, write_lines
from recbole_diffmm.errors import UserError

POSITIVE_RATING = 4.0
FEAT_DIM = 64


def write(folder: Path) -> None:
    """Write interactions and features into ``folder``.

    Raises:
        UserError: RecBole's copy of the dataset is not where its wheel puts it.
    """
    ratings = _read("inter")
    liked = ratings[ratings["rating"].astype(float) >= POSITIVE_RATING]
    write_interactions(folder / "ml-100k.inter", user_id=liked["user_id"], item_id=liked["item_id"])
    for name, words in (("text", _text_words()), ("knowledge", _knowledge_words())):
        matrix, ids = _latent_semantics(words)
        np.save(folder / f"{name}.npy", matrix)
        write_lines(folder / f"{name}.ids", ids)


def _text_words() -> pd.Series:
    """Per item id: the words of its title, its year, its decade and its genres."""
    items = _read("item").set_index("item_id")
    title = items["movie_title"].str.lower().str.findall(r"\w+")
    year = items["release_year"].map(lambda year: [f"year:{year}", f"decade:{year[:3]}"])
    genres = items["class"].str.split().map(lambda names: [f"genre:{name}" for name in names])
    return title + year + genres


def _knowledge_words() -> pd.Series:
    """Per item id that is linked to Freebase: one word for each relation of its film together with the other end."""
    triples = _read("kg")
    triples["word"] = triples["relation_id"] + ":" + triples["tail_id"]
    numbering = pd.read_csv(Path(__file__).with_name("ml_100k_links.tsv"), sep="\t", dtype=str)
    films = _read("link").rename(columns={"item_id": "link_id"}).merge(numbering, on="link_id")
    linked = films.merge(triples, left_on="entity_id", right_on="head_id")
    return linked.groupby("item_id", sort=False)["word"].agg(list)


def _latent_semantics(words: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """Features ``(n, FEAT_DIM)`` float32 and the ids of their rows; items without a shared word are left out."""
    # a word of one item alone says nothing about its likeness to others
    weights = TfidfVectorizer(analyzer=_as_is, min_df=2).fit_transform(words)
    described = np.flatnonzero(weights.getnnz(axis=1))
    # arpack with a fixed start: the same result every time, unlike the randomised solver's approximation
    latent = TruncatedSVD(FEAT_DIM, algorithm="arpack", random_state=0).fit_transform(weights[described])
    # Processors round otherwise: the file is to be the same everywhere, and with it its hash.
    return (normalize(latent).round(5) + 0.0).astype(np.float32), words.index[described]


def _as_is(words: Iterable[str]) -> Iterable[str]:
    return words


def _read(suffix: str) -> pd.DataFrame:
    package = find_spec("recbole")
    if package is None or not package.submodule_search_locations:
        raise UserError("RecBole is not installed, and the dataset ml-100k is a part of it; install recbole==1.2.1")
    path = Path(package.submodule_search_locations[0]) / "dataset_example" / "ml-100k" / f"ml-100k.{suffix}"
    require_file(path, "RecBole's ml-100k")
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    return frame.rename(columns=lambda column: column.rpartition(":")[0])
