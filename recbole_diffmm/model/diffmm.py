"""DiffMM: Multi-Modal Diffusion Model for Recommendation (ACM MM 2024, arXiv 2406.11781)."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_diffmm.data.history import History
from recbole_diffmm.diffusion import (
    Denoiser,
    GaussianDiffusion,
    HiddenSpaceSampler,
    LatentSpace,
    NoiseSchedule,
    denoising_losses,
    dense_denoising_losses,
    top_items,
)
from recbole_diffmm.errors import UserError
from recbole_diffmm.graph import (
    SparseAdjacency,
    bipartite_edges,
    build_adjacency,
    drop_edges,
    propagate,
    sum_over_layers,
    unit_rows,
)
from recbole_diffmm.model.base import MultimodalRecommender, module_key
from recbole_diffmm.model.losses import bpr_loss, infonce_loss, squared_norm
from recbole_diffmm.model.parts import embedding_table
from recbole_diffmm.model.projection import build_projection
from recbole_diffmm.model.settings import DropRate, Layers, ModelSettings, Weight
from recbole_diffmm.precision import Precision, autocast, resolve_precision

ProjectionKind = Literal["leaky_matrix", "linear"]


class DiffMMConfig(ModelSettings):
    """Hyper-parameters of :class:`DiffMM`; the defaults are the reference's."""

    embedding_size: PositiveInt = Field(64, description="width D of all embeddings")
    n_layers: Layers = Field(1, description="propagation layers L over the user-item graph")
    projection: ProjectionKind | dict[str, ProjectionKind] = Field(
        "leaky_matrix", description="how features enter: LeakyReLU(X W) or X W + b; one word, or one per modality"
    )
    contrast: Literal["modality", "main", "none"] = Field(
        "modality", description="what the contrastive views are held against: each other, the main view, nothing"
    )
    cl_weight: Weight = Field(0.1, description="weight of the contrastive loss")
    temperature: PositiveFloat = Field(0.5, description="temperature of the contrastive loss")
    contrast_negatives: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="random negatives of the contrastive loss beside the batch's own nodes, 0: those alone; empty: all",
    )
    reg_weight: Weight = Field(1e-5, description="weight of the squared norms of both embedding tables")
    residual_weight: Weight = Field(0.5, description="weight of the normalised fused row added to the output")
    generated_graph_weight: Weight = Field(0.2, description="weight of the generated graphs in the main view")
    use_generated_graph: bool = Field(
        True, description="false: the ablation without diffusion; contrastive views then use the observed graph"
    )
    edge_dropout: DropRate = Field(
        0.5, description="probability to drop an entry of a generated graph, one draw per epoch"
    )
    eval_graph: Literal["full", "dropped"] = Field(
        "full", description="generated graphs used for scoring: all edges, or the epoch's draw as the reference does"
    )
    rebuild_k: PositiveInt = Field(1, description="generated edges per user and modality")
    msi_weight: Weight = Field(0.1, description="weight of modality-aware signal injection; 0 is the ablation")
    denoiser_hidden_sizes: Annotated[list[PositiveInt], Field(min_length=1)] = Field(
        [1000], description="hidden widths of a denoiser, innermost first"
    )
    latent_size: PositiveInt | None = Field(
        None,
        description="width of the truncated SVD that denoisers work in, for large catalogues; empty: all items",
    )
    time_embedding_size: Annotated[int, Field(ge=2)] = Field(10, description="width of the step's embedding")
    denoiser_dropout: DropRate = Field(0.5, description="dropout on a denoiser's input")
    normalize_input: bool = Field(False, description="scale a denoiser's input rows to unit norm")
    denoiser_learning_rate: PositiveFloat = Field(1e-3, description="learning rate of the denoisers' Adam")
    denoiser_batch_size: PositiveInt = Field(1024, description="users per batch while denoising and generating")
    steps: PositiveInt = Field(5, description="diffusion steps T")
    noise_scale: PositiveFloat = Field(0.1, description="factor on the noise bounds")
    noise_min: PositiveFloat = Field(1e-4, description="lower noise bound")
    noise_max: PositiveFloat = Field(0.02, description="upper noise bound")
    sampling_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="noise steps added to a history before generating; 0 starts from the history itself"
    )
    sampling_noise: bool = Field(False, description="add noise in the reverse process instead of following its mean")
    precision: Precision = Field(
        "auto",
        description="number format of the large products; auto: bf16 where it is native, else fp32; tf32: NVIDIA only",
    )


class DiffMM(MultimodalRecommender):
    r"""Modality-aware graphs by diffusion over users' histories, aligned by contrast (arXiv 2406.11781).

    Main view, with the observed graph ``A``, generated graphs :math:`A_m`, embeddings :math:`E_u, E_i`, normalised
    projected features :math:`F_m` and modality weights :math:`\kappa = \mathrm{softmax}(\cdot)` (eq. 12 to 14):

    .. math::
        Z_m &= A[E_u; F_m] + A\big[(A[E_u; F_m])_U; E_i\big] + \lambda A_m [E_u; E_i] \\
        out &= \sum_{l=0}^{L} A^l Z + \omega\,\mathrm{normalize}(Z), \qquad Z = \sum_m \kappa_m Z_m

    The weights sum to one, so that the first two terms need a single propagation of the mean features whatever the
    number of modalities. Contrastive view: :math:`C_m = \sum_l A^l (A_m [E_u; F_m])`. With ``contrast: modality`` the
    batch's rows of each modality are looked for among all rows of each that is listed after it, as in the reference,
    and not the other way round: this loss alone depends on the order of the modalities.

    Where paper and reference implementation differ, the reference is followed because the published figures are its.
    The trainer trains one denoiser per modality at the start of an epoch (:meth:`denoiser_loss`), lets them choose new
    edges (:meth:`rebuild_graphs`) and then runs ranking batches (``calculate_loss``).
    """

    config_class: ClassVar[type[ModelSettings]] = DiffMMConfig
    loss_names = ("bpr", "reg", "contrast")
    replayable = True
    settings: DiffMMConfig
    self_loops = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        s = self.settings
        if s.rebuild_k > self.item_count:
            raise UserError(f"rebuild_k={s.rebuild_k} is larger than the catalogue of {self.item_count} items")
        if s.sampling_steps > s.steps:
            raise UserError(f"sampling_steps={s.sampling_steps} is larger than steps={s.steps}")
        if s.latent_size is not None and s.latent_size > min(self.user_count, self.item_count):
            raise UserError(
                f"latent_size={s.latent_size} is larger than the training matrix of {self.user_count} users and "
                f"{self.item_count} items allows; give at most {min(self.user_count, self.item_count)}"
            )
        if s.noise_min > s.noise_max:
            raise UserError(f"noise_min={s.noise_min} is larger than noise_max={s.noise_max}")
        self.precision = resolve_precision(s.precision, torch.device(config["device"]))
        self.train_batch_size: int = config["train_batch_size"]
        self.user_embedding = embedding_table(self.user_count, s.embedding_size)
        self.item_embedding = embedding_table(self.item_count, s.embedding_size)
        self.projections = nn.ModuleDict(
            {
                module_key(name): build_projection(kind, self.features(name).shape[1], s.embedding_size)
                for name, kind in self._projection_kinds().items()
            }
        )
        self.modal_weight = nn.Parameter(torch.full((len(self.modality_names),), 1.0 / len(self.modality_names)))
        self.denoisers = nn.ModuleDict()
        self.history = History(self.train_users, self.train_items, self.user_count, self.item_count)
        self.diffusion = GaussianDiffusion(NoiseSchedule(s.steps, s.noise_scale, s.noise_min, s.noise_max))
        self.latent: LatentSpace | None = None
        if s.use_generated_graph:
            self._add_denoisers()

    def _projection_kinds(self) -> dict[str, str]:
        kind = self.settings.projection
        if isinstance(kind, str):
            return dict.fromkeys(self.modality_names, kind)
        missing = [name for name in self.modality_names if name not in kind]
        if missing:
            raise UserError(f"projection names no kind for the modality {missing[0]!r}: give one word, or one for each")
        return {name: kind[name] for name in self.modality_names}

    def _add_denoisers(self) -> None:
        s = self.settings
        if s.latent_size is not None:
            pairs = self.history.entries(torch.arange(self.user_count))
            self.latent = LatentSpace(*pairs, self.user_count, self.item_count, s.latent_size)
        n_entries = 2 * self.user_count * s.rebuild_k + self.user_count + self.item_count
        # Until the first generation each user points to the same items: a placeholder of the right shape.
        placeholder = torch.arange(s.rebuild_k).repeat(self.user_count, 1)
        for name in self.modality_names:
            self.denoisers[module_key(name)] = Denoiser(
                self.row_size, s.denoiser_hidden_sizes, s.time_embedding_size, s.denoiser_dropout, s.normalize_input
            )
            # Persistent: prediction needs the graphs of the epoch that the weights come from.
            self.register_buffer(f"generated_items_{name}", placeholder.clone())  # (U, k)
            self.register_buffer(f"kept_entries_{name}", torch.ones(n_entries, dtype=torch.bool))
        self._is_generated = False

    @property
    def row_size(self) -> int:
        """Width of the rows that are noised and denoised: ``I``, or that of the latent space."""
        return self.item_count if self.latent is None else self.latent.size

    @property
    def largest_block(self) -> int:
        """Bytes of the largest array that every step makes anew: rows of a batch, or embeddings of all nodes."""
        n_rows = min(self.user_count, self.settings.denoiser_batch_size) if self.generated_names else 0
        return 4 * max(n_rows * self.row_size, self.n_nodes * self.settings.embedding_size)

    # ---- graphs

    def generated_items(self, name: str) -> Tensor:
        """Items ``(U, k)`` that the diffusion of the modality ``name`` chose for each user."""
        return self.get_buffer(f"generated_items_{name}")

    def generated_adj(self, name: str) -> SparseAdjacency:
        """The graph :math:`A_m` of one modality, dropped while training and as ``eval_graph`` says otherwise."""
        dropped = self.settings.edge_dropout > 0 and (self.training or self.settings.eval_graph == "dropped")
        return self.graph(("generated", name, dropped), lambda: self._build_generated_adj(name, dropped))

    def _build_generated_adj(self, name: str, dropped: bool) -> SparseAdjacency:
        items = self.generated_items(name)
        users = torch.arange(self.user_count, device=items.device).repeat_interleave(items.shape[1])
        index, weight = bipartite_edges(users, items.flatten(), self.user_count, self.item_count)
        if dropped:
            keep = self.get_buffer(f"kept_entries_{name}")
            index, weight = drop_edges(index, weight, keep, self.settings.edge_dropout)
        return build_adjacency(index, weight, self.n_nodes, symmetric=not dropped)

    def set_generated_items(self, name: str, items: Tensor, keep: Tensor | None = None) -> None:
        """Replace the generated graph of one modality.

        Args:
            name: the modality.
            items: ``(U, k)`` the new edges.
            keep: which entries of the graph survive dropping; drawn with probability ``1 - edge_dropout`` if not given.
        """
        self._is_generated = True
        kept = self.get_buffer(f"kept_entries_{name}")
        self.generated_items(name).copy_(items)
        if keep is None:
            keep = torch.rand(kept.shape, device=kept.device) >= self.settings.edge_dropout
        kept.copy_(keep)
        self.invalidate()

    def invalidate(self) -> None:
        """Forget cached rows and the adjacency of the generated graphs."""
        super().invalidate()
        for name in self.generated_names:
            for dropped in (False, True):
                self._graphs.pop(("generated", name, dropped), None)

    # ---- views

    def project(self, name: str) -> Tensor:
        """Projected features ``(I, D)`` of the modality ``name``, not normalised."""
        return self.projections[module_key(name)](self.features(name))

    def _main_view(self, projected: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        s = self.settings
        names = self.modality_names
        weights: Tensor = self.modal_weight
        if self.left_out is not None:
            present = [i for i, name in enumerate(names) if name != self.left_out]
            names, weights = tuple(names[i] for i in present), weights[present]
        kappa = dict(zip(names, torch.softmax(weights, dim=0), strict=True))
        if names:
            mean_features = torch.stack([kappa[name] * projected[name] for name in names]).sum(dim=0)
        else:
            mean_features = torch.zeros_like(self.item_embedding)
        first = propagate(self.adj, torch.cat([self.user_embedding, mean_features]))  # (N, D)
        second = propagate(self.adj, torch.cat([first[: self.user_count], self.item_embedding]))
        fused = first + second
        if s.use_generated_graph and s.generated_graph_weight > 0:
            ids = torch.cat([self.user_embedding, self.item_embedding])
            for name in names:
                weight = s.generated_graph_weight * kappa[name]
                fused = torch.addcmul(fused, weight, propagate(self.generated_adj(name), ids))
        out = torch.add(sum_over_layers(self.adj, fused, s.n_layers), unit_rows(fused), alpha=s.residual_weight)
        return self.by_kind(out)

    def _contrastive_view(self, name: str, projected: Tensor) -> tuple[Tensor, Tensor]:
        adj = self.generated_adj(name) if self.settings.use_generated_graph else self.adj
        x = propagate(adj, torch.cat([self.user_embedding, projected]))
        return self.by_kind(sum_over_layers(self.adj, x, self.settings.n_layers))

    def normalized_features(self) -> dict[str, Tensor]:
        """Rows :math:`F_m` of unit norm, ``(I, D)`` per modality."""
        return {name: unit_rows(self.project(name)) for name in self.modality_names}

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the main view: users ``(U, D)`` and items ``(I, D)``."""
        return self._main_view(self.normalized_features())

    # ---- ranking

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the terms named in :attr:`loss_names` for a batch of (user, positive, negative).

        Raises:
            UserError: No graph was generated: the trainer is not this model's.
        """
        s = self.settings
        if s.use_generated_graph and not self._is_generated:
            raise UserError(
                "no graphs were generated for DiffMM to train on: RecBole's plain Trainer knows no diffusion; take the "
                "class that recbole.utils.get_trainer gives for it, recbole_diffmm.trainer.diffmm.DiffMMTrainer"
            )
        users, positives, negatives = self.triples(interaction)
        projected = self.normalized_features()
        main = self._main_view(projected)
        user_rows = main[0][users]
        bpr = bpr_loss(
            (user_rows * main[1][positives]).sum(dim=1),
            (user_rows * main[1][negatives]).sum(dim=1),
            self.train_batch_size,
        )
        reg = s.reg_weight * squared_norm(self.user_embedding, self.item_embedding)
        if s.contrast == "none" or s.cl_weight == 0:
            return bpr, reg, bpr.new_zeros(())
        views = [self._contrastive_view(name, x) for name, x in projected.items()]
        pairs = combinations(views, 2) if s.contrast == "modality" else [(main, view) for view in views]
        with autocast(self.precision, users.device):
            terms = [
                infonce_loss(a[part], b[part], nodes, s.temperature, s.contrast_negatives)
                for a, b in pairs
                for part, nodes in enumerate((users, positives))
            ]
        contrast = torch.stack(terms).sum() if terms else bpr.new_zeros(())  # one modality has nothing to pair with
        return bpr, reg, s.cl_weight * contrast

    # ---- diffusion

    @property
    def generated_names(self) -> tuple[str, ...]:
        """Modalities that have a denoiser and a generated graph: all, or none in the ablation."""
        return self.modality_names if self.settings.use_generated_graph else ()

    def denoiser(self, name: str) -> Denoiser:
        """The denoiser of the modality ``name``."""
        return cast(Denoiser, self.denoisers[module_key(name)])

    def recommender_parameters(self) -> list[nn.Parameter]:
        """Parameters that the ranking optimiser steps: all but the denoisers'."""
        return [p for name, p in self.named_parameters() if not name.startswith("denoisers.")]

    def injection_targets(self) -> tuple[dict[str, Tensor], Tensor]:
        """Constants of modality-aware signal injection during an epoch.

        Returns:
            Projected features ``(I, D)`` per modality, or ``(r, D)`` in the latent space, and :math:`R E_i` ``(U, D)``,
            the sums of the item embeddings of all histories; both without gradient.
        """
        with torch.no_grad():
            projected = {name: self.project(name) for name in self.modality_names}
            if self.latent is not None:
                projected = {name: self.latent.encode_columns(features) for name, features in projected.items()}
            items, offsets = self.history.sparse_rows(torch.arange(self.user_count, device=self.train_users.device))
            sums = F.embedding_bag(items, self.item_embedding, offsets, mode="sum")
        return projected, sums

    def denoiser_loss(
        self,
        name: str,
        users: Tensor,
        t: Tensor,
        noise: Tensor,
        projected: Tensor,
        target: Tensor,
        n_entries: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Losses of one denoiser on a batch of users, each ``(B,)``: reconstruction and signal injection, unweighted.

        Args:
            name: the modality.
            users: ``(B,)`` users whose histories are noised and denoised.
            t: ``(B,)`` steps.
            noise: ``(B, row_size)`` standard normal noise; it is overwritten.
            projected: ``(row_size, D)`` and
            target: ``(B, D)``, from :meth:`injection_targets`.
            n_entries: the number of the users' interactions, where it is known.
        """
        denoiser, schedule = self.denoiser(name), self.diffusion.schedule
        if self.latent is not None:
            x_start = self.latent.encode(*self.history.sparse_rows(users, n_entries))  # (B, r)
            with autocast(self.precision, noise.device):
                pred = denoiser(self.diffusion.q_sample(x_start, t, noise), t)
                return dense_denoising_losses(schedule, pred, x_start, t, self.item_count, projected, target)
        row, item = self.history.entries(users, n_entries)
        output = denoiser.output_layer
        with autocast(self.precision, noise.device):
            hidden = denoiser.hidden(self.diffusion.q_sample_history_(noise, t, row, item), t).to(noise.dtype)
            return denoising_losses(schedule, hidden, output.weight, output.bias, t, row, item, projected, target)

    @torch.no_grad()
    def generate(self, name: str) -> Tensor:
        """Return the items ``(U, k)`` that the reverse process of one modality ranks first for every user."""
        sampler = self.hidden_space_sampler(name)
        everyone = torch.arange(self.user_count, device=self.train_users.device)
        batches = self.history.batches(everyone, self.settings.denoiser_batch_size)
        return torch.cat([self.generate_batch(name, sampler, users, n_entries) for users, n_entries in batches])

    @torch.no_grad()
    def hidden_space_sampler(self, name: str) -> HiddenSpaceSampler | None:
        """Return what runs the reverse process of one modality in hidden space, as its denoiser is now.

        None where it cannot, or where rows are latents, which are short: the reverse process then keeps to the rows.
        """
        denoiser = self.denoiser(name).eval()
        if self.latent is not None or not HiddenSpaceSampler.applies(denoiser, self.settings.sampling_noise):
            return None
        with autocast(self.precision, self.train_users.device):
            return HiddenSpaceSampler(denoiser, self.diffusion.schedule)

    @torch.no_grad()
    def generate_batch(
        self, name: str, sampler: HiddenSpaceSampler | None, users: Tensor, n_entries: int | None = None
    ) -> Tensor:
        """Return :meth:`generate` for ``users (B,)``.

        Args:
            name: the modality.
            sampler: of :meth:`hidden_space_sampler`.
            users: ``(B,)`` from 0.
            n_entries: how many interactions they have, where that is known.
        """
        s = self.settings
        with autocast(self.precision, users.device):
            if sampler is None:
                start = self._generation_start(users, n_entries)
                scores = self.diffusion.p_sample_loop(self.denoiser(name), start, sampling_noise=s.sampling_noise)
                scores = scores if self.latent is None else self.latent.decode(scores)
            else:
                noised = self._generation_start(users, n_entries) if s.sampling_steps > 0 else None
                scores = sampler.scores(*self.history.sparse_rows(users, n_entries), noisy_rows=noised)
            return top_items(scores, s.rebuild_k)

    def _generation_start(self, users: Tensor, n_entries: int | None = None) -> Tensor:
        """Rows ``(B, I)``, or latents ``(B, r)``, from which the reverse process starts."""
        if self.latent is None:
            rows = self.history.rows(users, n_entries)
        else:
            rows = self.latent.encode(*self.history.sparse_rows(users, n_entries))
        if self.settings.sampling_steps == 0:
            return rows
        t = torch.full_like(users, self.settings.sampling_steps - 1)
        return self.diffusion.q_sample(rows, t, torch.randn_like(rows))

    def rebuild_graphs(self) -> dict[str, dict[str, float]]:
        """Generate every modality's graph anew and return :meth:`graph_diagnostics`."""
        for name in self.generated_names:
            self.set_generated_items(name, self.generate(name))
        return self.graph_diagnostics()

    def graph_diagnostics(self) -> dict[str, dict[str, float]]:
        """Describe the generated graphs, because a denoiser can collapse onto few items without any loss showing it.

        Returns:
            Per modality: ``known_share``, the share of edges that the user's history already has; ``distinct_items``,
            how many items the edges reach; ``top_item_share``, the share of edges to the most frequent one.
        """
        observed = torch.sort(self.train_users * self.item_count + self.train_items).values
        result = {}
        for name in self.generated_names:
            items = self.generated_items(name)
            users = torch.arange(self.user_count, device=items.device).unsqueeze(1)
            key = (users * self.item_count + items).flatten()
            position = torch.searchsorted(observed, key).clamp(max=observed.numel() - 1)
            counts = torch.bincount(items.flatten(), minlength=self.item_count)
            result[name] = {
                "known_share": (observed[position] == key).float().mean().item(),
                "distinct_items": float((counts > 0).sum().item()),
                "top_item_share": counts.max().item() / key.numel(),
            }
        return result
