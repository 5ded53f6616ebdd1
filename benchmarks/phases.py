"""The phases of DiffMM's epoch, step by step, on a model that stands alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from synthetic import draw_generated
from torch import Tensor

from recbole_diffmm.diffusion import HiddenSpaceSampler
from recbole_diffmm.model.diffmm import DiffMM

PHASES = ("denoisers", "generation", "ranking", "evaluation")  # in the order of an epoch, whose optimisers all stay
TOP_K = 20


class Phase(NamedTuple):
    """What an epoch does once in a phase, what it does in step ``n``, given what `once` returned, and how often."""

    once: Callable[[], Any]
    step: Callable[[Any, int], Any]
    steps_per_epoch: int
    warm_up: int = 1  # steps


def nth(order: Tensor, size: int, n: int) -> Tensor:
    """The ``n``-th batch of an order, which starts again at its end."""
    batches = order.split(size)
    return batches[n % max(len(batches) - 1, 1)]  # the last one may be smaller


def build_phases(model: DiffMM, config: dict[str, Any]) -> dict[str, Phase]:
    """The phases of an epoch, each step as the trainers of this package and of RecBole take it."""
    s, names = model.settings, model.generated_names
    user_order, pair_order = torch.randperm(model.user_count), torch.randperm(len(model.train_users))
    optimizers = {
        name: torch.optim.Adam(model.denoiser(name).parameters(), lr=s.denoiser_learning_rate, fused=True)
        for name in names
    }
    fields = (model.USER_ID, model.ITEM_ID, model.NEG_ITEM_ID)
    ranking_optimizer = torch.optim.Adam(model.recommender_parameters(), lr=config["learning_rate"], fused=True)

    def prepare_denoisers() -> tuple[dict[str, Tensor], Tensor]:
        model.train()
        return model.injection_targets()

    def denoiser_step(state: tuple[dict[str, Tensor], Tensor], n: int) -> None:
        name, (projected, targets) = names[n % len(names)], state
        users = nth(user_order, s.denoiser_batch_size, n)
        t, noise = torch.randint(s.steps, users.shape), torch.randn(len(users), model.row_size)
        elbo, msi = model.denoiser_loss(name, users, t, noise, projected[name], targets[users])
        (elbo.mean() + s.msi_weight * msi.mean()).backward()
        optimizers[name].step()
        optimizers[name].zero_grad(set_to_none=True)

    def prepare_generation() -> HiddenSpaceSampler | None:
        for name in names:
            sampler = model.hidden_space_sampler(name)
        draw_generated(model)
        model.graph_diagnostics()
        return sampler

    def generation_step(sampler: HiddenSpaceSampler | None, n: int) -> Tensor:
        return model.generate_batch(names[-1], sampler, nth(user_order, s.denoiser_batch_size, n))

    def prepare_ranking() -> None:
        model.train()
        for name in names:
            model.generated_adj(name)

    def ranking_step(_: None, n: int) -> None:
        chosen = nth(pair_order, config["train_batch_size"], n)
        columns = (model.train_users[chosen], model.train_items[chosen], torch.randint(model.item_count, chosen.shape))
        ids = (column + 1 for column in columns)
        ranking_optimizer.zero_grad()
        sum(model.calculate_loss(dict(zip(fields, ids, strict=True)))).backward()
        ranking_optimizer.step()

    @torch.no_grad()
    def prepare_evaluation() -> None:
        model.eval()
        model.full_sort_predict({model.USER_ID: user_order[:1] + 1})  # fills the cache of propagated rows

    @torch.no_grad()
    def evaluation_step(_: None, n: int) -> Tensor:
        users = nth(user_order, config["eval_users_per_batch"], n)
        scores = model.full_sort_predict({model.USER_ID: users + 1})
        row, item = model.history.entries(users)
        scores[:, 0] = -torch.inf
        scores[row, item + 1] = -torch.inf
        return torch.topk(scores, min(TOP_K, model.item_count), dim=-1).indices

    user_batches = len(names) * math.ceil(model.user_count / s.denoiser_batch_size)
    ranking_batches = math.ceil(len(model.train_users) / config["train_batch_size"])
    evaluation_batches = math.ceil(model.user_count / config["eval_users_per_batch"])
    phases = (
        Phase(prepare_denoisers, denoiser_step, user_batches, len(names)),  # until each optimiser has its state
        Phase(prepare_generation, generation_step, user_batches),
        Phase(prepare_ranking, ranking_step, ranking_batches),
        Phase(prepare_evaluation, evaluation_step, evaluation_batches),
    )
    return dict(zip(PHASES, phases, strict=True))
