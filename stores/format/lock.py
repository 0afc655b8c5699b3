"""One writing process per store."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from protalign.core.errors import StoreError

LOCK_FILE = ".lock"

#: Real paths of the stores that this process writes to.
_held_here: set[str] = set()


def held_by_this_process(path: Path) -> bool:
    """Return whether this process holds a StoreLock on the store."""
    return os.path.realpath(path) in _held_here


class StoreLock:
    """An exclusive lock on a store's folder; the system releases it when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = os.path.realpath(path)
        self._handle: int | None = None

    def __enter__(self) -> StoreLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock; raise StoreError if it is taken, or the folder cannot be written to."""
        try:
            handle = os.open(self._path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"{self._path}: it cannot be written to ({error.strerror}); check its permissions"
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise StoreError(
                f"{self._path}: it is being written to by another process; wait until that is done"
            ) from None
        self._handle = handle
        _held_here.add(self._key)

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        if self._handle is not None:
            _held_here.discard(self._key)
            os.close(self._handle)
            self._handle = None
