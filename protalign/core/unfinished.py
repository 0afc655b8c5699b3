"""A writer's place beside its target, what killed writers left, and how folders change places.

What will be ``{name}`` is made in ``.{name}.partial/{random}``, beside it, and renamed when it is
complete. The writer holds a lock in that folder, which the system releases if it is killed. The
next writer of the same target removes what is left.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

#: In a writer's place: what it makes, and an older folder that stepped aside.
NEW, OLD = "new", "old"
_LOCK = "lock"
#: Seconds after which a place counts as left behind if its lock does not tell.
_FORGOTTEN = 86_400
#: Longest name in bytes that fits, with what is added to it, into a file system's 255.
_LONGEST = 240
#: Tries to take a place, or to put a folder into it, while others do the same.
_TRIES = 100
#: Seconds between two looks at a target that another writer is about to put there.
_WAIT = 0.01
#: The exchange is unknown to the system, to the file system, or forbidden in a container.
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2


@contextmanager
def place_beside(target: Path) -> Iterator[Path]:
    """Give a writer an empty folder of its own on the target's file system; remove it at the end.

    What killed writers of the same target left is removed first. Raise OSError if there is no room
    or no permission for the folder.
    """
    places = places_of(target)
    clear_left_behind(target)
    try:
        place, lock = _claim(places)
        try:
            yield place
        finally:
            _remove(place)
            os.close(lock)
    finally:
        with suppress(OSError):  # others are still writing
            places.rmdir()


def places_of(target: Path) -> Path:
    """Return the folder that holds the places of a target's writers."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return target.with_name(f".{name}.partial")


def clear_left_behind(target: Path) -> None:
    """Remove what killed writers left, and put back a folder that one of them had set aside."""
    places = places_of(target)
    if places.is_symlink() or not places.is_dir():
        return
    with suppress(OSError):  # another writer takes it away
        for place in places.iterdir():
            _clear_if_left_behind(place, target)
        places.rmdir()


def put_folder(new: Path, target: Path) -> None:
    """Rename a folder to ``target`` and take away a folder that is there; never leave neither.

    Both are exchanged in one step where the system can do that. Else the old one steps aside
    first, and ``clear_left_behind`` puts it back if this process is killed in between.
    """
    aside = new.with_name(OLD)
    for _ in range(_TRIES):
        try:
            new.rename(target)  # it is missing or empty
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                with suppress(OSError):
                    aside.rename(target)
                raise
        try:
            if _exchange(new, target):
                return
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        except FileNotFoundError:  # another writer has set it aside
            continue
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(target))


def put_back(target: Path) -> None:
    """Put a folder back that a killed writer had set aside.

    A writer that is alive is given a second to put the new one there.
    """
    for _ in range(_TRIES):
        if target.exists() or not places_of(target).is_dir():
            return
        clear_left_behind(target)
        time.sleep(_WAIT)


def _claim(places: Path) -> tuple[Path, int]:
    """Make a place and lock it; return it and the handle of its lock."""
    for _ in range(_TRIES):
        try:
            with suppress(FileExistsError):
                places.mkdir()
            place = places / uuid4().hex
            place.mkdir()
        except FileNotFoundError:
            if not places.parent.is_dir():
                raise
            continue  # another writer has just ended, and taken its places away
        try:
            lock = _locked(place)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        if lock is not None:
            return place, lock
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(places))


def _locked(place: Path) -> int | None:
    """Lock a place; return the lock's handle, None if another writer took the place for dead."""
    try:
        lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        return None
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, _host())
        if os.path.samestat(os.fstat(lock), (place / _LOCK).stat()):
            return lock
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _clear_if_left_behind(place: Path, target: Path) -> None:
    """Remove a place if its writer has ended; hold its lock meanwhile, as a new writer may come."""
    try:
        lock = os.open(place / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        with suppress(OSError):  # it is empty if its writer was killed, or begins just now
            place.rmdir()
        _remove_without_lock(place)
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            here = os.read(lock, 1024) in (b"", _host())
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            here = False
        if here or _is_forgotten(place):
            # Both: it was killed between setting the old one aside and putting the new one there.
            if (place / OLD).is_dir() and (place / NEW).is_dir() and not target.exists():
                (place / OLD).rename(target)
            _remove(place)
    except OSError:  # no permission, or another writer did it
        return
    finally:
        os.close(lock)


def _remove(place: Path) -> None:
    """Remove a place as far as possible, its lock last: whoever is killed here leaves it to see."""
    with suppress(OSError):
        for path in list(place.iterdir()):
            if path.name != _LOCK:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
    shutil.rmtree(place, ignore_errors=True)


def _remove_without_lock(place: Path) -> None:
    """Remove a place that has content and no lock: its removal was cut off.

    A writer locks its place before it puts anything in.
    """
    with suppress(OSError):
        content = {path.name for path in place.iterdir()}
        if {NEW, OLD} & content and not os.path.lexists(place / _LOCK):
            shutil.rmtree(place, ignore_errors=True)


def _is_forgotten(place: Path) -> bool:
    """Return whether nothing in a place has changed for a day."""
    newest = max(path.lstat().st_mtime for path in (place, *place.rglob("*")))
    return time.time() - newest > _FORGOTTEN


@cache
def _host() -> bytes:
    """Return the name of this machine: locks do not always reach from one to another."""
    return os.fsencode(os.uname().nodename)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; return False if the system cannot do that."""
    call = _exchange_call()
    if call is None:
        return False
    if call(os.fsencode(first), os.fsencode(second)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


@cache
def _exchange_call() -> Callable[[bytes, bytes], int] | None:
    """Return the system's call that exchanges two paths; None if it has none."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        swap = getattr(library, "renamex_np", None)
        return swap and (lambda first, second: int(swap(first, second, _RENAME_SWAP)))
    rename = getattr(library, "renameat2", None)  # glibc 2.28 and newer
    return rename and (
        lambda first, second: int(rename(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE))
    )
