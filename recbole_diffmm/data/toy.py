"""A generated dataset whose right answer is known: users of a group like the items of the same group.

60 users and 80 items in 4 groups. Every modality reveals an item's group, and two items of each group occur in
validation or test only, so a model that reads the features ranks them right and one that does not cannot. Raw ids are
words in a shuffled order, the id files differ in order, float types differ and one modality does not cover all items:
what an alignment can get wrong shows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recbole_diffmm.data.files import write_interactions, write_lines

N_GROUPS, USERS_PER_GROUP, ITEMS_PER_GROUP, UNSEEN_PER_GROUP = 4, 15, 20, 2
N_USERS, N_ITEMS = N_GROUPS * USERS_PER_GROUP, N_GROUPS * ITEMS_PER_GROUP
MODALITIES = {"look": (8, "float32", 1.0), "sound": (12, "float64", 1.0), "smell": (5, "float16", 0.9)}
_SEED = 20240


def write(folder: Path) -> None:
    """Write the three splits and the features into ``folder``, the same bytes every time."""
    rng = np.random.default_rng(_SEED)
    users = np.array([f"user_{number:02d}" for number in range(N_USERS)])
    items = np.array([f"item_{number:02d}" for number in range(N_ITEMS)])
    pairs: dict[str, list[tuple[int, int]]] = {"train": [], "valid": [], "test": []}
    for user in rng.permutation(N_USERS):
        for split, liked in _likes(int(user), rng).items():
            pairs[split] += [(int(user), int(item)) for item in liked]
    for split, rows in pairs.items():
        user, item = np.array(rows).T
        write_interactions(folder / f"toy.{split}.inter", user_id=users[user], item_id=items[item])
    for name, (feat_dim, dtype, coverage) in MODALITIES.items():
        directions = rng.standard_normal((N_GROUPS, feat_dim))
        described = rng.permutation(N_ITEMS)[: round(coverage * N_ITEMS)]
        noise = 0.3 * rng.standard_normal((len(described), feat_dim))
        np.save(folder / f"{name}.npy", (directions[item_group(described)] + noise).astype(dtype))
        write_lines(folder / f"{name}.ids", items[described])


def user_group(user: int | np.ndarray) -> int | np.ndarray:
    """The group of the user numbered ``user`` in its raw id, ``0..3``."""
    return user // USERS_PER_GROUP


def item_group(item: int | np.ndarray) -> int | np.ndarray:
    """The group of the item numbered ``item`` in its raw id, ``0..3``."""
    return item // ITEMS_PER_GROUP


def _likes(user: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    first = user_group(user) * ITEMS_PER_GROUP
    seen = first + rng.permutation(ITEMS_PER_GROUP - UNSEEN_PER_GROUP)[:10]
    unseen = first + ITEMS_PER_GROUP - 1 - rng.permutation(UNSEEN_PER_GROUP)
    # some taste outside the group, never for an unseen item: real histories are not clean either
    stray = rng.integers(N_GROUPS) * ITEMS_PER_GROUP + rng.integers(ITEMS_PER_GROUP - UNSEEN_PER_GROUP)
    train = seen[:8] if stray in seen else np.append(seen[:8], stray)
    return {"train": train, "valid": np.append(seen[8], unseen[:1]), "test": np.append(seen[9], unseen[1:])}
