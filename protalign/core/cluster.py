"""The workers of a Dask scheduler: connected to, watched, and given tasks.

A worker gets small tasks and what to do with them, and returns arrays and plain values. What it
reads it opens by path, so it needs the same folders and this version of the package.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import platform
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, TypeVar
from uuid import uuid4

from distributed import Client, Future, KilledWorker, Security
from distributed.comm import connect
from distributed.config import config
from distributed.protocol.pickle import dumps, loads
from distributed.utils import import_term

from protalign.core.errors import ProtAlignError, StoreError, show_traceback
from protalign.core.printing import one_line
from protalign.core.version import __version__

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Tasks that a worker has or waits for: enough that it never idles.
TASKS_PER_WORKER = 3
#: Seconds to wait for a scheduler to answer, which may just be starting, and for its first worker.
ANSWER_SECONDS, CONNECT_SECONDS = 30.0, 30.0
#: Seconds between two looks at the workers, and without any of them before a run stops.
WATCH_SECONDS, LOST_SECONDS = 5.0, 120.0

#: A model serves one task at a time, also on a worker with many threads.
WORKING = Lock()


class Workers:
    """Does tasks on a scheduler's workers; a ``Spread``.

    A task whose worker is lost is done again by another.

    Parameters
    ----------
    client : Client
        A client of the scheduler.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield ``function(task)`` for each task, in their order.

        Raises
        ------
        ProtAlignError
            As the function raises it; or a task ended its worker several times, the scheduler is
            gone or without workers for long, or the function raised another exception.
        """
        job = _Job(dumps(function))
        held = self._submit(_as_it_is, job, key=f"function-{job.run}")
        waiting = iter(tasks)
        under_way: deque[Future] = deque()
        number = 0
        with watched(self._client, lambda: [held, *under_way], "the work", "") as lost:
            try:
                while True:
                    for task in islice(waiting, max(0, self._room() - len(under_way))):
                        words = held, __version__, dumps(task)
                        under_way.append(self._submit(_run, *words, key=f"{number}-{job.run}"))
                        number += 1
                    if not under_way:
                        return
                    yield _result(under_way.popleft(), lost)
            finally:
                with suppress(Exception):  # the scheduler may be gone
                    self._client.cancel([held, *under_way], force=True)

    def _submit(self, function: Callable[..., Any], *words: Any, key: str) -> Future:
        """Let a worker call a function: a task that Dask does again if its worker is lost."""
        with only_our_errors(_stopped), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a large graph: a model is megabytes, sent once
            return self._client.submit(function, *words, key=key, pure=False)

    def _room(self) -> int:
        """Return the number of tasks to have under way."""
        with only_our_errors(_stopped):
            return TASKS_PER_WORKER * max(1, workers_of(self._client))


def _result(future: Future, lost: Lost) -> Any:
    """Return a task's result; raise an error of ours for any that ended it."""
    try:
        return future.result()
    except KilledWorker:
        raise ProtAlignError(
            "the work stopped: a task ended its worker process several times; use a machine with "
            "more memory, or fewer workers on it"
        ) from None
    except ProtAlignError:
        raise
    except Exception as error:
        raise lost.error or _stopped(error) from None


def workers_of(client: Client) -> int:
    """Return the number of a scheduler's workers."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """Yield a client of a scheduler that has workers; raise StoreError if there is none."""
    with silenced("distributed"):
        security = _security(scheduler)
        with _answering(scheduler):
            _shake_hands(scheduler, security)
            client = Client(scheduler, security=security, timeout=ANSWER_SECONDS)
        with client:
            try:
                client.wait_for_workers(1, timeout=CONNECT_SECONDS)
            except TimeoutError:
                raise StoreError(
                    f"the Dask scheduler at {scheduler} has no workers; start one per GPU with "
                    f"`dask worker {scheduler} --nthreads 1`"
                ) from None
            yield client


def check_answers(scheduler: str) -> None:
    """Raise StoreError unless a scheduler answers; it may have no workers yet."""
    with silenced("distributed"):
        security = _security(scheduler)
        with _answering(scheduler):
            _shake_hands(scheduler, security)


@contextmanager
def _answering(scheduler: str) -> Iterator[None]:
    """Raise StoreError for every error of reaching a scheduler."""
    try:
        yield
    except ImportError as error:
        raise StoreError(
            f"the Dask scheduler at {scheduler}: {one_line(error)}; install the same versions "
            "on all machines"
        ) from None
    except Exception as error:  # each protocol has errors of its own
        advice = "start one with `dask scheduler`"
        if scheduler.startswith("tls://"):
            advice += ", and set distributed.comm.tls for it"
        raise StoreError(
            f"no Dask scheduler answers at {scheduler}: {one_line(error) or 'silence'}; {advice}"
        ) from None


def _security(scheduler: str) -> Security:
    """Return the certificates that Dask's configuration names, or that its security loader gives.

    Raise StoreError if the loader fails.
    """
    loader = config.get("distributed", {}).get("client", {}).get("security-loader")
    try:
        security = import_term(loader)({"address": scheduler}) if loader else None
        return Security() if security is None else security
    except Exception as error:  # of the loader, of files that are missing
        raise StoreError(
            f"the certificates for {scheduler}: Dask's configuration does not give them "
            f"({type(error).__name__}: {one_line(error)}); check distributed.comm.tls and "
            "distributed.client.security-loader in it"
        ) from None


def _shake_hands(scheduler: str, security: Security) -> None:
    """Find out in time whether a scheduler answers: a client waits for one that is silent."""

    async def shake() -> None:
        arguments = security.get_connection_args("client")
        shaking = connect(scheduler, timeout=ANSWER_SECONDS, **arguments)
        comm = await asyncio.wait_for(shaking, 1.2 * ANSWER_SECONDS)
        await comm.close()

    with ThreadPoolExecutor(1) as other:  # this thread may run a loop, as in a notebook
        other.submit(lambda: asyncio.run(shake())).result()


@contextmanager
def silenced(name: str) -> Iterator[None]:
    """Let a library's logger say nothing that is not critical."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@dataclass(slots=True)
class Lost:
    """The error of a run whose workers are gone; none yet."""

    error: ProtAlignError | None = None


@contextmanager
def watched(
    client: Client, under_way: Callable[[], Sequence[Future]], work: str, kept: str
) -> Iterator[Lost]:
    """Cancel what runs if the scheduler has had no worker for a long time: nothing would end.

    Parameters
    ----------
    client : Client
        A client of the scheduler.
    under_way : callable
        Returns what runs.
    work, kept : str
        What stops, and what is kept of it, for the error.
    """
    lost, over = Lost(), Event()

    def watch() -> None:
        alive = monotonic()
        while not over.wait(WATCH_SECONDS):
            try:
                n_workers = workers_of(client)
            except Exception:  # the scheduler is gone, which ends what runs
                return
            if n_workers:
                alive = monotonic()
            elif monotonic() - alive > LOST_SECONDS:
                lost.error = ProtAlignError(
                    f"{work} stopped: no worker has been left for {LOST_SECONDS:.0f} seconds; "
                    f"{kept}start workers, then run again"
                )
                client.cancel(list(under_way()), force=True)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lost
    finally:
        over.set()
        watcher.join()


# -- in a worker -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Job:
    """A function for many tasks, pickled, and the name of its run."""

    function: bytes
    run: str = field(default_factory=lambda: uuid4().hex)


def _as_it_is(job: _Job) -> _Job:
    return job


def _run(job: _Job, version: str, task: bytes) -> Any:
    with WORKING, only_our_errors(_stopped):
        if version != __version__:
            raise ProtAlignError(
                f"worker on {platform.node()}: it has ProtAlign {__version__}, and this run is of "
                f"{version}; give every worker the same version"
            )
        function = _function(job)
        return function(loads(task))


#: The function of the latest run, by its run: at most one model in a process.
_functions: dict[str, Callable[[Any], Any]] = {}


def _function(job: _Job) -> Callable[[Any], Any]:
    if job.run not in _functions:
        # The last run's goes first, with its store: files may have been replaced since.
        _functions.clear()
        gc.collect()
        try:
            _functions[job.run] = loads(job.function)
        except ProtAlignError as error:  # the machine of the command has what is missing here
            raise ProtAlignError(f"worker on {platform.node()}: {error}") from None
        except Exception as error:  # of a package or a device that differs
            show_traceback(error)
            raise ProtAlignError(
                f"worker on {platform.node()}: it cannot take the work ({type(error).__name__}: "
                f"{one_line(error, 300)}); give every worker the same version and kind of device"
            ) from None
    return _functions[job.run]


@contextmanager
def only_our_errors(ours: Callable[[BaseException], ProtAlignError]) -> Iterator[None]:
    """Turn other exceptions into ours: some end the worker or the client, or do not unpickle."""
    try:
        yield
    except (ProtAlignError, KeyboardInterrupt):
        raise
    except BaseException as error:
        show_traceback(error)
        raise ours(error) from None


def _stopped(error: BaseException) -> ProtAlignError:
    advice = "run it again, or without workers"
    if isinstance(error, ImportError):
        advice = "give the scheduler and every worker the same version of ProtAlign"
    return ProtAlignError(
        f"the work stopped: {type(error).__name__}: {one_line(error, 300)}; {advice}"
    )
