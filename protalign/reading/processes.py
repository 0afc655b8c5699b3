"""A function over many items, in other processes or threads, in order and bounded."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from typing import TypeVar

from joblib.externals import loky

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Iterator[Result]:
    """``map(function, items)`` through an executor, at most ``window`` items ahead."""
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
    """``map(function, items)`` in worker processes, in order, at most two items ahead for each.

    Where a worker dies (killed, out of memory, a crash in a parser), ``recover(item)`` takes the
    place of ``function(item)`` for the items that were under way, and new workers do the rest.
    Workers do not import the caller's main module again, and leave Ctrl-C to it.
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
                executor.shutdown(kill_workers=True)
                while pending:
                    yield recover(pending.popleft()[0])
                executor = _start(processes)
            else:
                pending.popleft()
                yield result
    finally:
        executor.shutdown(kill_workers=True)


def _submit(executor: Executor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    """The item's future; where a worker has died already, one that says so."""
    try:
        with interrupts_held():
            return executor.submit(function, item)
    except BrokenProcessPool as error:
        broken: Future[Result] = Future()
        broken.set_exception(error)
        return broken


def one_by_one(
    function: Callable[[Item], Result], died: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """``map(function, items)`` in a worker process; ``died(item)`` for those that kill it."""
    executor = _start(1)
    try:
        for item in items:
            try:
                yield _submit(executor, function, item).result()
            except BrokenProcessPool:
                executor.shutdown(kill_workers=True)
                yield died(item)
                executor = _start(1)
    finally:
        executor.shutdown(kill_workers=True)


def _start(processes: int) -> loky.ProcessPoolExecutor:
    return loky.ProcessPoolExecutor(max_workers=processes, initializer=_ignore_interrupt)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end, in this thread; a process that it starts never sees one.

    Ctrl-C goes to all processes of a terminal: one that is still importing would show a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # Python's, which loky starts: starting ends such a wait
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:  # from here on: one that came before is raised out of the next line
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
