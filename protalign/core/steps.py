"""Long work in steps: whoever runs it may let other work go first between two, or drop it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import local

_here = local()


class DroppedError(BaseException):
    """Nobody wants the result of this work any more.

    Not an ``Exception``: work that goes on after an error must end here all the same.
    """


def step() -> None:
    """Let others go first, if this thread's work is run in steps; called within long work.

    Raises
    ------
    DroppedError
        The work is no longer wanted.
    """
    between = getattr(_here, "between", None)
    if between is not None:
        between()


def watched() -> bool:
    """Return whether somebody acts at this thread's steps, so that short ones are worth while."""
    return getattr(_here, "between", None) is not None


@contextmanager
def in_steps(between: Callable[[], None]) -> Iterator[None]:
    """Call a function at each step of what this thread does.

    Examples
    --------
    >>> steps = []
    >>> with in_steps(lambda: steps.append("between")):
    ...     step()
    >>> step()
    >>> steps
    ['between']
    """
    before = getattr(_here, "between", None)
    _here.between = between
    try:
        yield
    finally:
        _here.between = before
