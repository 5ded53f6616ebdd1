"""When a step is recorded and what a replay does, with a recorder in the GPU's place (tests/test_cuda.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_diffmm.errors import UserError
from recbole_diffmm.model.diffmm import DiffMM
from recbole_diffmm.trainer.replay import WARM_UP, Replay, can_replay, is_replayable


class Recorder:
    """Stands in for a CUDA graph: what happens inside `torch.cuda.graph` happens again in a replay."""

    made: list[Recorder]

    def __init__(self) -> None:
        self.replays = 0
        Recorder.made.append(self)

    def replay(self) -> None:
        self.replays += 1
        self.again()


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    Recorder.made = []

    @contextmanager
    def graph(recorder: Recorder, stream: Any) -> Iterator[None]:
        recorder.again = lambda: None
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorder)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    return Recorder


def batch(*users: int) -> Interaction:
    return Interaction({"user_id": torch.tensor(users)})


def adam() -> torch.optim.Adam:
    return torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])


def test_a_step_is_recorded_after_some_and_replayed_on_batches_of_its_length(recorder: type[Recorder]) -> None:
    seen: list[list[int]] = []

    def step(given: Interaction) -> torch.Tensor:
        seen.append(given["user_id"].tolist())
        return given["user_id"].float().sum().reshape(1)

    replay = Replay(step, adam(), "BPR")
    for i in range(WARM_UP):
        assert replay(batch(i, i)).tolist() == [2.0 * i]
    assert not recorder.made
    replay(batch(7, 7))
    (graph,) = recorder.made
    assert graph.replays == 1, "recording does not run what it records"
    seen.clear()
    replay(batch(8, 9))
    assert graph.replays == 2
    assert replay._batch["user_id"].tolist() == [8, 9]
    assert not seen
    assert replay(batch(3)).tolist() == [3.0], "a last batch is shorter"
    assert seen == [[3]]
    assert graph.replays == 2


def test_losses_of_a_replay_are_copies() -> None:
    replay = Replay(lambda given: given["user_id"].float(), adam(), "BPR")
    for _ in range(WARM_UP):
        replay(batch(1))
    first = replay(batch(1))
    replay._losses.add_(5)
    assert first.tolist() == [1.0]


def test_a_step_that_cannot_be_recorded_is_told_in_one_line() -> None:
    def step(given: Interaction) -> torch.Tensor:
        if step.calls == WARM_UP:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be ...")
        step.calls += 1
        return torch.zeros(1)

    step.calls = 0
    replay = Replay(step, adam(), "HCCF")
    with pytest.raises(
        UserError,
        match=r"cuda_graphs: a training step of HCCF .* capturing\); set cuda_graphs: false, in a new process$",
    ):
        for _ in range(WARM_UP + 1):
            replay(batch(1))


def test_a_subclass_with_a_loss_of_its_own_says_for_itself_that_it_can_be_replayed() -> None:
    """A loss that counts its steps on the host would count the recorded one alone."""

    class Counting(DiffMM):
        def calculate_loss(self, interaction: Any) -> Any:
            return super().calculate_loss(interaction)

    class Declared(Counting):
        replayable = True

        def calculate_loss(self, interaction: Any) -> Any:
            return super().calculate_loss(interaction)

    class Same(DiffMM):
        pass

    found = {kind.__name__: is_replayable(kind.__new__(kind)) for kind in (DiffMM, Counting, Declared, Same)}
    assert found == {"DiffMM": True, "Counting": False, "Declared": True, "Same": True}


def test_the_optimiser_keeps_its_count_on_the_device_even_when_it_went_on_without() -> None:
    optimizer = adam()
    (group,) = optimizer.param_groups
    (parameter,) = group["params"]
    parameter.grad = torch.ones(2)
    optimizer.step()
    Replay(lambda given: torch.zeros(1), optimizer, "BPR")
    assert group["capturable"]
    assert optimizer.state[parameter]["step"].device == parameter.device
    assert can_replay(optimizer)
    assert not can_replay(torch.optim.SGD([parameter], lr=0.1))
