"""MMGCL, SLMRec, BM3, FREEDOM, MGCN and the two without training, against dense matrices written from their formulas.

Each reference takes a model's parameters in double precision and gives the final rows and the terms of the loss, so
that autograd gives its gradients too: a term that should not reach a parameter shows as a gradient that differs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_diffmm.data.modality import ModalityFeatures
from recbole_diffmm.errors import UserError
from recbole_diffmm.model.base import MultimodalRecommender
from recbole_diffmm.model.bm3 import BM3
from recbole_diffmm.model.contentease import ContentEASE
from recbole_diffmm.model.contentknn import ContentKNN
from recbole_diffmm.model.freedom import FREEDOM
from recbole_diffmm.model.mgcn import MGCN
from recbole_diffmm.model.mmgcl import MMGCL
from recbole_diffmm.model.parts import dropout
from recbole_diffmm.model.slmrec import SLMRec
from tests.splits import recbole_keys, training_split

N_USERS, N_ITEMS, SIZE = 9, 11, 6
N_NODES = N_USERS + N_ITEMS
LONELY_USER, SILENT_USER = 7, 8  # with one item, with none
COLD_ITEM, PLAIN_ITEM = 10, 3  # without interactions, without features in the second modality
NAMES = ("look", "smell")
WIDTHS = {"look": 4, "smell": 7, "sound": 5}
TRAINED = (MMGCL, SLMRec, BM3, FREEDOM, MGCN)
UNTRAINED = (ContentKNN, ContentEASE)
# What can be left out at random is kept where a test compares numbers.
NO_DROPOUT: dict[type, dict[str, Any]] = {
    MMGCL: {"edge_dropout": 0.0, "node_dropout": 0.0},
    BM3: {"target_dropout": 0.0},
    FREEDOM: {"edge_dropout": 0.0},
}

Model = TypeVar("Model", bound=MultimodalRecommender)
Params = Mapping[str, Tensor]


def interactions() -> tuple[Tensor, Tensor]:
    """Users and items from 0, one pair of them twice."""
    generator = torch.Generator().manual_seed(5)
    seen = torch.rand(N_USERS, N_ITEMS, generator=generator) < 0.35
    seen[:, COLD_ITEM] = False
    seen[LONELY_USER:] = False
    seen[LONELY_USER, 4] = True
    seen[0, PLAIN_ITEM] = True
    users, items = torch.nonzero(seen, as_tuple=True)
    return torch.cat([users, users[:1]]), torch.cat([items, items[:1]])


def raw_features(name: str) -> Tensor:
    """Features `(I, F)` of one modality, rows of different lengths."""
    generator = torch.Generator().manual_seed(list(WIDTHS).index(name))
    matrix = torch.randn(N_ITEMS, WIDTHS[name], generator=generator) * torch.linspace(0.5, 4, N_ITEMS).unsqueeze(1)
    if name == "smell":
        matrix[PLAIN_ITEM] = 0
    return matrix


def build(model_class: type[Model], **values: Any) -> Model:
    users, items = interactions()
    modalities = {}
    for name in NAMES:
        matrix = F.pad(raw_features(name), (0, 0, 1, 0))
        modalities[name] = ModalityFeatures(name, matrix, matrix.any(dim=1))
    dataset = training_split(N_USERS, N_ITEMS, users, items, modalities)
    config = {
        **recbole_keys(),
        "embedding_size": SIZE,
        "knn_k": 3,
        **values,
    }
    torch.manual_seed(0)
    model = model_class(config, dataset)
    with torch.no_grad():
        for parameter in model.parameters():  # Xavier's rows of a few nodes are too much alike
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def batch(model: MultimodalRecommender, shift: int = 0) -> dict[str, Tensor]:
    """Pairs with repeated users and items, and negatives with the cold and the plain item among them."""
    picked = torch.tensor([0, 1, 2, 5, 9, 12, -2]) + shift
    users, items = interactions()
    return {
        model.USER_ID: users[picked] + 1,
        model.ITEM_ID: items[picked] + 1,
        model.NEG_ITEM_ID: torch.tensor([COLD_ITEM, PLAIN_ITEM, 1, 6, 6, 2, 8]) + 1,
    }


def triple(model: MultimodalRecommender) -> tuple[Tensor, Tensor, Tensor]:
    found = batch(model)
    return found[model.USER_ID] - 1, found[model.ITEM_ID] - 1, found[model.NEG_ITEM_ID] - 1


def scores(model: MultimodalRecommender) -> Tensor:
    return model.full_sort_predict({model.USER_ID: torch.arange(1, N_USERS + 1)})[:, 1:]


# Dense matrices and the shared blocks of the specification, in double precision.


def dense_interactions() -> Tensor:
    matrix = torch.zeros(N_USERS, N_ITEMS, dtype=torch.float64)
    matrix[interactions()] = 1
    return matrix


def normalised(matrix: Tensor) -> Tensor:
    """`D^-1/2 A D^-1/2` of the bipartite graph of `matrix (U, I)`, a node without edges having a zero row."""
    a = torch.zeros(N_NODES, N_NODES, dtype=torch.float64)
    a[:N_USERS, N_USERS:] = matrix
    a[N_USERS:, :N_USERS] = matrix.t()
    degree = a.sum(dim=1)
    scale = torch.where(degree > 0, degree**-0.5, 0.0)
    return scale.unsqueeze(1) * a * scale


def light(adj: Tensor, users: Tensor, items: Tensor, n_layers: int) -> Tensor:
    stacked = torch.cat([users, items])
    return sum(torch.linalg.matrix_power(adj, layer) @ stacked for layer in range(n_layers + 1)) / (n_layers + 1)


def linear(params: Params, key: str, x: Tensor) -> Tensor:
    return x @ params[f"{key}.weight"].t() + (params[f"{key}.bias"] if f"{key}.bias" in params else 0)


def normalise(x: Tensor) -> Tensor:
    length = x.square().sum(dim=1, keepdim=True).sqrt()
    return x / torch.where(length > 0, length, 1.0)


def cosines(x: Tensor) -> Tensor:
    return normalise(x) @ normalise(x).t()


def knn(features: Tensor, k: int, weighting: str) -> Tensor:
    """kNN-bin or kNN-cos of the specification, rows without features left out."""
    cosine = cosines(features)
    described = [i for i in range(len(features)) if features[i].any()]
    kept = torch.zeros_like(cosine)
    for i in described:
        for j in sorted(described, key=lambda j: -cosine[i, j].item())[:k]:
            kept[i, j] = cosine[i, j].clamp(min=0) if weighting == "cosine" else 1
    sums = kept.sum(dim=1)
    scale = torch.where(sums > 0, sums.abs() ** -0.5, 0.0)
    return scale.unsqueeze(1) * kept * scale


def bpr(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    margin = (users * positives).sum(dim=1) - (users * negatives).sum(dim=1)
    return -torch.sigmoid(margin).log().mean()


def infonce(queries: Tensor, keys: Tensor, temperature: float, extra: Tensor | None = None) -> Tensor:
    """Positives on the diagonal, every key of the batch in the denominator, and one more per query if there is."""
    logits = queries @ keys.t() / temperature
    total = logits.exp().sum(dim=1)
    if extra is not None:
        total = total + ((queries * extra).sum(dim=1) / temperature).exp()
    return (total.log() - logits.diagonal()).mean()


def cosine_infonce(queries: Tensor, keys: Tensor, temperature: float, extra: Tensor | None = None) -> Tensor:
    return infonce(normalise(queries), normalise(keys), temperature, None if extra is None else normalise(extra))


# References: final rows and terms of the loss, from parameters alone.

ADJ = normalised(dense_interactions())
Rows = tuple[Tensor, Tensor]


def features_of(model: MultimodalRecommender, params: Params, name: str) -> Tensor:
    if f"features_{name}" in params:
        return params[f"features_{name}"]
    given = raw_features(name).double()
    return normalise(given) if getattr(model.settings, "normalize_features", False) else given


def channel_rows(
    model: MMGCL | SLMRec, params: Params, graphs: Mapping[str, Tensor] | None = None, left_out: str | None = None
) -> dict[str, Rows]:
    """Propagated users and items of ids and of each modality, over `graphs` where they name the channel."""
    starts = {"ids": params["item_embedding"]}
    for name in NAMES:
        rows = linear(params, f"projections.modality_{name}", normalise(raw_features(name).double()))
        starts[name] = torch.zeros_like(rows) if name == left_out else rows
    result = {}
    for name, start in starts.items():
        adj = (graphs or {}).get(name, ADJ)
        rows = light(adj, params["user_embedding"], start, model.settings.n_layers)
        result[name] = (rows[:N_USERS], rows[N_USERS:])
    return result


def read(params: Params, keys: tuple[str, str], channels: Mapping[str, Rows]) -> Rows:
    users, items = (torch.cat([rows[kind] for rows in channels.values()], dim=1) for kind in (0, 1))
    return linear(params, keys[0], users), linear(params, keys[1], items)


def mmgcl_rows(model: MMGCL, params: Params, left_out: str | None = None) -> Rows:
    return read(params, ("read_user", "read_item"), channel_rows(model, params, left_out=left_out))


def mmgcl_terms(
    model: MMGCL, params: Params, first: Tensor = ADJ, masked: str = "look", second: Tensor = ADJ
) -> list[Tensor]:
    """The terms with `first` as the graph of the first view and `second` as the masked modality's in the second."""
    s = model.settings
    users, positives, negatives = triple(model)
    keys = ("read_user", "read_item")
    u, i = mmgcl_rows(model, params)
    ranking = bpr(u[users], i[positives], i[negatives])
    u, i = read(params, keys, channel_rows(model, params, dict.fromkeys(("ids", *NAMES), first)))
    contrast = cosine_infonce(u[users], i[positives], s.temperature)
    if s.views == "published_code":
        return [ranking, s.cl_weight * 2 * contrast]
    channels = channel_rows(model, params, {masked: second})
    u, i = read(params, keys, channels)
    swapped = {
        name: (rows[0][users], rows[1][negatives if name == masked else positives]) for name, rows in channels.items()
    }
    challenging = read(params, keys, swapped)[1]
    contrast = contrast + cosine_infonce(u[users], i[positives], s.temperature, challenging)
    return [ranking, s.cl_weight * contrast]


def slmrec_rows(model: SLMRec, params: Params, left_out: str | None = None) -> Rows:
    users, items = read(params, ("user_fusion", "item_fusion"), channel_rows(model, params, left_out=left_out))
    return (normalise(users), normalise(items)) if model.settings.score == "cosine" else (users, items)


def slmrec_terms(model: SLMRec, params: Params) -> list[Tensor]:
    s = model.settings
    users, items, _ = triple(model)
    channels = channel_rows(model, params)
    u, i = read(params, ("user_fusion", "item_fusion"), channels)
    ids = linear(params, "heads.ids", channels["ids"][1][items])
    ssl = torch.stack(
        [
            infonce(ids, linear(params, f"heads.modality_{name}", channels[name][1][items]), s.cl_temperature)
            for name in NAMES
        ]
    )
    return [cosine_infonce(u[users], i[items], s.temperature), s.cl_weight * ssl.sum()]


def bm3_online(model: BM3, params: Params) -> Rows:
    rows = light(ADJ, params["user_embedding"], params["item_embedding"], model.settings.n_layers)
    return rows[:N_USERS], rows[N_USERS:] + params["item_embedding"]


def bm3_rows(model: BM3, params: Params, left_out: str | None = None) -> Rows:
    users, items = bm3_online(model, params)
    return linear(params, "predictor", users), linear(params, "predictor", items)


def bm3_terms(model: BM3, params: Params, dropped: Callable[[Tensor], Tensor] = lambda target: target) -> list[Tensor]:
    """The terms with `dropped` of each target in its place."""
    s = model.settings
    users, items, _ = triple(model)

    def apart(predicted: Tensor, target: Tensor) -> Tensor:
        a, b = normalise(linear(params, "predictor", predicted)), normalise(dropped(target.detach()))
        return 1 - (a * b).sum(dim=1).mean()

    all_users, all_items = bm3_online(model, params)
    u, i = all_users[users], all_items[items]
    alignment = torch.zeros((), dtype=torch.float64)
    for name in NAMES:
        z = linear(params, f"projections.modality_{name}", features_of(model, params, name))[items]
        alignment = alignment + apart(z, i) + apart(z, z)
    norms = all_users.square().sum().sqrt() + all_items.square().sum().sqrt()
    return [apart(u, i) + apart(i, u), s.cl_weight * alignment, s.reg_weight * norms / N_ITEMS]


def freedom_rows(model: FREEDOM, params: Params, left_out: str | None = None, adj: Tensor = ADJ) -> Rows:
    s = model.settings
    given = {name: raw_features(name).double() for name in NAMES if name != left_out}
    weight = {name: (s.modality_weight or dict.fromkeys(NAMES, 1.0))[name] for name in given}
    mixed = sum(weight[name] / sum(weight.values()) * knn(given[name], s.knn_k, "uniform") for name in given)
    rows = light(adj, params["user_embedding"], params["item_embedding"], s.n_layers)
    similar = torch.linalg.matrix_power(torch.as_tensor(mixed), s.n_item_layers) @ params["item_embedding"]
    return rows[:N_USERS], rows[N_USERS:] + similar


def freedom_terms(model: FREEDOM, params: Params, adj: Tensor = ADJ) -> list[Tensor]:
    users, positives, negatives = triple(model)
    u, i = freedom_rows(model, params, adj=adj)
    by_features = torch.zeros((), dtype=torch.float64)
    for name in NAMES:
        z = linear(params, f"projections.modality_{name}", features_of(model, params, name))
        by_features = by_features + bpr(u[users], z[positives], z[negatives])
    return [bpr(u[users], i[positives], i[negatives]), model.settings.feature_weight * by_features]


def mgcn_views(model: MGCN, params: Params, left_out: str | None = None) -> Rows:
    s = model.settings
    names = [name for name in NAMES if name != left_out]
    behaviour = light(ADJ, params["user_embedding"], params["item_embedding"], s.n_layers)
    views, attention = {}, {}
    for name in names:
        projected = linear(params, f"projections.modality_{name}", features_of(model, params, name))
        purified = params["item_embedding"] * torch.sigmoid(linear(params, f"purifiers.modality_{name}.0", projected))
        graph = torch.linalg.matrix_power(knn(raw_features(name).double(), s.knn_k, "cosine"), s.n_item_layers)
        items = graph @ purified
        views[name] = torch.cat([ADJ[:N_USERS, N_USERS:] @ items, items])
        attention[name] = linear(params, "attention.2", torch.tanh(linear(params, "attention.0", views[name]))).exp()
    total = sum(attention.values())
    common = torch.as_tensor(sum(attention[name] / total * views[name] for name in names))
    side = common
    for name in names:
        gate = torch.sigmoid(linear(params, f"gates.modality_{name}.0", behaviour))
        side = side + gate * (views[name] - common)
    return behaviour, side / (len(names) + 1)


def mgcn_rows(model: MGCN, params: Params, left_out: str | None = None) -> Rows:
    behaviour, side = mgcn_views(model, params, left_out)
    final = behaviour + side
    return final[:N_USERS], final[N_USERS:]


def mgcn_terms(model: MGCN, params: Params) -> list[Tensor]:
    s = model.settings
    users, positives, negatives = triple(model)
    behaviour, side = mgcn_views(model, params)
    u, i = mgcn_rows(model, params)
    rows = u[users], i[positives], i[negatives]
    squares = torch.stack([part.square().sum() for part in rows]).sum()
    contrast = [cosine_infonce(side[nodes], behaviour[nodes], s.temperature) for nodes in (N_USERS + positives, users)]
    return [bpr(*rows), s.reg_weight * squares / 2 / len(users), s.cl_weight * torch.stack(contrast).sum()]


@pytest.fixture(params=[("look",), NAMES, ("look", "smell", "sound")], ids=len)
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """One, two and three modalities, of the models and of the formulas alike."""
    monkeypatch.setattr(sys.modules[__name__], "NAMES", request.param)
    found: tuple[str, ...] = request.param
    return found


def for_names(values: dict[str, Any]) -> dict[str, Any]:
    """Settings with a weight for each modality that there is."""
    weight = values.get("modality_weight")
    if weight is None:
        return values
    return {**values, "modality_weight": {name: weight.get(name, 2.0) if len(NAMES) > 1 else 1.0 for name in NAMES}}


ROWS: dict[type, Callable[..., Rows]] = {
    MMGCL: mmgcl_rows,
    SLMRec: slmrec_rows,
    BM3: bm3_rows,
    FREEDOM: freedom_rows,
    MGCN: mgcn_rows,
}
TERMS: dict[type, Callable[..., list[Tensor]]] = {
    MMGCL: mmgcl_terms,
    SLMRec: slmrec_terms,
    BM3: bm3_terms,
    FREEDOM: freedom_terms,
    MGCN: mgcn_terms,
}


def leaves(model: MultimodalRecommender) -> dict[str, Tensor]:
    return {name: p.detach().double().clone().requires_grad_() for name, p in model.named_parameters()}


def assert_near(ours: Tensor, expected: Tensor, what: str = "") -> None:
    torch.testing.assert_close(
        ours.detach().double(), expected.detach(), rtol=1e-4, atol=2e-6, msg=lambda text: f"{what}: {text}"
    )


def assert_terms_and_gradients(
    model: MultimodalRecommender, terms: Callable[[Params], list[Tensor]], losses: tuple[Tensor, ...] | None = None
) -> None:
    """Each term of the loss is the reference's, and so is the gradient of their sum in every parameter."""
    losses = model.calculate_loss(batch(model)) if losses is None else losses
    params = leaves(model)
    expected = terms(params)
    assert len(losses) == len(expected) == len(model.loss_names)
    for name, loss, reference in zip(model.loss_names, losses, expected, strict=True):
        assert_near(loss, reference, name)
    model.zero_grad()
    torch.stack(losses).sum().backward()
    gradients = torch.autograd.grad(torch.stack(expected).sum(), list(params.values()), allow_unused=True)
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert_near(ours, torch.zeros_like(params[name]) if gradient is None else gradient, f"gradient of {name}")


SETTINGS = [
    (MMGCL, {}),
    (MMGCL, {"n_layers": 0}),
    (SLMRec, {}),
    (SLMRec, {"score": "cosine", "n_layers": 1}),
    (BM3, {}),
    (BM3, {"n_layers": 3, "normalize_features": True, "train_features": False}),
    (FREEDOM, {}),
    (FREEDOM, {"modality_weight": {"smell": 9.0, "look": 1.0}, "n_item_layers": 2, "n_layers": 1}),
    (FREEDOM, {"modality_weight": {"smell": 1.0, "look": 0.0}, "knn_k": 50}),
    (FREEDOM, {"n_item_layers": 0, "normalize_features": True}),
    (MGCN, {}),
    (MGCN, {"n_item_layers": 2, "n_layers": 0, "train_features": False, "normalize_features": True}),
]


@pytest.mark.parametrize(("model_class", "values"), SETTINGS, ids=str)
def test_final_rows_equal_dense_matrices(
    model_class: type[MultimodalRecommender], values: dict[str, Any], names: tuple[str, ...]
) -> None:
    model = build(model_class, **for_names(values)).eval()
    assert model.modality_names == names
    users, items = ROWS[model_class](model, leaves(model))
    assert_near(model.embeddings()[0], users, "users")
    assert_near(model.embeddings()[1], items, "items")
    assert_near(scores(model), users @ items.t(), "scores")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model_class", TRAINED)
def test_rows_without_one_modality_equal_dense_matrices(model_class: type[MultimodalRecommender], name: str) -> None:
    model = build(model_class).eval()
    before = model.embeddings()
    with model.without(name):
        rows = model.embeddings()
    for ours, expected in zip(rows, ROWS[model_class](model, leaves(model), name), strict=True):
        assert_near(ours, expected)
    torch.testing.assert_close(model.embeddings(), before)


@pytest.mark.parametrize(
    ("model_class", "values"),
    [
        *SETTINGS,
        (SLMRec, {"temperature": 0.5, "cl_weight": 1.0, "cl_temperature": 2.0}),
        (BM3, {"cl_weight": 0.7, "reg_weight": 3.0}),
        (FREEDOM, {"feature_weight": 0.3}),
        (FREEDOM, {"feature_weight": 0.3, "train_features": False, "normalize_features": True}),
        (MGCN, {"cl_weight": 0.5, "reg_weight": 0.2, "temperature": 0.7}),
    ],
    ids=str,
)
def test_terms_of_the_loss_and_their_gradients_equal_dense_matrices(
    model_class: type[MultimodalRecommender], values: dict[str, Any], names: tuple[str, ...]
) -> None:
    told = {}
    if model_class is MMGCL:
        values = {**values, "masking": {name: float(name == names[0]) for name in names}}
        told = {"masked": names[0]}
    model = build(model_class, **{**NO_DROPOUT.get(model_class, {}), **for_names(values)})
    assert_terms_and_gradients(model, lambda params: TERMS[model_class](model, params, **told))


@pytest.mark.parametrize("model_class", TRAINED)
def test_nothing_is_infinite_where_users_items_and_features_are_missing(
    model_class: type[MultimodalRecommender],
) -> None:
    model = build(model_class).train()
    sum(model.calculate_loss(batch(model))).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert torch.isfinite(scores(model.eval())).all()


@pytest.mark.parametrize("model_class", TRAINED)
def test_scores_in_evaluation_do_not_depend_on_the_last_batch_and_two_evaluations_agree(
    model_class: type[MultimodalRecommender],
) -> None:
    model = build(model_class).train()
    model.calculate_loss(batch(model))
    first = scores(model.eval()).clone()
    assert torch.equal(scores(model), first)
    model.train()
    model.calculate_loss(batch(model, shift=1))
    assert torch.equal(scores(model.eval()), first)
    rows = model.embeddings()
    assert_near(first, (rows[0] @ rows[1].t()).double())


@pytest.mark.parametrize("model_class", TRAINED)
def test_scores_follow_the_parameters_after_a_step(model_class: type[MultimodalRecommender]) -> None:
    model = build(model_class).eval()
    before = scores(model).clone()
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.1)
    sum(model.calculate_loss(batch(model))).backward()
    optimizer.step()
    after = scores(model.eval())
    users, items = ROWS[model_class](model, leaves(model))
    assert not torch.allclose(after, before)
    assert_near(after, users @ items.t())


# BM3


def test_bm3_targets_are_detached_copies_with_entries_dropped_and_the_rest_scaled_up() -> None:
    model = build(BM3, target_dropout=0.75).train()
    rows = torch.rand(200, SIZE, requires_grad=True) + 1
    target = model._target(rows)
    assert not target.requires_grad
    kept = target != 0
    assert kept.float().mean().item() == pytest.approx(0.25, abs=0.06)
    torch.testing.assert_close(target[kept], 4 * rows.detach()[kept])


def test_bm3_predicts_a_dropped_copy_of_each_target_one_for_all_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Tensor, Tensor]] = []

    def recorded(rows: Tensor, rate: float) -> Tensor:
        result = dropout(rows, rate)
        drawn.append((rows.double(), result.double()))
        return result

    monkeypatch.setattr("recbole_diffmm.model.bm3.dropout", recorded)
    model = build(BM3, target_dropout=0.5).train()
    losses = model.calculate_loss(batch(model))
    assert len(drawn) == 2 + len(NAMES), "of users, of items and of each modality"
    used = set()

    def dropped(target: Tensor) -> Tensor:
        (place,) = (i for i, (rows, _) in enumerate(drawn) if torch.allclose(rows, target, atol=1e-5))
        used.add(place)
        return drawn[place][1]

    assert_terms_and_gradients(model, lambda params: bm3_terms(model, params, dropped), losses)
    assert len(used) == len(drawn)
    for rows, result in drawn:
        assert 0.2 < (result == 0).double().mean() < 0.8
        torch.testing.assert_close(result[result != 0], 2 * rows[result != 0])


def test_bm3_lets_each_term_reach_only_what_predicts() -> None:
    model = build(BM3, target_dropout=0.0)
    reconstruction, alignment, reg = model.calculate_loss(batch(model))
    features = [model.features(name) for name in NAMES]
    ids = [model.user_embedding, model.item_embedding]
    maps = [model.projections["modality_look"].weight, model.predictor.weight]

    def reached(loss: Tensor, parameters: list[Any]) -> list[bool]:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return [gradient is not None and bool(gradient.any()) for gradient in gradients]

    assert reached(reconstruction, [*ids, *features, *maps]) == [True, True, False, False, False, True]
    assert reached(alignment, [*ids, *features, *maps]) == [False, False, True, True, True, True]
    assert reached(reg, [*ids, *features, *maps]) == [True, True, False, False, False, False]


# FREEDOM


def epoch_matrix(model: FREEDOM) -> Tensor:
    return model._epoch_adj().matrix.to_dense()


def next_epoch_matrix(model: FREEDOM) -> Tensor:
    model.on_epoch_start()
    return epoch_matrix(model)


@pytest.mark.parametrize("edge_dropout", [0.1, 0.5, 0.8, 0.99])
def test_freedom_draws_the_stated_number_of_edges_in_both_directions_and_normalises_anew(edge_dropout: float) -> None:
    model = build(FREEDOM, edge_dropout=edge_dropout).train()
    observed = dense_interactions()
    drawn = epoch_matrix(model)
    kept = (drawn[:N_USERS, N_USERS:] != 0).double()
    assert kept.sum() == max(1, round(observed.sum().item() * (1 - edge_dropout)))
    assert not (kept > observed).any()
    assert_near(drawn, normalised(kept))


def test_freedom_propagates_over_the_edges_of_the_epoch_in_training_and_over_all_in_evaluation() -> None:
    model = build(FREEDOM, edge_dropout=0.5, feature_weight=0.2).train()
    first = epoch_matrix(model)
    kept = normalised((first[:N_USERS, N_USERS:] != 0).double())
    assert_terms_and_gradients(model, lambda params: freedom_terms(model, params, kept))
    assert torch.equal(epoch_matrix(model), first), "a batch draws nothing"
    users, items = freedom_rows(model, leaves(model))
    assert_near(scores(model.eval()), users @ items.t())
    model.train()
    assert torch.equal(epoch_matrix(model), first), "nor does switching to training, as dynamic sampling does"
    assert any(not torch.equal(next_epoch_matrix(model), first) for _ in range(5))


def test_freedom_keeps_edges_of_popular_nodes_less_often() -> None:
    model = build(FREEDOM, edge_dropout=0.8)
    counts = torch.zeros(N_NODES, N_NODES)
    for _ in range(300):
        counts += next_epoch_matrix(model) != 0
    block, observed = counts[:N_USERS, N_USERS:], dense_interactions().bool()
    weight = ADJ[:N_USERS, N_USERS:][observed]
    frequency = block[observed].double()
    assert torch.corrcoef(torch.stack([weight, frequency]))[0, 1] > 0.8


def test_freedom_without_weight_on_features_gives_them_and_their_projections_no_gradient() -> None:
    model = build(FREEDOM, feature_weight=0.0).train()
    sum(model.calculate_loss(batch(model))).backward()
    for name in NAMES:
        assert model.features(name).grad is None
        assert model.projections[f"modality_{name}"].weight.grad is None
    assert model.item_embedding.grad is not None


@pytest.mark.parametrize("model_class", [FREEDOM, MGCN])
def test_the_item_graph_stays_that_of_the_given_features_while_training_changes_them(
    model_class: type[MultimodalRecommender],
) -> None:
    trained = {"feature_weight": 0.1} if model_class is FREEDOM else {}
    model = build(model_class, train_features=True, **trained).eval()
    with torch.no_grad():
        for name in NAMES:
            assert isinstance(model.features(name), torch.nn.Parameter)
            model.features(name).copy_(torch.randn(N_ITEMS, WIDTHS[name]))
    model.to("cpu")  # graphs are built again
    for ours, expected in zip(model.embeddings(), ROWS[model_class](model, leaves(model)), strict=True):
        assert_near(ours, expected)


# MMGCL


def record_graphs(model: MMGCL, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Tensor]]:
    """Dense copies of the graphs that the model draws for its views."""
    drawn: dict[str, list[Tensor]] = {"_with_dropped_edges": [], "_with_dropped_nodes": []}
    for name, graphs in drawn.items():
        draw = getattr(model, name)

        def recorded(draw: Callable[[], Any] = draw, graphs: list[Tensor] = graphs) -> Any:
            adj = draw()
            graphs.append(adj.matrix.to_dense().double())
            torch.testing.assert_close(adj.transpose.to_dense().double(), graphs[-1].t())
            return adj

        monkeypatch.setattr(model, name, recorded)
    return drawn


@pytest.mark.parametrize("masked", NAMES)
def test_mmgcl_contrasts_within_a_view_of_fewer_edges_and_one_of_a_masked_modality(
    masked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    masking = {name: float(name == masked) for name in NAMES}
    model = build(MMGCL, edge_dropout=0.3, node_dropout=0.3, masking=masking).train()
    drawn = record_graphs(model, monkeypatch)
    losses = model.calculate_loss(batch(model))
    (first,), (second,) = drawn.values()
    kept = first != 0
    assert 0 < kept.sum() < (ADJ != 0).sum()
    assert_near(first, normalised(kept[:N_USERS, N_USERS:].double()))
    # A node has either all edges to nodes that are left, or none.
    gone = ~second.any(dim=1) & ADJ.any(dim=1)
    assert gone.any()
    expected = dense_interactions()
    expected[gone[:N_USERS]], expected[:, gone[N_USERS:]] = 0, 0
    assert_near(second, normalised(expected))
    assert_terms_and_gradients(model, lambda params: mmgcl_terms(model, params, first, masked, second), losses)


def test_mmgcl_as_published_counts_the_first_view_twice_and_draws_no_second(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(MMGCL, edge_dropout=0.3, views="published_code").train()
    drawn = record_graphs(model, monkeypatch)
    losses = model.calculate_loss(batch(model))
    ((first,), second) = drawn.values()
    assert not second
    assert_terms_and_gradients(model, lambda params: mmgcl_terms(model, params, first), losses)


def test_mmgcl_masks_modalities_as_often_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(MMGCL, edge_dropout=0.0, node_dropout=0.0, masking={"smell": 3.0, "look": 1.0}).train()
    params = leaves(model)
    terms = {name: mmgcl_terms(model, params, masked=name)[1].item() for name in NAMES}
    assert terms["look"] != pytest.approx(terms["smell"], rel=1e-3)
    losses = [model.calculate_loss(batch(model))[1].item() for _ in range(200)]
    of_smell = [loss == pytest.approx(terms["smell"], rel=1e-4) for loss in losses]
    assert all(of or loss == pytest.approx(terms["look"], rel=1e-4) for of, loss in zip(of_smell, losses, strict=True))
    assert sum(of_smell) / 200 == pytest.approx(0.75, abs=0.12)


# SLMRec


def test_slmrec_ranks_by_dot_or_by_the_cosine_it_is_trained_on_with_the_same_loss() -> None:
    dot, cosine = build(SLMRec, score="dot").eval(), build(SLMRec, score="cosine").eval()
    users, items = (normalise(rows.double()) for rows in dot.embeddings())
    assert_near(scores(cosine), users @ items.t())
    assert not torch.equal(scores(cosine).argsort(dim=1), scores(dot).argsort(dim=1))
    torch.testing.assert_close(cosine.calculate_loss(batch(cosine)), dot.calculate_loss(batch(dot)))


# ContentKNN and ContentEASE


def content_scores(k: int, share: Mapping[str, float], left_out: str | None = None) -> Tensor:
    """`sum_m a_m sum_{j nearest to i and in u's history} cos(i, j)`, neighbours among items with interactions."""
    observed = dense_interactions()
    warm = [i for i in range(N_ITEMS) if observed[:, i].any()]
    names = [name for name in NAMES if name != left_out]
    result = torch.zeros(N_USERS, N_ITEMS, dtype=torch.float64)
    for name in names:
        features = raw_features(name).double()
        cosine = cosines(features)
        for i in range(N_ITEMS):
            others = [j for j in warm if j != i and features[j].any() and features[i].any()]
            for j in sorted(others, key=lambda j: -cosine[i, j].item())[:k]:
                result[:, i] += share[name] / sum(share[n] for n in names) * cosine[i, j] * observed[:, j]
    return result


def squares_of(name: str, counts: Tensor) -> Tensor:
    """The sum of the squared cosines to the nearest items, each as often as the near item has interactions."""
    warm = [i for i in range(N_ITEMS) if counts[i] > 0]
    features = raw_features(name).double()
    cosine = cosines(features)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(N_ITEMS):
        others = [j for j in warm if j != i and features[j].any() and features[i].any()]
        for j in sorted(others, key=lambda j: -cosine[i, j].item())[:3]:
            total += cosine[i, j].square() * counts[j]
    return total


def ease_scores(reg_weight: float) -> Tensor:
    x = dense_interactions().numpy()
    p = np.linalg.inv(x.T @ x + reg_weight * np.eye(N_ITEMS))
    b = -p / np.diag(p)  # column j by P_jj
    np.fill_diagonal(b, 0)
    return torch.from_numpy(x @ b)


@pytest.mark.parametrize(
    "k",
    [
        1,
        3,
        50,
    ],
)
@pytest.mark.parametrize("weight", [None, {"look": 3.0, "smell": 1.0}, {"smell": 1.0, "look": 0.0}], ids=str)
def test_contentknn_sums_cosines_with_the_nearest_items_of_the_history(k: int, weight: dict[str, float] | None) -> None:
    model = build(ContentKNN, knn_k=k, modality_weight=weight).eval()
    assert_near(scores(model), content_scores(k, weight or dict.fromkeys(NAMES, 1.0)))


def test_contentknn_ranks_the_cold_item_and_gives_the_silent_user_nothing() -> None:
    found = scores(build(ContentKNN).eval())
    assert found[:, COLD_ITEM].any()
    assert not found[SILENT_USER].any()


@pytest.mark.parametrize("name", NAMES)
def test_a_modality_that_is_left_out_gives_its_share_to_the_others_in_contentknn(name: str) -> None:
    model = build(ContentKNN, modality_weight={"look": 3.0, "smell": 1.0}).eval()
    before = scores(model).clone()
    with model.without(name):
        assert_near(scores(model), content_scores(3, {"look": 3.0, "smell": 1.0}, left_out=name))
    assert torch.equal(scores(model), before)


@pytest.mark.parametrize("reg_weight", [0.5, 250.0])
def test_contentease_without_content_is_the_closed_form_of_ease(reg_weight: float) -> None:
    assert_near(scores(build(ContentEASE, content_share=0.0, reg_weight=reg_weight).eval()), ease_scores(reg_weight))


@pytest.mark.parametrize("content_share", [0.3, 1.0])
def test_contentease_mixes_the_closed_form_with_the_neighbourhood_of_features(content_share: float) -> None:
    model = build(ContentEASE, content_share=content_share, reg_weight=2.0).eval()
    # The squares of both parts' weights add up to the same over all interactions.
    counts = dense_interactions().sum(dim=0)
    size = (counts @ model.get_buffer("item_weights").double().square()).sum()
    content = torch.zeros(N_USERS, N_ITEMS, dtype=torch.float64)
    for name in NAMES:
        alone = {other: float(other == name) for other in NAMES}
        content += content_scores(3, alone) * (size / squares_of(name, counts)).sqrt() / len(NAMES)
    assert_near(scores(model), (1 - content_share) * ease_scores(2.0) + content_share * content)


def test_the_cold_item_has_no_weights_in_ease() -> None:
    weights = build(ContentEASE).get_buffer("item_weights")
    assert not weights[COLD_ITEM].any() and not weights[:, COLD_ITEM].any()
    assert not weights.diagonal().any()


def test_contentease_refuses_a_catalogue_beyond_max_items() -> None:
    with pytest.raises(UserError, match=rf"matrix of all items, {N_ITEMS} here .*more than max_items={N_ITEMS - 1}"):
        build(ContentEASE, max_items=N_ITEMS - 1)
    assert build(ContentEASE, max_items=N_ITEMS).item_count == N_ITEMS


@pytest.mark.parametrize("model_class", UNTRAINED)
def test_without_training_scores_do_not_change_and_predict_is_a_cell_of_them(
    model_class: type[MultimodalRecommender],
) -> None:
    model = build(model_class).train()
    first = scores(model).clone()
    loss = model.calculate_loss(batch(model))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores(model.eval()), first)
    pairs = torch.cartesian_prod(torch.arange(1, N_USERS + 1), torch.arange(1, N_ITEMS + 1))
    cells = model.predict({model.USER_ID: pairs[:, 0], model.ITEM_ID: pairs[:, 1]})
    torch.testing.assert_close(cells.view(N_USERS, N_ITEMS), first)


# Weights per modality


@pytest.mark.parametrize("model_class", [FREEDOM, ContentKNN, ContentEASE])
@pytest.mark.parametrize(
    "weight", [{"look": 1.0, "sound": 1.0}, {"look": 1.0}, {"look": 0.0, "smell": 0.0}, {}], ids=str
)
def test_weights_of_other_modalities_or_of_nothing_are_refused(
    model_class: type[MultimodalRecommender], weight: dict[str, float]
) -> None:
    with pytest.raises(UserError, match=r"modality_weight=.* must give each of the modalities look, smell a weight"):
        build(model_class, modality_weight=weight)


def test_a_negative_weight_of_a_modality_is_refused() -> None:
    with pytest.raises(UserError, match="modality_weight"):
        build(FREEDOM, modality_weight={"look": 2.0, "smell": -1.0})


def test_masking_of_another_modality_is_refused() -> None:
    with pytest.raises(UserError, match="must give each of the modalities look, smell"):
        build(MMGCL, masking={"look": 1.0, "sound": 1.0})


def test_the_error_about_masking_names_masking() -> None:
    with pytest.raises(UserError, match="masking="):
        build(MMGCL, masking={"look": 1.0, "sound": 1.0})


def test_an_infinite_weight_of_a_modality_is_refused() -> None:
    with pytest.raises(UserError, match="modality_weight"):
        build(FREEDOM, modality_weight={"look": math.inf, "smell": 1.0})
