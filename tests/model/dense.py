"""The rivals on a tiny dataset, and their formulas once more with dense matrices in float64, apart from the package."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from recbole_diffmm import registry
from recbole_diffmm.data.modality import ModalityFeatures
from tests.splits import recbole_keys, training_split

# User 4 has one item and user 6 none; nobody has item 10; a pair is there twice.
PAIRS = "0,0 0,1 0,2 1,2 1,3 2,4 2,5 2,0 3,6 3,7 4,8 5,1 5,9 5,3 5,7 0,0"
USERS, ITEMS = (torch.tensor([int(pair.split(",")[side]) for pair in PAIRS.split()]) for side in (0, 1))
N_USERS, N_ITEMS = 7, 11
COLD = 10
WIDTHS = {"look": 6, "smell": 3}
MORE_WIDTHS = {**WIDTHS, "sound": 8}
WITHOUT_FEATURES = {"look": [9], "smell": [2, 9]}  # items
# Widths that no count of users, items or nodes equals, so that a parameter's shape tells whose rows it has.
SMALL: dict[str, Any] = {"embedding_size": 4, "knn_k": 3, "n_hyperedges": 3, "n_negatives": 3}
HIDDEN = {"MMGCN": 5, "CLCRec": 5}


def random_features(seed: int = 3) -> dict[str, Tensor]:
    """Features ``(I, F)`` of all modalities."""
    generator = torch.Generator().manual_seed(seed)
    features = {name: torch.randn(N_ITEMS, width, generator=generator) for name, width in MORE_WIDTHS.items()}
    for name, items in WITHOUT_FEATURES.items():
        features[name][items] = 0
    return features


def build(
    name: str,
    modalities: tuple[str, ...] = ("look", "smell"),
    features: dict[str, Tensor] | None = None,
    user_order: Tensor | None = None,
    item_order: Tensor | None = None,
    **values: Any,
) -> Any:
    """The model ``name`` with random parameters; user ``u`` gets the id ``user_order[u]``, items likewise."""
    features = random_features() if features is None else features
    user_order = torch.arange(N_USERS) if user_order is None else user_order
    item_order = torch.arange(N_ITEMS) if item_order is None else item_order
    described = {}
    for modality in modalities:
        matrix = torch.zeros(N_ITEMS + 1, features[modality].shape[1])
        matrix[item_order + 1] = features[modality]
        described[modality] = ModalityFeatures(modality, matrix, matrix.any(dim=1))
    dataset = training_split(N_USERS, N_ITEMS, user_order[USERS], item_order[ITEMS], described)
    model_class = registry.get_model(name)
    known = {**SMALL, "hidden_size": HIDDEN.get(name, 5)}
    config = {
        **recbole_keys(),
        **{key: value for key, value in known.items() if key in model_class.config_class.model_fields},  # type: ignore[attr-defined]
        **values,
    }
    torch.manual_seed(0)
    model = model_class(config, dataset)
    with torch.no_grad():
        for parameter in model.parameters():  # no bias stays zero, no two weights the same
            parameter.add_(0.3 * torch.randn_like(parameter))
        for modality in modalities:  # but an item without features has none
            items = WITHOUT_FEATURES.get(modality, [])
            if f"features_{modality}" in dict(model.named_parameters()):
                model.features(modality)[item_order[items]] = 0
    return model


BATCH = SimpleNamespace(
    users=torch.tensor([0, 0, 1, 4, 5, 3]),
    positives=torch.tensor([1, 2, 2, 8, 9, 7]),
    negatives=torch.tensor([5, 10, 0, 2, 8, 10]),
)


def interaction(model: Any, batch: Any = BATCH) -> dict[str, Tensor]:
    """A batch in RecBole's ids."""
    ids = {model.USER_ID: batch.users, model.ITEM_ID: batch.positives, model.NEG_ITEM_ID: batch.negatives}
    return {key: value + 1 for key, value in ids.items()}


def all_scores(model: Any) -> Tensor:
    """Scores ``(U, I)`` in evaluation mode."""
    scores = model.eval().full_sort_predict({model.USER_ID: torch.arange(N_USERS) + 1})
    return scores.detach().view(N_USERS, N_ITEMS + 1)[:, 1:].clone()


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.01 * x)


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the entries of each row where ``mask`` is one; rows without any are zero."""
    exps = logits.exp() * mask
    return exps / exps.sum(dim=1, keepdim=True).clamp_min(1e-30)


def bpr(scores: Tensor) -> Tensor:
    difference = scores[BATCH.users, BATCH.positives] - scores[BATCH.users, BATCH.negatives]
    return (1 + (-difference).exp()).log().mean()


def emb_loss(*blocks: Tensor) -> Tensor:
    return sum(block.square().sum().sqrt() for block in blocks) / len(BATCH.users)  # type: ignore[return-value]


class Dense:
    """A model's formulas; :attr:`p` are its parameters as float64 leaves, by the model's names.

    Args:
        model: whose parameters and settings these are.
    """

    def __init__(self, model: Any) -> None:
        self.s = model.settings
        self.names = model.modality_names if hasattr(model, "modality_names") else ()
        self.p = {key: value.detach().double().requires_grad_() for key, value in model.named_parameters()}
        self.given = {name: value.double() for name, value in random_features().items()}
        self.f = {name: self.p.get(f"features_{name}", self.given[name]) for name in self.names}
        self.r = torch.zeros(N_USERS, N_ITEMS, dtype=torch.float64)  # (U, I)
        self.r[USERS, ITEMS] = 1
        no_users, no_items = self.r.new_zeros(N_USERS, N_USERS), self.r.new_zeros(N_ITEMS, N_ITEMS)
        self.a = torch.cat([torch.cat([no_users, self.r], 1), torch.cat([self.r.t(), no_items], 1)])  # (N, N)
        degree = self.a.sum(dim=1)
        root = torch.diag(torch.where(degree > 0, degree.clamp(min=1) ** -0.5, 0))
        self.symmetric = root @ self.a @ root
        self.mean = torch.diag(torch.where(degree > 0, 1 / degree.clamp(min=1), 0)) @ self.a

    def linear(self, key: str, x: Tensor) -> Tensor:
        return x @ self.p[f"{key}.weight"].t() + self.p.get(f"{key}.bias", 0)

    def lgn(self, a: Tensor, x: Tensor) -> Tensor:
        n = self.s.n_layers
        return sum(torch.linalg.matrix_power(a, power) for power in range(n + 1)) @ x / (n + 1)  # type: ignore[operator]

    def ids(self) -> Tensor:
        return torch.cat([self.p["user_embedding"], self.p["item_embedding"]])

    def rows(self) -> tuple[Tensor, Tensor]:
        """Final rows of users and of items."""
        raise NotImplementedError

    def losses(self) -> tuple[Tensor, ...]:
        """The terms of the loss for :data:`BATCH`."""
        raise NotImplementedError

    def scores(self) -> Tensor:
        users, items = self.rows()
        return users @ items.t()


class HCCF(Dense):
    def layers(self) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        users, items = self.p["user_embedding"], self.p["item_embedding"]
        if self.s.hyperedges == "learned":
            users, items = users @ self.p["user_hyperedges"], items @ self.p["item_hyperedges"]
        shared = self.s.hyperedge_scale**2 * torch.block_diag(users @ users.t(), items @ items.t())  # (N, N)
        x, total, views = self.ids(), self.ids(), []
        slope = 1.0 if self.s.activation == "none" else 0.5
        for _ in range(self.s.n_layers):
            parts = [m @ x for m in (self.symmetric, shared)]
            local, across = (part.clamp(min=0) + slope * part.clamp(max=0) for part in parts)
            views.append((local, across))
            x = local + across
            total = total + x
        return total, views

    def rows(self) -> tuple[Tensor, Tensor]:
        total, _ = self.layers()
        return total[:N_USERS], total[N_USERS:]

    def losses(self) -> tuple[Tensor, ...]:
        contrast = torch.zeros((), dtype=torch.float64)
        for local, shared in self.layers()[1]:
            for nodes in (sorted(set(BATCH.users.tolist())), sorted({N_USERS + i for i in BATCH.positives.tolist()})):
                similar = (unit(local.detach()[nodes]) @ unit(shared[nodes]).t() / self.s.temperature).exp()
                contrast = contrast - (similar.diagonal() / similar.sum(dim=1)).log().mean()
        squares = sum(parameter.square().sum() for parameter in self.p.values())
        return bpr(self.scores()), self.s.cl_weight * contrast, self.s.reg_weight * squares


class VBPR(Dense):
    def rows(self) -> tuple[Tensor, Tensor]:
        features = torch.cat([unit(f) if self.s.normalize_features else f for f in self.f.values()], dim=1)
        items = torch.cat([self.p["item_embedding"], self.linear("projection", features)], dim=1)
        bias = torch.zeros(N_ITEMS, 1, dtype=torch.float64)
        if self.s.biases:
            bias = self.p["item_bias"] + features @ self.p["feature_bias"]
        one = torch.ones(N_USERS, 1, dtype=torch.float64)
        return torch.cat([self.p["user_embedding"], one], dim=1), torch.cat([items, bias], dim=1)

    def losses(self) -> tuple[Tensor, ...]:
        users, items = (rows[:, :-1] for rows in self.rows())
        reg = emb_loss(users[BATCH.users], items[BATCH.positives], items[BATCH.negatives])
        return bpr(self.scores()), self.s.reg_weight * reg


class LightGCNM(Dense):
    def rows(self) -> tuple[Tensor, Tensor]:
        parts = [self.linear(f"projections.modality_{name}", unit(self.f[name])) for name in self.names]
        items = self.p["item_embedding"] + self.s.feature_weight * sum(parts) / len(parts)
        total = self.lgn(self.symmetric, torch.cat([self.p["user_embedding"], items]))
        return total[:N_USERS], total[N_USERS:]

    def losses(self) -> tuple[Tensor, ...]:
        users, items = self.p["user_embedding"], self.p["item_embedding"]
        reg = emb_loss(users[BATCH.users], items[BATCH.positives], items[BATCH.negatives])
        return bpr(self.scores()), self.s.reg_weight * reg


class MMGCN(Dense):
    def rows(self) -> tuple[Tensor, Tensor]:
        total = torch.zeros(N_USERS + N_ITEMS, self.s.embedding_size, dtype=torch.float64)
        for name in self.names:
            key, features = f"modality_{name}", self.f[name]
            if features.shape[1] > self.s.hidden_size:
                features = self.linear(f"projections.{key}", features)
            x = unit(torch.cat([self.p[f"preferences.{key}"], features]))
            for layer in range(self.s.n_layers):
                layer_key = f"convolutions.{key}.{layer}"
                neighbours = leaky(self.mean @ x @ self.p[f"{layer_key}.neighbour"])
                own = leaky(self.linear(f"{layer_key}.own", x)) + self.p["id_embedding"]
                x = leaky(self.linear(f"{layer_key}.fusion", torch.cat([neighbours, own], dim=1)))
            total = total + x / len(self.names)
        return total[:N_USERS], total[N_USERS:]

    def losses(self) -> tuple[Tensor, ...]:
        ids = self.p["id_embedding"]
        nodes = torch.cat([BATCH.users, BATCH.positives + N_USERS, BATCH.negatives + N_USERS])
        reg = ids[nodes].square().mean()
        reg = reg + sum(self.p[f"preferences.modality_{name}"].square().mean() for name in self.names)
        return bpr(self.scores()), self.s.reg_weight * reg


class GRCN(Dense):
    def rows(self) -> tuple[Tensor, Tensor]:
        contents, weights = [], []
        for place, name in enumerate(self.names):
            content = unit(leaky(self.linear(f"projections.modality_{name}", self.f[name])))
            preference = unit(self.p[f"preferences.modality_{name}"])
            for _ in range(self.s.n_routings if self.s.routing else 0):
                preference = unit(preference + masked_softmax(preference @ content.t(), self.r) @ content)
            x = torch.cat([preference, content])
            attention = masked_softmax(x @ x.t(), self.a)  # (N, N), receivers as rows
            contents.append(x + attention @ x)
            weights.append(attention * self.p["confidence"][:, place])
        weight = torch.stack(weights).max(dim=0).values * self.a
        if self.s.prune:
            weight = weight.clamp(min=0)
        ids = unit(self.p["id_embedding"])
        total = sum(torch.linalg.matrix_power(weight, power) for power in range(self.s.n_layers + 1)) @ ids  # type: ignore[operator]
        total = torch.cat([total, *contents], dim=1)
        return total[:N_USERS], total[N_USERS:]

    def losses(self) -> tuple[Tensor, ...]:
        nodes = torch.cat([BATCH.users, BATCH.positives + N_USERS, BATCH.negatives + N_USERS])
        reg = self.p["id_embedding"][nodes].square().mean()
        reg = reg + sum(self.p[f"preferences.modality_{name}"][BATCH.users].square().mean() for name in self.names)
        return bpr(self.scores()), self.s.reg_weight * reg


class LATTICE(Dense):
    def nearest(self, x: Tensor, described: Tensor) -> Tensor:
        """Cosines ``(I, I)`` of each described item's nearest described ones, zeros elsewhere."""
        cosine = unit(x) @ unit(x).t()
        both = described.unsqueeze(1) & described
        kept = torch.zeros_like(cosine)
        kept.scatter_(1, cosine.masked_fill(~both, -2).topk(self.s.knn_k, dim=1).indices, 1)
        return (cosine * kept * both).clamp(min=0)

    def normalized(self, s: Tensor) -> Tensor:
        q = s.sum(dim=1)
        root = torch.where(q > 0, torch.where(q > 0, q, 1) ** -0.5, 0)
        return root.unsqueeze(1) * s * root

    def item_graph(self) -> Tensor:
        shares = self.p["modal_weight"].exp() / self.p["modal_weight"].exp().sum()
        initial = learned = torch.zeros(N_ITEMS, N_ITEMS, dtype=torch.float64)
        for share, name in zip(shares, self.names, strict=True):
            described = self.given[name].any(dim=1)
            initial = initial + share * self.normalized(self.nearest(self.given[name], described))
            projected = self.linear(f"projections.modality_{name}", self.f[name])
            learned = learned + share * self.nearest(projected, described)
        return self.s.initial_share * initial + (1 - self.s.initial_share) * self.normalized(learned)

    def rows(self) -> tuple[Tensor, Tensor]:
        loops = self.a + torch.eye(len(self.a), dtype=torch.float64)
        total = self.lgn(loops / loops.sum(dim=1, keepdim=True), self.ids())
        similar = torch.linalg.matrix_power(self.item_graph(), self.s.n_item_layers) @ self.p["item_embedding"]
        return total[:N_USERS], total[N_USERS:] + unit(similar)

    def losses(self) -> tuple[Tensor, ...]:
        users, items = self.rows()
        squares = sum(
            block.square().sum() for block in (users[BATCH.users], items[BATCH.positives], items[BATCH.negatives])
        )
        return bpr(users @ items.t()), self.s.reg_weight * squares / (2 * len(BATCH.users))


class CLCRec(Dense):
    # What the model draws at random, for the batch.
    negatives = torch.tensor([[3, 4, 5], [9, 3, 3], [0, 8, 1], [0, 1, 2], [0, 2, 4], [0, 9, 8]])
    uniform = torch.rand(6, 4, generator=torch.Generator().manual_seed(5))

    def encoded(self) -> Tensor:
        features = torch.cat([unit(self.f[name]) for name in self.names], dim=1)
        return self.linear("encoder.2", leaky(self.linear("encoder.0", features)))

    def rows(self) -> tuple[Tensor, Tensor]:
        items = self.p["item_embedding"].clone()
        items[COLD] = self.encoded()[COLD]
        return self.p["user_embedding"], items

    def losses(self) -> tuple[Tensor, ...]:
        users, ids, encoded, s = self.p["user_embedding"], self.p["item_embedding"], self.encoded(), self.s
        ranking, alignment, lengths = [], [], []
        for b, (user, positive) in enumerate(zip(BATCH.users.tolist(), BATCH.positives.tolist(), strict=True)):
            items = [positive, *self.negatives[b].tolist()]
            own = ids[positive] / ids[positive].norm()
            cosines = torch.stack([own @ encoded[item] / encoded[item].norm() for item in items])
            alignment.append(-(cosines / s.temperature).log_softmax(dim=0)[0])
            mixed = [
                encoded[item] if self.uniform[b, n] < s.replaced_share else ids[item] for n, item in enumerate(items)
            ]
            scores = torch.stack([users[user] @ row for row in mixed])
            ranking.append(-(scores / s.temperature).log_softmax(dim=0)[0])
            lengths.append(users[user].norm() + torch.stack([ids[item].norm() for item in items]).mean())
        share = s.alignment_share
        return (
            (1 - share) * torch.stack(ranking).mean(),
            share * torch.stack(alignment).mean(),
            s.reg_weight * torch.stack(lengths).mean() / 2,
        )


DENSE: dict[str, type[Dense]] = {kind.__name__: kind for kind in Dense.__subclasses__()}
