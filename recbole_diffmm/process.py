"""Processes for runs: what starts them, what they are told, and what they tell."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

import psutil
from filelock import FileLock, Timeout

from recbole_diffmm.errors import UserError

# What a run takes at least; so many fit into memory at once.
_MEMORY_PER_RUN = 2.5 * 2**30


class WorkerProcess:
    """A run in a process of its own.

    Args:
        module: The module that it runs.
        request: What it is told, such as model, dataset, config files and settings.
        environment: Variables that it gets besides this process's own.
    """

    def __init__(self, module: str, request: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,  # no message waits in a buffer that `select` does not see
            env={**os.environ, **environment},
            # Ctrl-C is for the process that started this one, which then ends it.
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended already; `result` says how

    @property
    def output(self) -> IO[bytes]:
        """What to wait on for the next message."""
        assert self._process.stdout
        return self._process.stdout

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def message(self) -> dict[str, Any] | None:
        """Return the next message, waiting for it, or None where there will be none."""
        line = self.output.readline()
        if not line:
            return None
        try:
            message = json.loads(line)
        except ValueError:  # cut off by a kill
            return {}
        return message if isinstance(message, dict) else {}

    def messages(self, wanted: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Return the messages as they come, to the last one, or until nothing more is `wanted`; asked every second."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.output, selectors.EVENT_READ)
            while wanted():
                if selector.select(timeout=1):
                    message = self.message()
                    if message is None:
                        return
                    yield message

    def end(self) -> dict[str, str]:
        """Wait for the end, release everything, and return why it ended where it has not said so itself."""
        assert self._process.stdin and self._process.stdout
        code = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                stream.close()
            except BrokenPipeError:
                pass
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._errors.tell() - 4000, 0))
        details = self._errors.read().decode(errors="replace")
        self._errors.close()
        reason = f"the process was killed by signal {-code}" if code < 0 else f"the process ended with code {code}"
        if code == -9:
            reason += ", as the system does when memory runs out"
        return {"failed": reason, "details": details}

    def kill(self) -> None:
        """End it now."""
        self._process.kill()


@dataclass(frozen=True)
class Slot:
    """A place for one process at a time: the variables that it gets."""

    environment: dict[str, str]


@dataclass(frozen=True)
class Job:
    """Something that a process is to do: its name, its module and what that is told."""

    name: str
    module: str
    request: dict[str, Any]


class Watcher(Protocol):
    """Is told what becomes of jobs."""

    def started(self, job: Job) -> None:
        """A job's process has been started."""

    def told(self, job: Job, message: dict[str, Any]) -> None:
        """It has told something."""

    def ended(self, job: Job, failed: dict[str, Any] | None) -> None:
        """It is over; `failed` says why and gives details where it is not done."""


def carry_out(jobs: Iterable[Job], slots: Sequence[Slot], watcher: Watcher) -> None:
    """Do each job in a process of its own, one a slot at a time, in their order.

    A process says `{"done": ...}` when it is; whatever else it ends with is a failure of its job alone. When this
    process is interrupted or killed, the others end with it.
    """
    waiting, free = iter(jobs), list(slots)
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                # Asked for when a slot is free and not before: what is left of a budget may decide.
                while free and (job := next(waiting, None)) is not None:
                    slot = free.pop(0)
                    watcher.started(job)
                    worker = WorkerProcess(job.module, job.request, slot.environment)
                    selector.register(worker.output, selectors.EVENT_READ, (job, slot, worker, {}))
                if not selector.get_map():
                    break
                for key, _ in selector.select():
                    job, slot, worker, last = key.data
                    message = worker.message()
                    if message is not None:
                        last.update(message)
                        watcher.told(job, message)
                        continue
                    selector.unregister(worker.output)
                    ended = worker.end()
                    free.append(slot)
                    watcher.ended(job, None if "done" in last else {**ended, **last})
        finally:
            for key in list(selector.get_map().values()):
                key.data[2].kill()
                key.data[2].end()


def slots(workers: int | None, n_jobs: int) -> list[Slot]:
    """Return the places for processes on this machine: one a GPU, or the cores shared among `workers`.

    Args:
        workers: How many go on at once; by default as many as there are GPUs, or else as cores, memory and `n_jobs`
            allow.
        n_jobs: How many there are to do.

    Raises:
        UserError: `workers` is less than 1.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers is {workers}; give at least 1")
    gpus = _gpus()
    cores = _cores()
    if workers is None:
        memory = int(psutil.virtual_memory().available // _MEMORY_PER_RUN)
        workers = len(gpus) or min(cores, max(memory, 1))
    workers = max(1, min(workers, n_jobs))
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // workers))
    # Threads that spin while they wait take the other processes' cores.
    shared = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    return [
        Slot({**shared, **({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {})})
        for number in range(workers)
    ]


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() not in {"", "-1"}]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, _ in enumerate(x for x in listed.splitlines() if x.startswith("GPU "))]


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep a second process out of a folder of records.

    Raises:
        UserError: Another one is at work in it, or it cannot be written.
    """
    lock, new = FileLock(folder / ".lock"), not folder.exists()
    made = [place for place in folder.parents if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another leaderboard or tuning is at work in {folder}; wait for it or end it") from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise UserError(f"{folder} cannot be written ({reason}); give another folder") from None
    try:
        yield
    finally:
        lock.release()
        if new and [path.name for path in folder.iterdir()] == [".lock"]:  # what was wrong left nothing behind
            shutil.rmtree(folder, ignore_errors=True)
            for place in made:
                with suppress(OSError):  # something else lies there by now
                    place.rmdir()


@contextmanager
def told_to_parent() -> Iterator[tuple[dict[str, Any], Callable[[dict[str, Any]], None]]]:
    """In a worker process: yield what it was asked and the function that tells the parent something.

    The process ends when its standard input does: nobody is left to tell. What libraries print goes to standard error,
    so that it does not stand between the messages.
    """
    asked = json.loads(_first_line())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as stream:
        os.dup2(2, 1)

        def tell(message: dict[str, Any]) -> None:
            try:
                stream.write(json.dumps(message) + "\n")
            except BrokenPipeError:  # seen before the end of standard input: no failure of what is at work
                os._exit(1)

        yield asked, tell


def _first_line() -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return bytes(line)


def _end_with_parent() -> None:
    # Not through `sys.stdin`, whose lock this thread would hold when Python ends.
    while os.read(0, 1 << 16):
        pass
    os._exit(1)


@contextmanager
def same_environment() -> Iterator[None]:
    """Put the environment variables back that RecBole's configurations set: they would hide GPUs from other runs."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def leave(code: int) -> NoReturn:
    """End a worker at once: it has told and written everything, and taking PyTorch down takes a second."""
    sys.stderr.flush()
    os._exit(code)


def gpu_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for the GPU that this process may see; RecBole would make it GPU 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible and "gpu_id" not in settings:
        return {**settings, "gpu_id": visible.split(",")[0]}
    return dict(settings)
