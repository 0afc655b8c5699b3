"""Run an encoder over a store's plan through Dask; the one module that knows Dask.

A Dask task is a task of the recorded plan. It reads its items from the store, so that a worker
needs the store's folder (shared, on a cluster), this package, and nothing of the source files. Each
writes whole chunks of its own, so that a task that runs twice, because its worker died, writes the
same bytes twice.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import numpy as np
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed, get_worker

from protalign.core.errors import Failure, ProtAlignError, StoreError
from protalign.stores.entries import EntryLog, encoder_failures
from protalign.stores.filling.progress import PlanReader
from protalign.stores.filling.task import (
    ONE_THREAD,
    Encode,
    InterruptedRunError,
    TaskResult,
    TaskRunner,
    Threads,
    mark_done,
)
from protalign.stores.format.append import change_state
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.lock import StoreLock, held_by_this_process
from protalign.stores.format.state import EncoderState, StoreState

#: Tasks that a worker has or waits for: enough that it never idles.
TASKS_PER_WORKER = 3
#: Seconds to wait for a scheduler to answer, and for its first worker.
CONNECT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: tasks and residues of this run, without those done before it."""

    tasks_done: int
    tasks_total: int
    rows_done: int
    rows_total: int


@dataclass(frozen=True, slots=True)
class FillReport:
    """What a run did.

    Attributes
    ----------
    tasks, items, rows : done by this run.
    seconds : it took.
    failures : entries whose item the encoder refused; the store has them on record.
    """

    tasks: int
    items: int
    rows: int
    seconds: float
    failures: list[Failure]


@dataclass(frozen=True, slots=True)
class _Job:
    """What every task of one run has in common."""

    path: str
    encoder: str
    load: Callable[[str], Encode]
    devices: tuple[str, ...]
    threads: Threads
    run: str = field(default_factory=lambda: uuid4().hex)


def fill(
    path: str | os.PathLike[str],
    encoder: str,
    load: Callable[[str], Encode],
    *,
    devices: Sequence[str] = ("cpu",),
    scheduler: str | None = None,
    threads: Threads = ONE_THREAD,
    on_progress: Callable[[Progress], None] | None = None,
) -> FillReport:
    """Embed what the encoder's plan has not done yet.

    Parameters
    ----------
    path : a local store, planned with ``StoreWriter.plan``.
    encoder : its name in the store.
    load : gives the encode function for a device; a picklable function, called once per worker
        process. Encode takes a list of ``tuple[str, ...]`` or ``Structure``, returns one (L, D)
        float32 array each, and raises InputError for an item that it cannot embed.
    devices : of this machine. One: encoding runs in this process. Several: a process for each.
    scheduler : address of a Dask scheduler to use instead. Its workers see the store under the same
        path; start one per GPU, with ``--nthreads 1``. They load on ``devices[0]``.
    threads : of each process, in which batches are encoded at once; one by default. With more,
        two tasks run at once.
    on_progress : called at the start and after each task.

    Raises
    ------
    StoreError : no such store or encoder, another process writes to it, or no scheduler answers.
    ProtAlignError : the encoder failed. Like after Ctrl-C, finished tasks are kept, and the next
        run goes on from them.
    """
    started = perf_counter()
    folder = Path(path).absolute()
    arrays = LocalArrays(folder)
    if encoder not in arrays.state.encoders:
        known = ", ".join(arrays.state.encoders) or "none yet"
        raise StoreError(f"{folder} has no plan for encoder {encoder!r}; it has: {known}")
    job = _Job(str(folder), encoder, load, tuple(devices), threads)
    with _writing(folder):
        plan = PlanReader(LocalArrays(folder), encoder)
        pending = np.flatnonzero(plan.pending).tolist()
        tally = _Tally(len(pending), int(plan.task_rows[pending].sum()), on_progress)
        if pending:
            with _client(job.devices, threads.tasks_at_once, scheduler) as client:
                _run_all(client, job, pending, tally)
        change_state(folder, lambda state: _all_done(state, encoder, len(plan)))
    return FillReport(
        tasks=tally.tasks,
        items=tally.items,
        rows=tally.rows,
        seconds=perf_counter() - started,
        failures=_failures(folder, encoder, tally.failed),
    )


class _Tally:
    """Adds up results, and tells the caller."""

    def __init__(
        self, tasks: int, rows: int, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self._total = (tasks, rows)
        self._on_progress = on_progress
        self.tasks = self.items = self.rows = 0
        self.failed: set[int] = set()
        self._tell()

    def add(self, result: TaskResult) -> None:
        self.tasks += 1
        self.items += result.items
        self.rows += result.rows
        self.failed.update(item for item, _, _ in result.failed)
        self._tell()

    def _tell(self) -> None:
        if self._on_progress is not None:
            tasks, rows = self._total
            self._on_progress(Progress(self.tasks, tasks, self.rows, rows))


def _writing(folder: Path) -> AbstractContextManager[object]:
    """The store's lock, unless this process has it already."""
    return nullcontext() if held_by_this_process(folder) else StoreLock(folder)


# -- in the process that asks ----------------------------------------------------------------------


def _run_all(client: Client, job: _Job, pending: list[int], tally: _Tally) -> None:
    """Submit tasks, a few ahead of the workers, and record what comes back."""
    waiting = iter(pending)
    running = as_completed()
    error: ProtAlignError | None = None

    def submit_some() -> None:
        window = TASKS_PER_WORKER * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        while running.count() < window and error is None:
            index = next(waiting, None)
            if index is None:
                return
            key = f"{job.encoder}-{index}-{job.run}"
            running.add(client.submit(_run_task, job, index, key=key, pure=False))

    try:
        submit_some()
        for future in running:
            try:
                result = _result(future, job.encoder)
            except ProtAlignError as failure:
                # Nothing new is begun; what runs already may finish, and is kept.
                error = error or failure
                continue
            _record_failed(job, result)
            tally.add(result)
            submit_some()
    except BaseException:
        _stop(job)
        raise
    if error is not None:
        raise error


def _result(future: Future, encoder: str) -> TaskResult:
    try:
        result: TaskResult = future.result()
    except ProtAlignError:
        raise
    except KilledWorker:
        raise ProtAlignError(
            f"encoding with {encoder} stopped: a task ended its worker process several times, as "
            "running out of memory does; what is finished is kept"
        ) from None
    except Exception as error:
        raise ProtAlignError(
            f"encoding with {encoder} stopped: {type(error).__name__}: {error}; what is finished "
            "is kept, the next run goes on from there"
        ) from error
    return result


def _record_failed(job: _Job, result: TaskResult) -> None:
    """Keep what the encoder refused, or takes now; then let the task count as done."""
    if not result.failed and not result.mended:
        return

    def add(encoder: EncoderState) -> EncoderState:
        failed = {row[0]: row for row in (*encoder.failed, *result.failed)}
        for item in result.mended:
            del failed[item]
        return replace(encoder, failed=tuple(failed[item] for item in sorted(failed)))

    change_state(Path(job.path), lambda state: _with_encoder(state, job.encoder, add))
    mark_done(Path(job.path), job.encoder, result.index)


def _with_encoder(
    state: StoreState, name: str, change: Callable[[EncoderState], EncoderState]
) -> StoreState:
    return replace(state, encoders={**state.encoders, name: change(state.encoders[name])})


def _all_done(state: StoreState, encoder: str, tasks: int) -> StoreState:
    return _with_encoder(state, encoder, lambda known: replace(known, tasks_done=tasks))


def _failures(folder: Path, encoder: str, failed: set[int]) -> list[Failure]:
    if not failed:
        return []
    arrays = LocalArrays(folder)
    return encoder_failures(arrays, EntryLog(arrays), encoder, failed)


@contextmanager
def _client(
    devices: tuple[str, ...], tasks_at_once: int, scheduler: str | None
) -> Iterator[Client]:
    """A client of the given scheduler, or of workers on this machine."""
    with _silenced("distributed"):
        if scheduler is not None:
            with _connected(scheduler) as client:
                yield client
            return
        with _local_cluster(devices, tasks_at_once) as cluster, Client(cluster) as client:
            yield client


def _local_cluster(devices: tuple[str, ...], tasks_at_once: int) -> LocalCluster:
    """Workers on this machine: threads of this process, or a process for each of many devices."""
    try:
        return LocalCluster(
            n_workers=len(devices),
            threads_per_worker=tasks_at_once,
            processes=len(devices) > 1,
            memory_limit=0,  # a model's weights are no leak to be killed for
            dashboard_address="127.0.0.1:0",  # None would take port 8787, and warn if it is taken
            silence_logs=logging.CRITICAL,
        )
    except RuntimeError as error:
        raise ProtAlignError(
            f"the worker processes did not start ({error}); in a script, embed from under "
            "`if __name__ == '__main__':`, since each process imports the script"
        ) from error


@contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"no Dask scheduler answers at {scheduler}: {error}; start one with `dask scheduler`"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise StoreError(
                f"the Dask scheduler at {scheduler} has no workers; start one per GPU with "
                f"`dask worker {scheduler} --nthreads 1`"
            ) from None
        yield client


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


# -- in a worker -----------------------------------------------------------------------------------


class _Turns:
    """Who may work in this process: the tasks of one run, as many at once as it says.

    A model is one model, even on a worker with many threads that serves several runs.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._run, self._working = "", 0

    @contextmanager
    def take(self, job: _Job) -> Iterator[None]:
        """Wait for a turn, and have it."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_free_for(job))
            self._run, self._working = job.run, self._working + 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _is_free_for(self, job: _Job) -> bool:
        own = self._run == job.run and self._working < job.threads.tasks_at_once
        return own or self._working == 0


_turns = _Turns()
_loading = threading.Lock()
#: The runner of the run that this process works for, by the run's name.
_runners: dict[str, TaskRunner] = {}
#: Runs that were interrupted in this process.
_stopped: set[str] = set()


def _run_task(job: _Job, index: int) -> TaskResult:
    with _turns.take(job):
        if job.run in _stopped:
            raise InterruptedRunError("the run was interrupted")
        return _runner(job).run(index, lambda: job.run in _stopped)


def _runner(job: _Job) -> TaskRunner:
    with _loading:
        if job.run not in _runners:
            _runners.clear()  # at most one model in a process
            _runners[job.run] = TaskRunner(
                job.path, job.encoder, job.load(_device(job)), job.threads
            )
        return _runners[job.run]


def _device(job: _Job) -> str:
    """The device of this worker: a local cluster's workers are called 0, 1, …"""
    name: Any = get_worker().name
    return job.devices[name if isinstance(name, int) and name < len(job.devices) else 0]


def _stop(job: _Job) -> None:
    """Let tasks of this run that are in this process end at the next batch."""
    _stopped.add(job.run)
