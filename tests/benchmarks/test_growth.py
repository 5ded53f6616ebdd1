"""The growth benchmark draws the data that it says, does the phases' own work, and fits the exponents of curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmarks.conftest import load_script

SMALL = {"users": 300, "items": 200, "interactions": 3000}
AXES = ["--users", "300", "600", "--items", "--interactions"]
SETTINGS = ["--set", "denoiser_hidden_sizes=[16]", "--set", "embedding_size=8", "--steps", "2"]
PHASES = ["denoisers", "generation", "ranking", "evaluation"]


@pytest.fixture(scope="module")
def growth(repository: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "benchmarks"))  # where it finds its parts, as a script does
        module = load_script(repository, "growth")
        return module


@pytest.fixture(scope="module")
def synthetic(growth: Any) -> Any:
    return sys.modules[growth.build_model.__module__]


@pytest.fixture(scope="module")
def phases(growth: Any) -> Any:
    return sys.modules[growth.build_phases.__module__]


def point(sizes: dict[str, int], exponent: float) -> dict[str, Any]:
    value = sizes["users"] ** exponent
    figures = dict.fromkeys(["step_seconds", "epoch_seconds", "peak_bytes", "added_bytes"], value)
    return {"sizes": sizes, "phases": dict.fromkeys(PHASES, figures)}


def test_slope_of_a_power_is_its_exponent(growth: Any) -> None:
    x = np.array([10.0, 50.0, 700.0])
    assert growth.slope(x, 3 * x**1.7) == pytest.approx(1.7)
    assert growth.slope(x, [4.0, 4.0, 4.0]) == pytest.approx(0)


def test_a_constant_part_flattens_all_points_more_than_the_upper_half(growth: Any) -> None:
    points = [point({"users": n}, 1.0) for n in (10, 100, 1000, 10000)]
    for p in points:
        p["phases"] = {name: {key: 300 + value for key, value in x.items()} for name, x in p["phases"].items()}
    fitted = growth.fit("users", points)
    assert list(fitted) == PHASES
    for exponents in fitted.values():
        assert set(exponents) == set(growth.QUANTITIES)
        for x in exponents.values():
            assert x["all"] < x["upper_half"] < 1
            assert x["upper_half"] == pytest.approx(np.log10(10300 / 1300))


@pytest.mark.parametrize(
    "sizes",
    [
        SMALL,
        {"users": 500, "items": 40, "interactions": 500},
        {"users": 30, "items": 50, "interactions": 750},  # half of all pairs
        {"users": 20_000, "items": 5_000, "interactions": 400_000},
    ],
)
def test_drawn_interactions(synthetic: Any, sizes: dict[str, int]) -> None:
    users, items = synthetic.draw_interactions(sizes)
    assert len(users) == len(items) == sizes["interactions"]
    assert len(set(zip(users.tolist(), items.tolist(), strict=True))) == len(users)
    assert np.bincount(users, minlength=sizes["users"]).min() >= 1 and users.max() == sizes["users"] - 1
    assert items.min() >= 0 and items.max() < sizes["items"]
    assert all(np.array_equal(*both) for both in zip((users, items), synthetic.draw_interactions(sizes), strict=True))


def test_popularity_falls_as_a_power(growth: Any, synthetic: Any) -> None:
    _, items = synthetic.draw_interactions({"users": 20_000, "items": 5_000, "interactions": 400_000})
    counts = np.sort(np.bincount(items, minlength=5_000))[::-1]
    ranks = np.arange(20, 2_000)
    assert growth.slope(ranks + 1, counts[ranks]) == pytest.approx(-synthetic.ITEM_EXPONENT, abs=0.1)


def test_drawing_takes_no_loop_over_users(synthetic: Any) -> None:
    def lines(users: int) -> int:
        """Lines of Python that are run."""
        count = 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            synthetic.draw_interactions({"users": users, "items": 500, "interactions": 20 * users})
        finally:
            sys.settrace(before)
        return count

    assert 0 < lines(20_000) < 2 * lines(500)


def test_steps_are_the_package_s(growth: Any, phases: Any) -> None:
    """A benchmark that takes a phase apart must notice when the package puts it together otherwise."""
    for settings in ({}, {"latent_size": 16}, {"sampling_noise": True, "denoiser_hidden_sizes": [8, 8]}):
        config = growth.build_config({"denoiser_hidden_sizes": [16], "denoiser_batch_size": 128, **settings})
        model = growth.build_model(SMALL, config)
        name = model.generated_names[0]
        sampler = model.hidden_space_sampler(name)
        assert (sampler is None) == bool(settings)
        torch.manual_seed(0)
        batches = [model.generate_batch(name, sampler, users) for users in torch.arange(300).split(128)]
        torch.manual_seed(0)
        assert torch.equal(torch.cat(batches), model.generate(name))
        before = {key: value.clone() for key, value in model.named_parameters()}
        epoch = growth.build_phases(model, config)
        steps = {"denoisers": 2 * 3, "generation": 2 * 3, "ranking": 3, "evaluation": 2}
        assert {key: phase.steps_per_epoch for key, phase in epoch.items()} == steps
        epoch["denoisers"].step(epoch["denoisers"].once(), 0)
        changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
        assert changed and all(key.startswith(f"denoisers.modality_{name}.") for key in changed)
        epoch["ranking"].step(epoch["ranking"].once(), 0)
        assert not torch.equal(model.user_embedding, before["user_embedding"])
        ranked = epoch["evaluation"].step(epoch["evaluation"].once(), 0)
        assert ranked.shape == (256, phases.TOP_K) and ranked.min() >= 1, "PAD is not ranked"


def test_traffic_is_what_operations_touch(growth: Any) -> None:
    x, table = torch.zeros(10, 20), torch.zeros(1000, 4)
    rows = torch.arange(5)
    for function, n_bytes in (
        (lambda: x @ x.t(), 2 * x.nbytes + 10 * 10 * 4),
        (lambda: x.mul_(2), 2 * x.nbytes),
        (lambda: x[2:].t(), 0),
        (lambda: table[rows], 2 * 5 * 4 * 4 + rows.nbytes),
    ):
        assert growth.counted(function)[1]["gb_moved"] * 1e9 == pytest.approx(n_bytes)
    assert growth.counted(lambda: x @ x.t())[1]["gflop"] == pytest.approx(2 * 10 * 10 * 20 / 1e9)


def test_a_measurement(growth: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real, jobs = growth.spawn, []

    def spawn(job: dict[str, Any]) -> dict[str, Any]:
        jobs.append(job)  # one process is enough to see that it works
        return real(job) if len(jobs) == 1 else {**first, "sizes": job["sizes"]}

    first: dict[str, Any] = {}
    monkeypatch.setattr(growth, "spawn", lambda job: first.update(result := spawn(job)) or result)
    arguments = ["--base", "300", "200", "1000", *AXES, *SETTINGS, "--no-picture", "--out", "curves.json"]
    assert growth.main(arguments) == 0
    report = json.loads(Path("curves.json").read_text())
    assert list(report["axes"]) == ["users"] and report["notes"]
    points = report["axes"]["users"]["points"]
    assert [p["sizes"] for p in points] == [
        {"users": n, "items": 200, "interactions": 1200} for n in (300, 600)  # twice the largest number of users
    ]  # fmt: skip
    assert list(points[0]["phases"]) == PHASES == list(report["axes"]["users"]["exponents"])
    for phase in points[0]["phases"].values():
        assert all(phase[quantity] > 0 for quantity in growth.QUANTITIES)
        total = phase["once_seconds"] + phase["steps_per_epoch"] * phase["step_seconds"]
        assert phase["epoch_seconds"] == pytest.approx(total) and len(phase["seconds_of_each_step"]) == 2
        assert phase["step_work"]["gflop"] > 0 and phase["step_work"]["gb_moved"] > 0
    shown = capsys.readouterr()
    assert all(phase in shown.out for phase in PHASES) and "300 users, 200 items, 1,200 inter" in shown.err


def test_large(growth: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(growth, "spawn", growth.execute)
    monkeypatch.setitem(growth.VARIANTS, "latent", {"latent_size": 16, "contrast_negatives": 32})
    arguments = ["--base", "300", "200", "3000", *SETTINGS, "--large", "--out", "large.json"]
    assert growth.main([*arguments, "--variants", "sampled", "latent", "--set", "rebuild_k=2"]) == 0
    variants = json.loads(Path("large.json").read_text())["variants"]
    assert variants["sampled"]["settings"]["contrast_negatives"] == 4096
    assert variants["latent"]["settings"]["latent_size"] == 16 and variants["latent"]["settings"]["rebuild_k"] == 2
    for variant in variants.values():
        assert variant["gemm_gflop_per_s"] > 0 and "NOT A MEASUREMENT" in variant["h200"]["what"]
        scoring = 2 * 256 * 201 * 8 / 1e9
        assert variant["phases"]["evaluation"]["step_work"]["gflop"] == pytest.approx(scoring)
    narrow, wide = (variants[name]["phases"]["denoisers"]["step_work"]["gflop"] for name in ("latent", "sampled"))
    assert narrow < wide
    shown = capsys.readouterr().out
    assert all(phase in shown for phase in PHASES) and "an estimate by a formula" in shown


def test_the_estimate_is_its_formula(growth: Any) -> None:
    phase = {
        "once_work": {"gflop": 395e3, "gb_moved": 0.0},  # a second of products
        "step_work": {"gflop": 395e3, "gb_moved": 2400.0},  # and a second of bytes
        "steps_per_epoch": 3,
    }
    assert growth.h200_estimate({"ranking": phase})["epoch_seconds"] == pytest.approx(1 + 3 * 2)


def test_the_picture(growth: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [point({**SMALL, "users": n}, 1.0) for n in (10, 100, 1000)]
    report = {"axes": {"users": {"points": points, "exponents": growth.fit("users", points)}}}
    growth.draw(report, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_nothing_is_measured(
    growth: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(growth, "benchmark", lambda args: pytest.fail("measured"))
    assert growth.main([]) == 2
    assert capsys.readouterr().err == "growth.py draws with matplotlib: pip install matplotlib\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "latent_sise=8"], "--set latent_sise: DiffMM has no such setting"),
        (["--set", "rebuild_k=0"], "rebuild_k in the configuration"),
        (["--set", "use_generated_graph=false"], "no denoisers"),
        (["--steps", "0"], "--steps 0: give at least 1"),
        (["--users", "--items", "--interactions"], "no axis is left"),
        (["--users", "500"], "--users 500: give at least two values"),
        (["--base", "300", "20", "5000"], "5000 interactions of 300 users and 20 items"),
        (["--items", "5", "20"], "500000 interactions of 50000 users and 5 items"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    growth: Any,
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(growth, "spawn", lambda job: pytest.fail("measured"))
    assert growth.main(["--no-picture", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and told in shown and shown.count("\n") == 1


def test_a_failed_point_is_one_line(growth: Any) -> None:
    with pytest.raises(growth.UserError, match=r"^300 users, 200 items, 3,000 interactions: --set a: DiffMM has no"):
        growth.spawn({"sizes": SMALL, "settings": {"a": 1}, "steps": 1, "threads": None})
