"""How the C library treats the large blocks of a training step."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Beyond this size glibc maps a block anew each time, and the system clears every page of it.
LARGEST_KEPT = 32 * 2**20
# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_USUAL_MMAP_MAX = 65536
_NEVER = -1


@contextmanager
def keeping_freed_memory(largest_block: int) -> Iterator[bool]:
    """Let the process keep what its steps free for the steps after, where the C library would not.

    Steps that need the same large blocks again and again otherwise wait for new pages each time. The price is memory:
    freed blocks of other sizes lie beside those in use until
    :func:`~recbole_diffmm.trainer.state.return_freed_memory`.

    Args:
        largest_block: bytes of the largest block that a step needs; up to :data:`LARGEST_KEPT` nothing is changed.

    Yields:
        Whether freed memory is kept: not for small blocks, nor where the C library is not glibc or the environment has
        glibc's ``MALLOC_MMAP_MAX_``, which is a choice of the user's (``docs/speed.md``).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or largest_block <= LARGEST_KEPT or "MALLOC_MMAP_MAX_" in os.environ:
        yield False
        return
    kept = bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
    try:
        yield kept
    finally:
        # What glibc comes to by itself after such blocks; asked once, it does not any more.
        mallopt(_M_MMAP_MAX, _USUAL_MMAP_MAX)
        mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, 2 * LARGEST_KEPT)
