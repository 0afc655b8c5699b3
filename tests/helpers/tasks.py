"""Functions for workers: they are pickled by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from protalign.core.errors import InputError, StoreError


def squared(number: int) -> int:
    """Return the square."""
    return number * number


def refusing(number: int) -> int:
    """Return the number; refuse 3 and more."""
    if number >= 3:
        raise InputError(f"{number}: too large", "give less")
    return number


def broken(number: int) -> int:
    """Fail as no function of ours should."""
    raise ZeroDivisionError(f"a bug\nin {number}")


def panicking(number: int) -> int:
    """End with what is no Exception, as libraries in Rust do."""
    raise SystemExit(number)


class Unopened:
    """A function of a store that a worker does not find."""

    def __call__(self, number: int) -> int:
        return number

    def __reduce__(self) -> tuple[object, ...]:
        return _open, ("/nowhere/store.zarr",)


class Unknown:
    """A function that a worker's version of the package does not have."""

    def __call__(self, number: int) -> int:
        return number

    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (time, "of_a_later_version")


def _open(path: str) -> Unopened:
    raise StoreError(f"{path}: there is no store; name another")


class Marked:
    """Leaves a file for each number that it is called with, slowly."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds

    def __call__(self, number: int) -> int:
        (self.folder / str(number)).touch()
        time.sleep(self.seconds)
        return number


class KilledAt:
    """Kills its process at one number; if ``once``, the first time only."""

    def __init__(self, folder: Path, number: int, *, once: bool) -> None:
        self.marker, self.number, self.once = folder / "killed", number, once

    def __call__(self, number: int) -> int:
        if number == self.number and not (self.once and self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return squared(number)
