"""Flat arrays on the disk: ``.npy`` files that are written in pieces and memory-mapped to be read.

A reader knows the dtype and the shape already. The header must be the one that such an array has,
byte for byte, so no header that somebody else wrote is interpreted.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import google_crc32c
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.core.errors import InputError
from protalign.core.ragged import ascend
from protalign.core.untrusted import open_regular
from protalign.stores.format.text import decode_texts, encode_texts

#: Bytes of a header: a multiple of 64, as the format wants it, with room for any shape.
HEADER = 128
#: Bytes that are read at once to compute a checksum.
BLOCK = 1 << 22
#: Texts that are looked at once.
TEXTS_AT_ONCE = 16384
AGAIN = "export it again, or name another folder"

Array = npt.NDArray[Any]


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the header of an ``.npy`` file, 128 bytes of format 1.0.

    Examples
    --------
    >>> import io
    >>> np.load(io.BytesIO(header("<i2", (2,)) + bytes([1, 0, 2, 0]))).tolist()
    [1, 2]
    """
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape})
    start = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")
    return start + text.encode("ascii").ljust(HEADER - 11) + b"\n"


class FlatWriter:
    """Writes an array of any number of rows, block by block.

    Parameters
    ----------
    path : Path
        The new file.
    dtype : str
        The dtype as the format names it, such as "<f4".
    width : int, optional
        Numbers of a row; None for an array of one dimension.

    Attributes
    ----------
    rows : int
        Rows so far.
    checksum : int
        CRC-32C of the numbers so far.
    """

    def __init__(self, path: Path, dtype: str, width: int | None = None) -> None:
        self._dtype, self._width = dtype, width
        self.rows = self.checksum = 0
        self._file = path.open("xb")
        self._file.write(bytes(HEADER))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if kind is None:
                shape = (self.rows,) if self._width is None else (self.rows, self._width)
                self._file.seek(0)
                self._file.write(header(self._dtype, shape))

    def add(self, values: Array) -> None:
        """Add rows: (n,) or (n, width) numbers."""
        data = np.ascontiguousarray(values, dtype=self._dtype)
        content = data.reshape(-1).view(np.uint8).data
        self._file.write(content)
        self.checksum = int(google_crc32c.extend(self.checksum, content.tobytes()))
        self.rows += len(data)


def map_array(folder: Path, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
    """Return a file's array, memory-mapped and read-only.

    Raises
    ------
    InputError
        The file is missing, is a link, or is not an array of this dtype and shape.
    """
    expected = header(dtype, shape)
    size = HEADER + np.dtype(dtype).itemsize * int(np.prod(shape, dtype=object))
    try:
        with open_regular(folder / name, links=False) as handle:
            if os.fstat(handle).st_size != size or os.pread(handle, HEADER, 0) != expected:
                raise damaged(folder, f"{name} is not an array of {dtype}, {shape}")
            content = mmap.mmap(handle, size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise damaged(folder, f"{name}: {error.strerror or error}") from None
    return np.frombuffer(content, dtype=dtype, offset=HEADER).reshape(shape)


def checksum_of(values: Array) -> int:
    """Return the CRC-32C of an array's numbers, a block at a time."""
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    checksum = 0
    for start in range(0, len(content), BLOCK):
        checksum = google_crc32c.extend(checksum, content[start : start + BLOCK].tobytes())
    return int(checksum)


class FlatTexts:
    """Texts that lie one after another in UTF-8, read when they are wanted.

    Parameters
    ----------
    folder : Path
        The folder they are of, for errors.
    name : str
        Their name in errors.
    values : (B,) uint8
        Their bytes.
    offsets : (n + 1,) int64
        The bytes before each text, and of all. They are checked when they are used.
    """

    def __init__(
        self, folder: Path, name: str, values: npt.NDArray[np.uint8], offsets: Int64
    ) -> None:
        self._folder, self._name = folder, name
        self.values, self.offsets = values, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def at(self, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: some texts; raise InputError if they are damaged."""
        begins, ends = self.offsets[rows], self.offsets[np.asarray(rows) + 1]
        if len(rows) and (begins.min() < 0 or ends.max() > len(self.values)):
            raise damaged(self._folder, f"{self._name} points outside its texts")
        if (ends < begins).any():
            raise damaged(self._folder, f"{self._name} ends a text before it begins")
        pieces = [self.values[b:e] for b, e in zip(begins.tolist(), ends.tolist(), strict=True)]
        values = np.concatenate([np.empty(0, dtype=np.uint8), *pieces])
        lengths = ends - begins
        try:
            return decode_texts(values, np.cumsum(lengths) - lengths, lengths)
        except UnicodeDecodeError:
            raise damaged(self._folder, f"{self._name} has a text that is not UTF-8") from None

    def check(self) -> None:
        """Raise InputError unless the offsets ascend from 0 to the end of the bytes."""
        ends = int(self.offsets[0]), int(self.offsets[-1])
        ascending = all(
            ascend(self.offsets[start : start + BLOCK + 1]) for start in range(0, len(self), BLOCK)
        )
        if ends != (0, len(self.values)) or not ascending:
            raise damaged(self._folder, f"{self._name} does not ascend to the end of its texts")


class TextWriter:
    """Writes texts: the bytes of all, and where each ends.

    Parameters
    ----------
    values, offsets : FlatWriter
        The arrays of bytes (uint8) and offsets (int64).
    """

    def __init__(self, values: FlatWriter, offsets: FlatWriter) -> None:
        self._values, self._offsets = values, offsets
        offsets.add(np.zeros(1, dtype=np.int64))

    def add(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint8], Int64]:
        """Add texts; return their bytes, and the bytes of each, (n,) int64."""
        values, short = encode_texts(texts)
        lengths = short.astype(np.int64)
        self._offsets.add(self._values.rows + np.cumsum(lengths))
        self._values.add(values)
        return values, lengths


def damaged(folder: object, problem: str) -> InputError:
    """Return the error of a folder of vectors that is not as it was written."""
    return InputError(f"{folder}: it is damaged ({problem})", AGAIN)
