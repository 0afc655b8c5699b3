"""Checksums of all bytes of a Parquet file, between its last row group and its footer.

Parquet finds everything by its place, so other programs read past these bytes. A program that
writes the table anew leaves them out: such a file has no seal, as those of version 0.1.0.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import google_crc32c

#: A word that marks the seal, the CRC-32C of the bytes before it, and that of those behind it.
_SEAL = struct.Struct("<16sII")
_WORD = b"protalign seal 1"
#: The end of every Parquet file: the length of the footer, and a word of four bytes.
_END = struct.Struct("<I4s")
_PARQUET = b"PAR1"
_BLOCK = 1 << 20


class BrokenSealError(ValueError):
    """A file's bytes are not those that were sealed."""


def seal(path: Path) -> None:
    """Put a seal into a complete Parquet file."""
    with path.open("r+b") as file:
        size, begin = _footer(file)
        footer = _bytes(file, begin, size)
        mark = _SEAL.pack(_WORD, _checksum(file, 0, begin), google_crc32c.value(footer))
        file.seek(begin)
        file.write(mark + footer)


def has_whole_seal(path: str | os.PathLike[str]) -> bool:
    """Return whether a file has a seal; raise BrokenSealError if a byte was changed since.

    A file that is not Parquet, or ends early, has none.
    """
    with Path(path).open("rb") as file:
        size, begin = _footer(file)
        place = begin - _SEAL.size
        if place < len(_PARQUET):
            return False
        word, before, behind = _SEAL.unpack(_bytes(file, place, begin))
        if word != _WORD:
            return False
        if before != _checksum(file, 0, place) or behind != _checksum(file, begin, size):
            raise BrokenSealError
        return True


def _footer(file: BinaryIO) -> tuple[int, int]:
    """Return the file's size and the place of its footer; 0 for the latter if it has none."""
    size = file.seek(0, os.SEEK_END)
    if size < _END.size:
        return size, 0
    length, word = _END.unpack(_bytes(file, size - _END.size, size))
    return size, max(size - _END.size - length, 0) if word == _PARQUET else 0


def _bytes(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


def _checksum(file: BinaryIO, begin: int, end: int) -> int:
    """Return the CRC-32C of a range of bytes."""
    file.seek(begin)
    checksum = 0
    while begin < end:
        block = file.read(min(_BLOCK, end - begin))
        if not block:
            raise BrokenSealError  # it became shorter meanwhile
        checksum = google_crc32c.extend(checksum, block)
        begin += len(block)
    return checksum
