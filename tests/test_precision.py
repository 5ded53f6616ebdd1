"""Which number format a run's large products take."""

from __future__ import annotations

import pytest
import torch

from recbole_diffmm import precision
from recbole_diffmm.errors import UserError
from recbole_diffmm.precision import autocast, float32_products, operand_dtype, resolve_precision
from tests.trainer.small import small_run

CPU = torch.device("cpu")


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch, native: bool, expected: str) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: native)
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


def test_tf32_is_refused_where_there_is_none() -> None:
    with pytest.raises(UserError, match=r"precision: tf32 needs an NVIDIA GPU .* this run is on cpu; use fp32"):
        resolve_precision("tf32", CPU)


def test_products_take_the_format() -> None:
    left, right = torch.randn(4, 4), torch.randn(4, 4)
    for word, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(word, CPU):
            assert (left @ right).dtype == dtype
            assert operand_dtype(left) == dtype
    with torch.autocast("cpu", torch.float16):
        assert operand_dtype(left) == torch.float32, "half precision has too narrow a range"
    assert operand_dtype(left.double()) == torch.float64


def test_tf32_is_allowed_inside_only() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with float32_products("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
    with float32_products("fp32"):
        assert torch.backends.cuda.matmul.allow_tf32 == before
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_both_formats_reach_the_same_level() -> None:
    settings = {"epochs": 8, "denoiser_hidden_sizes": [16]}
    exact, near = (small_run("DiffMM", precision=word, **settings) for word in ("fp32", "bf16"))
    assert exact.record["config"]["precision"] == "fp32"
    assert near.test["recall@20"] == pytest.approx(exact.test["recall@20"], abs=0.1)
    for key in ("bpr", "contrast", "elbo_smell"):
        last = [result.record["curve"][-1]["losses"][key] for result in (near, exact)]
        assert last[0] != last[1], "the formats differ"
