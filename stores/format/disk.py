"""Write a store's files, each in one step, and keep to real files inside the store's folder.

Everything that a store's writers write goes through ``_put`` and ``_put_at``.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np

from protalign.core.arrays import Int64
from protalign.core.errors import StoreError, WriteError
from protalign.core.files import flush, flush_folder
from protalign.core.untrusted import NotRegularError, folder_inside
from protalign.stores.format.advice import RESTORE
from protalign.stores.format.mirrors import mirror_of, mirrors

#: End of the names of unfinished files, which the next writer removes.
PARTIAL = ".partial"
#: Exists while arrays may have rows beyond the committed ones.
COMMIT_MARK = f".commit{PARTIAL}"

_CHUNK = re.compile(r"c\.(0|[1-9][0-9]{0,17})((?:\.0)*)")


#: Files that this process has written and not waited for.
_written: set[Path] = set()
#: Threads that wait for the disk: it serves several as fast as one.
_FLUSHING = 4


def replace_file(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file's bytes, in one atomic rename."""
    _put(path, parts)
    _remember(path)


def replace_last(path: Path, content: bytes) -> None:
    """Write the file that makes all others count: it is on the disk after them.

    Raise WriteError if one of them cannot be written: some disks tell late that they are full.
    """
    mirror = mirror_of(path)
    if mirror is not None:
        mirror.commit(path, content)
        _put(path, (content,))
        return
    flush_written()
    _put(path, (content,), flushed=True)
    _wait_for(path.parent)


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Write bytes into a file, at an offset that may lie behind its end."""
    _put_at(path, offset, data)
    _remember(path)


def _remember(path: Path) -> None:
    """Remember a file that is to be waited for."""
    mirror = mirror_of(path)
    _written.add(path) if mirror is None else mirror.written(path)


def adopt(files: Iterable[Path], last: Path) -> None:
    """Bring files that another process wrote to where their folder stands for, one of them last."""
    mirror = mirror_of(last)
    if mirror is None:
        return
    for file in files:
        mirror.written(file)
    mirror.upload()
    mirror.written(last)


def flush_file(path: Path) -> None:
    """Wait until one file is on the disk, or in the place that its folder stands for."""
    mirror = mirror_of(path)
    _wait_for(path) if mirror is None else mirror.publish(path)


def flush_written() -> None:
    """Wait until all that this process has written is on the disk, or where a folder stands for."""
    for mirror in mirrors():
        mirror.upload()
    files: set[Path] = set()
    with suppress(KeyError):
        while True:
            files.add(_written.pop())  # other threads write on
    if not files:
        return
    with ThreadPoolExecutor(_FLUSHING) as pool:
        list(pool.map(_wait_for, files))
        list(pool.map(_wait_for, {file.parent for file in files}))


def _wait_for(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    try:
        flush_folder(path) if path.is_dir() else flush(path)
    except FileNotFoundError:  # removed since
        return
    except OSError as error:
        raise _cannot_write(path, error) from error


def _put(path: Path, parts: tuple[bytes | memoryview, ...], *, flushed: bool = False) -> None:
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        with unfinished.open("xb") as file:
            for part in parts:
                file.write(part)
        if flushed:
            flush(unfinished)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise _cannot_write(path, error) from error


def _put_at(path: Path, offset: int, data: bytes) -> None:
    try:
        handle = _open_in_place(path, os.O_CREAT)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(handle, data[written:], offset + written)
        finally:
            os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> WriteError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "make some room" if full else "check its permissions"
    return WriteError(
        f"{path}: it cannot be written ({error.strerror or error}); {advice}, then run the same "
        "command again: what the store has is kept"
    )


def truncate(path: Path, size: int) -> None:
    """Cut a file; raise WriteError if it is not a regular one."""
    try:
        handle = _open_in_place(path)
        try:
            os.ftruncate(handle, size)
        finally:
            os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    _remember(path)


def remove_file(path: Path) -> None:
    """Remove a file, or a link or a pipe of its name; raise StoreError if it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: the store is damaged, this cannot be removed ({error.strerror}); remove it, "
            "and run the command again"
        ) from None


def _open_in_place(path: Path, more: int = 0) -> int:
    """Open a regular file to change it where it is; a pipe does not make this wait."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | more
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotRegularError
    return handle


def begin_commit(path: Path) -> None:
    """Mark that arrays may have rows beyond the committed ones from now on."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        os.close(os.open(path / COMMIT_MARK, flags, 0o666))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise StoreError(
                f"{path / COMMIT_MARK}: it is not a file; remove it, then run the command again"
            ) from None
        raise _cannot_write(path / COMMIT_MARK, error) from error
    mirror = mirror_of(path / COMMIT_MARK)
    if mirror is not None:
        mirror.mark(path / COMMIT_MARK)


def end_commit(path: Path) -> None:
    """Take the mark away: every array ends at its committed rows."""
    mirror = mirror_of(path / COMMIT_MARK)
    if mirror is not None:
        mirror.unmark(path / COMMIT_MARK)
    (path / COMMIT_MARK).unlink(missing_ok=True)


def commit_begun(path: Path) -> bool:
    """Return whether a commit is under way, or was interrupted."""
    return os.path.lexists(path / COMMIT_MARK)


def check_inside(path: Path, name: str) -> None:
    """Raise StoreError if the way to an array or a group leaves the store, or is not of folders."""
    if not folder_inside(path, *name.split("/")):
        raise StoreError(
            f"{path}: the store is damaged, {name} is not a folder inside it; {RESTORE}"
        )


def walk(path: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a store's folder; links are not followed."""
    folders = [os.fspath(path)]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                entries = list(found)
        except OSError:
            continue  # a reader finds out that it cannot be read
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            yield entry


def clear_unfinished(path: Path) -> None:
    """Remove the unfinished files of writers that were killed; folders are not ours."""
    for entry in walk(path):
        mine = entry.name.endswith(PARTIAL) and entry.name != COMMIT_MARK
        if mine and not entry.is_dir(follow_symlinks=False):
            Path(entry.path).unlink(missing_ok=True)


def chunk_number(name: str) -> int | None:
    """Return the number of the chunk whose file has this name, None for other files.

    Examples
    --------
    >>> chunk_number("c.12.0"), chunk_number("zarr.json")
    (12, None)
    """
    match = _CHUNK.fullmatch(name)
    return None if match is None else int(match[1])


def chunks_present(folder: Path) -> Int64:
    """Return (n,) int64, ascending: the chunks that have a file (or a folder, …) of their name.

    A folder that is missing has none.
    """
    try:
        with os.scandir(folder) as entries:
            matches = (_CHUNK.fullmatch(entry.name) for entry in entries)
            found = np.fromiter((int(m[1]) for m in matches if m is not None), np.int64)
    except OSError:
        return np.empty(0, np.int64)
    return np.unique(found)
