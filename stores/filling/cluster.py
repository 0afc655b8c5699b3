"""Run tasks of a plan in other processes, by a Dask scheduler.

A Dask task is a task of the recorded plan. It reads its items from the store, so a worker needs the
store's folder (shared, on a cluster) and this package, but none of the source files. Each task
writes whole chunks that no other task writes. If it runs twice, because its worker died, it writes
the same bytes twice.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, LocalCluster, as_completed, get_worker

from protalign.core.cluster import (
    TASKS_PER_WORKER,
    WORKING,
    connected,
    only_our_errors,
    silenced,
    watched,
    workers_of,
)
from protalign.core.errors import ProtAlignError
from protalign.stores.filling.alone import STARTS, IsolatedRunner
from protalign.stores.filling.task import (
    DamagedError,
    Encode,
    TaskResult,
    TaskRunner,
    stopped,
)

#: Tries of a task in a child process, each of which other tasks of its worker may end.
TRIES_ALONE = 3


@dataclass(frozen=True, slots=True)
class _Job:
    """The facts that every task of one run needs; equal to another if it is of the same run."""

    path: Path = field(compare=False)
    encoder: str = field(compare=False)
    load: Callable[[str], Encode] = field(compare=False)
    devices: tuple[str, ...] = field(compare=False)
    run: str = field(default_factory=lambda: uuid4().hex)


def run_on_workers(
    path: Path,
    encoder: str,
    load: Callable[[str], Encode],
    indices: Sequence[int],
    on_done: Callable[[TaskResult], None],
    devices: Sequence[str],
    scheduler: str | None,
) -> None:
    """Run tasks in a process for each device, or on the workers of a Dask scheduler.

    ``on_done`` takes each task's result, in this thread, in the order in which they end. A task
    that ends its workers more often than Dask allows runs again in a child process of a worker,
    which may end without harm. After an error no task is begun; those that run may finish, and are
    kept. See ``encode_pending``.
    """
    job = _Job(path, encoder, load, tuple(devices))
    waiting = iter(indices)
    under_way: dict[str, tuple[Future, int, int]] = {}  # by key; the task, and its try
    error: ProtAlignError | None = None
    with (
        _client(devices, scheduler) as client,
        watched(
            client,
            lambda: [future for future, *_ in [*under_way.values()]],
            f"encoding with {encoder}",
            "what is finished is kept; ",
        ) as lost,
    ):
        running = as_completed()

        def submit(index: int, number: int) -> None:
            key = f"{encoder}-{index}-{number}-{job.run}"
            run = _run_alone if number else _run_task
            future = client.submit(run, job, index, key=key, pure=False)
            under_way[key] = future, index, number
            running.add(future)

        def submit_some() -> None:
            workers = workers_of(client)
            while running.count() < TASKS_PER_WORKER * max(1, workers):
                index = next(waiting, None)
                if index is None:
                    return
                submit(index, 0)

        submit_some()
        for future in running:
            _, index, number = under_way[future.key]
            try:  # a result may be lost with its worker, after its task has ended
                result: TaskResult = future.result()
            except KilledWorker:
                if number < TRIES_ALONE and error is None and lost.error is None:
                    submit(index, number + 1)  # others of its worker's tasks may have ended it
                    continue
                error = error or _killed(encoder)
            except ProtAlignError as failure:
                error = error or failure
            except Exception as failure:
                error = error or lost.error or stopped(encoder, failure)
            else:
                on_done(result)
                if error is None:
                    submit_some()
            finally:
                del under_way[future.key]
    if error is not None:
        raise error


def _killed(encoder: str) -> ProtAlignError:
    return ProtAlignError(
        f"encoding with {encoder} stopped: a task ended its worker process several times, also "
        "while its items were tried by themselves; what is finished is kept; use a machine with "
        "more memory, or fewer workers on it"
    )


@contextmanager
def _client(devices: Sequence[str], scheduler: str | None) -> Iterator[Client]:
    """Yield a client of the given scheduler, or of a worker process for each device."""
    if scheduler is not None:
        with connected(scheduler) as client:
            yield client
        return
    with (
        silenced("distributed"),
        _local_cluster(len(devices)) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _local_cluster(processes: int) -> LocalCluster:
    """Start a process for each device; start them again if one ends while it starts."""
    unguarded = _imports_unguarded_script()
    starts = 1 if unguarded else STARTS
    while True:
        starts -= 1
        try:
            return LocalCluster(
                n_workers=processes,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,  # a model's weights are not a leak to be killed for
                dashboard_address="127.0.0.1:0",  # None would take 8787, and warn if it is taken
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            if starts == 0:
                raise _not_started(error, unguarded) from error


def _not_started(error: RuntimeError, unguarded: bool) -> ProtAlignError:
    if unguarded:
        return ProtAlignError(
            f"the worker processes did not start ({error}), since each imports the script; embed "
            "from under `if __name__ == '__main__':`"
        )
    return ProtAlignError(
        f"the worker processes ended while they started, {STARTS} times ({error}); use fewer "
        "devices (--device cuda:0), or a machine with more memory"
    )


def _imports_unguarded_script() -> bool:
    """Return whether a worker would run the caller's script again, from its first line."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path is None or not str(path).endswith(".py"):
        return False
    try:
        return "__name__" not in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


# -- in a worker -----------------------------------------------------------------------------------

#: Runs in which the encoder of this process no longer works.
_damaged: set[str] = set()


def _run_task(job: _Job, index: int) -> TaskResult:
    with WORKING, only_our_errors(partial(stopped, job.encoder)):
        if job.run not in _damaged:
            try:
                return _runner(job).run(index)
            except DamagedError:
                _damaged.add(job.run)
        return _in_child(job, index)  # outside the block the error's tensors are freed


def _run_alone(job: _Job, index: int) -> TaskResult:
    with WORKING, only_our_errors(partial(stopped, job.encoder)):
        return _in_child(job, index)


@lru_cache(maxsize=1)  # at most one model in a process
def _runner(job: _Job) -> TaskRunner:
    return TaskRunner(job.path, job.encoder, job.load(_device(job)))


def _in_child(job: _Job, index: int) -> TaskResult:
    _runner.cache_clear()  # the child needs the memory
    with IsolatedRunner(job.path, job.encoder, job.load, _device(job)) as runner:
        return runner.run(index)


def _device(job: _Job) -> str:
    # A local cluster's workers are called 0, 1, …
    name: Any = get_worker().name
    return job.devices[name if isinstance(name, int) and name < len(job.devices) else 0]
