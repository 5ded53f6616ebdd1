"""HCCF, VBPR, LightGCN-M, MMGCN, GRCN, LATTICE and CLCRec against dense formulas; what every rival must not depend on.

Duties that need a trained model are in test_contract.py.
"""

from __future__ import annotations

import copy
import itertools
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_diffmm import registry
from recbole_diffmm.graph import knn_graph, propagate
from recbole_diffmm.model.negatives import NegativeItems
from recbole_diffmm.model.parts import dropout

from .dense import (
    BATCH,
    COLD,
    DENSE,
    ITEMS,
    N_ITEMS,
    N_USERS,
    SMALL,
    USERS,
    WIDTHS,
    CLCRec,
    all_scores,
    build,
    interaction,
    random_features,
)

# Weights so large that a wrong term shows.
REG = {"reg_weight": 0.3}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("HCCF", {"edge_dropout": 0.0, "cl_weight": 0.4, "temperature": 0.7, **REG}),
    (
        "HCCF",
        {
            "edge_dropout": 0.0,
            "cl_weight": 0.4,
            "hyperedges": "embedding",
            "hyperedge_scale": 0.3,
            "activation": "none",
            "n_layers": 1,
            **REG,
        },
    ),
    ("VBPR", REG),
    ("VBPR", {"biases": False, "normalize_features": False, **REG}),
    ("LightGCNM", REG),
    ("LightGCNM", {"n_layers": 0, "feature_weight": 1.0, **REG}),
    ("MMGCN", REG),
    ("MMGCN", {"n_layers": 1, "hidden_size": 2, **REG}),
    ("GRCN", REG),
    ("GRCN", {"routing": False, "prune": False, **REG}),
    ("GRCN", {"n_routings": 1, "n_layers": 1, **REG}),
    ("LATTICE", {"initial_share": 0.6, **REG}),
    ("LATTICE", {"train_features": False, "initial_share": 0.2, "n_layers": 1, "n_item_layers": 2, **REG}),
    ("CLCRec", {"alignment_share": 0.3, "temperature": 0.7, **REG}),
    ("CLCRec", {"replaced_share": 0.0, "hidden_size": 6, **REG}),
]
case = pytest.mark.parametrize(("name", "values"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
modalities = pytest.mark.parametrize("names", [("smell",), ("look", "smell"), ("look", "smell", "sound")], ids=len)
ALL = [name for name in registry.own_model_names() if name != "DiffMM"]  # which has tests of its own
MULTIMODAL = [name for name in ALL if registry.is_multimodal(registry.get_model(name))]
TRAINED = [name for name in ALL if not name.startswith("Content")]


@pytest.fixture(autouse=True)
def fixed_draws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLCRec's negatives and replaced places where a dense formula is compared with them."""
    if "dense" in request.node.name:
        monkeypatch.setattr(NegativeItems, "draw", lambda self, users, n: CLCRec.negatives)
        monkeypatch.setattr(torch, "rand", lambda *shape, **_: CLCRec.uniform)


def gradients(model: Any) -> dict[str, Tensor]:
    """Gradients of the last backward pass, zeros where there are none."""
    return {
        key: torch.zeros_like(value) if value.grad is None else value.grad for key, value in model.named_parameters()
    }


@modalities
@case
def test_final_rows_equal_the_dense_formula(name: str, values: dict[str, Any], names: tuple[str, ...]) -> None:
    model = build(name, names, **values).eval()
    dense = DENSE[name](model)
    for ours, expected in zip(model.embeddings(), dense.rows(), strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(all_scores(model).double(), dense.scores(), rtol=1e-4, atol=1e-5)


@modalities
@case
def test_every_loss_term_equals_the_dense_formula(name: str, values: dict[str, Any], names: tuple[str, ...]) -> None:
    model = build(name, names, **values).train()
    losses, expected = model.calculate_loss(interaction(model)), DENSE[name](model).losses()
    assert len(losses) == len(expected) == len(model.loss_names)
    for term, ours, theirs in zip(model.loss_names, losses, expected, strict=True):
        assert float(theirs.detach()) > 1e-3, f"{term} is too small to be seen"
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6, msg=partial("{}: {}".format, term))


@modalities
@case
def test_every_gradient_equals_that_of_the_dense_formula(
    name: str, values: dict[str, Any], names: tuple[str, ...]
) -> None:
    """So a stopped gradient is stopped where the paper stops it, and the hand-written backward passes are right."""
    model = build(name, names, **values).train()
    dense = DENSE[name](model)
    for place, term in enumerate(model.loss_names):
        model.zero_grad()
        model.on_epoch_start()
        model.calculate_loss(interaction(model))[place].backward()
        expected = torch.autograd.grad(dense.losses()[place], list(dense.p.values()), allow_unused=True)
        for (key, ours), theirs in zip(gradients(model).items(), expected, strict=True):
            wanted = torch.zeros_like(ours) if theirs is None else theirs.float()
            torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-5, msg=partial("{}, {}: {}".format, term, key))


# What a paper trains and what it does not


def test_hccf_contrast_trains_nothing_through_the_graph_side() -> None:
    """Users reach items by the graph alone, so in one layer the contrast of items must not train users."""
    model = build("HCCF", edge_dropout=0.0, n_layers=1).train()
    (local, _), *_ = model.layers()[1]
    (by_graph,) = torch.autograd.grad(local[N_USERS:].square().sum(), model.user_embedding)
    assert by_graph.abs().sum() > 0, "it could"
    # Of one user in the batch the contrast is the logarithm of one.
    batch = SimpleNamespace(**{**vars(BATCH), "users": torch.zeros_like(BATCH.users)})
    model.calculate_loss(interaction(model, batch))[1].backward()
    torch.testing.assert_close(model.user_embedding.grad, torch.zeros_like(model.user_embedding), rtol=0, atol=1e-8)
    assert model.item_embedding.grad.abs().sum() > 0


def test_hccf_drops_both_directions_and_every_layer_apart_and_rescales() -> None:
    model = build("HCCF", edge_dropout=0.5).train()
    full = model.adj.matrix.to_dense()
    first, second = (model._dropped_adj() for _ in range(2))
    dropped = first.matrix.to_dense()
    kept = dropped != 0
    assert 0 < kept.sum() < (full != 0).sum()
    torch.testing.assert_close(dropped[kept], 2 * full[kept])
    assert not torch.equal(kept, kept.t())
    assert not torch.equal(dropped, second.matrix.to_dense())
    assert torch.equal(first.transpose.to_dense(), dropped.t())
    assert not torch.equal(second.matrix.to_dense(), dropped)


def test_hccf_draws_the_dropped_edges_of_each_layer_and_batch_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def spied(adj: Any, rows: Tensor) -> Tensor:
        seen.append(adj.matrix.to_dense())
        return propagate(adj, rows)

    monkeypatch.setattr("recbole_diffmm.model.hccf.propagate", spied)
    model = build("HCCF", edge_dropout=0.5, n_layers=2).train()
    for _ in range(2):
        model.calculate_loss(interaction(model))
    assert len(seen) == 4
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(seen, 2))
    seen.clear()
    all_scores(model)
    assert all(torch.equal(graph, model.adj.matrix.to_dense()) for graph in seen)


def test_hccf_joins_users_and_items_by_the_same_dropped_hyperedges_on_the_way_there_and_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Tensor] = []

    def recorded(entries: Tensor, rate: float) -> Tensor:
        result = dropout(entries, rate)
        if entries.dim() == 2 and rate > 0:  # not the weights of edges
            assert rate == 0.25
            kept = result != 0
            torch.testing.assert_close(result[kept], entries[kept] / 0.75)
            drawn.append(result)
        return result

    monkeypatch.setattr("recbole_diffmm.model.hccf.dropout", recorded)
    model = build("HCCF", edge_dropout=0.25, n_layers=2, n_hyperedges=40, activation="none").train()
    rows, layers = torch.cat([model.user_embedding, model.item_embedding]), model.layers()[1]
    assert [len(incidence) for incidence in drawn] == [N_USERS, N_ITEMS] * 2, "anew in each layer"
    for (local, shared), *incidences in zip(layers, drawn[::2], drawn[1::2], strict=True):
        assert all(0.1 < (incidence == 0).float().mean() < 0.4 for incidence in incidences)
        expected = [h @ (h.t() @ part) for h, part in zip(incidences, rows.split([N_USERS, N_ITEMS]), strict=True)]
        torch.testing.assert_close(shared, torch.cat(expected))
        rows = local + shared
    assert not any(torch.equal(one == 0, other == 0) for one, other in zip(drawn[:2], drawn[2:], strict=True))
    drawn.clear()
    all_scores(model)
    assert not drawn, "evaluation drops nothing"


def test_lattice_trains_projections_and_modality_weights_in_the_first_batch_of_an_epoch_alone() -> None:
    model = build("LATTICE")
    learned = [
        key for key, _ in model.named_parameters() if key.startswith(("projections", "modal_weight", "features"))
    ]
    for _ in range(2):
        model.train().on_epoch_start()  # as a trainer begins an epoch
        for trained in (True, False, False):
            model.zero_grad()
            model.calculate_loss(interaction(model))[0].backward()
            reached = gradients(model)
            assert all((reached[key].abs().sum() > 0) == trained for key in learned)
            assert reached["user_embedding"].abs().sum() > 0 and reached["item_embedding"].abs().sum() > 0


def test_lattice_keeps_the_graph_of_the_first_batch_during_the_epoch_and_scores_with_that_of_now() -> None:
    model = build("LATTICE", initial_share=0.0).train()
    first = model.embeddings()[1].detach()
    with torch.no_grad():
        for projection in model.projections.values():
            projection.weight.copy_(torch.randn_like(projection.weight))
    torch.testing.assert_close(model.embeddings()[1].detach(), first)
    torch.testing.assert_close(all_scores(model).double(), DENSE["LATTICE"](model).scores(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model.eval().embeddings()[1], first)


@pytest.mark.parametrize("train_id", [True, False])
def test_mmgcn_trains_ids_and_preferences_only_with_train_id(train_id: bool) -> None:
    model = build("MMGCN", train_id=train_id).train()
    sum(model.calculate_loss(interaction(model))).backward()
    for key, value in model.named_parameters():
        constant = key == "id_embedding" or key.startswith("preferences")
        assert (value.grad is not None and bool(value.grad.any())) == (train_id or not constant), key


def test_mmgcn_projects_features_wider_than_hidden_size_alone() -> None:
    model = build("MMGCN")
    assert set(model.projections) == {"modality_look"}
    assert {key: value.shape for key, value in model.preferences.items()} == {
        "modality_look": (N_USERS, 5),
        "modality_smell": (N_USERS, WIDTHS["smell"]),
    }


@pytest.mark.parametrize("routing", [True, False])
def test_grcn_preferences_see_their_users_items_only_with_routing(routing: bool) -> None:
    model = build("GRCN", routing=routing).eval()
    rows, attention = model._content("look")
    edges, _ = model.ordered_edges()
    weight = torch.zeros(len(rows), len(rows)).index_put((edges.receiver, edges.sender), attention)
    content = F.normalize(F.leaky_relu(model.projections["modality_look"](model.features("look"))))
    preference = rows[:N_USERS] - weight[:N_USERS, N_USERS:] @ content  # what the last pass added is taken off
    unrouted = F.normalize(model.preferences["modality_look"])
    moved = (preference - unrouted).abs().amax(dim=1) > 1e-3
    assert moved.tolist() == [routing] * (N_USERS - 1) + [False], "the last user has no item"


def test_clcrec_scores_warm_items_by_ids_and_cold_items_by_features() -> None:
    model = build("CLCRec")
    before = all_scores(model)
    with torch.no_grad():
        model.item_embedding[COLD] += 1
    assert torch.equal(all_scores(model), before)
    with torch.no_grad():
        model.encoder[2].bias += 1
    warm = torch.arange(N_ITEMS) != COLD
    assert torch.equal(all_scores(model)[:, warm], before[:, warm])
    assert not torch.isclose(all_scores(model)[:, COLD], before[:, COLD]).any()


def test_clcrec_replaces_the_configured_share_of_items_by_their_features() -> None:
    """With one share the ranking trains features alone, with the other ids alone, beside the users."""
    for share, trained in ((1.0, "encoder.0.weight"), (0.0, "item_embedding")):
        model = build("CLCRec", replaced_share=share, alignment_share=0.0).train()
        model.calculate_loss(interaction(model))[0].backward()
        reached = {key for key, value in gradients(model).items() if value.any() and key != "user_embedding"}
        assert trained in reached
        assert ("item_embedding" in reached) == (share == 0)


def test_clcrec_replaces_each_place_of_each_row_and_batch_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("CLCRec", replaced_share=0.5, n_negatives=30, temperature=1.0).train()
    with torch.no_grad():  # every score is 1 by features and 0 by ids
        model.user_embedding.fill_(0).select(1, 0).fill_(1)
        model.item_embedding.fill_(0)
        model.encoder[2].weight.fill_(0)
        model.encoder[2].bias.fill_(0)[0] = 1
    ranked: list[Tensor] = []

    def recorded(logits: Tensor, target: Tensor) -> Tensor:
        ranked.append(logits.detach())
        return cross_entropy(logits, target)

    cross_entropy = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", recorded)
    for _ in range(2):
        model.calculate_loss(interaction(model, SimpleNamespace(**{k: v.repeat(5) for k, v in vars(BATCH).items()})))
    batches = [logits.round() == 1 for logits in ranked if not torch.allclose(logits[0], logits[0, :1])]
    assert [places.shape for places in batches] == [(30, 31)] * 2
    for places in batches:
        assert len(torch.unique(places, dim=0)) == 30, "rows"
        assert len(torch.unique(places, dim=1).t()) == 31, "items, the positive among them"
        assert ((0.1 < places.float().mean(dim=0)) & (places.float().mean(dim=0) < 0.9)).all()
        assert places.float().mean().item() == pytest.approx(0.5, abs=0.07)
    assert not torch.equal(*batches)


@pytest.mark.parametrize("term", [0, 1], ids=["ranking", "alignment"])
def test_clcrec_compares_a_user_of_every_warm_item_with_nothing(term: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a user has no negative item; the draw's stand-in is one of the user's own and must not count as one."""
    model = build("CLCRec", replaced_share=0.0, temperature=0.5).train()
    full = 1
    warm = torch.unique(ITEMS)
    users = torch.cat([USERS, torch.full_like(warm, full)])
    model.negatives = NegativeItems(users, torch.cat([ITEMS, warm]), N_USERS, N_ITEMS)
    negatives = torch.tensor([[3, 4, 5]])
    monkeypatch.setattr(NegativeItems, "draw", lambda self, users, n: negatives.expand(len(users), n))

    def loss(*users: int) -> Tensor:
        of = torch.tensor(users)
        model.zero_grad()
        result: Tensor = model.calculate_loss(
            interaction(model, SimpleNamespace(users=of, positives=of * 0 + 2, negatives=of))
        )[term]
        result.backward()
        return result.detach()

    assert loss(full) == 0
    assert not any(gradient.any() for gradient in gradients(model).values())
    alone = loss(0)
    assert alone > 0.1
    torch.testing.assert_close(loss(0, full), alone / 2)
    torch.testing.assert_close(loss(full, 0, full), alone / 3)


# Negatives of CLCRec


def test_negatives_are_uniform_over_the_warm_items_that_a_user_does_not_have() -> None:
    torch.manual_seed(0)
    users, items = torch.tensor([0, 0, 0, 1, 2, 2, 4, 0]), torch.tensor([1, 6, 8, 3, 1, 9, 4, 6])
    negatives = NegativeItems(users, items, n_users=6, n_items=12)  # users 3 and 5 have no item
    n_draws = 40_000
    for user in range(6):
        counts = torch.bincount(negatives.draw(torch.tensor([user]), n_draws)[0], minlength=12).double()
        allowed = sorted(set(items.tolist()) - set(items[users == user].tolist()))
        assert counts.nonzero().squeeze(1).tolist() == allowed
        expected = n_draws / len(allowed)
        chi_square = ((counts[allowed] - expected) ** 2 / expected).sum()
        degrees = len(allowed) - 1
        assert chi_square < degrees + 5 * (2 * degrees) ** 0.5 + 5, user


def test_negatives_of_users_in_one_call_are_each_users_own_and_each_row_its_own_draw() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    users, items = torch.nonzero(torch.rand(30, 40, generator=generator) < 0.3, as_tuple=True)
    items = items * 2  # every other item is cold
    negatives = NegativeItems(users, items, n_users=30, n_items=81)
    asked = torch.randint(30, (200,), generator=generator)
    drawn = negatives.draw(asked, 50)
    assert drawn.shape == (200, 50)
    seen = set(zip(users.tolist(), items.tolist(), strict=True))
    pairs = set(zip(asked.repeat_interleave(50).tolist(), drawn.flatten().tolist(), strict=True))
    assert not pairs & seen
    assert set(drawn.flatten().tolist()) == set(items.tolist())
    assert len(torch.unique(drawn, dim=0)) == len(drawn)


def test_a_user_with_every_warm_item_gets_one_of_them_and_nobody_else_is_disturbed() -> None:
    users, items = torch.tensor([0, 1, 1, 1, 2]), torch.tensor([2, 0, 2, 5, 0])
    negatives = NegativeItems(users, items, n_users=3, n_items=7)
    drawn = negatives.draw(torch.tensor([1, 0, 2, 1]), 64)
    assert set(drawn[[0, 3]].flatten().tolist()) == {5}
    assert set(drawn[1].tolist()) == {0, 5} and set(drawn[2].tolist()) == {2, 5}


# What scores may depend on


@pytest.mark.parametrize("name", ALL)
def test_scores_do_not_depend_on_the_last_batch_and_two_evaluations_agree(name: str) -> None:
    model = build(name)
    before = all_scores(model)
    other = SimpleNamespace(**{key: value.flip(0)[:3] for key, value in vars(BATCH).items()})
    for batch in (BATCH, other):
        model.train()
        model.calculate_loss(interaction(model, batch))
        model.calculate_loss(interaction(model, batch))
        torch.testing.assert_close(all_scores(model), before, rtol=0, atol=0)
    assert torch.equal(all_scores(model.eval()), before)


@pytest.mark.parametrize("name", TRAINED)
def test_scores_follow_a_step_of_training_without_a_change_of_mode(name: str) -> None:
    model = build(name)
    before = all_scores(model)  # and its rows are cached
    sum_of_terms(model.calculate_loss(interaction(model))).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    users = {model.USER_ID: torch.arange(N_USERS) + 1}
    assert not torch.allclose(model.full_sort_predict(users).view(N_USERS, -1)[:, 1:], before)


def user_or_item_rows(value: Tensor, user_order: Tensor, item_order: Tensor) -> Tensor:
    """A parameter whose rows belong to users, items or both, as a model with other ids has it."""
    order = {
        N_USERS: user_order,
        N_ITEMS: item_order,
        N_USERS + N_ITEMS: torch.cat([user_order, N_USERS + item_order]),
    }.get(value.shape[0] if value.dim() else 0)
    if order is None:
        return value
    result = torch.empty_like(value)
    result[order] = value
    return result


@pytest.mark.parametrize("kind", ["users", "items"])
@pytest.mark.parametrize("name", ALL)
def test_permuting_ids_permutes_the_scores_and_nothing_else(name: str, kind: str) -> None:
    generator = torch.Generator().manual_seed(9)
    user_order = torch.randperm(N_USERS, generator=generator) if kind == "users" else torch.arange(N_USERS)
    item_order = torch.randperm(N_ITEMS, generator=generator) if kind == "items" else torch.arange(N_ITEMS)
    ours, theirs = build(name), build(name, user_order=user_order, item_order=item_order)
    with torch.no_grad():
        for key, value in ours.named_parameters():
            theirs.get_parameter(key).copy_(user_or_item_rows(value, user_order, item_order))
    torch.testing.assert_close(all_scores(theirs)[user_order][:, item_order], all_scores(ours), rtol=1e-4, atol=1e-5)


# What is left out at random, so that a loss has nothing to draw.
CERTAIN: dict[str, dict[str, Any]] = {
    "BM3": {"target_dropout": 0.0},
    "FREEDOM": {"edge_dropout": 0.0},
    "HCCF": {"edge_dropout": 0.0},
    "MMGCL": {"edge_dropout": 0.0, "node_dropout": 0.0, "masking": {"look": 1.0, "smell": 0.0}},
}


@pytest.mark.parametrize("name", TRAINED)
def test_permuting_ids_leaves_the_loss_and_permutes_its_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(9)
    users, items = (torch.randperm(count, generator=generator) for count in (N_USERS, N_ITEMS))
    found = []
    for user_order, item_order in ((torch.arange(N_USERS), torch.arange(N_ITEMS)), (users, items)):
        model = build(name, user_order=user_order, item_order=item_order, **CERTAIN.get(name, {}))
        with torch.no_grad():
            for key, value in build(name).named_parameters():
                model.get_parameter(key).copy_(user_or_item_rows(value, user_order, item_order))
        with monkeypatch.context() as patch:
            drawn = item_order[CLCRec.negatives]
            patch.setattr(NegativeItems, "draw", lambda self, users, n, drawn=drawn: drawn)
            if name == "CLCRec":  # which features stand in for an item
                patch.setattr(torch, "rand", lambda *shape, **_: CLCRec.uniform)
            moved = (user_order[BATCH.users], item_order[BATCH.positives], item_order[BATCH.negatives])
            batch = SimpleNamespace(**dict(zip(vars(BATCH), moved, strict=True)))
            losses = model.train().calculate_loss(interaction(model, batch))
        sum_of_terms(losses).backward()
        found.append((losses, gradients(model)))
    (ours, our_gradients), (theirs, their_gradients) = found
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)
    for key, gradient in our_gradients.items():
        torch.testing.assert_close(
            their_gradients[key], user_or_item_rows(gradient, users, items), rtol=1e-3, atol=1e-5, msg=key
        )


# Parameters whose rows or columns follow the order of the modalities: in which dimension, and how wide a modality is.
D = SMALL["embedding_size"]
FEATURES, EACH, CHANNELS = (0, WIDTHS), (0, dict.fromkeys(WIDTHS, 1)), (D, dict.fromkeys(WIDTHS, D))
BLOCKS: dict[tuple[str, str], tuple[int, tuple[int, dict[str, int]]]] = {
    ("VBPR", "projection.weight"): (1, FEATURES),
    ("VBPR", "feature_bias"): (0, FEATURES),
    ("CLCRec", "encoder.0.weight"): (1, FEATURES),
    ("GRCN", "confidence"): (1, EACH),
    ("LATTICE", "modal_weight"): (0, EACH),
    ("MMGCL", "read_user.weight"): (1, CHANNELS),
    ("MMGCL", "read_item.weight"): (1, CHANNELS),
    ("SLMRec", "user_fusion.weight"): (1, CHANNELS),
    ("SLMRec", "item_fusion.weight"): (1, CHANNELS),
}


# Without what is drawn for one modality after the other.
UNDRAWN: dict[str, dict[str, Any]] = {
    "BM3": {"target_dropout": 0.0},
    "MMGCL": {"edge_dropout": 0.0, "node_dropout": 0.0, "masking": {"look": 1.0, "smell": 0.0}},
}


@pytest.mark.parametrize("name", MULTIMODAL)
def test_permuting_modalities_changes_nothing(name: str) -> None:
    ours, theirs = (build(name, names, **UNDRAWN.get(name, {})) for names in (("look", "smell"), ("smell", "look")))
    with torch.no_grad():
        for key, value in ours.named_parameters():
            if (name, key) in BLOCKS:
                dim, (before, widths) = BLOCKS[name, key]
                first, look, smell = value.split([before, widths["look"], widths["smell"]], dim=dim)
                value = torch.cat([first, smell, look], dim=dim)
            theirs.get_parameter(key).copy_(value)
    torch.testing.assert_close(all_scores(theirs), all_scores(ours), rtol=1e-4, atol=1e-5)
    if not list(ours.parameters()):
        return
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        losses.append(torch.stack([torch.as_tensor(loss) for loss in terms(model.train())]))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-5)


def terms(model: Any) -> tuple[Tensor, ...]:
    losses = model.calculate_loss(interaction(model))
    return losses if isinstance(losses, tuple) else (losses,)


@pytest.mark.parametrize("left_out", ["look", "smell"])
@pytest.mark.parametrize("name", MULTIMODAL)
def test_scores_without_a_modality_do_not_depend_on_it_and_leave_everything_as_before(name: str, left_out: str) -> None:
    features = random_features()
    model, other = build(name), build(name, features={**features, left_out: random_features(8)[left_out]})
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key != f"features_{left_out}":
                other.get_parameter(key).copy_(value)
    state, before = copy.deepcopy(model.state_dict()), all_scores(model)
    kept = {modality: model.features(modality).clone() for modality in WIDTHS}
    with model.without(left_out), other.without(left_out):
        inside = all_scores(model)
        torch.testing.assert_close(inside, all_scores(other), rtol=1e-5, atol=1e-6)
    assert torch.isfinite(inside).all()
    # BM3's scores use no feature, and CLCRec's only for the cold item.
    assert torch.allclose(inside, before) == (name == "BM3")
    assert torch.equal(all_scores(model), before)
    assert all(torch.equal(model.features(modality), value) for modality, value in kept.items())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with pytest.raises(ZeroDivisionError), model.without(left_out):
        raise ZeroDivisionError
    assert torch.equal(all_scores(model), before)


@pytest.mark.parametrize("name", MULTIMODAL)
def test_a_model_of_one_modality_can_be_scored_without_it(name: str) -> None:
    model = build(name, ("smell",))
    with model.without("smell"):
        assert torch.isfinite(all_scores(model)).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_model_can_be_copied_after_a_forward_pass(name: str, training: bool) -> None:
    model = build(name).train(training)
    if training:
        sum_of_terms(model.calculate_loss(interaction(model))).backward()
    scores = all_scores(model)
    twin = copy.deepcopy(model)
    assert torch.equal(all_scores(twin), scores)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.invalidate()
    all_scores(twin)
    assert torch.equal(all_scores(model), scores)


def sum_of_terms(losses: Any) -> Tensor:
    """A model's loss, whether it returns one term or several."""
    return sum(losses) if isinstance(losses, tuple) else losses  # type: ignore[return-value]


# Numbers that could go wrong


@pytest.mark.parametrize("name", TRAINED)
def test_a_modality_without_any_features_and_a_user_without_items_leave_all_numbers_finite(name: str) -> None:
    features = {**random_features(), "smell": torch.zeros(N_ITEMS, WIDTHS["smell"])}
    model = build(name, features=features).train()
    if "features_smell" in dict(model.named_parameters()):
        model.features("smell").data.zero_()
    batch = SimpleNamespace(**{**vars(BATCH), "users": torch.tensor([6, 6, 1, 4, 5, 3])})
    loss = sum_of_terms(model.calculate_loss(interaction(model, batch)))
    loss.backward()
    assert torch.isfinite(loss)
    largest = max(float(value.abs().max()) for value in gradients(model).values())
    assert largest < 1e3, f"a gradient of {largest}"
    assert torch.isfinite(all_scores(model)).all()


@pytest.mark.parametrize("name", TRAINED)
def test_losses_and_gradients_are_finite_under_autocast(name: str) -> None:
    """RecBole's ``enable_amp``."""
    model = build(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum_of_terms(model.calculate_loss(interaction(model)))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(value).all() for value in gradients(model).values())


def test_opposite_features_do_not_blow_up_a_graph_of_cosines() -> None:
    graph = knn_graph(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.1]]), 4, "cosine")
    assert propagate(graph, torch.ones(4, 2)).abs().max() < 10
