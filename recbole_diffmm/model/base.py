"""What every multimodal recommender has: its modalities, its nodes without PAD, and scoring from cached rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor
from torch.nn import functional as F

from recbole_diffmm.errors import UserError
from recbole_diffmm.model.settings import ModelSettings


def module_key(name: str) -> str:
    """Key of a modality in an ``nn.ModuleDict``, which refuses words like ``type`` that any module has as a method."""
    return f"modality_{name}"


class MultimodalRecommender(GeneralRecommender):
    """A recommender that scores by inner products of user and item rows and reads any number of item modalities.

    RecBole's ids start with PAD at 0. Subclasses never see it: their users are ``0..U-1`` and their items ``0..I-1``,
    and this class shifts at the boundary. Subclasses set :attr:`config_class`, implement :meth:`embeddings` and
    ``calculate_loss``, and call :meth:`invalidate` when what they return would change.

    Args:
        config: RecBole's configuration.
        dataset: the training split, with ``modalities`` and ``training_interactions()``.
    """

    config_class: ClassVar[type[ModelSettings]]
    input_type = InputType.PAIRWISE
    uses_modalities = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = self.config_class.from_config(config)
        self.user_count = self.n_users - 1  # U, without PAD
        self.item_count = self.n_items - 1  # I, without PAD
        if not dataset.modalities:
            raise UserError(
                f"{type(self).__name__} needs at least one modality, but dataset {config['dataset']} gives none: "
                "list its feature files under `modalities` in the dataset's YAML"
            )
        self.modality_names: tuple[str, ...] = tuple(dataset.modalities)
        for name, features in dataset.modalities.items():
            # Not persistent: the dataset brings them, and every checkpoint would carry them otherwise.
            self.register_buffer(f"features_{name}", features.matrix[1:].clone(), persistent=False)
        users, items = dataset.training_interactions()
        self.register_buffer("train_users", users - 1, persistent=False)
        self.register_buffer("train_items", items - 1, persistent=False)
        self.left_out: str | None = None  # the modality that `without` takes away, while it does
        self._cached: tuple[Tensor, Tensor] | None = None
        self.register_load_state_dict_post_hook(lambda module, _: module.invalidate())

    def features(self, name: str) -> Tensor:
        """Raw features ``(I, F)`` of the modality ``name``."""
        return self.get_buffer(f"features_{name}")

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Score as if no item had the modality ``name``, nothing being trained anew.

        By default its features are zero; a model that can leave a modality out of a sum does that instead, see
        :attr:`left_out`.
        """
        features = self.features(name)
        kept = features.clone()
        features.zero_()
        self.left_out = name
        self.invalidate()
        try:
            yield
        finally:
            features.copy_(kept)
            self.left_out = None
            self.invalidate()

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the final rows of users ``(U, D)`` and items ``(I, D)``."""
        raise NotImplementedError

    def invalidate(self) -> None:
        """Forget the cached rows because parameters or graphs changed."""
        self._cached = None

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation; either way the cached rows are stale."""
        self.invalidate()
        return super().train(mode)

    def _scoring_rows(self) -> tuple[Tensor, Tensor]:
        if self._cached is None:
            with torch.no_grad():
                users, items = self.embeddings()
            # PAD's row is zero, so that RecBole's ids index these rows as they are.
            self._cached = (F.pad(users, (0, 0, 1, 0)), F.pad(items, (0, 0, 1, 0)))
        return self._cached

    def predict(self, interaction: Any) -> Tensor:
        """Return the scores ``(B,)`` of the interaction's (user, item) pairs."""
        users, items = self._scoring_rows()
        return (users[interaction[self.USER_ID]] * items[interaction[self.ITEM_ID]]).sum(dim=1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores ``(B, n_items)`` of all items, PAD's column included because RecBole masks it."""
        users, items = self._scoring_rows()
        return users[interaction[self.USER_ID]] @ items.t()
