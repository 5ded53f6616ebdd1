"""Training steps as CUDA graphs: where a step's kernels are short, launching them one by one costs most of its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor
from torch.optim import Optimizer

from recbole_diffmm.errors import UserError

# Steps that run as they are before one is recorded: they build graphs and the optimiser's state.
WARM_UP = 3
# Recording takes about as long as five steps, and every epoch does it anew because its graphs are others.
FEWEST_BATCHES = 16


def is_replayable(model: torch.nn.Module) -> bool:
    """Whether the class that defines the model's ``calculate_loss`` says ``replayable``.

    A subclass with a loss of its own has to say it again: its loss may do on the host what a replay would leave out.
    """
    defining = next((kind for kind in type(model).__mro__ if "calculate_loss" in vars(kind)), type(model))
    return bool(vars(defining).get("replayable", False))


def can_replay(optimizer: Optimizer) -> bool:
    """Whether the optimiser can keep its count of steps on the device, which a recorded step needs."""
    return all("capturable" in group for group in optimizer.param_groups)


def _keep_count_on_device(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        group["capturable"] = True
    for parameter, state in optimizer.state.items():
        if isinstance(state.get("step"), Tensor):  # of a run that went on without recording
            state["step"] = state["step"].to(parameter.device, torch.float32)


def keep_count_on_host(optimizer: Optimizer) -> None:
    """Take back what replaying asked of an optimiser: a run that began on a GPU may go on elsewhere."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = False


class Replay:
    """A step over a batch, recorded once and replayed for every other batch of the same length.

    A replay does exactly what was recorded: the same kernels on the same memory, into which the batch is copied first;
    random numbers go on from where they are. A batch of another length runs as it is.

    Args:
        step: From a batch on the device to the values ``(n_terms,)`` of its losses, parameters being updated.
        optimizer: What the step updates them with.
        name: The model's name, for messages.
    """

    def __init__(self, step: Callable[[Interaction], Tensor], optimizer: Optimizer, name: str) -> None:
        _keep_count_on_device(optimizer)
        self._step, self._name = step, name
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Interaction | None = None
        self._losses: Tensor | None = None

    def __call__(self, batch: Interaction) -> Tensor:
        """Run or replay the step.

        Raises:
            UserError: the step does something that cannot be recorded, such as waiting for the device.
        """
        self._calls += 1
        if self._graph is None and self._calls <= WARM_UP:
            return self._step(batch)
        if self._graph is None:
            self._record(batch)
        if self._graph is None or self._batch is None or self._losses is None or len(batch) != len(self._batch):
            return self._step(batch)
        for name, value in batch.interaction.items():
            self._batch[name].copy_(value, non_blocking=True)
        self._graph.replay()
        return self._losses.clone()

    def _record(self, batch: Interaction) -> None:
        self._batch = Interaction({name: value.clone() for name, value in batch.interaction.items()})
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                self._losses = self._step(self._batch)
        except RuntimeError as error:
            raise UserError(
                f"cuda_graphs: a training step of {self._name} cannot be recorded ({_first_cause(error)}); "
                "set cuda_graphs: false, in a new process"
            ) from error
        self._graph = graph


def _first_cause(error: BaseException) -> str:
    # The end of a failed recording raises once more, and says less.
    while error.__context__ is not None:
        error = error.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def own_stream(device: torch.device, stream: Any) -> Iterator[None]:
    """Work in `stream`, after what the current one has been given and before what it will be: none records there."""
    outer = torch.cuda.current_stream(device)
    stream.wait_stream(outer)
    with torch.cuda.stream(stream):
        yield
    outer.wait_stream(stream)
