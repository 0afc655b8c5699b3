"""Checks of values and words for error messages; each error lists the accepted values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.errors import InputError


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise InputError, suggesting the right spelling, unless ``value`` is one of the choices."""
    choices = tuple(choices)
    if value in choices:
        return
    known = ", ".join(map(repr, choices))
    raise InputError(
        f"{name}={value!r}: not one of {known}", did_you_mean(str(value), choices) or "choose one"
    )


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise InputError unless ``value`` is a whole number from ``least`` to ``most``, if given."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if is_whole and value >= least and (most is None or value <= most):  # type: ignore[operator]
        return
    allowed = f"of at least {least}" if most is None else f"from {least} to {most:,}"
    raise InputError(
        f"{name}={value!r}: not a whole number {allowed}", f"give a whole number {allowed}"
    )


def check_between(
    name: str, value: object, low: float, high: float, *, closed: bool = False
) -> None:
    """Raise InputError unless ``value`` is a number and ``low < value < high``.

    ``closed`` lets ``value`` be ``low`` or ``high`` as well, if that is finite.
    """
    if isinstance(value, (int, float, np.number)) and (
        low < value < high or (closed and math.isfinite(value) and value in (low, high))
    ):
        return
    advice = f"give a number above {low:g} and below {high:g}"
    if closed:
        least = f"at least {low:g}" if math.isfinite(low) else ""
        most = f"at most {high:g}" if math.isfinite(high) else ""
        ends = " and ".join(filter(None, (least, most)))
        advice = f"give a finite number of {ends}" if ends else "give a finite number"
    raise InputError(f"{name}={value!r}: out of range", advice)


def first_few(names: Sequence[object], shown: int = 3) -> str:
    """Return the first names and how many more there are, for a message.

    Examples
    --------
    >>> first_few(["1a30", "3ebp", "1bcu", "2qbp", "4gid"])
    '1a30, 3ebp, 1bcu and 2 more'
    """
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(str(name) for name in names[:shown]) + more


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" with the closest known name, letter case aside; "" if none is close.

    Examples
    --------
    >>> did_you_mean("1A2P", ["1a2p", "1bao"])
    "did you mean '1a2p'?"
    """
    by_lowered: dict[str, str] = {}
    for each in known:
        by_lowered.setdefault(each.lower(), each)
    close = get_close_matches(name.lower(), by_lowered, n=1)
    return f"did you mean {by_lowered[close[0]]!r}?" if close else ""


def plain_index(index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an index of Python objects as an array of its kind: text, bool or whole numbers.

    pandas gives masks as objects if values were missing before: they are no ids. Raise InputError
    for missing values and for several kinds.

    Examples
    --------
    >>> plain_index(np.array([True, False], dtype=object))
    array([ True, False])
    """
    if index.dtype.kind != "O" or not index.size:
        return index
    kinds = set(map(type, index.ravel().tolist()))
    for bases, dtype in (((str,), object), ((bool, np.bool_), bool), ((int, np.integer), np.int64)):
        if all(issubclass(kind, bases) for kind in kinds):
            return index.astype(dtype)
    names = sorted(kind.__name__ for kind in kinds)
    raise InputError(
        f"an index of {' and '.join(names)}: neither ids, nor a mask, nor positions",
        "fill missing values of a mask with False, and give ids as text",
    )
