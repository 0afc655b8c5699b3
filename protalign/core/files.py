"""Files and folders that appear whole or not at all; JSON; SHA-256."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protalign.core.errors import InputError, ProtAlignError, WriteError
from protalign.core.machine import usable_memory
from protalign.core.unfinished import NEW, place_beside, places_of, put_folder
from protalign.core.untrusted import open_regular, read_bytes


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to, and rename it to ``path`` when the block ends without an error.

    The file is flushed to the disk before it is renamed, and its folder afterwards. If the block
    raises, nothing is left of it and an older file at ``path`` stays as it was. If the process is
    killed, what it leaves is removed by the next one that writes to ``path``.

    Parameters
    ----------
    path : str or path
        The file. It is replaced if it exists; if it is a link, the file that it names is. Its
        folder must exist.

    Raises
    ------
    WriteError
        No space is left, a permission or the folder is missing, or ``path`` is a folder or a
        device.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "numbers.txt"
    >>> with new_file(target) as unfinished:
    ...     _ = unfinished.write_text("1 2 3")
    >>> target.read_text()
    '1 2 3'
    """
    with _writing(path, folder=False) as (target, place):
        unfinished = place / NEW
        yield unfinished
        flush(unfinished)
        unfinished.replace(target)
        flush_folder(target.parent)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty folder to fill, and put it at ``path`` when the block ends without an error.

    A folder at ``path`` is replaced: the two are exchanged in one step where the system can do
    that. If the block raises, nothing is left of the new folder and the old one stays as it was.
    Folders above ``path`` are made. Raise WriteError as ``new_file`` does.
    """
    make_folder(Path(path).absolute().parent)
    with _writing(path, folder=True) as (target, place):
        unfinished = place / NEW
        unfinished.mkdir()
        yield unfinished
        for written in (*unfinished.rglob("*"), unfinished):
            flush_folder(written) if written.is_dir() else flush(written)
        put_folder(unfinished, target)
        flush_folder(target.parent)


def check_replaceable(path: str | os.PathLike[str], document: str, schema: str, kind: str) -> None:
    """Raise WriteError if a path has something that is not a folder of one kind, and not empty.

    Parameters
    ----------
    path : str or path
        The path at which a new folder shall be.
    document : str
        The JSON file that says what a folder is: it begins with "schema".
    schema : str
        The schema of the folders that may be replaced.
    kind : str
        Their name in the error.
    """
    folder = Path(path)
    if not folder.is_symlink() and not folder.exists():
        return
    problem = f"{path}: it exists and is not {kind}; name another one"
    if not folder.is_dir():
        raise WriteError(problem)
    if not any(folder.iterdir()):
        return
    if not has_schema(folder / document, schema):
        raise WriteError(problem)


def has_schema(document: Path, schema: str) -> bool:
    """Return whether a JSON file says that it has a schema; its beginning tells."""
    try:
        with open_regular(document) as handle:
            begin = os.read(handle, 1024)
    except OSError:
        return False
    return bool(re.match(rf'\s*{{\s*"schema":\s*"{schema}"', begin.decode("utf-8", "replace")))


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, unless it exists; raise WriteError if that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def read_text(path: str | os.PathLike[str], advice: str) -> str:
    """Return a user's text file, UTF-8 with or without a byte order mark.

    A pipe is read to its end, as ``<(…)`` of a shell gives it. Raise InputError, which ends in
    ``advice``, if the file cannot be read, is not text, or is larger than an eighth of the memory
    that this process may use: its lines take several times its size.
    """
    data = read_bytes(path, advice, most=int(usable_memory()) // 8, pipes=True)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8", advice) from None


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file; see ``new_file``."""
    with new_file(path) as unfinished:
        unfinished.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8; see ``new_file``."""
    with new_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file; see ``new_file``. Raise ValueError for NaN and infinity."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return a JSON document; NumPy's scalars and arrays become numbers and lists."""
    return json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n"


def sha256(path: str | os.PathLike[str]) -> bytes:
    """Return the SHA-256 of a file's bytes, 32 bytes; raise OSError if it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


#: No space is left, more than a quota or a limit allows, or a disk that is only to be read.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextmanager
def _writing(path: str | os.PathLike[str], *, folder: bool) -> Iterator[tuple[Path, Path]]:
    """Give the target, behind links, and a place beside it; errors of the disk get their words."""
    target = Path(os.path.realpath(path))
    try:
        if not folder and Path(path).is_dir():
            raise WriteError(f"{path}: it is a folder; name a file")
        if not folder and Path(path).exists() and not Path(path).is_file():
            raise WriteError(f"{path}: it is not a regular file; name another")
        with place_beside(target) as place:
            yield target, place
    except ProtAlignError:
        raise
    except OSError as error:
        # Others are of the block, which may read something as well.
        named = str(error.filename or "")
        ours = named in (str(target), str(target.parent), str(path))
        if ours or named.startswith(str(places_of(target))) or error.errno in _DISK:
            raise _cannot_write(path, error) from error
        raise


def _cannot_write(path: str | os.PathLike[str], error: OSError) -> WriteError:
    problem = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _DISK:
        advice = "make some room, or name another place"
    elif error.errno == errno.ENOENT:
        advice = "make its folder"
    else:
        advice = "name another place"
    return WriteError(f"{path}: it cannot be written ({problem}); {advice}")


def flush(path: Path) -> None:
    """Wait until a file is on the disk: what is renamed must not turn out to be empty later.

    Some disks tell only now that they are full.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)


def flush_folder(path: Path) -> None:
    """Wait until a folder's names are on the disk, if the file system can do that."""
    try:
        flush(path)
    except OSError as error:
        if error.errno in (errno.EIO, *_DISK):
            raise


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
