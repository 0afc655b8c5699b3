"""Run tasks of a plan in other processes, by a Dask scheduler.

A Dask task is a task of the recorded plan. It reads its items from the store, so a worker needs the
store's folder (shared, on a cluster) and this package, but none of the source files. Each task
writes whole chunks that no other task writes. If it runs twice, because its worker died, it writes
the same bytes twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, LocalCluster, as_completed, get_worker

from protalign.core.errors import ProtAlignError, StoreError
from protalign.stores.filling.task import Encode, TaskResult, TaskRunner, stopped

#: Tasks that a worker has or waits for: enough that it never idles.
TASKS_PER_WORKER = 3
#: Seconds to wait for a scheduler to answer, and for its first worker.
CONNECT_SECONDS = 30.0


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

    ``on_done`` takes each task's result, in this thread, in the order in which they end. After a
    failure no task is begun; those that run may finish, and are kept. See ``encode_pending``.
    """
    job = _Job(path, encoder, load, tuple(devices))
    waiting = iter(indices)
    error: ProtAlignError | None = None
    with _client(devices, scheduler) as client:
        running = as_completed()

        def submit_some() -> None:
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
            while running.count() < TASKS_PER_WORKER * max(1, workers):
                index = next(waiting, None)
                if index is None:
                    return
                key = f"{encoder}-{index}-{job.run}"
                running.add(client.submit(_run_task, job, index, key=key, pure=False))

        submit_some()
        for future in running:
            try:
                result = _result(future, encoder)
            except ProtAlignError as failure:
                error = error or failure
                continue
            on_done(result)
            if error is None:
                submit_some()
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
        raise stopped(encoder, error) from error
    return result


@contextmanager
def _client(devices: Sequence[str], scheduler: str | None) -> Iterator[Client]:
    """Yield a client of the given scheduler, or of a worker process for each device."""
    with _silenced("distributed"):
        if scheduler is not None:
            with _connected(scheduler) as client:
                yield client
            return
        with _local_cluster(len(devices)) as cluster, Client(cluster) as client:
            yield client


def _local_cluster(processes: int) -> LocalCluster:
    try:
        return LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # a model's weights are not a leak to be killed for
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

#: A model serves one task at a time, also on a worker with many threads.
_working = Lock()


def _run_task(job: _Job, index: int) -> TaskResult:
    with _working:
        return _runner(job).run(index)


@lru_cache(maxsize=1)  # at most one model in a process
def _runner(job: _Job) -> TaskRunner:
    # A local cluster's workers are called 0, 1, …
    name: Any = get_worker().name
    device = job.devices[name if isinstance(name, int) and name < len(job.devices) else 0]
    return TaskRunner(job.path, job.encoder, job.load(device))
