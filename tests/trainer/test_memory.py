"""Steps of a large catalogue do not wait for new pages of memory."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recbole_diffmm.trainer import diffmm
from recbole_diffmm.trainer.memory import LARGEST_KEPT, keeping_freed_memory
from tests.trainer.test_diffmm import build

# In a process of its own, whose C library has seen no other blocks.
COUNTING = """
import ctypes, resource, torch
from recbole_diffmm.trainer.memory import LARGEST_KEPT, keeping_freed_memory

def new_pages():
    # In blocks, of four that are made one after the other.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(3 * LARGEST_KEPT // 4)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / (3 * LARGEST_KEPT)

print(*(new_pages() for _ in range(3)))
with keeping_freed_memory(3 * LARGEST_KEPT) as kept:
    print(*(new_pages() for _ in range(10)))
assert kept
print(*(ctypes.CDLL(None).mallopt(*asked) for asked in [(-4, 65536), (-3, LARGEST_KEPT), (-1, 2 * LARGEST_KEPT)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of other systems has no such rule")
def test_large_blocks_are_not_made_anew() -> None:
    done = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=True)
    usual, kept, taken_back = ([float(word) for word in line.split()] for line in done.stdout.splitlines())
    assert taken_back == [1, 1, 1], "the C library takes what it is asked at the end"
    if min(usual) < 3:
        pytest.skip("this system keeps them anyway, or its pages are larger than it says")
    assert max(kept[-5:]) < 0.1, "once there are some"


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of other systems has no such rule")
def test_what_is_asked_of_the_c_library_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(mallopt=lambda *args: asked.append(args) or 1))
    with pytest.raises(KeyboardInterrupt), keeping_freed_memory(LARGEST_KEPT + 1) as kept:
        assert kept
        assert asked == [(-4, 0), (-1, -1)]
        raise KeyboardInterrupt
    assert asked[2:] == [(-4, 65536), (-3, LARGEST_KEPT), (-1, 2 * LARGEST_KEPT)]


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: None) -> Any:
        return SimpleNamespace(mallopt=lambda *args: pytest.fail("nothing is to be asked of the C library"))

    monkeypatch.setattr("ctypes.CDLL", refuse)
    with keeping_freed_memory(LARGEST_KEPT) as kept:
        assert not kept


@pytest.mark.parametrize("chosen", [False, True])
def test_another_c_library_and_a_choice_of_the_user_are_left_alone(
    chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = SimpleNamespace(mallopt=lambda *args: pytest.fail("asked of the C library")) if chosen else object()
    if chosen:
        monkeypatch.setenv("MALLOC_MMAP_MAX_", "65536")
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    with keeping_freed_memory(2 * LARGEST_KEPT) as kept:
        assert not kept


def test_training_says_how_large_its_blocks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def keeping(block: int) -> Any:
        given.append(block)
        return keeping_freed_memory(block)

    monkeypatch.setattr(diffmm, "keeping_freed_memory", keeping)
    trainer, train_data = build(epochs=1, denoiser_batch_size=1000, embedding_size=2)
    model = trainer.model
    trainer.fit(train_data, saved=False)
    assert given == [model.user_count * model.item_count * torch.float32.itemsize]
    assert build(denoiser_batch_size=3, embedding_size=16)[0].model.largest_block == model.n_nodes * 16 * 4
    assert build(use_generated_graph=False, embedding_size=2)[0].model.largest_block == model.n_nodes * 2 * 4
