"""One writing process per store."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from protalign.core.errors import StoreError, StoreInUseError

LOCK_FILE = ".lock"
#: Environment variable; "off" writes without a lock, where the file system has none.
LOCKS = "PROTALIGN_LOCKS"

#: Another process has the lock. (NFS answers EACCES.)
_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
#: The lock's name is a folder's or a link's.
_NOT_A_FILE = {errno.EISDIR, errno.ELOOP}

#: The text of a lock's file while the lock is held, and its bytes at most.
_NOTE, _NOTE_BYTES = re.compile(r"(process [0-9]{1,10} on [A-Za-z0-9_.-]{1,64})\n"), 128

#: Real paths of the stores that this process writes to.
_held_here: set[str] = set()


def held_by_this_process(path: Path) -> bool:
    """Return whether this process holds a StoreLock on the store."""
    return os.path.realpath(path) in _held_here


def _holder(handle: int) -> str:
    """Return the process that a lock's file names, in brackets; "" if it names none."""
    try:
        text = os.pread(handle, _NOTE_BYTES, 0).decode("ascii", "replace")
    except OSError:
        return ""
    match = _NOTE.match(text)
    return f" ({match[1]})" if match else ""


def _note(handle: int, text: bytes) -> None:
    """Replace what a lock's file says, unless the file is not one that a lock has written."""
    with suppress(OSError):  # no room: it only serves a message
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size <= _NOTE_BYTES:
            os.ftruncate(handle, 0)
            os.pwrite(handle, text, 0)


class StoreLock:
    """An exclusive lock on a store's folder; the system releases it when the process ends.

    While it is held, its file names the process and the machine.
    """

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
        """Take the lock; raise StoreError if it is taken, or the folder cannot be written to.

        If the environment says that locks are off, only this process is kept from a second writer.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            handle = os.open(self._path / LOCK_FILE, flags, 0o644)
        except OSError as error:
            if error.errno in _NOT_A_FILE:
                raise StoreError(f"{self._path / LOCK_FILE}: it is not a file; remove it") from None
            raise StoreError(
                f"{self._path}: it cannot be written to ({error.strerror}); check its permissions"
            ) from None
        try:
            self._lock(handle)
        except StoreError:
            os.close(handle)
            raise
        self._handle = handle
        _held_here.add(self._key)
        _note(handle, f"process {os.getpid()} on {os.uname().nodename}\n".encode())

    def _lock(self, handle: int) -> None:
        taken = StoreInUseError(
            f"{self._path}: it is being written to by another process{_holder(handle)}; wait until "
            "that is done"
        )
        if os.environ.get(LOCKS, "").lower() == "off":
            if self._key in _held_here:
                raise taken
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise taken from None
            raise StoreError(
                f"{self._path}: file locks do not work on its file system ({error.strerror}); put "
                f"the store on another, or set {LOCKS}=off and make sure that nothing else writes "
                "to it"
            ) from None

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        if self._handle is not None:
            _held_here.discard(self._key)
            _note(self._handle, b"")
            os.close(self._handle)
            self._handle = None
