"""Synthetic data with power-law popularity, and DiffMM on them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml

from recbole_diffmm import UserError
from recbole_diffmm.data.modality import ModalityFeatures
from recbole_diffmm.model.diffmm import DiffMM, DiffMMConfig
from recbole_diffmm.sources import properties_dir

Sizes = dict[str, int]
MODALITIES = ("image", "audio")
N_FEATURES = 128
USER_EXPONENT, ITEM_EXPONENT = 0.4, 0.6  # of the popularity rank; steeper ones saturate the first items of small ones


def power_law(rng: np.random.Generator, n: int, size: int, exponent: float) -> np.ndarray:
    """Draw ``n`` of ``0..size-1`` with probabilities that fall as ``rank ** -exponent``."""
    return (size * rng.random(n) ** (1 / (1 - exponent))).astype(np.int64)


def check_sizes(sizes: Sizes) -> Sizes:
    """The same sizes.

    Raises:
        UserError: no such data can be drawn.
    """
    n_users, n_items, n_interactions = sizes["users"], sizes["items"], sizes["interactions"]
    if not 1 <= n_users <= n_interactions <= n_users * n_items // 2:
        raise UserError(
            f"{n_interactions} interactions of {n_users} users and {n_items} items: give at least one for each user, "
            "and at most half of all pairs"
        )
    return sizes


def draw_interactions(sizes: Sizes, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users and items ``(E,)``, 0-based: pairs that are all different, at least one of each user."""
    n_users, n_items, n_interactions = sizes["users"], sizes["items"], sizes["interactions"]
    rng = np.random.default_rng(seed)
    # Popular ones anywhere: neighbouring rows of an embedding table would be found in the cache too often.
    users, items = rng.permutation(n_users), rng.permutation(n_items)
    key = np.sort(np.arange(n_users) * n_items + items[power_law(rng, n_users, n_items, ITEM_EXPONENT)])
    while (missing := n_interactions - len(key)) > 0:
        drawn = users[power_law(rng, missing, n_users, USER_EXPONENT)] * n_items
        drawn += items[power_law(rng, missing, n_items, ITEM_EXPONENT)]
        # Not np.unique: where that goes by hashes, it takes far longer.
        key = np.sort(np.concatenate([key, drawn]))
        key = key[np.diff(key, prepend=-1) > 0]
    return key // n_items, key % n_items


def build_config(settings: dict[str, Any]) -> dict[str, Any]:
    """The published settings of TikTok over the reference's, and ``settings`` over both.

    Raises:
        UserError: there is no such setting, its value does not work, or it leaves out a phase.
    """
    files = ("overall.yaml", "model/DiffMM.yaml", "published/DiffMM-tiktok.yaml")
    config = {k: v for name in files for k, v in yaml.safe_load((properties_dir() / name).read_text("utf-8")).items()}
    if unknown := settings.keys() - config.keys() - DiffMMConfig.model_fields.keys():
        raise UserError(f"--set {min(unknown)}: DiffMM has no such setting")
    fields = {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "NEG_PREFIX": "neg_", "dataset": "synthetic"}
    config = {**config, **settings, **fields, "device": torch.device("cpu")}
    if not DiffMMConfig.from_config(config).use_generated_graph:
        raise UserError("--set use_generated_graph=false: leaves no denoisers and no generation to time")
    return config


def build_model(sizes: Sizes, config: dict[str, Any]) -> DiffMM:
    """DiffMM on synthetic data, with random generated graphs."""
    pairs = tuple(torch.from_numpy(x) + 1 for x in draw_interactions(sizes))  # RecBole's ids: 0 is PAD
    observed = torch.arange(sizes["items"] + 1) > 0
    features = {name: torch.randn(len(observed), N_FEATURES) * observed.unsqueeze(1) for name in MODALITIES}
    dataset = SimpleNamespace(
        num={"user_id": sizes["users"] + 1, "item_id": sizes["items"] + 1}.__getitem__,
        modalities={name: ModalityFeatures(name, matrix, observed) for name, matrix in features.items()},
        training_interactions=lambda: pairs,
    )
    model = DiffMM(config, dataset)
    draw_generated(model)
    _ = model.adj  # built once a run
    return model


def draw_generated(model: DiffMM) -> None:
    """Popular items for every user: the denoisers are not trained, and what they choose would be one item for all."""
    rng = np.random.default_rng(1)
    for name in model.generated_names:
        first = power_law(rng, model.user_count, model.item_count, ITEM_EXPONENT)
        items = (first[:, None] + np.arange(model.settings.rebuild_k)) % model.item_count  # no item twice
        model.set_generated_items(name, torch.from_numpy(items))
