"""Work in many small tasks, done in this process or by the workers of a Dask scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from protalign.core.errors import ProtAlignError

Task = TypeVar("Task")
Result = TypeVar("Result")


class Spread(Protocol):
    """Does the tasks of a command, wherever that is."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield ``function(task)`` for each task, in their order.

        The first task that raises ends it with its error. Few tasks and results are in memory at
        once.

        Parameters
        ----------
        function : callable
            What to do. Workers get it once, pickled: what it opens, such as a store, each worker
            opens for itself, and keeps until it gets another function.
        tasks : iterable
            What to do it with: numbers, paths, views of a store. Small, and pickled as well.
        """


class Here:
    """Does each task in this process when its result is asked for.

    Examples
    --------
    >>> list(Here().map(abs, [3, -4]))
    [3, 4]
    """

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield ``function(task)`` for each task, in their order."""
        return map(function, tasks)


@contextmanager
def spread_over(scheduler: str | None) -> Iterator[Spread]:
    """Yield what does tasks: the workers of a scheduler, or this process.

    Parameters
    ----------
    scheduler : str, optional
        Address of a Dask scheduler, such as "tcp://10.0.0.1:8786". Default: this process.

    Raises
    ------
    StoreError
        No scheduler answers at the address, or it has no workers.

    Examples
    --------
    >>> with spread_over(None) as spread:
    ...     list(spread.map(len, ["AC", "ACDE"]))
    [2, 4]
    """
    if scheduler is None:
        yield Here()
        return
    from protalign.core.cluster import Workers, connected

    with connected(scheduler) as client:
        yield Workers(client)


def check_scheduler(scheduler: str | None) -> None:
    """Raise StoreError if a scheduler is named and none answers there.

    Long work that needs it later asks first.
    """
    if scheduler is not None:
        from protalign.core.cluster import check_answers

        check_answers(scheduler)


def checked(array: Any, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a task's array; raise ProtAlignError if it has another shape or dtype.

    Examples
    --------
    >>> checked(np.zeros((2, 3), np.float32), (2, 3), np.float32).shape
    (2, 3)
    """
    result: npt.NDArray[Any] = np.asarray(array)
    if result.shape != tuple(shape) or result.dtype != dtype:
        raise ProtAlignError(
            f"a task returned {result.dtype} of shape {result.shape} instead of {np.dtype(dtype)} "
            f"of shape {tuple(shape)}; give every worker the same files and version"
        )
    return result
