"""Ranges of rows, cut at the borders of chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.core.ragged import ranges

#: Rows of a piece from which on a copy of its own costs less than a number for each row.
_LONG = 32
#: Pieces that come together, at most: a number for each row of shorter ones takes little memory.
_MOST = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Pieces of one chunk.

    Attributes
    ----------
    chunk : int
        The chunk's number.
    begin, target, count : (n,) int64
        First row of each piece in the chunk, its first row in the output, and its rows.
    """

    chunk: int
    begin: Int64
    target: Int64
    count: Int64

    def copy(self, rows: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Copy the pieces of a chunk's rows to their places in the output."""
        if self.count.sum() < _LONG * len(self.count):
            out[ranges(self.target, self.count)] = rows[ranges(self.begin, self.count)]
            return
        for begin, target, count in zip(
            self.begin.tolist(), self.target.tolist(), self.count.tolist(), strict=True
        ):
            out[target : target + count] = rows[begin : begin + count]


def pieces(start: Int64, length: Int64, chunk_rows: int) -> Iterator[Pieces]:
    """Yield ranges cut at chunk borders.

    Ranges that continue one another are joined, and chunks come in ascending order, so that each
    is opened once, also if ranges overlap. All pieces of a chunk come one after another, thousands
    at once.

    Examples
    --------
    >>> for some in pieces(np.array([8, 2, 0]), np.array([4, 1, 1]), chunk_rows=10):
    ...     print(some.chunk, some.begin.tolist(), some.target.tolist(), some.count.tolist())
    0 [8, 2, 0] [0, 4, 5] [2, 1, 1]
    1 [0] [2] [2]
    """
    target = np.cumsum(length) - length
    filled = length > 0
    start, length, target = start[filled], length[filled], target[filled]
    if len(start) == 0:
        return
    first = np.flatnonzero(np.concatenate([[True], start[1:] != start[:-1] + length[:-1]]))
    length = np.add.reduceat(length, first)
    start, target = start[first], target[first]
    first_chunk = start // chunk_rows
    chunks = (start + length - 1) // chunk_rows - first_chunk + 1
    chunk, of_range = ranges(first_chunk, chunks), np.repeat(np.arange(len(start)), chunks)
    begin = np.maximum(start[of_range], chunk * chunk_rows)
    count = np.minimum((start + length)[of_range], (chunk + 1) * chunk_rows) - begin
    target = target[of_range] + begin - start[of_range]
    order = np.argsort(chunk, kind="stable")
    new = np.diff(chunk[order], prepend=-1) != 0
    new[::_MOST] = True
    borders = np.flatnonzero(new).tolist()
    for first_piece, last in zip(borders, [*borders[1:], len(order)], strict=True):
        here = order[first_piece:last]
        index = int(chunk[here[0]])
        yield Pieces(index, begin[here] - index * chunk_rows, target[here], count[here])
