"""Writes docs/models.md from the models' classes and from what was measured of them.

python docs/models.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recbole_diffmm.catalogue import OURS, Entry, catalogue
from recbole_diffmm.registry import get_model

REPOSITORY = Path(__file__).resolve().parent.parent
POINTS = REPOSITORY / "benchmarks" / "results" / "public_points-tiktok.json"
MEASURED = REPOSITORY / "benchmarks" / "results" / "models-tiktok-cpu.json"

HEADER = """# Models

Every model of this package is one file in `recbole_diffmm/model/` and one YAML in `properties/model/`; its class's
docstring has the formulas, the paper, and where the published code departs from it. RecBole's 33 general recommenders
run beside them. `recbole-diffmm models` lists all, `recbole-diffmm models NAME` a model's settings.

Any model takes any number of modalities. *Unseen items*: whether an item without training interactions gets a score
that its features decide.

| model | published | reads | unseen items | options where paper and published code differ |
|---|---|---|---|---|
"""

# Settings that name a departure.
OPTIONS = {
    "BM3": "`train_features`",
    "CLCRec": "`replaced_share`",
    "DiffMM": '`eval_graph`; README, "How DiffMM is set"',
    "FREEDOM": "`train_features`",
    "GRCN": "`routing`, `prune`",
    "HCCF": "`activation`, `hyperedges`",
    "LATTICE": "`train_features`",
    "MGCN": "`train_features`",
    "MMGCL": "`views`",
    "MMGCN": "`train_id`",
    "SLMRec": "`score`",
    "VBPR": "`biases`, `normalize_features`",
}

PUBLIC = """
## Beside another implementation

For three models there are figures of [MMRec](https://github.com/enoche/MMRec)'s public code on TikTok with image and
audio, one fixed configuration each, selected on validation; they were handed to this project and not made again here.
The same configuration in this package, one seed, test Recall@20 / NDCG@20 (`python benchmarks/public_points.py`,
[report](../benchmarks/results/public_points-tiktok.json), records in `results/public-points/`); samplers and stopping
rules differ, so that the order of magnitude is all there is to compare:

| model | here | MMRec's code | best epoch here |
|---|---:|---:|---:|
"""

COST = """
## What they cost

On TikTok with image and audio (9,308 users, 6,710 items, 59,541 training interactions), {threads} threads of a
processor ({device}), one model after the other with the settings that it ships with, except that RecBole's models have
batches of 2,048 and BM3 two layers instead of one: the median of epochs 2 to {epochs}, validation and saving included,
or building and fitting for what has none, and the peak memory of the process. *Times LightGCN* holds it against
RecBole's LightGCN with two layers. LATTICE, LightGCN-M, FREEDOM, MGCN and BM3 have two layers too; a batch counts
interactions, for MultiVAE, DiffRec and LDiffRec users. Made by `{command}`
([report](../benchmarks/results/models-tiktok-cpu.json), with the commit of each row).

| model | seconds | of | times LightGCN | batch | layers | peak MiB |
|---|---:|---|---:|---:|---:|---:|
"""

# Why a model takes more than three times LightGCN's epoch.
WHY: dict[str, str] = {
    "DiffRec": "RecBole's; it denoises whole rows of the training matrix, one a user.",
    "DiffMM": "an epoch also trains a denoiser a modality, generates their graphs and contrasts all nodes.",
    "HCCF": "128 hyperedges join all users and all items in each layer, and all entries are dropped anew.",
    "MultiVAE": "RecBole's; it reconstructs whole rows of the training matrix.",
    "MGCN": "users pass three dense maps in every batch and items seven, and each modality has a graph of its own.",
    "MMGCL": "two views of three graphs, the second with one of them anew, and three layers in every batch.",
    "MMGCN": "three layers for each modality, the first as wide as its features.",
    "NCL": "RecBole's; it contrasts each batch with all users and all items.",
    "NGCF": "RecBole's; three layers of dense maps over all nodes, and its sparse product is slow.",
    "SGL": "RecBole's; three graphs with three layers in every batch, and a contrast with all nodes.",
    "ContentEASE": "one inverse of a matrix of all items, and nothing after it.",
    "EASE": "RecBole's; one inverse of a matrix of all items, and nothing after it.",
    "SLIMElastic": "RecBole's; scikit-learn fits an elastic net for every item, and nothing comes after it.",
    "SLMRec": "three graphs with three layers in every batch.",
}


def text() -> str:
    """Return the document."""
    report = json.loads(MEASURED.read_text(encoding="utf-8"))
    lines = [_described(entry) for entry in catalogue() if entry.package == OURS]
    return HEADER + "\n".join(lines) + "\n" + _public() + _cost(report)


def _described(entry: Entry) -> str:
    kind: Any = get_model(entry.name)
    published = f"[{entry.venue} {entry.year}]({entry.link})" if entry.year else "here"
    unseen = "yes" if kind.ranks_cold_items else "no"
    return f"| {entry.name} | {published} | {entry.reads} | {unseen} | {OPTIONS.get(entry.name, '-')} |"


def _public() -> str:
    points = json.loads(POINTS.read_text(encoding="utf-8"))["points"]
    return PUBLIC + "".join(
        f"| {point['model']} | {point['recall@20']:.4f} / {point['ndcg@20']:.4f} "
        f"| {point['public_recall@20']:.4f} / {point['public_ndcg@20']:.4f} | {point['best_epoch']}"
        f"{', the last allowed' if point['best_epoch'] == point['epochs_run'] - 1 else ''} |\n"
        for point in points
    )


def _cost(report: dict[str, Any]) -> str:
    rows = {row["model"]: row for row in report["models"] if "failed" not in row}
    unit = rows["LightGCN"]["seconds"]
    text = COST.format(**{key: report[key] for key in ("threads", "device", "epochs", "command")})
    slow = []
    for name, row in sorted(rows.items(), key=lambda item: item[1]["seconds"]):
        ratio = row["seconds"] / unit
        batch = f"{row['batch_size']:,}" if row["of"] == "an epoch" else "-"
        text += f"| {name} | {row['seconds']:.2f} | {row['of']} | {ratio:.1f} | {batch} | {row['layers'] or '-'} "
        text += f"| {row['peak_mib']:,.0f} |\n"
        if ratio > 3:
            slow.append(f"- **{name}**: {WHY[name]}")
    return (
        text
        + "\n"
        + "\n".join(["Why some take more than three times as long as an epoch of LightGCN:", "", *slow])
        + "\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("models.md").write_text(text(), encoding="utf-8")
