"""Pools of threads in each of which torch computes on its own share of the cores.

By default torch splits each operation among all cores, and the threads wait for the slowest at the
end of each operation. If the operations are small, or another program takes one of the cores, that
costs more than it gives: then each thread does a task of its own on one core.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Barrier, Lock
from typing import Generic, TypeVar

import torch

from protalign.core.machine import blas, blas_threads, computing_with, take_threads

Task = TypeVar("Task")
Result = TypeVar("Result")

_starting = Lock()


def torch_pool(threads: int, cores_each: int = 1) -> ThreadPoolExecutor:
    """Start a pool of threads in each of which torch computes on ``cores_each`` cores.

    Neither the caller's thread nor threads that are started later are affected.

    Examples
    --------
    >>> with torch_pool(2) as pool:
    ...     list(pool.map(lambda _: torch.get_num_threads(), range(3)))
    [1, 1, 1]
    """
    # Torch keeps one number for the threads that use it for the first time later. Setting it in a
    # thread of the pool changes that number, so it is put back once all threads have started.
    with _starting:
        default = _in_new_thread(torch.get_num_threads)
        pool = ThreadPoolExecutor(threads, initializer=_set_cores, initargs=(cores_each,))
        started = Barrier(threads)
        try:
            list(pool.map(lambda _: started.wait(), range(threads)))
        except BaseException:  # a thread that could not be started, or Ctrl-C
            started.abort()
            pool.shutdown(wait=False)
            raise
        finally:
            _in_new_thread(lambda: torch.set_num_threads(default))
    return pool


def run_single_threaded(count: int, work: Callable[[int], Result]) -> list[Result]:
    """Return ``work(i)`` for i from 0 to ``count - 1``, run at once, each on one core.

    For work that comes often: the threads are kept while the process lives, as torch keeps its
    own. Work may not call this function again.
    """
    return list(_kept_pool(count).map(work, range(count)))


@cache
def _kept_pool(threads: int) -> ThreadPoolExecutor:
    return torch_pool(threads)


# A forked process has none of its parent's threads, so it starts its own.
os.register_at_fork(after_in_child=_kept_pool.cache_clear)


def cores_here() -> int:
    """Return the number of cores on which torch computes in this thread."""
    return int(torch.get_num_threads())


class OnSameCores(Generic[Task, Result]):
    """A function that in another process computes on as many cores as it would in this one.

    Their number decides the last bits of what torch and NumPy compute.

    Parameters
    ----------
    function : callable
        The function; it is pickled with this.

    Examples
    --------
    >>> import pickle
    >>> OnSameCores(abs)(-3), pickle.loads(pickle.dumps(OnSameCores(abs)))(-3)
    (3, 3)
    """

    def __init__(self, function: Callable[[Task], Result]) -> None:
        self._function = function

    def __call__(self, task: Task) -> Result:
        """Return ``function(task)``."""
        return self._function(task)

    def __reduce__(self) -> tuple[object, ...]:
        return _OnCores, (self._function, cores_here(), blas_threads())


@dataclass(frozen=True, slots=True)
class _OnCores(Generic[Task, Result]):
    """A function that computes with so many threads of torch, and of the matrix library."""

    function: Callable[[Task], Result]
    cores: int
    of_blas: int

    def __call__(self, task: Task) -> Result:
        before = cores_here()
        with blas().limit(limits=self.of_blas, user_api="blas"), computing_with(self.cores):
            torch.set_num_threads(self.cores)
            try:
                return self.function(task)
            finally:
                torch.set_num_threads(before)


def _set_cores(count: int) -> None:
    torch.get_num_threads()  # torch settles a thread's number at its first look, and only then
    torch.set_num_threads(count)
    take_threads(count)


def _in_new_thread(run: Callable[[], Result]) -> Result:
    """Run in a fresh thread, so that the caller's number of cores stays as it is."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()
