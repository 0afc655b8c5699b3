"""The checksums of an array's chunks, recorded by array and chunk number.

A chunk's own crc32c tells whether its bytes are as they were written, but not whether they were
written *here*: two chunk files that are exchanged, or a file of an older commit that is put back,
are whole in themselves. So each array has a file ``crc32c`` beside its chunks, with eight bytes for
each full chunk: the chunk's crc32c, and the crc32c of the array's name, the chunk's number and that
checksum. A full chunk never changes, so a commit only adds to the file. The rows in a last, partly
filled chunk are bound by the root's attributes instead.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt

from protalign.core.errors import StoreError
from protalign.core.untrusted import open_regular
from protalign.stores.format.disk import flush_file, remove_file, truncate, write_at
from protalign.stores.format.layout import ArraySpec

#: Name of the file in an array's folder.
CHECKSUM_FILE = "crc32c"
#: Bytes of a chunk's checksum, at the end of its file.
CHECKSUM_BYTES = 4

_ENTRY = struct.Struct("<II")
_EMPTY = bytes(_ENTRY.size)
#: Bytes of a chunk's entry in the file.
ENTRY_BYTES = _ENTRY.size


def crc32c(rows: npt.NDArray[np.generic]) -> int:
    """Return the crc32c of an array's bytes; the array is contiguous and little endian."""
    return int(google_crc32c.value(rows.reshape(-1).view(np.uint8)))


class DamagedEntryError(ValueError):
    """The record of a chunk's checksum is damaged, or another chunk's."""

    def __init__(self) -> None:
        super().__init__("its recorded checksum is damaged")


class ChunkChecksums:
    """The recorded checksums of an array's full chunks.

    Parameters
    ----------
    path : Path
        The store's folder.
    name : str
        The array.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self.file = path / name / CHECKSUM_FILE

    def get(self, index: int) -> int | None:
        """Return a chunk's checksum, None if it is not recorded; raise DamagedEntryError."""
        return decoded_entry(self._name, index, self._read(index))

    def is_recorded(self, index: int) -> bool:
        """Return whether a chunk's checksum is recorded; raise StoreError if that is damaged."""
        try:
            return self.get(index) is not None
        except DamagedEntryError as error:
            raise StoreError(
                f"{self.file}: the store is damaged, chunk {index} cannot be told from another, "
                f"since {error}; run `protalign verify`"
            ) from None

    def _read(self, index: int) -> bytes:
        try:
            with open_regular(self.file, links=False) as handle:
                return os.pread(handle, _ENTRY.size, index * _ENTRY.size)
        except FileNotFoundError:
            return b""
        except OSError:
            raise DamagedEntryError from None

    def count(self) -> int:
        """Return how many chunks the file has room for: all that are recorded come before."""
        try:
            return -(-os.lstat(self.file).st_size // _ENTRY.size)
        except OSError:
            return 0

    @property
    def bytes(self) -> int:
        """Bytes of the file, 0 if there is none."""
        try:
            return os.lstat(self.file).st_size
        except OSError:
            return 0

    def record(self, first: int, checksums: Sequence[int]) -> None:
        """Record the checksums of chunks from ``first`` on."""
        entries = [_entry(self._name, first + i, value) for i, value in enumerate(checksums)]
        if entries:
            write_at(self.file, first * _ENTRY.size, b"".join(entries))

    def forget(self, indices: Iterable[int]) -> None:
        """Take back the checksums of chunks that are about to be written anew."""
        count, forgotten = self.count(), False
        for index in indices:
            if index < count and not self._is_empty(index):
                write_at(self.file, index * _ENTRY.size, _EMPTY)
                forgotten = True
        if forgotten:
            flush_file(self.file)

    def _is_empty(self, index: int) -> bool:
        try:
            return self._read(index) == _EMPTY
        except DamagedEntryError:
            return False

    def cut(self, chunks: int) -> None:
        """Drop what is recorded of chunks from this number on."""
        if chunks == 0:
            remove_file(self.file)
        elif self.bytes > chunks * _ENTRY.size:
            truncate(self.file, chunks * _ENTRY.size)


def _entry(name: str, index: int, checksum: int) -> bytes:
    place = f"{name}\n{index}\n".encode() + checksum.to_bytes(CHECKSUM_BYTES, "little")
    return _ENTRY.pack(checksum, google_crc32c.value(place))


def decoded_entry(name: str, index: int, entry: bytes) -> int | None:
    """Return the checksum in an entry, None if it is empty; raise DamagedEntryError."""
    if entry in (b"", _EMPTY):
        return None
    checksum = int.from_bytes(entry[:CHECKSUM_BYTES], "little")
    if entry != _entry(name, index, checksum):
        raise DamagedEntryError
    return checksum


def entry_of(entries: bytes, index: int) -> bytes:
    """Return a chunk's entry out of the bytes of a whole file."""
    return entries[index * _ENTRY.size : (index + 1) * _ENTRY.size]


def stored_checksum(path: Path, name: str, spec: ArraySpec, index: int) -> int:
    """Return the checksum at the end of a chunk's file; raise StoreError if it cannot be read."""
    file = path / name / spec.chunk_key(index)
    try:
        with open_regular(file, links=False) as handle:
            size = os.fstat(handle).st_size
            if size != spec.chunk_bytes + CHECKSUM_BYTES:
                raise OSError(f"it has {size} bytes")
            return int.from_bytes(os.pread(handle, CHECKSUM_BYTES, spec.chunk_bytes), "little")
    except OSError as error:
        raise StoreError(
            f"{path}: chunk {file.name} of array {name} cannot be read "
            f"({error.strerror or error}); run `protalign verify`"
        ) from None
