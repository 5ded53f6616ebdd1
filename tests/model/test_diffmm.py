"""DiffMM's options, its graphs and its phases; its formulas are in tests/parity, its duties in test_contract.py."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from recbole_diffmm.data.modality import ModalityFeatures
from recbole_diffmm.errors import UserError
from recbole_diffmm.model.diffmm import DiffMM, DiffMMConfig
from recbole_diffmm.model.losses import infonce_loss
from tests.splits import recbole_keys, training_split

N_USERS, N_ITEMS = 20, 30


def build(
    modalities: tuple[str, ...] = ("look", "smell"),
    order: torch.Tensor | None = None,
    user_order: torch.Tensor | None = None,
    n_users: int = N_USERS,
    n_items: int = N_ITEMS,
    **values: Any,
) -> DiffMM:
    """DiffMM on random data in RecBole's ids; `order` permutes the items, `user_order` the users."""
    generator = torch.Generator().manual_seed(3)
    users, items = torch.nonzero(torch.rand(n_users, n_items, generator=generator) < 0.15, as_tuple=True)
    order = torch.arange(n_items) if order is None else order
    user_order = torch.arange(n_users) if user_order is None else user_order
    observed = torch.arange(n_items + 1) > 0
    features = {}
    for width, name in enumerate(sorted(modalities), start=4):
        matrix = torch.zeros(n_items + 1, width)
        matrix[order + 1] = torch.randn(n_items, width, generator=generator)
        features[name] = matrix
    described = {name: ModalityFeatures(name, features[name], observed) for name in modalities}
    dataset = training_split(n_users, n_items, user_order[users], order[items], described)
    config = {
        **recbole_keys(),
        "train_batch_size": 16,
        "embedding_size": 8,
        "denoiser_hidden_sizes": [16],
        "denoiser_batch_size": 8,
        **values,
    }
    torch.manual_seed(0)
    return DiffMM(config, dataset)


def batch(model: DiffMM) -> dict[str, torch.Tensor]:
    positives = slice(0, 12)
    return {
        model.USER_ID: model.train_users[positives] + 1,
        model.ITEM_ID: model.train_items[positives] + 1,
        model.NEG_ITEM_ID: torch.arange(12) + 1,
    }


def randomised(model: DiffMM) -> DiffMM:
    for name in model.generated_names:
        model.set_generated_items(name, torch.randint(N_ITEMS, (N_USERS, model.settings.rebuild_k)))
    return model


def test_training_drops_edges_and_scoring_uses_the_full_graph_by_default() -> None:
    model = randomised(build(edge_dropout=0.5)).train()
    trained = model.generated_adj("look").matrix.to_dense()
    full = model.eval().generated_adj("look").matrix.to_dense()
    assert 0 < (trained != 0).sum() < (full != 0).sum()
    kept = trained != 0
    torch.testing.assert_close(trained[kept], 2 * full[kept])


def test_eval_graph_dropped_scores_with_the_graph_of_training() -> None:
    model = randomised(build(edge_dropout=0.5, eval_graph="dropped"))
    in_training = model.train().generated_adj("look").matrix.to_dense()
    assert torch.equal(model.eval().generated_adj("look").matrix.to_dense(), in_training)
    full = randomised(build(edge_dropout=0.5)).eval()
    assert not torch.allclose(full.embeddings()[0], model.embeddings()[0])


def test_without_dropping_both_graphs_are_one() -> None:
    model = randomised(build(edge_dropout=0.0)).train()
    assert torch.equal(
        model.generated_adj("look").matrix.to_dense(), model.eval().generated_adj("look").matrix.to_dense()
    )


def test_checkpoint_brings_its_own_graphs() -> None:
    """The graphs of the best epoch, not those of the last, score after reloading."""
    model = randomised(build()).eval()
    state, best = copy.deepcopy(model.state_dict()), model.embeddings()[0]
    randomised(model)
    assert not torch.allclose(model.embeddings()[0], best)
    model.full_sort_predict({model.USER_ID: torch.tensor([1])})  # fills the cache with the wrong rows
    model.load_state_dict(state)
    assert torch.equal(model.embeddings()[0], best)
    expected = best[:1] @ model.embeddings()[1].t()
    torch.testing.assert_close(model.full_sort_predict({model.USER_ID: torch.tensor([1])})[:, 1:], expected)


def test_without_the_diffusion_graph() -> None:
    model = build(use_generated_graph=False)
    assert not model.denoisers and not model.rebuild_graphs()
    assert not any("generated" in key or "denoiser" in key for key in model.state_dict())
    bpr, _, contrast = model.calculate_loss(batch(model))
    assert torch.isfinite(bpr) and contrast > 0
    ours = build(generated_graph_weight=0.0)  # the main view is the same as with the graph weighted by nothing
    with torch.no_grad():
        for key, value in model.named_parameters():
            ours.get_parameter(key).copy_(value)
    torch.testing.assert_close(ours.embeddings(), model.embeddings())


def test_a_trainer_without_diffusion_is_refused() -> None:
    with pytest.raises(UserError, match=r"^no graphs were generated for DiffMM .*\.DiffMMTrainer$"):
        build().calculate_loss(batch(build()))


def test_without_contrast() -> None:
    model = randomised(build(contrast="none"))
    losses = model.calculate_loss(batch(model))
    assert losses[2] == 0
    sum(losses).backward()
    assert model.user_embedding.grad is not None


@pytest.mark.parametrize("contrast", ["modality", "main"])
def test_one_modality_has_a_pair_with_the_main_view_only(contrast: str) -> None:
    model = randomised(build(("smell",), contrast=contrast))
    contrast_loss = model.calculate_loss(batch(model))[2]
    assert (contrast_loss > 0) == (contrast == "main")


def test_ranking_does_not_train_denoisers_nor_denoising_the_recommender() -> None:
    model = randomised(build())
    sum(model.calculate_loss(batch(model))).backward()
    assert all(p.grad is None for p in model.denoisers.parameters())
    trained = {id(p) for p in model.recommender_parameters()}
    assert trained.isdisjoint(id(p) for p in model.denoisers.parameters())
    assert trained | {id(p) for p in model.denoisers.parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"denoiser_hidden_sizes": [8, 12]},
        {"normalize_input": True},
        {"sampling_noise": True},
        {"sampling_steps": 3},
        {"rebuild_k": 4},
        {"steps": 1},
        {"time_embedding_size": 7},
        {"latent_size": 6},
        {"latent_size": 6, "sampling_steps": 2, "rebuild_k": 3},
    ],
    ids=str,
)
def test_every_way_to_generate(values: dict[str, Any]) -> None:
    model = build(**values)
    items = model.generate("smell")
    assert items.shape == (N_USERS, model.settings.rebuild_k)
    assert 0 <= items.min() and items.max() < N_ITEMS
    assert all(len(set(row)) == len(row) for row in items.tolist())
    model.set_generated_items("smell", items)
    assert torch.isfinite(model.embeddings()[0]).all()


def test_a_latent_space_that_holds_every_row_loses_nothing() -> None:
    """As wide as the training matrix has rank, its reconstruction and injection are those of all items."""
    model = build(latent_size=N_USERS, denoiser_dropout=0.0, precision="fp32")
    users = torch.arange(N_USERS)
    rows, latent = model.history.rows(users), model.latent.encode(*model.history.sparse_rows(users))
    torch.testing.assert_close(model.latent.decode(latent), rows, rtol=1e-4, atol=1e-5)
    projected, targets = model.injection_targets()
    t = torch.zeros(N_USERS, dtype=torch.int64)  # weight 1
    noise = torch.randn(N_USERS, model.row_size)
    x_t = model.diffusion.q_sample(latent, t, noise)
    pred = model.latent.decode(model.denoiser("look")(x_t, t))
    elbo, msi = model.denoiser_loss("look", users, t, noise, projected["look"], targets)
    torch.testing.assert_close(elbo, (rows - pred).square().mean(dim=1), rtol=1e-4, atol=1e-6)
    expected = (pred @ model.project("look") - targets).square().mean(dim=1)
    torch.testing.assert_close(msi, expected, rtol=1e-4, atol=1e-6)


def test_a_latent_space_keeps_noise_white() -> None:
    basis = build(latent_size=6).latent.basis
    torch.testing.assert_close(basis.t() @ basis, torch.eye(6), rtol=0, atol=1e-5)


def test_diagnostics_of_known_graphs() -> None:
    model = build(rebuild_k=1)
    first = model.history.col_indices[model.history.crow_indices[:-1].clamp(max=len(model.train_items) - 1)]
    model.set_generated_items("look", first.unsqueeze(1))  # each user's own first item
    model.set_generated_items("smell", torch.full((N_USERS, 1), 7))
    diagnostics = model.graph_diagnostics()
    has_history = (torch.diff(model.history.crow_indices) > 0).float().mean().item()
    assert diagnostics["look"]["known_share"] == pytest.approx(has_history)
    assert diagnostics["smell"]["distinct_items"] == 1
    assert diagnostics["smell"]["top_item_share"] == 1.0
    known = ((model.train_items == 7).sum() / N_USERS).item()
    assert diagnostics["smell"]["known_share"] == pytest.approx(known)


@pytest.mark.parametrize("order", [("smell", "look"), ("sound", "look", "smell")], ids=len)
def test_order_of_modalities_changes_nothing_else(order: tuple[str, ...]) -> None:
    ours, theirs = (randomised(build(names, contrast="main")) for names in (tuple(sorted(order)), order))
    state = ours.state_dict()
    with pytest.raises(UserError, match="trained with other modalities, or with these in another order"):
        theirs.load_state_dict(state)
    del state["modality_order"]
    theirs.load_state_dict(state, strict=False)  # equal weights of modalities: their order does not matter
    torch.testing.assert_close(theirs.calculate_loss(batch(theirs)), ours.calculate_loss(batch(ours)))
    torch.testing.assert_close(theirs.eval().embeddings(), ours.eval().embeddings())


def test_contrast_of_modalities_looks_for_the_first_ones_rows_among_the_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = (randomised(build(names, precision="fp32")) for names in (("look", "smell"), ("smell", "look")))
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if k != "modality_order"}, strict=False)
    *same, contrast = theirs.calculate_loss(batch(theirs))
    assert not torch.allclose(contrast, ours.calculate_loss(batch(ours))[2], rtol=1e-3)
    look, smell = (ours._contrastive_view(name, x) for name, x in ours.normalized_features().items())
    first = ours.calculate_loss(batch(ours))[2] / ours.settings.cl_weight
    users, positives = (batch(ours)[key] - 1 for key in (ours.USER_ID, ours.ITEM_ID))
    tau = ours.settings.temperature
    torch.testing.assert_close(
        first, infonce_loss(look[0], smell[0], users, tau) + infonce_loss(look[1], smell[1], positives, tau)
    )
    loss = "recbole_diffmm.model.diffmm.infonce_loss"
    monkeypatch.setattr(loss, lambda a, b, *rest: infonce_loss(b, a, *rest))
    torch.testing.assert_close((*same, contrast), ours.calculate_loss(batch(ours)))


@pytest.mark.parametrize("values", [{"use_generated_graph": False}, {"rebuild_k": 2}], ids=str)
def test_permuting_users_and_items_permutes_rows_and_leaves_the_loss(values: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(9)
    items, users = torch.randperm(N_ITEMS, generator=generator), torch.randperm(N_USERS, generator=generator)
    ours = randomised(build(edge_dropout=0.0, **values))
    theirs = build(order=items, user_order=users, edge_dropout=0.0, **values)
    with torch.no_grad():
        for key, value in ours.named_parameters():
            theirs.get_parameter(key).copy_(value)
        theirs.item_embedding[items], theirs.user_embedding[users] = ours.item_embedding, ours.user_embedding
    for name in ours.generated_names:
        generated = torch.empty_like(ours.generated_items(name))
        generated[users] = items[ours.generated_items(name)]
        theirs.set_generated_items(name, generated)
    for mode in (True, False):
        ours.train(mode), theirs.train(mode)
        torch.testing.assert_close(theirs.embeddings()[0][users], ours.embeddings()[0])
        torch.testing.assert_close(theirs.embeddings()[1][items], ours.embeddings()[1])
    pairs = batch(ours)
    moved = {
        key: (users if key == ours.USER_ID else items)[value - 1] + 1 for key, value in pairs.items()
    }  # the same pairs and negatives
    torch.testing.assert_close(theirs.train().calculate_loss(moved), ours.train().calculate_loss(pairs))


def test_scores_do_not_depend_on_the_last_batch_and_two_evaluations_agree() -> None:
    model = randomised(build())
    users = {model.USER_ID: torch.arange(N_USERS) + 1}
    before = model.eval().full_sort_predict(users).clone()
    assert torch.equal(model.full_sort_predict(users), before)
    for part in (slice(0, 12), slice(3, 5)):
        model.train()
        model.calculate_loss({key: value[part] for key, value in batch(model).items()})
        assert torch.equal(model.eval().full_sort_predict(users), before)


def test_model_can_be_copied() -> None:
    """RecBole counts FLOPs on a deep copy."""
    model = randomised(build()).eval()
    model.full_sort_predict({model.USER_ID: torch.tensor([1])})
    torch.testing.assert_close(copy.deepcopy(model).embeddings(), model.embeddings())


def test_projection_per_modality() -> None:
    model = build(projection={"look": "linear", "smell": "leaky_matrix"})
    kinds = {name: type(model.projections[f"modality_{name}"]).__name__ for name in model.modality_names}
    assert kinds == {"look": "Linear", "smell": "LeakyMatrix"}
    with pytest.raises(UserError, match="projection names no kind for the modality 'smell'"):
        build(projection={"look": "linear"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rebuild_k": N_ITEMS + 1}, f"rebuild_k={N_ITEMS + 1} is larger than the catalogue of {N_ITEMS} items"),
        ({"sampling_steps": 6}, "sampling_steps=6 is larger than steps=5"),
        (
            {"latent_size": 21},
            "latent_size=21 is larger than the training matrix of 20 users and 30 items allows; give at most 20",
        ),
        ({"noise_min": 0.5}, "noise_min=0.5 is larger than noise_max=0.02"),
        ({"edge_dropout": 1.0}, "edge_dropout in the configuration: Input should be less than 1, got 1.0"),
        ({"contrast": "both"}, "contrast in the configuration.*got .both."),
        ({"denoiser_hidden_sizes": []}, "denoiser_hidden_sizes"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**values)


def test_settings_are_frozen_and_closed() -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        DiffMMConfig(temprature=0.5)
    with pytest.raises(Exception, match="frozen"):
        DiffMMConfig().temperature = 1.0
    assert all(field.description for field in DiffMMConfig.model_fields.values())
