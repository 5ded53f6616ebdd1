"""RecBole's NCL, whose contrast with all nodes is computed in one buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recbole.model.general_recommender import NCL
from torch import Tensor

from recbole_diffmm.errors import UserError
from recbole_diffmm.model.losses import infonce_loss
from recbole_diffmm.trainer.base import RunTrainer
from recbole_diffmm.trainer.loop import BatchLoop


class NCLTrainer(RunTrainer, BatchLoop):
    """What RecBole's trainer of NCL (WWW 2022) does, in the loop of all other models.

    Nodes are clustered every ``m_step`` epochs, and the contrast with the clusters' centres, RecBole's own, takes part
    after ``warm_up_step`` of them. The contrast with structural neighbours comes from :func:`infonce_loss`, as for SGL:
    the same loss to rounding, in less time. As in RecBole's trainer, ``enable_amp`` reaches a GPU alone.

    Raises:
        UserError: There are more clusters than users or items, or nodes are to be clustered every 0 epochs.
    """

    def __init__(self, config: Any, model: NCL) -> None:
        super().__init__(config, model)
        if self.device.type == "cpu":
            self.enable_amp = False
        points = min(model.n_users, model.n_items)
        if model.k > points:
            raise UserError(
                f"num_clusters={model.k} in {config.source('num_clusters')}: NCL clusters users and items, and "
                f"{config['dataset']} has {points} of one kind; give fewer, such as num_clusters: {points // 10 or 1}"
            )
        if not config["m_step"] > 0:
            raise UserError(f"m_step={config['m_step']} in {config.source('m_step')}: give 1 or more epochs")

        def ssl_layer_loss(context: Tensor, centre: Tensor, users: Tensor, items: Tensor) -> Tensor:
            sizes = [model.n_users, model.n_items]
            (context_users, context_items), (all_users, all_items) = context.split(sizes), centre.split(sizes)
            # RecBole sums over the batch.
            of_users = infonce_loss(context_users, all_users, users, model.ssl_temp) * len(users)
            of_items = infonce_loss(context_items, all_items, items, model.ssl_temp) * len(items)
            return model.ssl_reg * (of_users + model.alpha * of_items)

        model.ssl_layer_loss = ssl_layer_loss

    def on_epoch_start(self, train_data: Any, epoch_idx: int) -> dict[str, float]:
        """Cluster users and items anew, every ``m_step`` epochs."""
        if epoch_idx % self.config["m_step"] == 0:
            with self.phase("clustering"):
                self.model.e_step()
        return {}

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Callable[..., Any] | None = None, show_progress: bool = False
    ) -> Any:
        all_terms = loss_func or self.model.calculate_loss

        def without_clusters(batch: Any) -> tuple[Tensor, ...]:
            return tuple(all_terms(batch)[:-1])

        warming_up = epoch_idx < self.config["warm_up_step"]
        return super()._train_epoch(train_data, epoch_idx, without_clusters if warming_up else all_terms)
