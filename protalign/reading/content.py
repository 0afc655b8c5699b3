"""A file's bytes: read whole, decompressed under a limit, and checked for what they are."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from protalign.core.errors import InputError

try:  # three times as fast, on the processors that it knows
    from isal import isal_zlib as _gzip
except ImportError:
    import zlib as _gzip  # type: ignore[no-redef]

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

#: Largest file taken, after decompression: far above any structure, far below a gzip bomb.
MAX_BYTES = 2 << 30
_BLOCK = 1 << 20
_DAMAGE: tuple[type[Exception], ...] = (_gzip.error,)  # type: ignore[assignment]
_GZIP_MAGIC = b"\x1f\x8b"

_GZIP = "gzip data"
_NOT_THE_FILE = ("HTML or XML", "JSON", "UTF-16 text", "a Git LFS pointer instead of the file")
#: What a file turns out to hold, by its first bytes, where that is not what its name says.
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


def display_path(path: Path) -> str:
    """The path as printable text, also where its bytes are no valid UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file; raises InputError, never OSError."""
    try:
        if path.exists() and not path.is_file():
            raise InputError("not a regular file", "give a file or a folder")
        return path.open("rb")
    except OSError as error:
        raise InputError(
            f"cannot be opened: {(error.strerror or str(error)).lower()}",
            "check the path and its permissions",
        ) from error


def file_sha256(path: Path) -> bytes:
    """SHA-256 (32 bytes) of the file's bytes as they are on disk; raises InputError."""
    with open_file(path) as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The file's bytes as they are on disk; raises InputError above ``limit`` bytes."""
    with open_file(path) as handle:
        data = handle.read(limit + 1)
    if len(data) > limit:
        raise _too_large(limit)
    return data


def gunzip(data: bytes, limit: int = MAX_BYTES) -> bytes:
    """Decompress gzip data whole: every member, its checksum and its length verified.

    Raises InputError for damaged or truncated data, and above ``limit`` bytes of output.
    """
    parts = []
    room = limit
    try:
        while data:
            member = _gzip.decompressobj(wbits=31)
            part = member.decompress(data, room + 1)
            if len(part) > room:
                raise _too_large(limit)
            if not member.eof:
                raise _truncated_gzip()
            room -= len(part)
            parts.append(part)
            data = member.unused_data.lstrip(b"\0")
    except _DAMAGE as error:
        raise _damaged_gzip(error) from error
    return b"".join(parts)


def gunzip_blocks(handle: io.BufferedReader) -> Iterator[bytes]:
    """The same for a stream of any length, block by block; damage is raised where it is met."""
    member = _gzip.decompressobj(wbits=31)
    between = True
    try:
        while data := handle.read(_BLOCK):
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
    """A readable stream over blocks of bytes, for ``io.TextIOWrapper`` to stand on."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
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


def unpack(data: bytes, name: str) -> bytes:
    """The content of a file's bytes: decompressed where its name ends in .gz."""
    if not data:
        raise InputError("the file is empty", "download or copy it again")
    if not name.lower().endswith(".gz"):
        return data
    if not data.startswith(_GZIP_MAGIC):
        found = held_content(data[:4096])
        raise InputError(
            f"not gzip data, though its name ends in .gz{f': it holds {found}' if found else ''}",
            "rename it, or download it again",
        )
    content = gunzip(data)
    if not content:
        raise InputError("the file is empty once decompressed", "download or copy it again")
    return content


def held_content(head: bytes) -> str:
    """What the first bytes say the file holds, "" where they do not tell."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, name in _SIGNATURES:
        if pattern.match(head):
            return _NAMES.get(name, name)
    return ""


def check_content(data: bytes, kind: str) -> None:
    """Raise InputError where the content is plainly not of the kind that its name says."""
    found = held_content(data[:4096])
    wanted = _NAMES[kind]
    if found not in ("", wanted):
        raise InputError(f"holds {found}, not {wanted}", _advice_for(found))
    if kind != "bcif" and b"\0" in data:
        raise InputError(f"holds binary data, not {wanted}", "download or copy it again")


def _advice_for(found: str) -> str:
    """What to do about a file that holds something else than its name says."""
    for kind, name in _NAMES.items():
        if found == name:
            return f"rename it so that it ends in {_SUFFIXES[kind]}"
    if found == _GZIP:
        return "rename it so that it ends in .gz"
    return "download the file itself" if found in _NOT_THE_FILE else "unpack it"


def _too_large(limit: int) -> InputError:
    return InputError(f"larger than {limit / 2**30:.0f} GiB", "split it into smaller files")


def _truncated_gzip() -> InputError:
    return InputError("truncated: its gzip data ends early", "download or copy it again")


def _damaged_gzip(error: Exception) -> InputError:
    text = str(error).rpartition(": ")[2]
    return InputError(f"damaged gzip data ({text})", "download or copy it again")
