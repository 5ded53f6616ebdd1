"""RecBole's NCL, whose contrast with all nodes is computed in one buffer."""

from __future__ import annotations

from typing import Any

from recbole.model.general_recommender import NCL
from recbole.trainer import NCLTrainer as RecBoleNCLTrainer
from torch import Tensor

from recbole_diffmm.errors import UserError
from recbole_diffmm.model.losses import infonce_loss
from recbole_diffmm.trainer.base import RunTrainer
from recbole_diffmm.trainer.loop import BatchLoop


class NCLTrainer(RunTrainer, RecBoleNCLTrainer, BatchLoop):
    """RecBole's trainer of NCL; the contrast with structural neighbours (WWW 2022) comes from :func:`infonce_loss`.

    As for SGL: the same loss to rounding, in less time. The contrast with the clusters' centres stays RecBole's.

    Raises:
        UserError: There are more clusters than users or items.
    """

    def __init__(self, config: Any, model: NCL) -> None:
        super().__init__(config, model)
        points = min(model.n_users, model.n_items)
        if model.k > points:
            raise UserError(
                f"num_clusters={model.k} in {config.source('num_clusters')}: NCL clusters users and items, and "
                f"{config['dataset']} has {points} of one kind; give fewer, such as num_clusters: {points // 10 or 1}"
            )

        def ssl_layer_loss(context: Tensor, centre: Tensor, users: Tensor, items: Tensor) -> Tensor:
            sizes = [model.n_users, model.n_items]
            (context_users, context_items), (all_users, all_items) = context.split(sizes), centre.split(sizes)
            # RecBole sums over the batch.
            of_users = infonce_loss(context_users, all_users, users, model.ssl_temp) * len(users)
            of_items = infonce_loss(context_items, all_items, items, model.ssl_temp) * len(items)
            return model.ssl_reg * (of_users + model.alpha * of_items)

        model.ssl_layer_loss = ssl_layer_loss

    @property
    def product_format(self) -> str:
        """As of any model; RecBole's loop, which NCL keeps, passes `enable_amp` on to a GPU alone."""
        return "fp32" if self.device.type == "cpu" else super().product_format
