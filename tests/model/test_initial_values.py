"""What each rival's matrices are before training: drawn how, how wide, and from whose number of rows.

A table that begins too wide or too narrow trains all the same, only worse, and no comparison of formulas shows it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_diffmm import registry
from recbole_diffmm.data.modality import ModalityFeatures
from tests.splits import recbole_keys, training_split

# No two sums of a matrix's sides are near each other, so that a spread tells whose sides it was drawn for.
N_USERS, N_ITEMS, SIZE, HIDDEN = 300, 180, 16, 48
WIDTHS = {"look": 96, "smell": 24}
N_MODELS = 8  # together they have enough entries of the small matrices

NORMAL, UNIFORM = "xavier normal", "xavier uniform"
LINEAR = "linear"  # what torch gives a linear map
ZERO, EQUAL = "zero", "equal"
TABLES = {"user_embedding": UNIFORM, "item_embedding": UNIFORM}
PROJECTIONS = {"projections.*.weight": LINEAR}
EXPECTED: dict[str, dict[str, str]] = {
    "BM3": {**TABLES, "predictor.weight": NORMAL, "projections.*.weight": NORMAL},
    "CLCRec": {"user_embedding": NORMAL, "item_embedding": NORMAL, "encoder.?.weight": LINEAR},
    "FREEDOM": {**TABLES, **PROJECTIONS},
    "GRCN": {"id_embedding": NORMAL, "confidence": NORMAL, "preferences.*": NORMAL, **PROJECTIONS},
    "HCCF": {**TABLES, "user_hyperedges": UNIFORM, "item_hyperedges": UNIFORM},
    "LATTICE": {**TABLES, "modal_weight": EQUAL, **PROJECTIONS},
    "LightGCNM": {**TABLES, **PROJECTIONS},
    "MGCN": {
        **TABLES,
        **PROJECTIONS,
        "purifiers.*.0.weight": LINEAR,
        "gates.*.0.weight": LINEAR,
        "attention.?.weight": LINEAR,
    },
    "MMGCL": {**TABLES, **PROJECTIONS, "read_user.weight": LINEAR, "read_item.weight": LINEAR},
    "MMGCN": {
        "id_embedding": NORMAL,
        "preferences.*": NORMAL,
        "convolutions.*.neighbour": NORMAL,
        "convolutions.*.own.weight": NORMAL,
        "convolutions.*.0.fusion.weight": NORMAL,
        "convolutions.*.[12].fusion.weight": LINEAR,
        **PROJECTIONS,
    },
    "SLMRec": {
        **TABLES,
        **PROJECTIONS,
        "heads.*.weight": LINEAR,
        "user_fusion.weight": LINEAR,
        "item_fusion.weight": LINEAR,
    },
    "VBPR": {**TABLES, "projection.weight": NORMAL, "item_bias": ZERO, "feature_bias": ZERO},
}


def build(name: str, seed: int) -> Any:
    """The model as a trainer gets it."""
    generator = torch.Generator().manual_seed(1)
    users, items = torch.arange(N_USERS), torch.randint(N_ITEMS, (N_USERS,), generator=generator)
    modalities = {}
    for modality, width in WIDTHS.items():
        matrix = torch.randn(N_ITEMS + 1, width, generator=generator)
        matrix[0] = 0
        modalities[modality] = ModalityFeatures(modality, matrix, matrix.any(dim=1))
    dataset = training_split(N_USERS, N_ITEMS, users, items, modalities)
    model_class: Any = registry.get_model(name)
    sizes = {"embedding_size": SIZE, "hidden_size": HIDDEN, "n_hyperedges": 40}
    config = {
        **recbole_keys(),
        **{key: value for key, value in sizes.items() if key in model_class.config_class.model_fields},
    }
    torch.manual_seed(seed)
    return model_class(config, dataset)


def check(entries: Tensor, kind: str, shape: torch.Size) -> None:
    if kind == ZERO:
        assert not entries.any()
        return
    if kind == EQUAL:
        torch.testing.assert_close(entries, torch.full_like(entries, 1 / shape.numel()))
        return
    spread = (1 / (3 * shape[1])) ** 0.5 if kind == LINEAR else (2 / sum(shape)) ** 0.5
    n = entries.numel()
    assert abs(entries.mean().item()) < 4.5 * spread / n**0.5
    assert entries.square().mean().sqrt().item() == pytest.approx(spread, rel=4.5 / (2 * n) ** 0.5)
    # A uniform draw of that spread ends at the square root of 3 of it; one in twelve of a normal one lies beyond.
    largest = entries.abs().max().item()
    assert largest > 1.9 * spread if kind == NORMAL else largest < 1.7321 * spread


@pytest.mark.parametrize("name", EXPECTED)
def test_matrices_begin_as_wide_as_their_model_has_them(name: str) -> None:
    models = [build(name, seed) for seed in range(N_MODELS)]
    left = dict(EXPECTED[name])
    for key, parameter in models[0].named_parameters():
        if key.startswith("features_") or key.endswith(".bias"):  # the first are given, the others torch's
            continue
        (pattern,) = (pattern for pattern in EXPECTED[name] if fnmatchcase(key, pattern))
        entries = torch.cat([model.get_parameter(key).detach().flatten() for model in models])
        try:
            check(entries, left.pop(pattern, EXPECTED[name][pattern]), parameter.shape)
        except AssertionError as error:
            raise AssertionError(f"{key} {tuple(parameter.shape)}: {error}") from error
    assert not left, "no parameter has this name"


def test_every_rival_that_is_trained_has_its_first_values_checked() -> None:
    trained = {name for name in registry.own_model_names() if not name.startswith("Content")}
    assert set(EXPECTED) == trained - {"DiffMM"}
