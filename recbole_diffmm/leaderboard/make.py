"""The recipe of a board: what is missing is run, then everything is rendered; the order is visible here only."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from recbole_diffmm import record as records
from recbole_diffmm.errors import UserError
from recbole_diffmm.extras import require
from recbole_diffmm.leaderboard import manifest, plan
from recbole_diffmm.leaderboard.earlier import Earlier
from recbole_diffmm.leaderboard.manifest import Manifest
from recbole_diffmm.leaderboard.progress import Progress
from recbole_diffmm.leaderboard.spec import check_rows, find_spec, load_spec, tasks
from recbole_diffmm.leaderboard.tuned import Waiting, tuning_words


@dataclass(frozen=True)
class Made:
    """What came of making a board.

    Attributes:
        folder: Where its records and views lie.
        data_path: Where its datasets lie.
        manifest: Its rows.
        done: Runs done now.
        failures: Why runs failed, by name.
        stale: What has changed since stale runs were made, by name.
    """

    folder: Path
    data_path: Path
    manifest: Manifest
    done: int
    failures: dict[str, str]
    stale: dict[str, str]


def make(
    given: str,
    workers: int | None = None,
    scheduler: str | None = None,
    rerun_stale: bool = False,
    progress: bool = True,
    rows: Collection[str] = (),
    confirm_stale: int | None = None,
    against: Path | None = None,
) -> Made:
    """Carry out the runs of a board that have no record yet.

    Args:
        given: A YAML file, or the name of one in `properties/leaderboard/`.
        workers: Runs at a time on this machine; by default one a GPU, or as cores and memory allow.
        scheduler: Address of a Dask scheduler whose workers run instead.
        rerun_stale: Run again what code or data have changed for; the old records go to ``<folder>/stale/``.
        progress: Show one display on standard error.
        rows: Names of the rows to run, all by default. The others stay as they are, and need no tuning yet.
        confirm_stale: Before that, train this many epochs of the runs whose code has changed; those that come out the
            same are stale no more.
        against: A checkout of the code that made their records or has confirmed them; it trains the same epochs here,
            for machines whose digits are not those of the records.

    Raises:
        UserError: The board, the name of a row, a configuration or a tuning report is wrong; nothing has run.
    """
    from recbole_diffmm.process import only_one

    if confirm_stale is not None and confirm_stale < 1:
        raise UserError(f"--confirm_stale is {confirm_stale}; give at least 1 epoch")
    if against is not None and not confirm_stale:
        raise UserError(f"--against {against}: what it is for is --confirm_stale; give that too")
    earlier = Earlier(against) if against else None
    if confirm_stale and scheduler is not None:
        raise UserError("--confirm_stale trains on this machine; leave --scheduler out")
    if workers is not None and workers < 1:
        raise UserError(f"--workers is {workers}; give at least 1")
    require("leaderboard", "a board", "pyarrow", "statsmodels", "jinja2")
    path = find_spec(given)
    spec = load_spec(path)
    check_rows(spec, rows)
    folder = spec.folder
    with only_one(folder):
        words = tuning_words(spec, rows)
        before = manifest.read(folder)
        waiting = [row for row, tuned in words.items() if isinstance(tuned, Waiting)]
        planned = plan.plan(tasks(spec, waiting), folder, before.names() if before else {}, spec.metrics, str(path))
        board = manifest.build(spec, planned, words, before)
        manifest.write(folder, board)
        if confirm_stale:
            asked = [run for run in plan.of_other_code(planned) if not rows or run.task.label in rows]
            different = _confirm(asked, folder, confirm_stale, workers, progress, earlier)
            planned = [_confirmed(run, different) if run in asked else run for run in planned]
        runs = [run for run in plan.pending(planned, rerun_stale) if not rows or run.task.label in rows]
        failures = _carry_out(runs, len(planned) - len(runs), folder, workers, scheduler, progress) if runs else {}
    stale = {run.name: run.why for run in planned if run.state == "stale" and run not in runs}
    return Made(folder, plan.data_path(planned[0].task), board, len(runs) - len(failures), failures, stale)


def _confirm(
    runs: list[plan.Planned], folder: Path, epochs: int, workers: int | None, shown: bool, earlier: Earlier | None
) -> dict[str, str]:
    from recbole_diffmm.leaderboard.confirm import confirm
    from recbole_diffmm.process import slots

    if not runs:
        return {}
    progress = Progress(0, len(runs), shown)
    try:
        return confirm(runs, folder, epochs, slots(workers, len(runs)), progress, earlier)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{progress}; the same command goes on") from None
    finally:
        progress.close()


def _confirmed(run: plan.Planned, different: dict[str, str]) -> plan.Planned:
    """The run as it is now: done, or stale, with where its numbers differ or why that is not known."""
    if run.name not in different:
        return replace(run, state="done", why="")
    return replace(run, why=f"{run.why}, {different[run.name]}")


def _carry_out(
    runs: list[plan.Planned], done: int, folder: Path, workers: int | None, scheduler: str | None, shown: bool
) -> dict[str, str]:
    carry_out: Callable[[Progress], dict[str, str]]
    if scheduler is None:
        from recbole_diffmm.leaderboard.runner import run_locally
        from recbole_diffmm.process import slots

        carry_out = partial(run_locally, runs, folder, slots(workers, len(runs)))
    else:
        from recbole_diffmm.leaderboard.cluster import connect, run_on_cluster

        carry_out = partial(run_on_cluster, runs, folder, connect(scheduler))
    # Now that nothing stands in the way.
    for run in runs:
        if run.state == "stale":
            records.set_aside(folder / f"{run.name}.json", "stale")
    progress = Progress(done, len(runs), shown)
    try:
        return carry_out(progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{progress}; the same command goes on") from None
    finally:
        progress.close()
