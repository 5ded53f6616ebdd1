"""RecBole's SGL, whose contrast with all nodes is computed in one buffer."""

from __future__ import annotations

from typing import Any

from recbole.model.general_recommender import SGL
from torch import Tensor

from recbole_diffmm.model.losses import infonce_loss
from recbole_diffmm.trainer.base import RunTrainer
from recbole_diffmm.trainer.loop import BatchLoop


class SGLTrainer(RunTrainer, BatchLoop):
    """RecBole's trainer; the model's contrast of two dropped graphs (SIGIR 2021) comes from :func:`infonce_loss`.

    RecBole makes and keeps a matrix of batch times nodes for every step of the formula, which is most of an epoch. The
    loss is the same to rounding; RecBole's ``enable_amp`` lets its products take bfloat16 where
    that is autocast's format.
    """

    def __init__(self, config: Any, model: SGL) -> None:
        super().__init__(config, model)

        def calc_ssl_loss(
            users: Tensor, items: Tensor, users_1: Tensor, users_2: Tensor, items_1: Tensor, items_2: Tensor
        ) -> Tensor:
            # RecBole sums over the batch.
            of_users = infonce_loss(users_1, users_2, users, model.ssl_tau) * len(users)
            of_items = infonce_loss(items_1, items_2, items, model.ssl_tau) * len(items)
            return model.ssl_weight * (of_users + of_items)

        model.calc_ssl_loss = calc_ssl_loss
