"""The plain implementation gives every number that the reference recorded, and an epoch of it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.problem import FILES, PROJECTIONS, Problem
from tests.parity.test_parity import CONTRASTS, close

# The reference's names of a denoiser's parameters, and ours: both append the step to the row.
DENOISER = {"emb_layer": "time_layer", "in_layers.0": "input_layer", "out_layers.0": "output_layer"}


@pytest.fixture(params=FILES)
def problem(request: pytest.FixtureRequest, shared: Path) -> Problem:
    return Problem(shared / "parity" / f"{request.param}.npz")


def build(plain: Any, problem: Problem, contrast: str = "modality") -> Any:
    """The plain model with the fixture's settings, parameters and generated graphs."""
    c = problem.config
    [hidden_size] = c["dims_list"]
    assert not c["norm"]
    settings = plain.Settings(
        embedding_size=c["latdim"],
        n_layers=c["gnn_layer"],
        projection=PROJECTIONS[c["trans"]],
        contrast=contrast,
        cl_weight=c["ssl_reg"],
        temperature=c["temp"],
        reg_weight=c["reg"],
        residual_weight=c["ris_lambda"],
        generated_graph_weight=c["ris_adj_lambda"],
        edge_dropout=1.0 - c["keepRate"],
        rebuild_k=c["rebuild_k"],
        msi_weight=c["e_loss"],
        hidden_size=hidden_size,
        time_embedding_size=c["d_emb_size"],
        steps=c["steps"],
        noise_scale=c["noise_scale"],
        noise_min=c["noise_min"],
        noise_max=c["noise_max"],
        batch_size=c["B"],
    )
    features = {name: problem[f"feat_{name}"] for name in problem.modalities}
    model = plain.Plain(
        problem.n_users, problem.n_items, problem["train_user"], problem["train_item"], features, settings
    )
    with torch.no_grad():
        for theirs, ours in recommender_parameters(model, problem).items():
            ours.copy_(like_ours(theirs, problem[f"param_{theirs}"]))
        for name in problem.modalities:
            for theirs, ours in denoiser_parameters(model, name).items():
                ours.copy_(problem[f"denoise_{theirs}"])
            model.set_generated_items(name, problem[f"gen_item_{name}"])
    return model


def recommender_parameters(model: Any, problem: Problem) -> dict[str, Tensor]:
    """Parameters under the reference's names."""
    names = {"uEmbeds": model.user_embedding, "iEmbeds": model.item_embedding, "modal_weight": model.modal_weight}
    for modality in problem.modalities:
        projection = model.projections[modality]
        if problem.config["trans"] == 0:
            names[f"{modality}_trans"] = projection.weight
        else:
            names |= {f"{modality}_trans.{key}": value for key, value in projection.named_parameters()}
    return names


def like_ours(name: str, value: Tensor) -> Tensor:
    """The reference's bare matrices are ``(F, D)``; ours are the weights of linear layers, ``(D, F)``."""
    return value.t() if name.endswith("_trans") else value


def denoiser_parameters(model: Any, modality: str) -> dict[str, Tensor]:
    denoiser = model.denoisers[modality]
    return {
        f"{theirs}.{part}": denoiser.get_parameter(f"{ours}.{part}")
        for theirs, ours in DENOISER.items()
        for part in ("weight", "bias")
    }


def test_it_stands_alone(repository: Path) -> None:
    text = (repository / "benchmarks" / "plain.py").read_text()
    imported = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"math", "dataclasses", "itertools", "typing", "numpy", "scipy", "torch"}


def test_graphs(plain: Any, problem: Problem) -> None:
    model = build(plain, problem)
    close(model.adj.to_dense(), problem["adj_dense"])
    twice = [problem[key].repeat(2).numpy() for key in ("train_user", "train_item")]
    close(plain.normalized_adjacency(*twice, problem.n_users, problem.n_items).to_dense(), problem["adj_dense"])
    for name in problem.modalities:
        close(model.generated_adj[name].to_dense(), problem[f"gen_adj_dense_{name}"])


def test_views(plain: Any, problem: Problem) -> None:
    model = build(plain, problem)
    users, items = model.main_view()
    close(users, problem["user_emb"])
    close(items, problem["item_emb"])
    for name in problem.modalities:
        close(model.project(name), problem[f"projected_{name}"])
        users, items = model.contrastive_view(name)
        close(users, problem[f"cl_user_{name}"])
        close(items, problem[f"cl_item_{name}"])


@pytest.mark.parametrize("method", CONTRASTS)
def test_ranking_losses_and_gradients(plain: Any, problem: Problem, method: int) -> None:
    model = build(plain, problem, contrast=CONTRASTS[method])
    losses = model.losses(problem["batch_user"], problem["batch_pos"], problem["batch_neg"])
    close(losses["bpr"], problem["loss_bpr"])
    close(losses["reg"], problem["loss_reg"])
    close(losses["contrast"], problem[f"loss_cl_method{method}"])
    total = sum(losses.values())
    close(total, problem[f"loss_total_method{method}"])
    total.backward()
    for theirs, ours in recommender_parameters(model, problem).items():
        close(ours.grad, like_ours(theirs, problem[f"grad_method{method}_{theirs}"]))


def test_a_short_batch_is_divided_by_the_nominal_size(plain: Any, problem: Problem) -> None:
    model = build(plain, problem)
    batch = torch.stack([problem["batch_user"], problem["batch_pos"], problem["batch_neg"]])
    close(sum(model.losses(*part)["bpr"] for part in batch.split(20, dim=1)), problem["loss_bpr"])


def test_noise_schedule(plain: Any, problem: Problem) -> None:
    schedule = build(plain, problem).schedule
    for constant in (
        "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
        "posterior_mean_coef1", "posterior_mean_coef2",
    ):  # fmt: skip
        torch.testing.assert_close(getattr(schedule, constant), problem[f"diff_{constant}"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(schedule.snr, problem["snr"], rtol=1e-12, atol=1e-12)
    assert plain.Schedule(5, 1.0, 0.1, 1.0).betas[-1] == 0.999, "the last step would leave no signal"


def test_denoiser_and_forward_process(plain: Any, problem: Problem) -> None:
    model = build(plain, problem)
    close(model.history, problem["x0"])
    denoiser = model.denoisers[problem.modalities[0]].eval()
    for step in range(problem.config["steps"]):
        t = torch.full((problem.n_users,), step)
        close(denoiser(problem["x0"], t), problem[f"denoise_out_t{step}"])
    close(model.q_sample(problem["x0"], problem["q_t"], problem["q_noise"]), problem["q_sample"])


def test_denoiser_losses_and_gradients(plain: Any, problem: Problem) -> None:
    model = build(plain, problem)
    for name in problem.modalities:
        model.denoisers[name].eval()  # the recorded losses are without dropout
        elbo, msi = model.denoiser_losses(name, problem["x0"], problem["q_t"], problem["q_noise"])
        close(elbo, problem[f"diff_loss_{name}"])
        close(msi, problem[f"gc_loss_{name}"])
        total = elbo.mean() + problem.config["e_loss"] * msi.mean()
        close(total, problem[f"diff_total_{name}"])
        total.backward()
        for theirs, ours in denoiser_parameters(model, name).items():
            close(ours.grad, problem[f"diff_grad_{name}_{theirs}"])
    assert all(p.grad is None for p in recommender_parameters(model, problem).values())


def test_generation(plain: Any, problem: Problem) -> None:
    model = build(plain, problem)
    t = torch.full((problem.n_users,), int(problem["p_sample_noised_start_steps"]) - 1)
    noised = model.q_sample(problem["x0"], t, problem["q_noise"])
    for name in problem.modalities:
        close(model.p_sample(name, problem["x0"]), problem["p_sample"])
        close(model.p_sample(name, noised), problem["p_sample_noised_start"])
        assert torch.equal(model.generate(name), problem["p_sample_topk"])


def test_evaluation_masks_the_training_items(plain: Any, problem: Problem) -> None:
    model = build(plain, problem)
    values = model.evaluate(problem["test_user"], problem["test_item"], int(problem["eval_topk"]))
    assert values == {key: pytest.approx(float(problem[f"eval_{key}"]), rel=1e-5) for key in values}
    n_unseen = problem.n_items - int(problem["x0"].sum(dim=1).max())
    values = model.evaluate(problem["train_user"], problem["train_item"], n_unseen)
    assert values == {"recall": 0, "ndcg": 0, "precision": 0}, "no training item is recommended"
    users = problem["batch_user"]
    close(model.scores(users), problem["user_emb"][users] @ problem["item_emb"].t())


@pytest.fixture
def checkerboard(plain: Any) -> Any:
    """Users like items of their own parity, of which each has seen a half."""
    torch.manual_seed(0)
    n_users, n_items = 60, 40
    alike = (torch.arange(n_users)[:, None] + torch.arange(n_items)) % 2 == 0
    users, items = (alike & (torch.rand(n_users, n_items) < 0.5)).nonzero(as_tuple=True)
    features = {name: torch.randn(n_items, size) for name, size in {"image": 6, "text": 4, "smell": 3}.items()}
    settings = plain.Settings(
        embedding_size=8, hidden_size=16, batch_size=64, learning_rate=0.01, cl_weight=0.01, rebuild_k=2,
        contrast="main", projection="linear",
    )  # fmt: skip
    return plain.Plain(n_users, n_items, users, items, features, settings)


def reconstruction(model: Any) -> float:
    """The denoisers' error at the first step without dropout: sampled steps have weights that differ by thousands."""
    rows, t = model.history, torch.zeros(model.n_users, dtype=torch.int64)
    with torch.no_grad():
        for name in model.names:
            model.denoisers[name].eval()
        return sum(model.denoiser_losses(name, rows, t, torch.zeros_like(rows))[0].mean() for name in model.names)


def test_epochs_lower_the_losses(checkerboard: Any) -> None:
    before, bpr = reconstruction(checkerboard), []
    for _ in range(6):
        denoising = checkerboard.train_denoisers()
        checkerboard.rebuild_graphs()
        ranking = checkerboard.train_ranking()
        assert denoising.keys() == {"elbo", "msi"} and ranking.keys() == {"bpr", "reg", "contrast"}
        bpr.append(ranking["bpr"])
    assert bpr[-1] < 0.8 * bpr[0]
    assert reconstruction(checkerboard) < before
    scores = checkerboard.scores(torch.arange(60))
    alike = (torch.arange(60)[:, None] + torch.arange(40)) % 2 == 0
    assert scores[alike].mean() > scores[~alike].mean()


def test_entries_are_dropped_and_the_rest_scaled(plain: Any, checkerboard: Any) -> None:
    items = torch.rand(60, 40).topk(2).indices  # (U, k), distinct in a row
    users = torch.arange(60).repeat_interleave(2)
    full = plain.normalized_adjacency(users.numpy(), items.flatten().numpy(), 60, 40).to_dense()
    n_entries = 2 * 60 * 2 + 60 + 40  # both directions of every edge, and the self-loops
    keep = torch.arange(n_entries) % 3 == 0
    checkerboard.set_generated_items("text", items, keep=keep)
    dropped = checkerboard.generated_adj["text"].to_dense()
    assert torch.equal(dropped[full != 0] != 0, keep), "entries count by row and then column"
    assert torch.equal(dropped[dropped != 0], full[dropped != 0] / 0.5)
    checkerboard.set_generated_items("text", items)
    assert 0.4 < checkerboard.generated_adj["text"].values().numel() / n_entries < 0.6


def test_negatives_are_unseen_and_uniform(checkerboard: Any) -> None:
    users = torch.arange(60).repeat(500)
    items = checkerboard.sample_negatives(users)
    assert not checkerboard.history[users, items].any()
    counts = torch.bincount(items[users == 0], minlength=40)
    unseen = checkerboard.history[0] == 0
    assert (counts[unseen] > 0).all() and counts[unseen].max() < 4 * counts[unseen].float().mean()


def test_a_user_who_has_everything_is_refused(plain: Any) -> None:
    features = {"image": torch.randn(2, 3)}
    with pytest.raises(ValueError, match="all items"):
        plain.Plain(1, 2, torch.tensor([0, 0]), torch.tensor([0, 1]), features, plain.Settings())
