"""The metrics of every user that runs leave beside their records."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard.board import Row


def means_per_user(
    folder: Path, rows: Sequence[Row], metrics: Sequence[str]
) -> tuple[dict[str, dict[str, np.ndarray]], int | None]:
    """By metric and row one value a user, averaged over seeds; nothing where rows do not have the same users."""
    files = [[record.per_user for record in row.records] for row in rows]
    if any(file is None for of_row in files for file in of_row):
        return {}, None
    hashes = {file.users_hash for of_row in files for file in of_row if file is not None}
    if len(hashes) != 1:
        return {}, None
    values: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in metrics}
    n_users = None
    for row in rows:
        sums: dict[str, np.ndarray] = {}
        for record in row.records:
            assert record.per_user is not None
            n_users = record.per_user.n_users
            file = folder / record.per_user.file
            for metric, of_run in read_per_user(file, metrics, record.per_user.hash).items():
                sums[metric] = sums.get(metric, 0.0) + of_run
        for metric, total in sums.items():
            values[metric][row.label] = total / len(row.records)
    complete = {metric: found for metric, found in values.items() if len(found) == len(rows)}
    return complete, n_users


def read_per_user(path: Path, metrics: Sequence[str], digest: str) -> dict[str, np.ndarray]:
    """Return one value a user of those `metrics` that a record's per-user file has; none without pyarrow.

    Args:
        path: The file.
        metrics: Names as its columns have them.
        digest: Its SHA-256, as the record says.

    Raises:
        UserError: The file is missing, broken or not the one that the run wrote.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        return {}
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(f"per-user values {path} were edited since the run wrote them; put them back or run again")
        file = pq.ParquetFile(io.BytesIO(content))
        names = [metric for metric in metrics if metric in file.schema_arrow.names]
        table = file.read(columns=names, use_threads=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"per-user values {path} cannot be read ({reason}); delete the record and run again") from None
    return {name: table.column(name).to_numpy() for name in names}
