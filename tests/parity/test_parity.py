"""Equality with every array that the reference implementation recorded, to float32 rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_diffmm.diffusion import HiddenSpaceSampler, denoising_losses, top_items
from recbole_diffmm.graph import bipartite_edges, build_adjacency
from tests.parity.problem import Problem, denoiser_names, load_denoiser, projection_names

CONTRASTS = {0: "modality", 1: "main"}
# Arrays that are inputs of the problem, compared with nothing.
INPUTS = (
    "feat_", "param_", "batch_", "denoise_emb", "denoise_in", "denoise_out_layers", "q_t", "q_noise",
    "test_", "eval_topk", "train_", "p_sample_noised_start_steps",
)  # fmt: skip


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-5, largest: float | None = None) -> None:
    """Compare with an absolute slack of one float32 rounding of the largest entry, for entries near zero.

    `largest` stands in for it where `expected` is what is left of larger terms that cancel.
    """
    expected = expected.to(torch.float64)
    slack = 1e-6 * (float(expected.abs().max()) if largest is None else largest)
    torch.testing.assert_close(actual.detach().to(torch.float64), expected, rtol=rtol, atol=slack)


def batch(problem: Problem, model: Any) -> dict[str, Tensor]:
    return {
        model.USER_ID: problem["batch_user"] + 1,
        model.ITEM_ID: problem["batch_pos"] + 1,
        model.NEG_ITEM_ID: problem["batch_neg"] + 1,
    }


def test_graphs(problem: Problem) -> None:
    model = problem.model()
    close(model.adj.matrix.to_dense(), problem["adj_dense"])
    for name in problem.modalities:
        adj = model.generated_adj(name)
        close(adj.matrix.to_dense(), problem[f"gen_adj_dense_{name}"])
        close(adj.transpose.to_dense(), problem[f"gen_adj_dense_{name}"].t())


def test_views(problem: Problem) -> None:
    model = problem.model()
    users, items = model.embeddings()
    close(users, problem["user_emb"])
    close(items, problem["item_emb"])
    views = {name: model._contrastive_view(name, rows) for name, rows in model.normalized_features().items()}
    for name in problem.modalities:
        close(model.project(name), problem[f"projected_{name}"])
        close(views[name][0], problem[f"cl_user_{name}"])
        close(views[name][1], problem[f"cl_item_{name}"])


@pytest.mark.parametrize("method", CONTRASTS)
def test_ranking_losses_and_gradients(problem: Problem, method: int) -> None:
    model = problem.model(contrast=CONTRASTS[method])
    losses = dict(zip(model.loss_names, model.calculate_loss(batch(problem, model)), strict=True))
    close(losses["bpr"], problem["loss_bpr"])
    close(losses["reg"], problem["loss_reg"])
    close(losses["contrast"], problem[f"loss_cl_method{method}"])
    total = sum(losses.values())
    close(total, problem[f"loss_total_method{method}"])
    total.backward()
    names = {"uEmbeds": "user_embedding", "iEmbeds": "item_embedding", "modal_weight": "modal_weight"}
    for modality in problem.modalities:
        names |= projection_names(modality, problem.config["trans"])
    # The softmax leaves of each modality's gradient its distance from the mean of all, in one problem a hundredth: the
    # recorded values themselves are up to 1.3e-5 away from those of float64.
    tables = max(float(problem[f"grad_method{method}_{table}"].abs().max()) for table in ("uEmbeds", "iEmbeds"))
    for theirs, ours in names.items():
        largest = tables if ours == "modal_weight" else None
        close(model.get_parameter(ours).grad, problem[f"grad_method{method}_{theirs}"], largest=largest)


def test_noise_schedule(problem: Problem) -> None:
    schedule = problem.model().diffusion.schedule
    for constant in (
        "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
        "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
    ):  # fmt: skip
        expected = problem[f"diff_{constant}"]
        torch.testing.assert_close(getattr(schedule, constant), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(schedule.snr, problem["snr"], rtol=1e-12, atol=1e-12)


def test_denoiser_and_forward_process(problem: Problem) -> None:
    model = problem.model().eval()
    name = problem.modalities[0]
    for step in range(problem.config["steps"]):
        t = torch.full_like(problem.everyone, step)
        close(model.denoiser(name)(problem["x0"], t), problem[f"denoise_out_t{step}"])
    close(model.diffusion.q_sample(problem["x0"], problem["q_t"], problem["q_noise"]), problem["q_sample"])
    ones = problem["x0"].nonzero(as_tuple=True)
    in_place = model.diffusion.q_sample_history_(problem["q_noise"].clone(), problem["q_t"], *ones)
    close(in_place, problem["q_sample"])


def test_history_rows_are_the_clean_rows(problem: Problem) -> None:
    model = problem.model()
    close(model.history.rows(problem.everyone), problem["x0"])


def test_denoiser_losses_and_gradients(problem: Problem) -> None:
    model = problem.model().eval()  # evaluation mode: the recorded losses are without dropout
    projected, targets = model.injection_targets()
    for name in problem.modalities:
        elbo, msi = model.denoiser_loss(
            name, problem.everyone, problem["q_t"], problem["q_noise"].clone(), projected[name], targets
        )
        close(elbo, problem[f"diff_loss_{name}"])
        close(msi, problem[f"gc_loss_{name}"])
        total = elbo.mean() + problem.config["e_loss"] * msi.mean()
        close(total, problem[f"diff_total_{name}"])
        total.backward()
        for ours, (theirs, columns) in denoiser_names(problem.n_items).items():
            expected = problem[f"diff_grad_{name}_{theirs}"]
            grad = model.denoiser(name).get_parameter(ours).grad
            close(grad, expected if columns is None else expected[:, columns])
    assert model.item_embedding.grad is None
    assert all(p.grad is None for p in model.projections.parameters())


def test_generation_in_item_space_and_in_hidden_space(problem: Problem) -> None:
    model = problem.model().eval()
    denoiser = model.denoiser(problem.modalities[0])
    noised_steps = int(problem["p_sample_noised_start_steps"])
    t = torch.full_like(problem.everyone, noised_steps - 1)
    noised = model.diffusion.q_sample(problem["x0"], t, problem["q_noise"])
    sampler = HiddenSpaceSampler(denoiser, model.diffusion.schedule)
    history = model.history.sparse_rows(problem.everyone)
    for plain, hidden, expected in (
        (model.diffusion.p_sample_loop(denoiser, problem["x0"]), sampler.scores(*history), "p_sample"),
        (
            model.diffusion.p_sample_loop(denoiser, noised),
            sampler.scores(*history, noisy_rows=noised),
            "p_sample_noised_start",
        ),
    ):
        close(plain, problem[expected])
        close(hidden, problem[expected])
    k = problem.config["rebuild_k"]
    assert torch.equal(top_items(sampler.scores(*history), k), problem["p_sample_topk"])
    for name in problem.modalities:
        assert torch.equal(model.generate(name), problem["p_sample_topk"])


def test_ranking_metrics_with_training_items_masked(problem: Problem) -> None:
    from recbole.config import Config
    from recbole.evaluator.metrics import NDCG, Precision, Recall

    Config.compatibility_settings(None)  # the NumPy aliases that RecBole's metrics use, set by every Config
    model = problem.model().eval()
    k = int(problem["eval_topk"])
    users = problem.everyone
    scores = model.full_sort_predict({model.USER_ID: users + 1})
    scores[:, 0] = -torch.inf
    scores[problem["train_user"], problem["train_item"] + 1] = -torch.inf
    relevant = torch.zeros_like(scores, dtype=torch.bool)
    relevant[problem["test_user"], problem["test_item"] + 1] = True
    tested = relevant.any(dim=1)
    hits = relevant.gather(1, scores.topk(k).indices)[tested].cpu().numpy()
    positives = relevant.sum(dim=1)[tested].cpu().numpy()
    config = {"topk": [k], "metric_decimal_place": 12}
    for metric, key in ((Recall, "recall"), (NDCG, "ndcg"), (Precision, "precision")):
        values = metric(config).metric_info(hits, positives) if key != "precision" else metric(config).metric_info(hits)
        assert values[:, -1].mean() == pytest.approx(float(problem[f"eval_{key}"]), rel=1e-5)


def test_predict_is_a_cell_of_full_sort_predict(problem: Problem) -> None:
    model = problem.model().eval()
    scores = model.full_sort_predict({model.USER_ID: problem["batch_user"] + 1})
    cells = model.predict({model.USER_ID: problem["batch_user"] + 1, model.ITEM_ID: problem["batch_pos"] + 1})
    close(cells, scores.gather(1, (problem["batch_pos"] + 1).unsqueeze(1)).squeeze(1))


def test_losses_of_the_diffusion_package_match_without_a_model(problem: Problem) -> None:
    """The pure functions, given the recorded pieces alone."""
    model = problem.model()
    denoiser = model.denoiser(problem.modalities[-1])
    load_denoiser(denoiser, problem)
    denoiser.eval()
    name = problem.modalities[-1]
    hidden = denoiser.hidden(problem["q_sample"], problem["q_t"])
    output = denoiser.output_layer
    row, item = problem["x0"].nonzero(as_tuple=True)
    elbo, msi = denoising_losses(
        model.diffusion.schedule,
        hidden,
        output.weight,
        output.bias,
        problem["q_t"],
        row,
        item,
        problem[f"projected_{name}"],
        problem["x0"] @ problem["param_iEmbeds"],
    )
    close(elbo, problem[f"diff_loss_{name}"])
    close(msi, problem[f"gc_loss_{name}"])


def test_adjacency_counts_a_repeated_interaction_once(problem: Problem) -> None:
    users, items = problem["train_user"], problem["train_item"]
    n_users, n_items = problem.n_users, problem.n_items
    index, weight = bipartite_edges(users.repeat(2), items.repeat(2), n_users, n_items)
    adj = build_adjacency(index, weight, n_users + n_items, symmetric=True)
    close(adj.matrix.to_dense(), problem["adj_dense"])


def test_every_recorded_array_is_an_input_or_compared(problem: Problem) -> None:
    compared = (
        "adj_dense", "gen_", "gc_loss_", "projected_", "user_emb", "item_emb", "cl_", "loss_", "grad_", "diff_", "snr",
        "denoise_out_t", "q_sample", "p_sample", "x0", "eval_",
    )  # fmt: skip
    unknown = [key for key in problem.arrays if not key.startswith(INPUTS + compared)]
    assert not unknown, unknown
