"""The pass over an epoch's training batches, for every trainer that takes RecBole's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from recbole.trainer import Trainer
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

# Batches between two looks for a loss that is not finite, where a look makes the host wait for the device.
CHECK_EVERY = 100


class BatchLoop(Trainer):
    """RecBole's `Trainer._train_epoch`, with the same numbers and without its waits for the device.

    RecBole reads every loss term of every batch back with ``.item()`` and so waits for the GPU several times a step.
    Here they stay on the device and are read once in :data:`CHECK_EVERY` batches. It goes last among the bases of a
    trainer, in front of RecBole's `Trainer`, so that a trainer with a loop of its own keeps it.

    Attributes:
        reading_waits: Whether reading a number waits for the device; then losses are checked in retrospect.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self.reading_waits: bool = self.device.type != "cpu"

    def check_in_retrospect(self, losses: list[Tensor]) -> None:
        """Look for a term that is not finite in the ``(n_terms,)`` losses of the last batches, the newest last."""

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Callable[..., Any] | None = None, show_progress: bool = False
    ) -> Any:
        self.model.train()
        loss_func = loss_func or self.model.calculate_loss
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.enable_scaler)
        history: list[Tensor] = []
        several = False
        for interaction in train_data:
            self.optimizer.zero_grad()
            with torch.autocast(device_type=self.device.type, enabled=self.enable_amp):
                losses = loss_func(interaction.to(self.device))
            several = isinstance(losses, tuple)
            terms = losses if several else (losses,)
            loss = sum(terms)
            history.append(torch.stack([term.detach().reshape(()) for term in terms]))
            if not self.reading_waits:
                self._check_nan(loss)
            elif len(history) % CHECK_EVERY == 0:
                self.check_in_retrospect(history[-CHECK_EVERY:])
            scaler.scale(loss).backward()
            if self.clip_grad_norm:
                clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
            scaler.step(self.optimizer)
            scaler.update()
        if not history:
            return None
        if self.reading_waits and (rest := len(history) % CHECK_EVERY):
            self.check_in_retrospect(history[-rest:])
        sums = torch.stack(history).double().sum(dim=0).tolist()
        return tuple(sums) if several else sums[0]
