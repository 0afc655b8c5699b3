"""Threads of which each computes alone: torch splits no operation of theirs.

Operations that torch shares out among threads wait for the slowest at the end of each, which costs
more than it gives where they are small, or where another program takes one of the cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Lock
from typing import TypeVar

import torch

Result = TypeVar("Result")


def compute_alone() -> None:
    """Let torch's operations take one core, in the thread that this is called from."""
    take_cores(1)


def take_cores(count: int) -> None:
    """Let torch's operations take so many cores, in the thread that this is called from."""
    keep_cores()  # settled now: later it would be what another thread has set for new ones
    torch.set_num_threads(count)


def keep_cores() -> int:
    """Cores that torch takes in this thread, whatever other threads set for new ones later."""
    return torch.get_num_threads()  # a thread's number is settled when it is first looked at


@contextmanager
def threads_that_compute_alone() -> Iterator[None]:
    """Where threads may begin with ``compute_alone``.

    What torch sets for one thread counts for all that use torch for the first time later: for them
    it is put back at the end.
    """
    _default.enter()
    try:
        yield
    finally:
        _default.leave()


def alone_in_threads(count: int, work: Callable[[int], Result]) -> list[Result]:
    """``work`` of 0, 1, ... count - 1 at once, each in a thread that computes alone.

    For work that comes often: the threads are kept while the process lives, as torch keeps its
    own. Work may not call this again.
    """
    return list(_kept.of_size(count).map(work, range(count)))


class _KeptPool:
    """The threads of ``alone_in_threads``: as many as were ever asked for at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._size = 0
        self._pool: ThreadPoolExecutor | None = None

    def of_size(self, count: int) -> ThreadPoolExecutor:
        """With so many threads or more."""
        with self._lock:
            if self._pool is None or self._size < count:
                # The smaller one's threads end when nobody holds it: it may be in use just now.
                self._pool, self._size = _new_pool(count), count
            return self._pool


def _new_pool(count: int) -> ThreadPoolExecutor:
    all_there = Barrier(count)  # none is begun later, when the number for new threads is another
    with threads_that_compute_alone():
        pool = ThreadPoolExecutor(count, initializer=compute_alone)
        try:
            list(pool.map(lambda _: all_there.wait(), range(count)))
        except BaseException:  # a thread that could not be begun, or Ctrl-C
            all_there.abort()
            pool.shutdown(wait=False)
            raise
    return pool


_kept = _KeptPool()
if hasattr(os, "register_at_fork"):  # a process that is forked has none of the threads
    os.register_at_fork(after_in_child=_kept.__init__)  # type: ignore[misc]


class _Default:
    """The number of cores that torch takes in a thread that is new to it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = self._kept = 0

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._kept = _in_new_thread(torch.get_num_threads)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _in_new_thread(lambda: torch.set_num_threads(self._kept))


_default = _Default()


def _in_new_thread(run: Callable[[], Result]) -> Result:
    """For a thread that exists its own number counts, which is to stay as it is."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()
