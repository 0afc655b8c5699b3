"""Python's garbage collector, turned off in a block."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_off() -> Iterator[None]:
    """Turn the garbage collector off in this block, if it is on.

    A library that is imported makes hundreds of thousands of objects that stay. The collector
    would look through them again and again, which takes as long as to import it.

    Examples
    --------
    >>> import gc
    >>> before = gc.isenabled()
    >>> with collector_off():
    ...     gc.isenabled()
    False
    >>> gc.isenabled() == before
    True
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
