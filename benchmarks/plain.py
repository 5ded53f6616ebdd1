"""DiffMM in its plainest form: what tests hold the package against, and what speed ratios are relative to.

The model is the package's, the costs are those of the reference implementation: the dense training matrix, reverse
steps through the whole denoiser, sparse products in COO form, views computed anew for every loss that reads them, both
contrastive losses whatever the settings use, losses as their formulas stand. Nothing is slower than that on purpose.
It runs on PyTorch's default device, where what it is given has to be. Ids are 0-based, without PAD. Shapes: U users,
I items, N = U + I, B batch, D embedding, F feature, H hidden, T steps.
"""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

View = tuple[Tensor, Tensor]  # rows of the users (U, D) and of the items (I, D)


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters, named as the package names them; one hidden layer per denoiser."""

    embedding_size: int = 64
    n_layers: int = 1
    projection: Literal["leaky_matrix", "linear"] = "leaky_matrix"
    contrast: Literal["modality", "main"] = "modality"
    cl_weight: float = 0.1
    temperature: float = 0.5
    reg_weight: float = 1e-5
    residual_weight: float = 0.5
    generated_graph_weight: float = 0.2
    edge_dropout: float = 0.5
    rebuild_k: int = 1
    msi_weight: float = 0.1
    hidden_size: int = 1000
    time_embedding_size: int = 10
    denoiser_dropout: float = 0.5
    steps: int = 5
    noise_scale: float = 0.1
    noise_min: float = 1e-4
    noise_max: float = 0.02
    sampling_steps: int = 0
    learning_rate: float = 1e-3
    denoiser_learning_rate: float = 1e-3
    batch_size: int = 1024


class Schedule:
    """Constants of the noise process, each ``(T,)`` in float64."""

    def __init__(self, steps: int, noise_scale: float, noise_min: float, noise_max: float) -> None:
        one = torch.ones(1, dtype=torch.float64)
        signal = 1 - torch.linspace(noise_scale * noise_min, noise_scale * noise_max, steps, dtype=torch.float64)
        self.betas = (1 - signal / torch.cat([one, signal[:-1]])).clamp(max=0.999)
        self.betas[0] = 1e-4
        alphas = 1 - self.betas
        self.alphas_cumprod = alphas.cumprod(dim=0)
        self.alphas_cumprod_prev = torch.cat([one, self.alphas_cumprod[:-1]])
        self.sqrt_alphas_cumprod = self.alphas_cumprod.sqrt()
        self.sqrt_one_minus_alphas_cumprod = (1 - self.alphas_cumprod).sqrt()
        self.posterior_mean_coef1 = self.betas * self.alphas_cumprod_prev.sqrt() / (1 - self.alphas_cumprod)
        self.posterior_mean_coef2 = (1 - self.alphas_cumprod_prev) * alphas.sqrt() / (1 - self.alphas_cumprod)
        self.snr = self.alphas_cumprod / (1 - self.alphas_cumprod)
        self.loss_weight = torch.cat([one, self.snr[:-1] - self.snr[1:]])


class Denoiser(nn.Module):
    """Predicts the clean row from ``[dropout(x_t); time embedding]`` through one hidden layer."""

    def __init__(self, n_items: int, hidden_size: int, time_embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.time_embedding_size = time_embedding_size
        self.dropout = nn.Dropout(dropout)
        self.time_layer = nn.Linear(time_embedding_size, time_embedding_size)
        self.input_layer = nn.Linear(n_items + time_embedding_size, hidden_size)
        self.output_layer = nn.Linear(hidden_size, n_items)
        for layer in (self.time_layer, self.input_layer, self.output_layer):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (layer.in_features + layer.out_features)))
            nn.init.normal_(layer.bias, std=0.001)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the predicted clean rows ``(B, I)`` for rows ``x (B, I)`` at steps ``t (B,)``."""
        half = self.time_embedding_size // 2
        angle = t[:, None] * 10000.0 ** (-torch.arange(half) / half)  # (B, half)
        time = F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, self.time_embedding_size % 2))
        h = torch.cat([self.dropout(x), self.time_layer(time)], dim=1)  # (B, I + time)
        return self.output_layer(torch.tanh(self.input_layer(h)))


def normalized_adjacency(users: np.ndarray, items: np.ndarray, n_users: int, n_items: int) -> Tensor:
    """Return ``D^-1/2 (A + I) D^-1/2`` of the bipartite graph of these edges, ``(N, N)`` COO, coalesced."""
    edges = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=(n_users, n_items))
    edges.data[:] = 1  # a repeated edge counts once
    adj = sp.bmat([[None, edges], [edges.T, None]]) + sp.eye(n_users + n_items, dtype=np.float32)
    scale = sp.diags(np.asarray(adj.sum(axis=1)).ravel() ** -0.5)
    adj = (scale @ adj @ scale).tocoo()
    return coo(torch.as_tensor(np.stack([adj.row, adj.col])).long(), torch.as_tensor(adj.data), adj.shape)


def coo(index: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return a coalesced COO matrix of ``index (2, E)`` and ``values (E,)``."""
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=False).coalesce()


def infonce(p: Tensor, q: Tensor, nodes: Tensor, temperature: float) -> Tensor:
    """Contrast the rows ``nodes (B,)`` of ``p (N, D)`` with the same rows of ``q (N, D)`` against all rows of ``q``."""
    p, q = F.normalize(p[nodes]), F.normalize(q)  # (B, D), (N, D)
    positive = torch.exp((p * q[nodes]).sum(dim=1) / temperature)  # (B,)
    everything = torch.exp(p @ q.T / temperature).sum(dim=1)  # (B,) of (B, N)
    return -torch.log(positive / everything).mean()


class Plain:
    """DiffMM with its data, its optimisers and the three phases of an epoch; draws come from torch's global state."""

    def __init__(
        self,
        n_users: int,
        n_items: int,
        train_user: Tensor,
        train_item: Tensor,
        features: dict[str, Tensor],
        settings: Settings,
    ) -> None:
        s = self.settings = settings
        self.n_users, self.n_items = n_users, n_items
        self.features = features
        self.names = list(features)
        self.history = torch.zeros(n_users, n_items)  # (U, I)
        self.history[train_user, train_item] = 1
        if (self.history.sum(dim=1) == n_items).any():
            raise ValueError("a user has all items in training: no negative can be drawn")
        self.adj = normalized_adjacency(train_user.cpu().numpy(), train_item.cpu().numpy(), n_users, n_items)
        self.generated_adj: dict[str, Tensor] = {}  # filled by set_generated_items
        self.user_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_users, s.embedding_size)))
        self.item_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_items, s.embedding_size)))
        self.modal_weight = nn.Parameter(torch.full((len(features),), 1 / len(features)))
        self.projections = {
            name: nn.Linear(x.shape[1], s.embedding_size, bias=s.projection == "linear") for name, x in features.items()
        }
        if s.projection == "leaky_matrix":
            for projection in self.projections.values():
                nn.init.xavier_uniform_(projection.weight)
        self.schedule = Schedule(s.steps, s.noise_scale, s.noise_min, s.noise_max)
        self.denoisers = {
            name: Denoiser(n_items, s.hidden_size, s.time_embedding_size, s.denoiser_dropout) for name in features
        }
        parameters = [self.user_embedding, self.item_embedding, self.modal_weight]
        parameters += [p for projection in self.projections.values() for p in projection.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=s.learning_rate)
        self.denoiser_optimizers = {
            name: torch.optim.Adam(denoiser.parameters(), lr=s.denoiser_learning_rate)
            for name, denoiser in self.denoisers.items()
        }

    # ---- views

    def project(self, name: str) -> Tensor:
        """Projected features ``(I, D)`` of one modality, not normalised."""
        x = self.projections[name](self.features[name])
        return F.leaky_relu(x, 0.2) if self.settings.projection == "leaky_matrix" else x

    def _sum_over_layers(self, x: Tensor) -> Tensor:
        total = x
        for _ in range(self.settings.n_layers):
            x = torch.sparse.mm(self.adj, x)
            total = total + x
        return total

    def main_view(self) -> View:
        """Users ``(U, D)`` and items ``(I, D)``, whose inner products are the scores."""
        s = self.settings
        kappa = torch.softmax(self.modal_weight, dim=0)
        z = torch.zeros(())
        for i, name in enumerate(self.names):
            z1 = torch.sparse.mm(self.adj, torch.cat([self.user_embedding, F.normalize(self.project(name))]))  # (N, D)
            z2 = torch.sparse.mm(self.adj, torch.cat([z1[: self.n_users], self.item_embedding]))
            z3 = torch.sparse.mm(self.generated_adj[name], torch.cat([self.user_embedding, self.item_embedding]))
            z = z + kappa[i] * (z1 + z2 + s.generated_graph_weight * z3)
        out = self._sum_over_layers(z) + s.residual_weight * F.normalize(z)
        return out[: self.n_users], out[self.n_users :]

    def contrastive_view(self, name: str) -> View:
        """Users ``(U, D)`` and items ``(I, D)`` as the generated graph of one modality sees them."""
        x = torch.cat([self.user_embedding, F.normalize(self.project(name))])  # (N, D)
        x = self._sum_over_layers(torch.sparse.mm(self.generated_adj[name], x))
        return x[: self.n_users], x[self.n_users :]

    # ---- losses of the recommender

    def losses(self, users: Tensor, pos: Tensor, neg: Tensor) -> dict[str, Tensor]:
        """Weighted terms ``bpr``, ``reg`` and ``contrast`` of a batch of triples, each id ``(B,)``."""
        s = self.settings
        user_rows, item_rows = self.main_view()
        margin = (user_rows[users] * (item_rows[pos] - item_rows[neg])).sum(dim=1)  # (B,)
        main = self.main_view()
        with_main = [(main, self.contrastive_view(name)) for name in self.names]
        mutual = [(self.contrastive_view(a), self.contrastive_view(b)) for a, b in combinations(self.names, 2)]
        contrast = {"main": self._contrast(with_main, users, pos), "modality": self._contrast(mutual, users, pos)}
        return {
            "bpr": -torch.log(torch.sigmoid(margin)).sum() / s.batch_size,
            "reg": s.reg_weight * (self.user_embedding.square().sum() + self.item_embedding.square().sum()),
            "contrast": s.cl_weight * contrast[s.contrast],
        }

    def _contrast(self, pairs: list[tuple[View, View]], users: Tensor, items: Tensor) -> Tensor:
        loss, temperature = torch.zeros(()), self.settings.temperature
        for a, b in pairs:
            loss = loss + infonce(a[0], b[0], users, temperature) + infonce(a[1], b[1], items, temperature)
        return loss

    # ---- diffusion

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Noise the rows ``x_start (B, I)`` to the steps ``t (B,)``."""
        signal = self.schedule.sqrt_alphas_cumprod[t].float()[:, None]  # (B, 1)
        return signal * x_start + self.schedule.sqrt_one_minus_alphas_cumprod[t].float()[:, None] * noise

    def denoiser_losses(self, name: str, x_start: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and signal injection of one modality, each ``(B,)`` and unweighted."""
        pred = self.denoisers[name](self.q_sample(x_start, t, noise), t)  # (B, I)
        elbo = self.schedule.loss_weight[t].float() * (x_start - pred).square().mean(dim=1)
        injected = pred @ self.project(name).detach()  # (B, D)
        return elbo, (injected - x_start @ self.item_embedding.detach()).square().mean(dim=1)

    @torch.no_grad()
    def p_sample(self, name: str, x: Tensor) -> Tensor:
        """Follow the mean of the reverse process from the rows ``x (B, I)`` through all steps."""
        denoiser = self.denoisers[name].eval()
        for step in reversed(range(self.settings.steps)):
            pred = denoiser(x, torch.full((len(x),), step))
            c1, c2 = self.schedule.posterior_mean_coef1[step].item(), self.schedule.posterior_mean_coef2[step].item()
            x = c1 * pred + c2 * x
        return x

    def generate(self, name: str) -> Tensor:
        """Items ``(U, k)`` that the reverse process of one modality ranks first for every user."""
        s = self.settings
        chosen: list[list[int]] = []
        for x in self.history.split(s.batch_size):  # (B, I)
            if s.sampling_steps > 0:
                x = self.q_sample(x, torch.full((len(x),), s.sampling_steps - 1), torch.randn_like(x))
            for top in self.p_sample(name, x).topk(s.rebuild_k).indices:  # (k,)
                chosen.append([int(item) for item in top])
        return torch.tensor(chosen)

    def set_generated_items(self, name: str, items: Tensor, keep: Tensor | None = None) -> None:
        """Build the graph of one modality from ``items (U, k)`` and drop its entries where ``keep`` is false.

        ``keep`` holds one value per stored entry of the graph, by row and then column; it is drawn if not given.
        """
        users = np.arange(self.n_users).repeat(items.shape[1])
        adj = normalized_adjacency(users, items.flatten().cpu().numpy(), self.n_users, self.n_items)
        dropout = self.settings.edge_dropout
        if keep is None:
            keep = torch.rand(adj.values().shape) >= dropout
        values = adj.values()[keep] / (1 - dropout)
        self.generated_adj[name] = coo(adj.indices()[:, keep], values, adj.shape)

    # ---- one epoch, in this order

    def train_denoisers(self) -> dict[str, float]:
        """Train every denoiser for one pass over all users; return the sums of the batches' loss terms."""
        sums = {"elbo": 0.0, "msi": 0.0}
        for users in torch.randperm(self.n_users).split(self.settings.batch_size):
            x_start = self.history[users]  # (B, I)
            for name in self.names:
                self.denoisers[name].train()
                t = torch.randint(self.settings.steps, users.shape)
                elbo, msi = self.denoiser_losses(name, x_start, t, torch.randn_like(x_start))
                terms = {"elbo": elbo.mean(), "msi": self.settings.msi_weight * msi.mean()}
                self._step(self.denoiser_optimizers[name], terms, sums)
        return sums

    def rebuild_graphs(self) -> None:
        """Generate every modality's graph anew and drop its entries once."""
        for name in self.names:
            self.set_generated_items(name, self.generate(name))

    def train_ranking(self) -> dict[str, float]:
        """Train on every interaction once, with one negative each; return the sums of the batches' loss terms."""
        users, items = self.history.nonzero(as_tuple=True)
        negatives = self.sample_negatives(users)
        sums = {"bpr": 0.0, "reg": 0.0, "contrast": 0.0}
        for batch in torch.randperm(len(users)).split(self.settings.batch_size):
            self._step(self.optimizer, self.losses(users[batch], items[batch], negatives[batch]), sums)
        return sums

    def sample_negatives(self, users: Tensor) -> Tensor:
        """Draw for each of ``users (B,)`` one item, uniform over those that are not in the user's training items."""
        items = torch.randint(self.n_items, users.shape)
        while (known := self.history[users, items] > 0).any():
            items[known] = torch.randint(self.n_items, (int(known.sum()),))
        return items

    @staticmethod
    def _step(optimizer: torch.optim.Optimizer, terms: dict[str, Tensor], sums: dict[str, float]) -> None:
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        for key, term in terms.items():
            sums[key] += term.item()

    # ---- evaluation

    @torch.no_grad()
    def scores(self, users: Tensor) -> Tensor:
        """Scores ``(B, I)`` of all items for ``users (B,)``."""
        user_rows, item_rows = self.main_view()
        return user_rows[users] @ item_rows.T

    @torch.no_grad()
    def evaluate(self, test_user: Tensor, test_item: Tensor, k: int = 20) -> dict[str, float]:
        """Mean recall, NDCG and precision at ``k`` over users with test items, their training items masked."""
        edges = (np.ones(len(test_user), np.float32), (test_user.cpu().numpy(), test_item.cpu().numpy()))
        test = sp.csr_matrix(edges, shape=(self.n_users, self.n_items))
        user_rows, item_rows = self.main_view()
        discount = 1 / torch.log2(torch.arange(k) + 2.0)  # (k,)
        tested = test_user.unique()
        sums = {"recall": 0.0, "ndcg": 0.0, "precision": 0.0}
        for users in tested.split(self.settings.batch_size):
            scores = user_rows[users] @ item_rows.T  # (B, I)
            scores[self.history[users] > 0] = -torch.inf
            relevant = torch.as_tensor(test[users.cpu().numpy()].toarray() > 0)  # (B, I)
            hits = relevant.gather(1, scores.topk(k).indices).float()  # (B, k)
            count = relevant.sum(dim=1)  # (B,)
            sums["recall"] += (hits.sum(dim=1) / count).sum().item()
            sums["ndcg"] += ((hits @ discount) / discount.cumsum(dim=0)[count.clamp(max=k) - 1]).sum().item()
            sums["precision"] += hits.mean(dim=1).sum().item()
        return {metric: value / len(tested) for metric, value in sums.items()}
