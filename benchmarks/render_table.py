"""Renders a folder of run records as one Markdown table, means and standard deviations over seeds.

python benchmarks/render_table.py results/tiktok-va                  # prints it
python benchmarks/render_table.py results/tiktok-va --into README.md # between its markers there
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

METRICS = ("recall@20", "ndcg@20", "precision@20", "mrr@20")
SHARED = ("dataset", "protocol", "masking", "selection")


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder, by model and seed."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted(records, key=lambda record: (record["model"], record["seed"]))


def spread(values: Iterable[float], places: int) -> str:
    """Mean and, where there are several values, their standard deviation."""
    numbers = list(values)
    mean = f"{statistics.mean(numbers):.{places}f}"
    return f"{mean} ± {statistics.stdev(numbers):.{places}f}" if len(numbers) > 1 else mean


def in_short(values: Sequence[int]) -> str:
    """All values, or the one that they all are."""
    return str(values[0]) if len(set(values)) == 1 else ", ".join(map(str, values))


def render(records: Sequence[dict[str, Any]]) -> str:
    """One row per model, best validation-selected recall first.

    Raises:
        ValueError: the records do not share data, split, protocol or selection, so that no table can hold them all.
    """
    for key in SHARED:
        if len({record[key] for record in records}) > 1:
            raise ValueError(f"records differ in {key}")
    if len({record["data"]["split_hash"] for record in records}) > 1:
        raise ValueError("records differ in their split")
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["model"]].append(record)
    ranked = sorted(
        groups.items(), key=lambda item: -statistics.mean(r["metrics"]["test"]["recall@20"] for r in item[1])
    )
    names = [
        name.replace("recall", "Recall").replace("ndcg", "NDCG").replace("precision", "Precision") for name in METRICS
    ]
    names = [name.replace("mrr", "MRR") for name in names]
    paper = any("test_selected" in record["metrics"] for record in records)
    selected_name = ["*Recall@20, test-selected*"] if paper else []
    header = ["model", "seeds", *names, *selected_name, "best epoch", "epochs run", "s/epoch", "peak MB"]
    rows = [header, ["---"] * len(header)]
    for model, runs in ranked:
        selected = [
            r["metrics"]["test_selected"]["metrics"]["recall@20"] for r in runs if "test_selected" in r["metrics"]
        ]
        seconds = [sum(epoch["seconds"].values()) for r in runs for epoch in r["curve"]]
        rows.append(
            [
                model,
                str(len(runs)),
                *(spread((r["metrics"]["test"][metric] for r in runs), 4) for metric in METRICS),
                *([f"*{spread(selected, 4)}*" if selected else ""] if paper else []),
                ", ".join(str(r["best_epoch"]) for r in runs),
                in_short([r["epochs_run"] for r in runs]),
                f"{statistics.median(seconds):.1f}",
                f"{max(r['peak_memory_mb']['host'] for r in runs):.0f}",
            ]
        )
    first = records[0]
    modalities = sorted(next((r["data"]["features"] for r in records if r["data"].get("features")), {}))
    commits = sorted({r["commit"]["hash"][:9] for r in records})
    data = first["data"]
    test_selected = (
        " In italics, the epoch with the best *test* recall, which is the paper's protocol and no fair estimate."
    )
    caption = (
        f"Test metrics on {first['dataset']} with {' and '.join(modalities)} "
        f"({data['n_users']:,} users, {data['n_items']:,} items, split `{data['split_hash'][:12]}`): "
        f"mean ± standard deviation over seeds, epoch selected by {first['selection']}, masked at test: "
        f"{first['masking'].replace('+', ' and ')} items.{test_selected if paper else ''} {first['device']}, "
        f"{first['threads']} thread(s), commits {', '.join(commits)}."
    )
    return "\n".join([caption, "", *("| " + " | ".join(row) + " |" for row in rows)])


def insert(text: str, name: str, table: str) -> str:
    """Put `table` between the markers of `name` in a document."""
    start, end = f"<!-- table: {name} -->\n", "<!-- end of table -->"
    before, rest = text.split(start)
    return before + start + table + "\n" + end + rest.split(end, 1)[1]


def main() -> None:
    """Render the records of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, help="a Markdown file with markers named like the folder")
    args = parser.parse_args()
    table = render(read_records(args.folder))
    if args.into is None:
        sys.stdout.write(table + "\n")
    else:
        args.into.write_text(insert(args.into.read_text(), args.folder.name, table))


if __name__ == "__main__":
    main()
