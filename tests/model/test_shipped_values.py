"""The values that the rivals ship with: those that their authors published, or what a YAML says instead and why.

The expected ones are written down a second time, from the models' specification, so that a slip in a YAML shows.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from recbole.utils import InputType

from recbole_diffmm import registry
from recbole_diffmm.sources import properties_dir

# MMRec's, for all models that it has and whose authors say nothing else.
MMREC = {"embedding_size": 64, "train_batch_size": 2048, "learning_rate": 1e-3}
WITHOUT_NEGATIVES = {"train_neg_sample_args": None}
PUBLISHED: dict[str, dict[str, Any]] = {
    "BM3": {
        **MMREC,
        **WITHOUT_NEGATIVES,
        "n_layers": 1,
        "target_dropout": 0.5,
        "reg_weight": 0.1,
        "cl_weight": 2.0,
        "train_features": True,
    },
    "CLCRec": {
        **MMREC,
        **WITHOUT_NEGATIVES,
        "hidden_size": 256,
        "n_negatives": 128,
        "alignment_share": 0.5,
        "replaced_share": 0.5,
        "temperature": 2.0,
        "reg_weight": 0.1,
        "train_batch_size": 1024,  # published 256: the YAML says why
    },
    "FREEDOM": {
        **MMREC,
        "n_layers": 2,
        "n_item_layers": 1,
        "knn_k": 10,
        "modality_weight": None,  # published for images and text: the docstring says so
        "edge_dropout": 0.8,
        "feature_weight": 0.0,
        "train_features": True,
    },
    "GRCN": {
        **MMREC,
        "n_routings": 3,
        "n_layers": 2,
        "reg_weight": 1e-3,
        "prune": True,
        "routing": True,  # the paper's; the YAML says so
    },
    "HCCF": {
        **MMREC,
        "embedding_size": 32,
        "n_layers": 2,
        "n_hyperedges": 128,
        "hyperedges": "learned",
        "hyperedge_scale": 1.0,
        "activation": "leaky_relu",  # the paper's; the published code has none
        "edge_dropout": 0.5,
        "reg_weight": 1e-7,
        "cl_weight": 1e-3,
        "temperature": 1.0,
        "train_batch_size": 2048,  # published 4,096: the YAML says so
    },
    "LATTICE": {
        **MMREC,  # the authors' own batch and rate are 1,024 and 5e-4: the YAML says so
        "n_layers": 2,
        "n_item_layers": 1,
        "knn_k": 10,
        "initial_share": 0.9,
        "reg_weight": 1e-5,
        "train_features": True,
    },
    "MGCN": {
        **MMREC,
        "n_layers": 2,
        "n_item_layers": 1,
        "knn_k": 10,
        "reg_weight": 1e-4,
        "cl_weight": 0.01,
        "temperature": 0.2,
        "train_features": True,
    },
    "MMGCL": {
        **MMREC,
        "n_layers": 3,
        "cl_weight": 0.4,
        "temperature": 0.2,
        "edge_dropout": 0.05,
        "node_dropout": 0.05,
        "masking": None,  # published for three modalities: the YAML says so
        "views": "paper",
        "weight_decay": 1e-4,
    },
    # The published code trains no ids: the YAML says so, and properties/published/ has its form.
    "MMGCN": {**MMREC, "n_layers": 3, "hidden_size": 256, "reg_weight": 0.1, "train_id": True},
    "SLMRec": {
        **MMREC,
        **WITHOUT_NEGATIVES,
        "n_layers": 3,
        "temperature": 0.2,
        "cl_weight": 0.1,
        "cl_temperature": 0.2,
        "score": "dot",
        "learning_rate": 1e-2,
        "weight_decay": 1e-4,
    },
    "VBPR": MMREC,
}
# The models that have no sampled negatives; in `PAIRWISE` RecBole would draw them, and double what a batch costs.
POINTWISE = {"BM3", "CLCRec", "SLMRec"}


def shipped(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((properties_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_yaml_has_the_published_values(name: str) -> None:
    values = shipped(name)
    assert {key: values[key] for key in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_class_has_the_same_defaults(name: str) -> None:
    """Who builds a model without its YAML gets the same one."""
    fields = registry.get_model(name).config_class.model_fields  # type: ignore[attr-defined]
    expected = {key: value for key, value in PUBLISHED[name].items() if key in fields}
    assert {key: fields[key].default for key in expected} == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_negatives_are_drawn_for_models_that_compare_with_them_alone(name: str) -> None:
    expected = InputType.POINTWISE if name in POINTWISE else InputType.PAIRWISE
    assert registry.get_model(name).input_type == expected
    assert ("train_neg_sample_args" in shipped(name)) == (name in POINTWISE)
