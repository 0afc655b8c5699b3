"""Checks of the values that estimators are given; each error says what would do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np

from protalign.core.errors import InputError


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise InputError, suggesting the right spelling, unless ``value`` is one of the choices."""
    choices = tuple(choices)
    if value in choices:
        return
    close = get_close_matches(str(value), choices, n=1)
    known = ", ".join(map(repr, choices))
    raise InputError(
        f"{name}={value!r} is none of {known}", f"did you mean {close[0]!r}?" if close else ""
    )


def check_whole(name: str, value: object, least: int) -> None:
    """Raise InputError unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name}={value!r}", f"give a whole number of at least {least}")


def check_between(name: str, value: object, low: float, high: float) -> None:
    """Raise InputError unless ``value`` is a number and ``low < value < high``."""
    if not isinstance(value, (int, float, np.number)) or not low < value < high:
        raise InputError(f"{name}={value!r}", f"give a number above {low:g} and below {high:g}")
