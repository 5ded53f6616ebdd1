"""Number formats of the large matrix products. Imports torch alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from recbole_diffmm.errors import UserError

Precision = Literal["auto", "fp32", "tf32", "bf16"]


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """Return ``fp32``, ``tf32`` or ``bf16`` for a device; ``auto`` is bf16 where the hardware multiplies it natively.

    Raises:
        UserError: tf32 was asked for where there is none. (bf16 is emulated everywhere, at a cost in time.)
    """
    if precision == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    if precision == "tf32" and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)):
        raise UserError(
            f"precision: tf32 needs an NVIDIA GPU of compute capability 8.0 or newer, this run is on {device}; "
            "use fp32, bf16 or auto"
        )
    return precision


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware, which is what makes the format pay."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # PyTorch tells this under a private name alone; where that is gone, fp32 is the safe answer.
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return False


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Context in which matrix products take bfloat16 operands if ``precision`` is ``bf16``; parameters stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Let float32 products of the GPU use TF32 inside if ``precision`` is ``tf32``, backward passes included."""
    if precision != "tf32":
        yield  # whatever the process has set stays as it is
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def operand_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The format that a hand-written product should give its operands: autocast's where it is on and bfloat16.

    float16 is left out: the small weights of a softmax over all nodes would vanish in its narrow range.
    """
    kind = tensor.device.type
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16:
        return torch.bfloat16
    return torch.float32 if tensor.dtype in {torch.float16, torch.bfloat16} else tensor.dtype
