"""Ranges of rows, cut at the borders of chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64

#: Rows of a piece from which on a copy of its own costs less than a number for each row.
_LONG = 32


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
        total = int(self.count.sum())
        if total >= _LONG * len(self.count):
            for begin, target, count in zip(
                self.begin.tolist(), self.target.tolist(), self.count.tolist(), strict=True
            ):
                out[target : target + count] = rows[begin : begin + count]
            return
        within = np.arange(total) - np.repeat(np.cumsum(self.count) - self.count, self.count)
        source = np.repeat(self.begin, self.count) + within
        out[np.repeat(self.target, self.count) + within] = rows[source]


def pieces(start: Int64, length: Int64, chunk_rows: int) -> Iterator[Pieces]:
    """Yield ranges cut at chunk borders.

    Ranges that continue one another are joined, and chunks come in ascending order, so that each
    is opened once. All ranges within a chunk come together.

    Examples
    --------
    >>> for some in pieces(np.array([8, 2, 0]), np.array([4, 1, 1]), chunk_rows=10):
    ...     print(some.chunk, some.begin.tolist(), some.target.tolist(), some.count.tolist())
    0 [0, 2] [5, 4] [1, 1]
    0 [8] [0] [2]
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
    order = np.argsort(start, kind="stable")
    start, length, target = start[order], length[order], target[order]
    chunk = start // chunk_rows
    crosses = chunk != (start + length - 1) // chunk_rows
    alone = crosses[1:] | crosses[:-1]
    borders = np.flatnonzero((chunk[1:] != chunk[:-1]) | alone) + 1
    ends = [*borders.tolist(), len(start)]
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        if crosses[begin]:
            yield from _cut(int(start[begin]), int(length[begin]), int(target[begin]), chunk_rows)
        else:
            index, here = int(chunk[begin]), slice(begin, end)
            yield Pieces(index, start[here] - index * chunk_rows, target[here], length[here])


def _cut(row: int, count: int, target: int, chunk_rows: int) -> Iterator[Pieces]:
    """Yield a range of several chunks, cut at their borders."""
    while count:
        index, begin = divmod(row, chunk_rows)
        taken = min(count, chunk_rows - begin)
        yield Pieces(index, np.array([begin]), np.array([target]), np.array([taken]))
        row, target, count = row + taken, target + taken, count - taken
