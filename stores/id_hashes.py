"""Hashes of ids, 8 bytes each, that find equal ids among many without holding their texts."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.stores.format.arrays import Arrays, consecutive

#: Texts that are hashed at once: each byte of them takes 40 meanwhile.
_AT_ONCE = 16384

Hashes = npt.NDArray[np.uint64]


def text_hashes(values: npt.NDArray[np.uint8], length: npt.NDArray[np.integer]) -> Hashes:
    """Return (n,) uint64 hashes of texts that lie one after another.

    Equal texts have equal hashes. Texts with equal hashes are to be compared.

    Parameters
    ----------
    values : (B,) uint8
        The texts' bytes.
    length : (n,) int
        The bytes of each text.

    Examples
    --------
    >>> hashes = text_hashes(np.frombuffer(b"1a301bcu1a30", np.uint8), np.array([4, 4, 4]))
    >>> hashes[0] == hashes[2], hashes[0] == hashes[1]
    (np.True_, np.False_)
    """
    ends = np.cumsum(length, dtype=np.int64)
    begins = ends - length
    place = np.arange(len(values)) - np.repeat(begins, length)
    # One number for each place times the byte; sums overflow, which numpy does silently.
    terms = (values.astype(np.uint64) + np.uint64(1)) * _factors(int(length.max(initial=0)))[place]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    hashes: Hashes = sums[ends] - sums[begins]
    return hashes


@lru_cache(maxsize=4)
def _factors(count: int) -> Hashes:
    """Return (count,) uint64 that never change: folders of vectors hold hashes made with them.

    The generator is SplitMix64 (Steele et al., OOPSLA 2014).
    """
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def column_hashes(arrays: Arrays, column: str) -> Hashes:
    """Return (n,) uint64: the hash of each text of a ragged column, read in blocks.

    Raise StoreError unless the texts lie one after another, as a writer leaves them.
    """
    n_rows, end = arrays.rows(f"{column}/length"), 0
    hashes = np.empty(n_rows, dtype=np.uint64)
    for first in range(0, n_rows, _AT_ONCE):
        stop = min(first + _AT_ONCE, n_rows)
        start = arrays.read(f"{column}/start", first, stop)
        length = arrays.read(f"{column}/length", first, stop)
        total = int(length.sum(dtype=np.int64))
        if not consecutive(start - end, length, total):  # ranges of anywhere may be of any size
            raise arrays.inconsistent(f"{column} is not cut into consecutive texts")
        values = arrays.read(f"{column}/values", end, end + total)
        hashes[first:stop] = text_hashes(values, length)
        end += total
    if end != arrays.rows(f"{column}/values"):
        raise arrays.inconsistent(f"{column} is not cut into consecutive texts")
    return hashes


def in_runs(hashes: Hashes) -> tuple[Int64, Int64]:
    """Return (order, equal): the order of hashes, and those that are not alone, ascending."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    repeated = np.concatenate([[False], same]) | np.concatenate([same, [False]])
    return order, np.sort(order[repeated[: len(order)]])
