"""The bytes of a file: read whole, decompressed under a limit, and checked for their kind."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from protalign.core.errors import InputError

try:  # three times as fast on the processors that it supports
    from isal import isal_zlib as _gzip
except ImportError:
    import zlib as _gzip  # type: ignore[no-redef]

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

#: The largest file that is read, after decompression: above any structure, below a gzip bomb.
MAX_BYTES = 2 << 30
#: Advice for a file that is damaged.
FETCH_AGAIN = "download or copy it again"
_BLOCK = 1 << 20
#: Bytes of gzip data that are given at once: what follows a member's end is copied.
_WINDOW = 1 << 16
_DAMAGE: tuple[type[Exception], ...] = (_gzip.error,)  # type: ignore[assignment]
_GZIP_MAGIC = b"\x1f\x8b"

_GZIP = "gzip data"
_NOT_THE_FILE = ("HTML or XML", "JSON", "UTF-16 text", "a Git LFS pointer instead of the file")
#: The content of a file by its first bytes, whatever its name is.
_SIGNATURES = (
    (re.compile(rb"\s*<(!doctype|html|head|body|\?xml|\w+[\s>])", re.IGNORECASE), "HTML or XML"),
    (re.compile(rb"\s*[{\[]\s*[\"{\[\]}]"), "JSON"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive"),
    (re.compile(_GZIP_MAGIC), _GZIP),
    (re.compile(rb"BZh[1-9]"), "bzip2 data"),
    (re.compile(rb"\xfd7zXZ\x00"), "xz data"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "zstandard data"),
    (re.compile(rb"%PDF-"), "a PDF document"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer instead of the file"),
    (re.compile(rb"\xff\xfe|\xfe\xff"), "UTF-16 text"),
    (re.compile(rb"[\x81-\x8f](\xa7encoder|\xa7version|\xaadataBlocks)"), "bcif"),
    (re.compile(rb"\s*(#[^\n]*\n\s*)*data_"), "mmcif"),
    (re.compile(rb"\s*>"), "fasta"),
    (re.compile(rb"(HEADER|TITLE |REMARK|CRYST1|EXPDTA|SEQRES|MODEL |ATOM  |HETATM) *"), "pdb"),
)
_NAMES = {"pdb": "PDB", "mmcif": "mmCIF", "bcif": "BinaryCIF", "fasta": "FASTA"}
_SUFFIXES = {"pdb": ".pdb", "mmcif": ".cif", "bcif": ".bcif", "fasta": ".fasta"}


def plain_text(data: bytes) -> bytes:
    r"""Return text without a byte order mark, with newlines for every kind of line end.

    A Ctrl-Z that ends the file, as old programs for DOS write it, is taken away.

    Examples
    --------
    >>> plain_text(b"ATOM\rTER\r\nEND\n\x1a")
    b'ATOM\nTER\nEND\n'
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if data[-2:].strip().endswith(b"\x1a"):
        data = data.rstrip(b"\n").rstrip(b"\x1a")
    return data


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file; raises InputError, never OSError.

    A pipe would wait for somebody to write into it, and a device might never end.
    """
    try:
        handle = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            handle.close()
            raise _not_a_file()
        return handle
    except (OSError, ValueError) as error:  # ValueError: a path that no system can have
        if isinstance(error, InputError):
            raise
        if isinstance(error, OSError) and error.errno in (errno.EISDIR, errno.ENXIO):
            raise _not_a_file() from error  # ENXIO: a socket, a pipe without a writer
        raise InputError(
            f"it cannot be opened: {system_problem(error)}", "check the path and its permissions"
        ) from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _not_a_file() -> InputError:
    return InputError("it is not a regular file", "give a file or a folder")


def system_problem(error: Exception) -> str:
    """Return the system's words for an error, as part of a sentence."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the file's bytes as they are on disk.

    Raises InputError if they cannot be read, or above ``limit`` bytes.
    """
    try:
        with open_file(path) as handle:
            data = handle.read(limit + 1)
    except OSError as error:
        raise InputError(
            f"it cannot be read: {system_problem(error)}", "check the disk and the file"
        ) from error
    if len(data) > limit:
        raise TooLargeError(limit)
    return data


def gunzip(data: bytes, limit: int = MAX_BYTES) -> bytes:
    """Return all gzip members decompressed; their checksums and lengths are verified.

    Raises InputError for damaged or truncated data, and above ``limit`` bytes of output.
    """
    try:
        member = _gzip.decompressobj(wbits=31)
        first = member.decompress(data, limit + 1)
        rest = memoryview(member.unused_data)
        if len(first) > limit:
            raise TooLargeError(limit)
        if not member.eof:
            raise _truncated_gzip()
    except _DAMAGE as error:
        raise _damaged_gzip(error) from error
    parts, room = [first], limit - len(first)
    for part in _decompressed(rest[at : at + _WINDOW] for at in range(0, len(rest), _WINDOW)):
        room -= len(part)
        if room < 0:
            raise TooLargeError(limit)
        parts.append(part)
    return b"".join(parts)


def gunzip_blocks(handle: io.BufferedReader) -> Iterator[bytes]:
    """Yield a gzip stream of any length decompressed, block by block.

    Raises InputError for damaged or truncated data, after the blocks before the damage.
    """
    return _decompressed(iter(partial(handle.read, _WINDOW), b""))


def _decompressed(windows: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield gzip members decompressed; zeros may lie between them."""
    member = _gzip.decompressobj(wbits=31)
    between = True
    try:
        for window in windows:
            data = bytes(window)
            while data:
                if between and not (data := data.lstrip(b"\0")):
                    break
                between = False
                yield member.decompress(data, _BLOCK)
                data = member.unconsumed_tail
                if member.eof:
                    data = member.unused_data
                    member = _gzip.decompressobj(wbits=31)
                    between = True
    except _DAMAGE as error:
        raise _damaged_gzip(error) from error
    if not between:
        raise _truncated_gzip()


class BlockReader(io.RawIOBase):
    """A readable stream over blocks of bytes, which ``io.TextIOWrapper`` can read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Fill the buffer with the next bytes; return their number, 0 at the end."""
        target = memoryview(buffer)
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def unpack(data: bytes, name: str, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a file's bytes: decompressed if its name ends in .gz.

    Raises InputError if that fails, or above ``limit`` bytes.
    """
    if not data:
        raise InputError("the file is empty", FETCH_AGAIN)
    if not name.lower().endswith(".gz"):
        return data
    if not data.startswith(_GZIP_MAGIC):
        content_kind = content_of(data[:4096])
        held = f": it holds {content_kind}" if content_kind else ""
        raise InputError(
            f"it is not gzip data, though its name ends in .gz{held}",
            "rename it, or download it again",
        )
    content = gunzip(data, limit)
    if not content:
        raise InputError("the file is empty once decompressed", FETCH_AGAIN)
    return content


def content_of(head: bytes) -> str:
    """Return the kind of content by a file's first bytes, "" if they do not tell.

    Examples
    --------
    >>> content_of(b"<!DOCTYPE html>"), content_of(b"ATOM      1  N   GLY"), content_of(b"?")
    ('HTML or XML', 'PDB', '')
    """
    head = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, name in _SIGNATURES:
        if pattern.match(head):
            return _NAMES.get(name, name)
    return ""


def check_content(data: bytes, kind: str) -> None:
    """Raise InputError if the content is plainly not of the kind that its name stands for."""
    content = content_of(data[:4096])
    expected = _NAMES[kind]
    if content not in ("", expected):
        raise InputError(f"it holds {content}, not {expected}", _advice_for(content))
    if kind != "bcif" and b"\0" in data:
        raise InputError(f"it holds binary data, not {expected}", FETCH_AGAIN)


def _advice_for(content: str) -> str:
    """Return the advice for a file that holds something else than its name stands for."""
    for kind, name in _NAMES.items():
        if content == name:
            return f"rename it so that it ends in {_SUFFIXES[kind]}"
    if content == _GZIP:
        return "rename it so that it ends in .gz"
    return "download the file itself" if content in _NOT_THE_FILE else "unpack it"


class TooLargeError(InputError):
    """A file has more bytes than a limit, as they are on disk or decompressed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"it is larger than {limit / 2**30:.2g} GiB", "split it into smaller files"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.limit,)


def _truncated_gzip() -> InputError:
    return InputError("it is truncated: its gzip data ends early", FETCH_AGAIN)


def _damaged_gzip(error: Exception) -> InputError:
    text = str(error).rpartition(": ")[2]
    return InputError(f"its gzip data is damaged ({text})", FETCH_AGAIN)
