"""What a step costs, in counts that do not depend on the machine: FLOPs of matrix products and bytes of new memory.

Seconds are for `benchmarks/`; these bounds catch a product done twice or a needless buffer of all items.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from tests.model.test_diffmm import build

BATCH, HIDDEN, SIZE = 32, 24, 8
FLOAT = 4  # bytes


class NewMemory(TorchDispatchMode):
    """Adds up the bytes of every tensor that an operation makes, views and results in place left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__.startswith(("crow_indices", "col_indices", "values")):
            return result  # parts of a sparse matrix
        given = {_storage(value) for value in tree_flatten((args, kwargs))[0] if _dense(value)}
        made = {_storage(value): value for value in tree_flatten(result)[0] if _dense(value)}
        self.bytes += sum(v.numel() * v.element_size() for key, v in made.items() if key not in given)
        return result


def _dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def counts(step: Any) -> tuple[int, int]:
    """FLOPs of matrix products and bytes of new memory of the second call of `step`: the first one builds graphs."""
    step()
    with FlopCounterMode(display=False) as flops:
        step()
    with NewMemory() as memory:
        step()
    return flops.get_total_flops(), memory.bytes


def denoiser_step(precision: str = "fp32", **values: Any) -> tuple[int, int, int, int]:
    values = {"n_users": BATCH, "n_items": 500, "denoiser_hidden_sizes": [HIDDEN], "precision": precision, **values}
    model = build(**values).train()
    projected, targets = model.injection_targets()
    users, t = torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.int64)

    def step() -> None:
        noise = torch.randn(BATCH, model.row_size)
        elbo, msi = model.denoiser_loss("smell", users, t, noise, projected["smell"], targets)
        (elbo.mean() + msi.mean()).backward()
        model.zero_grad(set_to_none=True)

    return model.user_count, model.item_count, *counts(step)


def test_a_denoiser_step_multiplies_five_times() -> None:
    _, n_items, flops, _ = denoiser_step()
    # Two products forward, three backward: the noisy row needs no gradient. Signal injection costs D per entry instead
    # of H: once per user forward, twice per hidden unit backward.
    products = 2 * 5 * BATCH * n_items * HIDDEN
    injection = 2 * n_items * SIZE * (BATCH + 2 * HIDDEN)
    assert products <= flops <= 1.15 * (products + injection)


@pytest.mark.parametrize(("precision", "rows"), [("fp32", 4.0), ("bf16", 5.0)])
def test_a_denoiser_step_makes_few_rows_of_all_items(precision: str, rows: float) -> None:
    """Noise, dropout, predictions and, as bfloat16, their copies; what else there is grows with the weights."""
    _, n_items, _, new = denoiser_step(precision)
    weights = FLOAT * n_items * HIDDEN
    assert new <= rows * FLOAT * BATCH * n_items + 12 * weights


def test_generation_enters_the_item_space_once() -> None:
    model = build(n_users=256, n_items=500, denoiser_hidden_sizes=[HIDDEN], denoiser_batch_size=BATCH, precision="fp32")
    flops, new = counts(lambda: model.generate("smell"))
    n_users, n_items, steps = model.user_count, model.item_count, model.settings.steps
    once = 2 * n_users * n_items * HIDDEN
    in_hidden_space = 2 * HIDDEN * HIDDEN * (n_users * (steps - 1) + n_items) + 2 * HIDDEN * n_items
    assert flops <= 1.1 * (once + in_hidden_space)
    assert flops < steps * 2 * once / 3, "a reverse step in the item space would cost two products of that size"
    assert new <= FLOAT * (1.2 * n_users * n_items + 3 * n_items * HIDDEN + 85 * n_users * HIDDEN)


@pytest.mark.parametrize("contrast", ["main", "modality", "none"])
def test_a_ranking_step_computes_the_losses_that_count(contrast: str) -> None:
    modalities = ("look", "smell")
    model = build(modalities, n_users=300, n_items=500, contrast=contrast, precision="fp32").train()
    model.rebuild_graphs()
    picked = slice(0, BATCH)
    batch = {
        model.USER_ID: model.train_users[picked] + 1,
        model.ITEM_ID: model.train_items[picked] + 1,
        model.NEG_ITEM_ID: torch.arange(BATCH) + 1,
    }

    def step() -> None:
        sum(model.calculate_loss(batch)).backward()
        model.zero_grad(set_to_none=True)

    flops, new = counts(step)
    width = sum(model.features(name).shape[1] for name in modalities)
    projections = 3 * 2 * model.item_count * width * SIZE  # each once, whatever the losses share
    pairs = {"main": 2, "modality": 1, "none": 0}[contrast]
    contrasts = pairs * 3 * 2 * 64 * model.n_nodes * SIZE  # at most 64 distinct nodes; gradients for both sides
    assert flops <= 1.1 * (projections + contrasts)
    assert pairs == 0 or flops >= contrasts
    assert new <= (70 + 40 * pairs) * FLOAT * model.n_nodes * SIZE + pairs * FLOAT * 64 * model.n_nodes


def test_evaluation_multiplies_once_for_a_user_and_an_item() -> None:
    model = build(("look", "smell"), n_users=300, n_items=500, precision="fp32").eval()
    users = {model.USER_ID: torch.arange(BATCH) + 1}

    @torch.no_grad()
    def step() -> None:
        model.full_sort_predict(users)

    flops, new = counts(step)  # the rows of all nodes are propagated in the first call and kept
    assert flops == 2 * BATCH * (model.item_count + 1) * SIZE  # and PAD
    assert new <= FLOAT * (1.1 * BATCH * (model.item_count + 1) + 2 * BATCH * SIZE + model.item_count * SIZE)


def test_a_latent_denoiser_step_multiplies_in_the_latent_space() -> None:
    rank = 8
    _, _, flops, _ = denoiser_step(n_items=5000, latent_size=rank)
    products, injection = 2 * 5 * BATCH * rank * HIDDEN, 2 * 3 * BATCH * rank * SIZE
    embedding = 3 * 2 * BATCH * 10 * (HIDDEN + 10)  # of the steps
    assert products <= flops <= 1.1 * (products + injection + embedding)
