"""The innermost loops of a search in cells, which numba compiles when they are first called.

Vectors and queries are whole numbers here, so a sum is the same in any order, and the best are the
same for one query and for many, and by any number of threads. Equal scores are ordered by place.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64
from protalign.residues.kernels.loops import compiled

#: Vectors that are compared with one query after another: 16 kB or more, which the fastest cache
#: holds.
TILE = 128

Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]

# Numbers of a damaged file may be NaN.
_compiled = partial(compiled, no_nan=False)


@_compiled
def add_similarities(queries: Float32, across: Float32, sums: Float32) -> None:
    """Add the inner products of queries and centroids.

    Each is summed number by number, however many queries come together.

    Parameters
    ----------
    queries : (q, dim) float32
        The queries.
    across : (dim, cells) float32
        The centroids, transposed.
    sums : (q, cells) float32
        What they are added to.
    """
    for query in range(len(queries)):
        for number in range(len(across)):
            factor = queries[query, number]
            for cell in range(across.shape[1]):
                sums[query, cell] += factor * across[number, cell]


@_compiled
def _is_worse(score: float, place: int, other_score: float, other_place: int) -> bool:
    return score < other_score or (score == other_score and place > other_place)


@_compiled
def _put(scores: Float32, places: Int64, size: int, score: float, place: int) -> None:
    """Put a candidate into a heap with room for it: its first is its worst."""
    hole = size
    while hole > 0:
        above = (hole - 1) // 2
        if not _is_worse(score, place, scores[above], places[above]):
            break
        scores[hole], places[hole] = scores[above], places[above]
        hole = above
    scores[hole], places[hole] = score, place


@_compiled
def _replace_worst(scores: Float32, places: Int64, score: float, place: int) -> None:
    """Put a candidate into a full heap, in place of its worst."""
    hole, size = 0, len(scores)
    while True:
        below = 2 * hole + 1
        if below >= size:
            break
        right = below + 1
        if right < size and _is_worse(scores[right], places[right], scores[below], places[below]):
            below = right
        if not _is_worse(scores[below], places[below], score, place):
            break
        scores[hole], places[hole] = scores[below], places[below]
        hole = below
    scores[hole], places[hole] = score, place


@_compiled
def find_best(
    numbers: Int8,
    scales: Float32,
    offsets: Int64,
    cells: Int64,
    first: Int64,
    asking: Int64,
    queries: Int16,
    scores: Float32,
    places: Int64,
    filled: Int64,
) -> None:
    """Find the best candidates of some queries in some cells. A cell is read once for all.

    Parameters
    ----------
    numbers : (n, dim) int8
        Rounded vectors, cell by cell.
    scales : (n,) float32
        What each vector's numbers were divided by.
    offsets : (cells + 1,) int64
        Where each cell begins, and the end of all.
    cells : (m,) int64
        The cells to look into.
    first : (m + 1,) int64
        Where the queries of each of these begin in ``asking``, and the end of all.
    asking : (p,) int64
        Which queries look into each cell.
    queries : (q, dim) int16
        The queries; no sum of products may leave 32 bits (see ``protalign.search.cells``).
    scores : (q, count) float32
        Heaps of the best so far; they are filled, not ordered.
    places : (q, count) int64
        The places of these, from 0 to n - 1.
    filled : (q,) int64
        How many candidates each query has so far.
    """
    dim, count = numbers.shape[1], scores.shape[1]
    for each in range(len(cells)):
        cell = cells[each]
        for begin in range(offsets[cell], offsets[cell + 1], TILE):
            tile = numbers[begin : min(begin + TILE, offsets[cell + 1])]
            for pair in range(first[each], first[each + 1]):
                query = asking[pair]
                whole = queries[query]
                for row in range(len(tile)):
                    total = np.int32(0)
                    for number in range(dim):
                        product = np.int32(whole[number]) * np.int32(tile[row, number])
                        total = np.int32(total + np.int32(product))
                    place = begin + row
                    score = np.float32(total) * scales[place]
                    if filled[query] < count:
                        _put(scores[query], places[query], filled[query], score, place)
                        filled[query] += 1
                    elif _is_worse(scores[query, 0], places[query, 0], score, place):
                        _replace_worst(scores[query], places[query], score, place)
