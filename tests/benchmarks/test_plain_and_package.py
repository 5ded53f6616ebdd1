"""The package against the plain implementation on drawn problems: the same model, computed in two ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_diffmm.graph.adjacency import bipartite_edges
from recbole_diffmm.model.base import module_key
from recbole_diffmm.model.diffmm import DiffMM
from tests.model.test_diffmm import batch, build
from tests.parity.test_parity import close

N_USERS, N_ITEMS, BATCH = 60, 90, 16
PROBLEMS = [
    {"contrast": "modality", "projection": "leaky_matrix"},
    {"contrast": "main", "projection": "linear", "rebuild_k": 3, "edge_dropout": 0.3, "n_layers": 3},
    {"contrast": "modality", "projection": "linear", "steps": 9, "modalities": ("look", "smell", "sound")},
]


@pytest.fixture(params=PROBLEMS, ids=str)
def model(request: pytest.FixtureRequest) -> DiffMM:
    model = build(n_users=N_USERS, n_items=N_ITEMS, precision="fp32", denoiser_dropout=0.0, **request.param)
    with torch.no_grad():
        model.modal_weight.copy_(torch.linspace(0.2, 0.9, len(model.modality_names)))
        for parameter in model.denoisers.parameters():
            parameter.mul_(4)  # as large as trained ones: at initialisation tanh is nearly linear
    for name in model.generated_names:
        model.set_generated_items(name, torch.rand(N_USERS, N_ITEMS).topk(model.settings.rebuild_k).indices)
    return model.train()


@pytest.fixture
def oracle(plain: Any, model: DiffMM) -> Any:
    """The plain model with the same data, parameters and graphs."""
    s = model.settings
    same = {key: getattr(s, key) for key in plain.Settings.__dataclass_fields__ if hasattr(s, key)}
    settings = plain.Settings(**{**same, "hidden_size": s.denoiser_hidden_sizes[0], "batch_size": BATCH})
    features = {name: model.features(name) for name in model.modality_names}
    oracle = plain.Plain(N_USERS, N_ITEMS, model.train_users, model.train_items, features, settings)
    with torch.no_grad():
        for ours, theirs in pairs(model, oracle):
            theirs.copy_(ours)
        for name, denoiser in oracle.denoisers.items():
            for theirs, ours in zip(denoiser.parameters(), denoiser_values(model, name), strict=True):
                theirs.copy_(ours)
    for name in model.generated_names:
        items, keep = model.generated_items(name), model.get_buffer(f"kept_entries_{name}")
        users = torch.arange(N_USERS).repeat_interleave(items.shape[1])
        (row, col), _ = bipartite_edges(users, items.flatten(), N_USERS, N_ITEMS)
        # The plain graph's entries are counted by row and then column.
        oracle.set_generated_items(name, items, keep[torch.argsort(row * (N_USERS + N_ITEMS) + col)])
    return oracle


def pairs(model: DiffMM, oracle: Any, part: str = "data") -> list[tuple[Tensor, Tensor]]:
    """The recommender's parameters, or their ``grad``, the package's and the plain model's, in the latter's shapes."""
    names = ("user_embedding", "item_embedding", "modal_weight")
    found = [(getattr(getattr(model, name), part), getattr(getattr(oracle, name), part)) for name in names]
    for name, linear in oracle.projections.items():
        for key, theirs in linear.named_parameters():
            ours = getattr(model.projections[module_key(name)].get_parameter(key), part)
            turned = model.settings.projection == "leaky_matrix"
            found.append((ours.t() if turned else ours, getattr(theirs, part)))
    return found


def denoiser_values(model: DiffMM, name: str, part: str = "data") -> list[Tensor]:
    """A denoiser's parameters, or their ``grad``, in the plain model's shapes and order: row and step are one input."""
    d = model.denoiser(name)
    values = {key: getattr(parameter, part) for key, parameter in d.named_parameters()}
    first = torch.cat([values["input_layer.weight"], values["input_time_layer.weight"]], dim=1)
    rest = ("input_layer.bias", "layers.0.weight", "layers.0.bias")
    return [values["time_layer.weight"], values["time_layer.bias"], first, *(values[key] for key in rest)]


@torch.no_grad()
def test_views(model: DiffMM, oracle: Any) -> None:
    for ours, theirs in zip(model.embeddings(), oracle.main_view(), strict=True):
        close(ours, theirs)
    for name, projected in model.normalized_features().items():
        for ours, theirs in zip(model._contrastive_view(name, projected), oracle.contrastive_view(name), strict=True):
            close(ours, theirs)


def test_ranking_losses_and_gradients(model: DiffMM, oracle: Any) -> None:
    given = batch(model)
    ids = (given[key] - 1 for key in (model.USER_ID, model.ITEM_ID, model.NEG_ITEM_ID))
    ours, theirs = model.calculate_loss(given), oracle.losses(*ids)
    for value, name in zip(ours, theirs, strict=True):
        close(value, theirs[name].detach())
        assert value > 0
    for loss in (sum(ours), sum(theirs.values())):
        loss.backward()
    for pair in pairs(model, oracle, "grad"):
        close(*pair)


def test_denoiser_losses_and_gradients(model: DiffMM, oracle: Any) -> None:
    projected, targets = model.injection_targets()
    users = torch.randperm(N_USERS)[:BATCH]
    t = torch.randint(model.settings.steps, users.shape)
    noise = torch.randn(BATCH, N_ITEMS)
    for name in model.generated_names:
        theirs = oracle.denoiser_losses(name, oracle.history[users], t, noise)
        ours = model.denoiser_loss(name, users, t, noise.clone(), projected[name], targets[users])
        for pair in zip(ours, theirs, strict=True):
            close(*pair)
        for elbo, msi in (ours, theirs):
            (elbo.mean() + msi.mean()).backward()
        for mine, parameter in zip(
            denoiser_values(model, name, "grad"), oracle.denoisers[name].parameters(), strict=True
        ):
            close(mine, parameter.grad)


@pytest.mark.parametrize("sampling_steps", [0, 3])
def test_generation(model: DiffMM, oracle: Any, sampling_steps: int) -> None:
    """In hidden space and in the space of the items, from clean histories and from noised ones."""
    users = torch.arange(N_USERS)
    model.settings = model.settings.model_copy(update={"sampling_steps": sampling_steps, "rebuild_k": 4})
    for name in model.generated_names:
        assert model.hidden_space_sampler(name) is not None
        torch.manual_seed(7)
        ours = model.generate_batch(name, model.hidden_space_sampler(name), users)
        start = oracle.history
        if sampling_steps:
            torch.manual_seed(7)
            start = oracle.q_sample(start, torch.full((N_USERS,), sampling_steps - 1), torch.randn_like(start))
        scores = oracle.p_sample(name, start)
        # By their scores: two items within rounding of each other may change places.
        close(scores.gather(1, ours), scores.topk(4).values)
