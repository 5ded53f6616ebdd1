"""Carries out the runs of a board on a Dask cluster: a scheduler, and workers on any number of machines."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_diffmm.errors import UserError
from recbole_diffmm.extras import require
from recbole_diffmm.leaderboard.plan import Planned
from recbole_diffmm.leaderboard.progress import Progress
from recbole_diffmm.leaderboard.runner import WORKER, request, settle
from recbole_diffmm.process import WorkerProcess
from recbole_diffmm.record import write_bytes

_TOPIC = "recbole_diffmm"


def connect(address: str) -> Any:
    """Return a client of the Dask scheduler at `address`, such as ``tcp://host:8786``.

    Raises:
        UserError: Dask (the extra ``cluster``) is not installed, or nothing answers.
    """
    require("cluster", "--scheduler", "distributed")
    from distributed import Client
    from distributed.comm import get_address_host_port

    try:
        get_address_host_port(address)  # first: a client that stumbles over it takes long to be taken down
    except (ValueError, NotImplementedError):
        raise UserError(f"{address} is no address of a Dask scheduler; write tcp://host:8786") from None
    try:
        return Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers at {address} ({type(error).__name__})") from None


def run_on_cluster(runs: Sequence[Planned], folder: Path, client: Any, progress: Progress) -> dict[str, str]:
    """Carry out `runs` on the workers of a Dask scheduler and return the reasons of those that failed, by name.

    Records travel back to `folder` on this machine; data, config files and checkpoints are looked for on the workers
    under the same paths as here. A run whose worker dies starts again on another one.

    Args:
        runs: What to do.
        folder: Where records go, on this machine.
        client: What :func:`connect` gave; it is closed at the end.
        progress: Told what happens.

    Raises:
        UserError: The scheduler has gone.
    """
    from distributed import CancelledError, as_completed

    by_name = {run.name: run for run in runs}
    failures: dict[str, str] = {}
    with client:

        def told(event: tuple[float, Any]) -> None:
            message = event[1]
            run = by_name.get(message.pop("name", ""))
            if run is not None:
                progress.start(run) if "started" in message else progress.update(run, message)

        client.subscribe_topic(_TOPIC, told)
        shares = _shares(client)
        # By a key of this call's own: an earlier or another one's run of that name may be on the scheduler still.
        call = uuid.uuid4().hex
        futures = {
            client.submit(_run, request(run, Path()), run.name, shares, pure=False, key=f"{run.name}-{call}"): run
            for run in runs
        }
        try:
            for future in as_completed(futures, loop=client.loop):
                run = futures[future]
                reason = settle(run, folder, _gather(future, folder))
                if reason is not None:
                    failures[run.name] = reason
                progress.end(run, reason)
        except CancelledError:
            raise UserError(
                "the connection to the Dask scheduler is lost; the runs that had ended are recorded, the same command "
                "goes on with the others"
            ) from None
        finally:
            client.cancel(list(futures))
            client.unsubscribe_topic(_TOPIC)
    return failures


def _gather(future: Any, folder: Path) -> dict[str, str] | None:
    """Write down what a worker has sent, or return why there is nothing to write."""
    broken = future.exception()
    if broken is not None:
        return {"failed": f"{type(broken).__name__}: {broken}"}
    answer = future.result()
    if "failed" in answer:
        return {"failed": answer["failed"], "details": answer.get("details", "")}
    files: dict[str, bytes] = answer["files"]
    for name in files:
        if name != Path(name).name:
            return {"failed": f"the worker sent a file called {name!r}, which would lie outside {folder}"}
    # The record last: it says that the others are there.
    for name in sorted(files, key=lambda name: name.endswith(".json")):
        write_bytes(folder / name, files[name])
    return None


def _shares(client: Any) -> dict[str, int]:
    """By a worker's address, how many runs go on at a time on its machine, other workers there included."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    by_host: dict[str, int] = {}
    for worker in workers.values():
        by_host[worker["host"]] = by_host.get(worker["host"], 0) + worker["nthreads"]
    return {address: by_host[worker["host"]] for address, worker in workers.items()}


def _run(asked: dict[str, Any], name: str, shares: dict[str, int]) -> dict[str, Any]:
    """On a worker: carry out one run in a process of its own, and return its files or why it failed."""
    from distributed import get_worker

    here = get_worker()
    key = here.get_current_task()

    def wanted() -> bool:
        task = here.state.tasks.get(key)
        # A worker that has lost its scheduler closes, and would wait for its tasks.
        return task is not None and task.state != "cancelled" and here.status.name not in {"closing", "closed"}

    here.log_event(_TOPIC, {"name": name, "started": True})
    at_a_time = shares.get(here.address, here.state.nthreads)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // at_a_time))
    with tempfile.TemporaryDirectory() as scratch:
        asked = {**asked, "settings": {**asked["settings"], "results_dir": scratch}}
        worker = WorkerProcess(WORKER, asked, {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"})
        last: dict[str, Any] = {}
        try:
            # Dask cancels what has not begun; a training that nobody waits for any more is ended here.
            for message in worker.messages(wanted):
                last.update(message)
                here.log_event(_TOPIC, {"name": name, **message})
        finally:
            worker.kill()
            ended = worker.end()
        if "done" not in last:
            return {**ended, **last}
        return {"files": {file.name: file.read_bytes() for file in Path(scratch).iterdir() if file.is_file()}}
