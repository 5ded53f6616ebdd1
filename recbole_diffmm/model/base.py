"""What this package's recommenders have in common: nodes without PAD, scoring from cached rows, item modalities."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.errors import UserError
from recbole_diffmm.graph import (
    Edges,
    SparseAdjacency,
    bipartite_edges,
    build_adjacency,
    knn_graph,
    mean_weight,
    order_edges,
    unit_rows,
)
from recbole_diffmm.graph.knn import Weighting
from recbole_diffmm.model.settings import ModelSettings

Graph = TypeVar("Graph")


def module_key(name: str) -> str:
    """Key of a modality in an ``nn.ModuleDict``, which refuses words like ``type`` that any module has as a method."""
    return f"modality_{name}"


class RowRecommender(GeneralRecommender):
    """A recommender that scores by inner products of user and item rows.

    RecBole's ids start with PAD at 0. Subclasses never see it: their users are ``0..U-1`` and their items ``0..I-1``,
    and this class shifts at the boundary. Subclasses set :attr:`config_class`, implement :meth:`embeddings` and
    ``calculate_loss``, and call :meth:`invalidate` when what they return would change.

    Args:
        config: RecBole's configuration.
        dataset: the training split.
    """

    config_class: ClassVar[type[ModelSettings]]
    input_type = InputType.PAIRWISE
    uses_modalities: ClassVar[bool] = False
    # Whether an item without training interactions gets a score that means something.
    ranks_cold_items: ClassVar[bool] = False
    self_loops: ClassVar[bool] = False  # whether each node of :attr:`adj` is its own neighbour
    # Whether a training step is the same operations on the same tensors for every batch of an epoch after the first, so
    # that a GPU can replay it: no choice or count by the host, no tensor whose size the data decide, none kept from one
    # step to the next, no waiting for the device. It is said by the class that defines `calculate_loss`.
    replayable: ClassVar[bool] = False

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = self.config_class.from_config(config)
        self.user_count = self.n_users - 1  # U, without PAD
        self.item_count = self.n_items - 1  # I, without PAD
        users, items = dataset.training_interactions()
        self.register_buffer("train_users", users - 1, persistent=False)
        self.register_buffer("train_items", items - 1, persistent=False)
        self._cached: tuple[Tensor, Tensor] | None = None
        self._graphs: dict[Hashable, Any] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module.invalidate())

    @property
    def n_nodes(self) -> int:
        """Number of nodes ``N = U + I``."""
        return self.user_count + self.item_count

    @property
    def adj(self) -> SparseAdjacency:
        """The observed graph ``A (N, N)``, normalised on both sides."""
        return self.graph("adj", lambda: build_adjacency(*self.edges(self.self_loops), self.n_nodes, symmetric=True))

    def edges(self, self_loops: bool) -> tuple[Tensor, Tensor]:
        """Return index ``(2, E)`` and weight ``(E,)`` of the observed graph, see :func:`bipartite_edges`."""
        counts = self.user_count, self.item_count
        return bipartite_edges(self.train_users, self.train_items, *counts, self_loops=self_loops)

    def mean_adj(self, *, self_loops: bool) -> SparseAdjacency:
        """The observed graph ``(N, N)``, each row a mean over a node's neighbours."""

        def build() -> SparseAdjacency:
            index, _ = self.edges(self_loops)
            return build_adjacency(index, mean_weight(index[0], self.n_nodes), self.n_nodes, symmetric=False)

        return self.graph(("mean", self_loops), build)

    def edges_to_users(self) -> tuple[Tensor, Tensor]:
        """Return index ``(2, E)`` and weight ``(E,)`` of the observed graph's edges that end at users."""
        index, weight = self.edges(self_loops=False)
        to_users = index[0] < self.user_count
        return index[:, to_users], weight[to_users]

    def ordered_edges(self) -> tuple[Edges, Tensor]:
        """Return the observed graph without self-loops as :class:`Edges`, and their weights ``(2E,)``."""

        def build() -> tuple[Edges, Tensor]:
            (receiver, sender), weight = self.edges(self_loops=False)
            edges, order = order_edges(receiver, sender, self.n_nodes)
            return edges, weight[order]

        return self.graph("ordered", build)

    def graph(self, key: Hashable, build: Callable[[], Graph]) -> Graph:
        """Return what was built under ``key``, or build it: no graph that training does not change is built twice."""
        if key not in self._graphs:
            self._graphs[key] = build()
        result: Graph = self._graphs[key]
        return result

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # Moved to another device or type: graphs come again where the interactions are then.
        self._graphs.clear()
        self.invalidate()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """State for copying, less the graphs, which come again on first use: CSR tensors cannot be deep-copied."""
        return {**self.__dict__, "_graphs": {}, "_cached": None}

    def by_kind(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Split node rows ``(N, D)`` into those of users ``(U, D)`` and of items ``(I, D)``."""
        # Not by slices: the gradient of each would be a buffer of all nodes.
        users, items = rows.split([self.user_count, self.item_count])
        return users, items

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the final rows of users ``(U, D)`` and items ``(I, D)``."""
        raise NotImplementedError

    def on_epoch_start(self) -> None:
        """Do what an epoch begins with, such as drawing a graph; the trainer calls it once an epoch."""

    def invalidate(self) -> None:
        """Forget the cached rows because parameters or graphs changed."""
        self._cached = None

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation; either way the cached rows are stale."""
        super().train(mode)
        self.invalidate()
        return self

    def triples(self, interaction: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return a training batch's users, positive and negative items, each ``(B,)`` and from 0; rows go stale."""
        self._cached = None
        return (
            interaction[self.USER_ID] - 1,
            interaction[self.ITEM_ID] - 1,
            interaction[self.NEG_ITEM_ID] - 1,
        )

    def pairs(self, interaction: Any) -> tuple[Tensor, Tensor]:
        """Return a training batch's users and items, each ``(B,)`` and from 0, where no negative is sampled."""
        self._cached = None
        return interaction[self.USER_ID] - 1, interaction[self.ITEM_ID] - 1

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


class MultimodalRecommender(RowRecommender):
    """A recommender that reads any number of item modalities.

    A subclass's settings may hold ``normalize_features`` (each item's features are scaled to unit norm, which
    :attr:`unit_features` always asks for) and ``train_features`` (they are parameters, as in some published code);
    without these fields, neither is done. An item without a modality has zeros there, which a projection's bias makes
    the same row for all such items.

    Args:
        config: RecBole's configuration.
        dataset: the training split, with ``modalities``.
    """

    uses_modalities = True
    ranks_cold_items = True
    unit_features: ClassVar[bool] = False  # whether the model always reads features scaled to unit norm
    has_item_graph: ClassVar[bool] = False  # whether it builds graphs of the features as they were given
    modality_order: Tensor  # (M,) their names' checksums

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.modality_names: tuple[str, ...] = tuple(dataset.modalities)
        self._trains_features = self.trains_features()
        for name, modality in dataset.modalities.items():
            features = modality.matrix[1:].clone()
            if self.unit_features or getattr(self.settings, "normalize_features", False):
                features = unit_rows(features)
            if self._trains_features:
                self.register_parameter(f"features_{name}", nn.Parameter(features))
                if self.has_item_graph:
                    self.register_buffer(f"given_{name}", features.clone(), persistent=False)
            else:
                # Not persistent: the dataset brings them, and every checkpoint would carry them otherwise.
                self.register_buffer(f"features_{name}", features, persistent=False)
        # Parameters may follow the modalities' order: a state of another order would fit and score something else.
        names = [zlib.crc32(name.encode()) for name in self.modality_names]
        self.register_buffer("modality_order", torch.tensor(names))
        self.left_out: str | None = None  # the modality that `without` takes away, while it does

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load a state that was trained with the same modalities in the same order.

        Raises:
            UserError: it was not.
        """
        order = state_dict.get("modality_order", self.modality_order)
        if not torch.equal(order.cpu(), self.modality_order.cpu()):
            raise UserError(
                "the checkpoint was trained with other modalities, or with these in another order, than "
                f"{', '.join(self.modality_names)}; set use_modalities as it was then"
            )
        return super().load_state_dict(state_dict, *args, **kwargs)

    def trains_features(self) -> bool:
        """Whether features are parameters."""
        return bool(getattr(self.settings, "train_features", False))

    def features(self, name: str) -> Tensor:
        """Features ``(I, F)`` of the modality ``name``."""
        features: Tensor = getattr(self, f"features_{name}")
        return features

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the modalities, without the one that :meth:`without` takes away."""
        return tuple(name for name in self.modality_names if name != self.left_out)

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Score as if no item had the modality ``name``, nothing being trained anew.

        Its features are zero; a model that can leave a modality out of a sum does that instead, see :attr:`present`.
        """
        if name not in self.modality_names:
            raise UserError(f"there is no modality {name!r} to leave out, only {', '.join(self.modality_names)}")
        features = self.features(name).data
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

    def given_features(self, name: str) -> Tensor:
        """Features ``(I, F)`` of the modality ``name`` as the dataset has them, whatever training made of them."""
        return self.get_buffer(f"given_{name}") if self._trains_features else self.features(name)

    def item_graph(self, name: str, k: int, weighting: Weighting) -> SparseAdjacency:
        """The frozen graph ``(I, I)`` of nearest items in one modality, see :func:`knn_graph`."""
        return self.graph((name, k, weighting), lambda: knn_graph(self.given_features(name), k, weighting))

    def shares(self, setting: str) -> dict[str, float]:
        """Return each modality's share of a sum over them, by name, adding up to one.

        Args:
            setting: the setting that holds a number per modality; where it holds none, shares are equal.

        Raises:
            UserError: it names a modality that is not used, leaves one out, or all its weights are zero.
        """
        weight: Mapping[str, float] | None = getattr(self.settings, setting)
        if weight is None:
            return dict.fromkeys(self.modality_names, 1 / len(self.modality_names))
        if set(weight) != set(self.modality_names) or sum(weight.values()) == 0:
            raise UserError(
                f"{setting}={dict(weight)} must give each of the modalities {', '.join(self.modality_names)} "
                "a weight, and not zero to all"
            )
        return {name: weight[name] / sum(weight.values()) for name in self.modality_names}
