"""The noise process and the denoiser on random problems; equality with the reference is in tests/parity."""

from __future__ import annotations

import pytest
import torch

from recbole_diffmm.diffusion import (
    Denoiser,
    GaussianDiffusion,
    HiddenSpaceSampler,
    NoiseSchedule,
    denoising_losses,
    top_items,
)
from recbole_diffmm.diffusion.denoiser import sinusoidal_embedding


def schedule(steps: int = 5) -> NoiseSchedule:
    return NoiseSchedule(steps, noise_scale=0.1, noise_min=1e-4, noise_max=0.02)


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_schedule_is_finite_and_monotone(steps: int) -> None:
    constants = schedule(steps)
    for name, value in constants.named_buffers():
        assert value.shape == (steps,) and torch.isfinite(value).all(), name
    assert (torch.diff(constants.alphas_cumprod) < 0).all()
    assert constants.loss_weight[0] == 1
    assert constants.betas[0] == 1e-4
    assert not constants.state_dict()


def test_a_perfect_denoiser_gives_the_clean_row_back() -> None:
    """At step 0 the posterior mean is the prediction itself."""
    x_start = torch.rand(4, 9)
    diffusion = GaussianDiffusion(schedule())
    noisy = diffusion.q_sample(x_start, torch.full((4,), 4), torch.randn(4, 9))
    assert not torch.allclose(noisy, x_start)
    torch.testing.assert_close(diffusion.p_sample_loop(lambda x_t, t: x_start, noisy), x_start)


def test_sampling_noise_is_reproducible_and_has_an_effect() -> None:
    diffusion, x = GaussianDiffusion(schedule()), torch.rand(4, 9)

    def shrink(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.5 * x_t

    def sample(seed: int) -> torch.Tensor:
        return diffusion.p_sample_loop(shrink, x, sampling_noise=True, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))


@pytest.mark.parametrize("seed", range(3))
def test_hidden_space_sampling_equals_item_space_sampling(seed: int) -> None:
    torch.manual_seed(seed)
    n_users, n_items, steps = 50, 200, 7
    denoiser = Denoiser(n_items, [32], 11).double().eval()  # float64: the equality is algebra, not rounding
    with torch.no_grad():  # weights as large as trained ones: at initialisation tanh is nearly linear
        for parameter in denoiser.parameters():
            parameter.mul_(4)
    diffusion = GaussianDiffusion(schedule(steps))
    rows = (torch.rand(n_users, n_items) < 0.03).double()
    rows[7] = 0  # a user without history
    offsets = torch.cumsum(rows.sum(1).long(), 0) - rows.sum(1).long()
    sampler = HiddenSpaceSampler(denoiser, diffusion.schedule)
    with torch.no_grad():
        plain = diffusion.p_sample_loop(denoiser, rows)
        hidden = sampler.scores(rows.nonzero()[:, 1], offsets)
        dense = sampler.scores(rows.nonzero()[:, 1], offsets, noisy_rows=rows)
    torch.testing.assert_close(hidden, plain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(dense, plain, rtol=1e-9, atol=1e-9)
    assert torch.equal(top_items(hidden, 3), top_items(plain, 3))


def test_hidden_space_sampling_in_bfloat16_ranks_the_same_items_first() -> None:
    """Both ways round, the one once a step and the other in every product: nearly all users get the same item."""
    torch.manual_seed(0)
    denoiser = Denoiser(300, [32], 10).eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.mul_(4)
    diffusion = GaussianDiffusion(schedule(5))
    rows = (torch.rand(400, 300) < 0.03).float()
    offsets = torch.cumsum(rows.sum(1).long(), 0) - rows.sum(1).long()
    with torch.no_grad():
        exact = diffusion.p_sample_loop(denoiser, rows)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = HiddenSpaceSampler(denoiser, diffusion.schedule).scores(rows.nonzero()[:, 1], offsets)
            plain = diffusion.p_sample_loop(denoiser, rows)
    errors = [((scores.float() - exact).norm() / exact.norm()).item() for scores in (hidden, plain)]
    same = [(top_items(s.float(), 1) == top_items(exact, 1)).float().mean().item() for s in (hidden, plain)]
    assert 0 < errors[0] < 0.03 and errors[0] < 1.2 * errors[1]
    assert same[0] > 0.9 and same[0] > same[1] - 0.03


def test_hidden_space_sampling_is_left_where_it_would_not_be_exact() -> None:
    assert HiddenSpaceSampler.applies(Denoiser(10, [4]), sampling_noise=False)
    assert not HiddenSpaceSampler.applies(Denoiser(10, [4]), sampling_noise=True)
    assert not HiddenSpaceSampler.applies(Denoiser(10, [4, 6]), sampling_noise=False)
    assert not HiddenSpaceSampler.applies(Denoiser(10, [4], normalize_input=True), sampling_noise=False)


def test_widths_of_a_deep_denoiser() -> None:
    denoiser = Denoiser(30, [4, 6], 10)
    assert denoiser.input_layer.weight.shape == (6, 30)
    assert [tuple(layer.weight.shape) for layer in denoiser.layers] == [(4, 6), (6, 4), (30, 6)]
    assert denoiser(torch.rand(3, 30), torch.tensor([0, 1, 2])).shape == (3, 30)


def test_initial_weights_have_the_published_spread() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(2000, [500], 10)
    assert denoiser.input_layer.weight.std().item() == pytest.approx((2 / (2000 + 10 + 500)) ** 0.5, rel=0.01)
    assert denoiser.layers[0].weight.std().item() == pytest.approx((2 / (2000 + 500)) ** 0.5, rel=0.01)
    assert denoiser.layers[0].bias.std().item() == pytest.approx(0.001, rel=0.1)


def test_normalised_input_ignores_the_length_of_a_row() -> None:
    denoiser = Denoiser(20, [8], normalize_input=True).eval()
    x, t = torch.rand(3, 20), torch.zeros(3, dtype=torch.int64)
    torch.testing.assert_close(denoiser(x, t), denoiser(5 * x, t))


def test_dropout_acts_in_training_only() -> None:
    denoiser, x, t = Denoiser(20, [8]), torch.rand(3, 20), torch.zeros(3, dtype=torch.int64)
    assert not torch.equal(denoiser(x, t), denoiser(x, t))
    denoiser.eval()
    assert torch.equal(denoiser(x, t), denoiser(x, t))


def test_dropout_keeps_the_expected_input() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(4000, [1], dropout=0.25)
    seen: list[torch.Tensor] = []
    denoiser.input_layer.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    denoiser(torch.ones(50, 4000), torch.zeros(50, dtype=torch.int64))
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(seen[0].max(), torch.tensor(1 / 0.75))
    assert seen[0].mean().item() == pytest.approx(1.0, abs=0.01)


def test_odd_time_embedding_ends_in_zero() -> None:
    embedded = sinusoidal_embedding(torch.tensor([0, 3]), 7)
    assert embedded.shape == (2, 7)
    assert (embedded[:, -1] == 0).all()
    torch.testing.assert_close(embedded[0], torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]))


def denoising_problem(dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    n_users, n_items, width, size = 6, 15, 4, 3
    x_start = (torch.rand(n_users, n_items) < 0.2).to(dtype)
    x_start[2] = 0  # a user without history
    row, item = x_start.nonzero(as_tuple=True)
    inputs = {
        "hidden": torch.randn(n_users, width, dtype=dtype, requires_grad=True),
        "weight": torch.randn(n_items, width, dtype=dtype, requires_grad=True),
        "bias": torch.randn(n_items, dtype=dtype, requires_grad=True),
        "t": torch.tensor([0, 1, 2, 3, 4, 0]),
        "row": row,
        "item": item,
        "modality_embedding": torch.randn(n_items, size, dtype=dtype),
        "target": torch.randn(n_users, size, dtype=dtype),
    }
    return inputs, x_start


def test_denoising_losses_equal_the_formulas_and_their_gradients() -> None:
    inputs, x_start = denoising_problem(torch.float64)
    constants = schedule()
    learned = [inputs[name] for name in ("hidden", "weight", "bias")]
    pred = torch.nn.functional.linear(*learned)
    elbo = constants.loss_weight[inputs["t"]] * (x_start - pred).square().mean(dim=1)
    msi = (pred @ inputs["modality_embedding"] - inputs["target"]).square().mean(dim=1)
    ours = denoising_losses(constants, **inputs)
    torch.testing.assert_close(ours, (elbo, msi))
    weights = torch.rand(2, len(elbo), dtype=torch.float64)  # each user's two losses count differently
    gradients = [
        torch.autograd.grad((weights[0] * a + weights[1] * b).sum(), learned, retain_graph=True)
        for a, b in (ours, (elbo, msi))
    ]
    torch.testing.assert_close(*gradients)
    rest = {name: value for name, value in inputs.items() if name not in {"hidden", "weight", "bias"}}
    assert torch.autograd.gradcheck(lambda h, w, b: denoising_losses(constants, h, w, b, **rest), learned)


def test_denoising_losses_with_bfloat16_operands_are_near() -> None:
    inputs, _ = denoising_problem(torch.float32)
    exact = torch.stack(denoising_losses(schedule(), **inputs))
    with torch.autocast("cpu", torch.bfloat16):
        near = torch.stack(denoising_losses(schedule(), **inputs))
    assert near.dtype == torch.float32 and not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, rtol=0.05, atol=0.01)
    learned = [inputs[name] for name in ("hidden", "weight", "bias")]
    for ours, theirs in zip(*(torch.autograd.grad(loss.sum(), learned) for loss in (near, exact)), strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_noising_in_place_equals_noising_dense_rows() -> None:
    torch.manual_seed(0)
    diffusion = GaussianDiffusion(schedule())
    x_start, noise = (torch.rand(5, 12) < 0.3).float(), torch.randn(5, 12)
    t = torch.tensor([0, 1, 2, 3, 4])
    expected = diffusion.q_sample(x_start, t, noise)
    in_place = diffusion.q_sample_history_(noise, t, *x_start.nonzero(as_tuple=True))
    assert in_place is noise
    torch.testing.assert_close(in_place, expected)
