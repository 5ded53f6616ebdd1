"""One modality of a catalogue, aligned to a dataset's item ids."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ModalityFeatures:
    """The extracted features of every item in one modality, row ``i`` belonging to RecBole's item id ``i``.

    Attributes:
        name: The modality's key in the dataset's YAML.
        matrix: float32, shape ``(n_items, feat_dim)``; zeros for PAD (row 0) and for unobserved items.
        observed: bool, shape ``(n_items,)``; whether the item has features. False for PAD.
    """

    name: str
    matrix: torch.Tensor
    observed: torch.Tensor

    def __post_init__(self) -> None:
        """Hold the invariants that every model relies on."""
        assert self.matrix.dim() == 2 and self.matrix.dtype == torch.float32
        assert self.observed.shape == (self.matrix.shape[0],) and self.observed.dtype == torch.bool
        assert not bool(self.observed[0]) and not bool(self.matrix[0].any())

    @property
    def feat_dim(self) -> int:
        """Number of features per item."""
        return int(self.matrix.shape[1])

    @property
    def n_observed(self) -> int:
        """Number of items with features."""
        return int(self.observed.sum())

    @property
    def coverage(self) -> float:
        """Share of the real items (PAD left out) that have features, 0 to 1."""
        return self.n_observed / max(len(self.observed) - 1, 1)
