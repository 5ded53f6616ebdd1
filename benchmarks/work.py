"""What a function costs: its dense products, the bytes that it moves, its seconds, and the peak of memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from recbole_diffmm import provenance


class Traffic(TorchDispatchMode):
    """Bytes that PyTorch's operations read and write: every operand once an operation, as if there were no caches."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if func.is_view or name.startswith(("empty", "new_empty", "_unsafe_view")):
            return out
        if name in {"index", "index_select"}:  # what is picked, not the table
            self.total += 2 * size_in_bytes(out) + size_in_bytes(args[1:])
        elif name == "index_put_":  # an index is as wide as the number that it reads and writes
            self.total += 2 * size_in_bytes(args[1:])
        elif name.startswith("_embedding_bag"):
            self.total += args[1].numel() * args[0][0].nbytes + size_in_bytes(args[1:]) + size_in_bytes(out[0])
        else:
            written = [a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments]
            self.total += sum(size_in_bytes(x) * (1 + w) for x, w in zip(args, written, strict=False))
            if not any(written):
                self.total += size_in_bytes(out)
        return out


def size_in_bytes(value: Any) -> int:
    """Bytes of a dense tensor, or of those in a list; a sparse one's parts are operands of their own."""
    if isinstance(value, Tensor):
        return value.nbytes if value.layout == torch.strided else 0
    return sum(map(size_in_bytes, value)) if isinstance(value, (list, tuple)) else 0


def reset_peak() -> None:
    """Let the peak start from now, where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # elsewhere the peak is that of all phases so far


def peak_bytes() -> int:
    """Peak of resident memory."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+)", status.read_text())):
        return int(found[1]) * 1024
    host = provenance.peak_memory_mb(torch.device("cpu"))["host"]
    return round(host * 2**20) if host else psutil.Process().memory_info().rss


def counted(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a function returns, and its GFLOP of dense products and GB moved."""
    with FlopCounterMode(display=False) as flop, Traffic() as traffic:
        value = function()
    return value, {"gflop": flop.get_total_flops() / 1e9, "gb_moved": traffic.total / 1e9}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its seconds."""
    start = time.perf_counter()
    value = function()
    return value, time.perf_counter() - start


def gemm_gflop_per_s(precision: str, size: int = 2048) -> float:
    """GFLOP/s of square products in a number format, the best of five."""
    x = torch.randn(size, size, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return 2e-9 * size**3 / min(timed(lambda: x @ x)[1] for _ in range(6))
