"""Writes a dataset of a given size with power-law popularity and random features, in the form that runs read.

python benchmarks/make_dataset.py dataset/sports-size --sizes 35598 18357 218409 --features image=4096 text=1024
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from exit_code import exit_code
from synthetic import check_sizes, draw_interactions

from recbole_diffmm import UserError

HELD_OUT = 0.125  # of the training interactions, for validation and for test each


def write_dataset(folder: Path, sizes: Sequence[int], features: dict[str, int]) -> None:
    """Write users, items and training interactions of these three ``sizes``, and features of these widths.

    Raises:
        UserError: the folder is there already, or no such data can be drawn.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already; remove it, or give another folder")
    n_users, n_items, n_train = sizes
    n_held_out = int(HELD_OUT * n_train)
    n_all = n_train + 2 * n_held_out
    users, items = draw_interactions(check_sizes({"users": n_users, "items": n_items, "interactions": n_all}))
    rng = np.random.default_rng(2)
    order = rng.permutation(n_all)
    folder.mkdir(parents=True)
    parts = np.split(order, [n_train, n_train + n_held_out])
    for phase, part in zip(("train", "valid", "test"), parts, strict=True):
        table = pd.DataFrame({"user_id:token": users[part], "item_id:token": items[part]})
        table.to_csv(folder / f"{folder.name}.{phase}.inter", sep="\t", index=False)
    (folder / "item_ids.txt").write_text("".join(f"{item}\n" for item in range(n_items)))
    for name, width in features.items():
        np.save(folder / f"{name}.npy", rng.standard_normal((n_items, width), dtype=np.float32).astype(np.float16))
    settings = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": {"inter": ["user_id", "item_id"]},
        "benchmark_filename": ["train", "valid", "test"],
        "modalities": {name: {"features": f"{name}.npy", "ids": "item_ids.txt"} for name in features},
    }
    (folder / f"{folder.name}.yaml").write_text(yaml.safe_dump(settings))


def parse_feature(text: str) -> tuple[str, int]:
    """Return the name and the width of ``name=width``.

    Raises:
        UserError: it has another form.
    """
    if not (found := re.fullmatch(r"(\w+)=([1-9]\d*)", text)):
        raise UserError(f"--features {text}: write a name and a width, such as image=4096")
    return found[1], int(found[2])


def main() -> int:
    """Write one dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", nargs=3, type=int, required=True, metavar=("USERS", "ITEMS", "INTERACTIONS"))
    parser.add_argument("--features", nargs="+", default=["image=128", "audio=128"], metavar="NAME=WIDTH")
    args = parser.parse_args()
    return exit_code(lambda: write_dataset(args.folder, args.sizes, dict(map(parse_feature, args.features))))


if __name__ == "__main__":
    sys.exit(main())
