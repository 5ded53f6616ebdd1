"""MMGCL: Multi-Modal Graph Contrastive Learning for Micro-Video Recommendation (SIGIR 2022).

doi 10.1145/3477495.3532027
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.graph import SparseAdjacency, kept_weight, mean_over_layers, undirected_keep, unit_rows
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import in_batch_infonce, mean_bpr_loss
from recbole_diffmm.model.parts import embedding_table, linear_projections
from recbole_diffmm.model.settings import DropRate, Layers, ModelSettings, Weight

Channel = tuple[Tensor, Tensor]  # users (U, D) and items (I, D) of one graph
_IDS = ""  # no modality has this name


class MMGCLConfig(ModelSettings):
    """Hyper-parameters of :class:`MMGCL`."""

    embedding_size: PositiveInt = Field(64, description="width D of all embeddings")
    n_layers: Layers = Field(3, description="propagation layers L")
    cl_weight: Weight = Field(0.4, description="weight of the contrastive loss")
    temperature: PositiveFloat = Field(0.2, description="temperature of the contrastive loss")
    edge_dropout: DropRate = Field(0.05, description="probability to drop an edge in the first view")
    node_dropout: DropRate = Field(0.05, description="probability to drop a node in the masked modality's graph")
    masking: dict[str, Weight] | None = Field(
        None,
        description="how often each modality is the masked one, by name; none: equally often",
    )
    views: Literal["paper", "published_code"] = Field(
        "paper", description="published_code: twice the first view, no second one and no challenging negatives"
    )


class MMGCL(MultimodalRecommender):
    r"""Contrast of users and items within two augmented views of all modalities' graphs (doi 10.1145/3477495.3532027).

    With :math:`X_c = \frac{1}{L+1} \sum_l A^l [E_u; Z_c]` for each channel ``c``, ids and projected normalised
    features, rows are a linear map of the channels side by side, one for users and one for items. Beside BPR, InfoNCE
    of users and their positive items within a batch in two views: edges dropped, the same in all channels; and one
    modality, drawn anew in each batch, propagated over a graph with nodes dropped. In the second view a user has one
    more negative, the positive item with the masked modality of the negative item ("challenging negative").

    The published code computes the second view and throws it away: ``views: published_code``.
    """

    config_class = MMGCLConfig
    settings: MMGCLConfig
    loss_names = ("bpr", "contrast")
    unit_features = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        self.user_embedding = embedding_table(self.user_count, size)
        self.item_embedding = embedding_table(self.item_count, size)
        self.projections = linear_projections(self, size)
        width = (1 + len(self.modality_names)) * size
        self.read_user, self.read_item = nn.Linear(width, size), nn.Linear(width, size)
        shares = self.shares("masking")
        self.masking_share = torch.tensor([shares[name] for name in self.modality_names])

    def _with_dropped_edges(self) -> SparseAdjacency:
        """The observed graph with edges dropped in both directions at once, normalised anew."""
        edges, _ = self.ordered_edges()
        # Dropped entries stay as zeros: the matrix need not be put together again.
        return edges.adjacency(kept_weight(edges, undirected_keep(edges, self.settings.edge_dropout)))

    def _with_dropped_nodes(self) -> SparseAdjacency:
        """The observed graph without the edges of dropped nodes, normalised anew."""
        edges, _ = self.ordered_edges()
        kept = torch.rand(self.n_nodes, device=edges.receiver.device) >= self.settings.node_dropout
        return edges.adjacency(kept_weight(edges, kept[edges.receiver] & kept[edges.sender]))

    def _starts(self) -> dict[str, Tensor]:
        """Items ``(I, D)`` as they enter the graphs: by id, and by each modality's name."""
        starts: dict[str, Tensor] = {_IDS: self.item_embedding}
        for name in self.modality_names:
            projected = self.projections[module_key(name)](self.features(name))
            starts[name] = torch.zeros_like(projected) if name == self.left_out else projected
        return starts

    def _channel(self, start: Tensor, adj: SparseAdjacency) -> Channel:
        rows = torch.cat([self.user_embedding, start])
        return self.by_kind(mean_over_layers(adj, rows, self.settings.n_layers))

    def _read(self, channels: dict[str, Channel]) -> Channel:
        users = self.read_user(torch.cat([part[0] for part in channels.values()], dim=1))
        return users, self.read_item(torch.cat([part[1] for part in channels.values()], dim=1))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return users ``(U, D)`` and items ``(I, D)``."""
        return self._read({name: self._channel(start, self.adj) for name, start in self._starts().items()})

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative)."""
        users, positives, negatives = self.triples(interaction)
        starts = self._starts()
        channels = {name: self._channel(start, self.adj) for name, start in starts.items()}
        user_rows, item_rows = self._read(channels)
        bpr = mean_bpr_loss(user_rows[users], item_rows[positives], item_rows[negatives])
        dropped = self._with_dropped_edges()
        first = self._read({name: self._channel(start, dropped) for name, start in starts.items()})
        contrast = in_batch_infonce(first[0][users], first[1][positives], self.settings.temperature)
        if self.settings.views == "published_code":
            return bpr, self.settings.cl_weight * 2 * contrast
        masked = self.modality_names[int(torch.multinomial(self.masking_share, 1))]
        second = {**channels, masked: self._channel(starts[masked], self._with_dropped_nodes())}
        contrast = contrast + self._masked_contrast(second, masked, users, positives, negatives)
        return bpr, self.settings.cl_weight * contrast

    def _masked_contrast(
        self, channels: dict[str, Channel], masked: str, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> Tensor:
        user_rows, item_rows = self._read(channels)
        blocks = [items[negatives if name == masked else positives] for name, (_, items) in channels.items()]
        challenging = unit_rows(self.read_item(torch.cat(blocks, dim=1)))  # (B, D)
        user, item = unit_rows(user_rows[users]), unit_rows(item_rows[positives])
        own = (user * challenging).sum(dim=1, keepdim=True)
        logits = torch.cat([user @ item.t(), own], dim=1)  # (B, B + 1)
        return F.cross_entropy(logits / self.settings.temperature, torch.arange(len(users), device=users.device))
