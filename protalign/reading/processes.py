"""A function over many items, in other processes or threads, in order and bounded."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from queue import Empty
from typing import TypeVar

from joblib.externals import loky

from protalign.core.workers import start_worker

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Most seconds to wait for a pool's feeding thread, which ends within milliseconds.
_FEEDER_SECONDS = 10


def ordered_map(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Iterator[Result]:
    """Yield ``map(function, items)`` through an executor, at most ``window`` items ahead."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def process_map(
    function: Callable[[Item], Result],
    recover: Callable[[Item], Result],
    items: Iterable[Item],
    processes: int,
) -> Iterator[Result]:
    """Yield ``map(function, items)`` from worker processes, in order.

    At most two items are under way for each process. If a worker dies (killed, out of memory, a
    crash in a parser), ``recover(item)`` replaces ``function(item)`` for the items that were under
    way, and new workers do the rest. Workers do not import the caller's main module again, leave
    Ctrl-C to it, and end when it ends.
    """
    pending: deque[tuple[Item, Future[Result]]] = deque()
    iterator = iter(items)
    executor = _start(processes)
    try:
        while True:
            room = 2 * processes - len(pending)
            for item in islice(iterator, room):
                pending.append((item, _submit(executor, function, item)))
            if not pending:
                return
            try:
                result = pending[0][1].result()
            except BrokenProcessPool:
                stop_workers(executor)
                while pending:
                    yield recover(pending.popleft()[0])
                executor = _start(processes)
            else:
                pending.popleft()
                yield result
    finally:
        stop_workers(executor)


def one_by_one(
    function: Callable[[Item], Result], died: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Yield ``map(function, items)`` from a worker process; ``died(item)`` if an item kills it."""
    executor = _start(1)
    try:
        for item in items:
            try:
                yield _submit(executor, function, item).result()
            except BrokenProcessPool:
                stop_workers(executor)
                yield died(item)
                executor = _start(1)
    finally:
        stop_workers(executor)


def _start(processes: int) -> loky.ProcessPoolExecutor:
    return loky.ProcessPoolExecutor(
        max_workers=processes,
        initializer=start_worker,
        initargs=(os.getpid(),),
    )


def _submit(executor: Executor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Return the item's future; a broken one if a worker has died already."""
    try:
        with interrupts_held():
            return executor.submit(function, item)
    except BrokenProcessPool as error:
        broken: Future[Result] = Future()
        broken.set_exception(error)
        return broken


def stop_workers(executor: loky.ProcessPoolExecutor) -> None:
    """Kill the workers of a pool, and wait until its threads have ended.

    loky does not wait for the thread that feeds the workers. If Python ends while that thread
    frees its semaphores, loky's resource tracker prints a warning that one has leaked. Another
    thread of loky's ends with a KeyError if tasks were submitted that no worker has been given.
    """
    queue = executor._call_queue
    with suppress(Empty):
        while True:
            executor._work_ids.get_nowait()
    executor.shutdown(kill_workers=True)
    feeder = getattr(queue, "_thread", None)
    if feeder is not None:
        feeder.join(_FEEDER_SECONDS)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back in this thread until the block ends; a process started in it sees none.

    Ctrl-C goes to all processes of a terminal: one that is still importing would show a traceback.
    """
    resource_tracker.ensure_running()  # Python's, which loky starts: that would end the hold
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:  # a Ctrl-C that came before is raised out of the next line
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
