"""The pass over an epoch's training batches, for every trainer that takes RecBole's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from recbole_diffmm.trainer.replay import FEWEST_BATCHES, Replay, can_replay, is_replayable, own_stream

Step = Callable[[Interaction], Tensor]

# Batches between two looks for a loss that is not finite, where a look makes the host wait for the device.
CHECK_EVERY = 100


class BatchLoop(Trainer):
    """RecBole's `Trainer._train_epoch`, with the same numbers and without its waits for the device.

    RecBole copies every batch from memory that the GPU cannot read by itself and reads every loss term back with
    ``.item()``, and so waits for the GPU several times a step. Here batches are copied in passing, losses stay on the
    device and are read once in :data:`CHECK_EVERY` batches, and steps of a model that says it is ``replayable`` are
    replayed as a CUDA graph (:class:`Replay`; ``cuda_graphs: false`` leaves that out). It goes last among the bases of
    a trainer, in front of RecBole's `Trainer`, so that a trainer with a loop of its own keeps it.

    Attributes:
        reading_waits: Whether reading a number waits for the device; then losses are checked in retrospect.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self.reading_waits: bool = self.device.type != "cpu"
        # One for all epochs: cuBLAS keeps memory for every stream that it has worked in.
        self._stream: Any = None

    @property
    def product_format(self) -> str:
        """The number format of training's large products, for models that do not say it themselves."""
        if not self.enable_amp:
            return "fp32"
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}[torch.get_autocast_dtype(self.device.type)]

    def begin_batches(self) -> None:
        """Note that a pass over the batches begins, of which some trainers make several an epoch."""

    def check_in_retrospect(self, losses: list[Tensor]) -> None:
        """Look for a term that is not finite in the ``(n_terms,)`` losses of the last batches, the newest last."""

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Callable[..., Any] | None = None, show_progress: bool = False
    ) -> Any:
        self.begin_batches()
        self.model.train()
        # Not in `train()`, which RecBole calls for every batch where it samples negatives by their scores.
        begin = getattr(self.model, "on_epoch_start", None)
        if begin is not None:
            begin()
        loss_func = loss_func or self.model.calculate_loss
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.enable_scaler)
        history: list[Tensor] = []
        several = False

        def step(batch: Interaction) -> Tensor:
            nonlocal several
            self.optimizer.zero_grad()
            with torch.autocast(device_type=self.device.type, enabled=self.enable_amp):
                losses = loss_func(batch)
            several = isinstance(losses, tuple)
            terms = losses if several else (losses,)
            loss = sum(terms)
            if not self.reading_waits:
                self._check_nan(loss)
            scaler.scale(loss).backward()
            if self.clip_grad_norm:
                clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
            scaler.step(self.optimizer)
            scaler.update()
            return torch.stack([term.detach().reshape(()) for term in terms])

        with self._replayed(step, len(train_data)) as run:
            for interaction in train_data:
                history.append(run(handed_over(interaction, self.device)))
                if self.reading_waits and len(history) % CHECK_EVERY == 0:
                    self.check_in_retrospect(history[-CHECK_EVERY:])
        if not history:
            return None
        if self.reading_waits and (rest := len(history) % CHECK_EVERY):
            self.check_in_retrospect(history[-rest:])
        sums = torch.stack(history).double().sum(dim=0).tolist()
        return tuple(sums) if several else sums[0]

    @contextmanager
    def _replayed(self, step: Step, n_batches: int) -> Iterator[Step]:
        """Give `step` as it is, or where that pays and can be done, as one that is recorded and replayed on the GPU."""
        if self.device.type != "cuda" or (reason := self._why_not_replayed(n_batches)):
            if self.device.type == "cuda" and self._stream is None:
                self.logger.info(f"Training steps are launched one by one: {reason}")
                self._stream = torch.cuda.current_stream(self.device)
            yield step
            return
        if self._stream is None:
            self.logger.info("Training steps are recorded and replayed (cuda_graphs: true)")
            self._stream = torch.cuda.Stream(self.device)
        with own_stream(self.device, self._stream):
            yield Replay(step, self.optimizer, self.config["model"])

    def _why_not_replayed(self, n_batches: int) -> str:
        """Return what speaks against replaying steps, an empty text if nothing does."""
        if self.config["cuda_graphs"] is False:
            return "cuda_graphs: false"
        if not is_replayable(self.model):
            return f"those of {self.config['model']} are not declared to be alike"
        if self.enable_scaler:
            return "enable_scaler: true"
        if (self.config["train_neg_sample_args"] or {}).get("dynamic"):
            return "dynamic negative sampling scores between steps"
        if n_batches < FEWEST_BATCHES:
            return f"an epoch has {n_batches} batches, fewer than {FEWEST_BATCHES}"
        if not can_replay(self.optimizer):
            return f"learner: {self.config['learner']}"
        return ""


def handed_over(batch: Interaction, device: torch.device) -> Interaction:
    """Return `batch` on `device`, without waiting for a GPU: it copies from pinned memory when it comes to it."""
    if device.type != "cuda":
        return batch.to(device)
    tensors = batch.interaction.items()
    return Interaction({name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors})
