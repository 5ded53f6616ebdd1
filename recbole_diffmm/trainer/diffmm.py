"""When things happen in DiffMM: denoisers, then graphs, then ranking."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from recbole_diffmm.errors import UserError
from recbole_diffmm.model.diffmm import DiffMM
from recbole_diffmm.precision import float32_products
from recbole_diffmm.trainer.base import RunTrainer
from recbole_diffmm.trainer.loop import BatchLoop
from recbole_diffmm.trainer.memory import keeping_freed_memory
from recbole_diffmm.trainer.state import return_freed_memory


class DiffMMTrainer(RunTrainer, BatchLoop):
    """RecBole's trainer with DiffMM's two phases before each epoch's ranking batches."""

    model: DiffMM

    def __init__(self, config: Any, model: DiffMM) -> None:
        super().__init__(config, model)
        self.denoiser_optimizers = {
            name: self._adam(model.denoiser(name).parameters(), model.settings.denoiser_learning_rate)
            for name in model.generated_names
        }

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        kwargs.setdefault("params", self.model.recommender_parameters())
        optimizer: torch.optim.Optimizer = super()._build_optimizer(**kwargs)  # RecBole's choice, with its warnings
        if type(optimizer) is not torch.optim.Adam:
            return optimizer
        (group,) = optimizer.param_groups
        return self._adam(group["params"], group["lr"], group["weight_decay"])

    def _adam(self, parameters: Any, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Adam:
        # In one kernel where there is one: at a million nodes each pass over the tables counts.
        fused = self.device.type in {"cpu", "cuda"}
        return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train as RecBole does; rows of a large catalogue stay with the process between steps."""
        with keeping_freed_memory(self.model.largest_block if self.device.type == "cpu" else 0):
            return super().fit(*args, **kwargs)

    def _train_epoch(self, *args: Any, **kwargs: Any) -> Any:
        with float32_products(self.model.precision):
            losses = super()._train_epoch(*args, **kwargs)
        return_freed_memory()  # or evaluation's rows of all items come on top of what the batches left
        return losses

    def on_epoch_start(self, train_data: Any, epoch_idx: int) -> dict[str, float]:
        """Train the denoisers for one pass over all users and rebuild the generated graphs."""
        if not self.denoiser_optimizers:
            return {}
        with self.phase("denoisers"):
            return_freed_memory()
            losses = self._train_denoisers()
        for term, value in losses.items():
            if not math.isfinite(value):
                # The denoisers are shown the recommender's embeddings too, so that either rate may be to blame.
                raise UserError(
                    f"loss term {term} became {value} in epoch {epoch_idx} with denoiser_learning_rate="
                    f"{self.model.settings.denoiser_learning_rate} and learning_rate={self.learning_rate}; try smaller "
                    "ones, and look at noise_max and the sizes of the features if it is the first epoch"
                )
        with self.phase("generation"):
            self.diagnostics = self.model.rebuild_graphs()
            return_freed_memory()
        return losses

    def _train_denoisers(self) -> dict[str, float]:
        model, settings = self.model, self.model.settings
        model.train()
        projected, targets = model.injection_targets()
        order = torch.randperm(model.user_count, device=targets.device)
        batches = model.history.batches(order, settings.denoiser_batch_size)
        sums: dict[str, Tensor] = {}
        for users, n_entries in batches:
            for name, optimizer in self.denoiser_optimizers.items():
                t = torch.randint(settings.steps, users.shape, device=users.device)
                # Handed over without a name, so that it does not outlive the forward pass.
                elbo, msi = model.denoiser_loss(
                    name,
                    users,
                    t,
                    torch.randn(len(users), model.row_size, device=users.device),
                    projected[name],
                    targets[users],
                    n_entries,
                )
                terms = {f"elbo_{name}": elbo.mean(), f"msi_{name}": settings.msi_weight * msi.mean()}
                torch.stack(list(terms.values())).sum().backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)  # now: one denoiser's gradients are as large as itself
                for key, value in terms.items():
                    sums[key] = sums.get(key, 0) + value.detach()
        return {key: value.item() / len(batches) for key, value in sums.items()}

    def extra_state(self) -> dict[str, Any]:
        """Optimiser states of the denoisers, and the number format, which another machine may choose differently."""
        states = {name: optimizer.state_dict() for name, optimizer in self.denoiser_optimizers.items()}
        return {"precision": self.model.precision, "optimizers": states}

    def release(self) -> None:
        """Free the denoisers' optimiser states too: twice their parameters."""
        super().release()
        for optimizer in self.denoiser_optimizers.values():
            optimizer.state.clear()
        return_freed_memory()  # or the best epoch's parameters come on top of it

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave.

        Raises:
            UserError: the run went on with another number format until now.
        """
        if state["precision"] != self.model.precision:
            raise UserError(
                f"resume: the run has used precision {state['precision']} so far, here it would be "
                f"{self.model.precision}; go on where it began, or train again"
            )
        for name, optimizer in self.denoiser_optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
