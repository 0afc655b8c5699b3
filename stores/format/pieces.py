"""Ranges of rows, cut at the borders of chunks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from protalign.core.arrays import Int64


def pieces(start: Int64, length: Int64, chunk_rows: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield ranges cut at chunk borders: (chunk, first row in it, first output row, rows).

    Ranges that continue one another are joined, and chunks come in ascending order, so that each
    is opened once.
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
    for row, count, output in zip(
        start[order].tolist(), length[order].tolist(), target[order].tolist(), strict=True
    ):
        while count:
            index, begin = divmod(row, chunk_rows)
            taken = min(count, chunk_rows - begin)
            yield index, begin, output, taken
            row, output, count = row + taken, output + taken, count - taken
