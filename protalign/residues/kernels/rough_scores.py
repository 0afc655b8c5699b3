"""A rough look at targets that are sequences of words, for many queries at once.

It chooses the targets that ``word_scores`` compares with a query. Bands are twice as wide: blocks
have eight residues, and a block's score with a word is the logarithm of the mean likelihood ratio
of its residues, which unrelated residues do not raise as they raise the best of eight. The bands of
several queries lie side by side, and one instruction works on all of them. A segment counts by what
it has where a block ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64
from protalign.core.machine import threads_here
from protalign.residues.kernels.packed import share
from protalign.residues.kernels.word_scores import Words, aligned

#: Steps of a score in one nat: fewer than those of ``word_scores``, since the best of many like
#: proteins must not all reach a byte's end.
STEPS = 0.5
#: A score is at least and at most this, in steps.
LOWEST, HIGHEST = -4, 6
#: Logarithm of the residues in a block.
SHIFT = 3
#: Residues of the query beside a block, on either side, that belong to it too.
MARGIN = 1
#: Words of a thread's part, at least, and parts for each thread.
_THREAD_WORDS, _PARTS = 1 << 18, 8

Bytes = npt.NDArray[np.uint8]
Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    """Queries whose bands lie side by side; a long query has parts in several tiles.

    Attributes
    ----------
    queries : list of int
        The query of each part.
    firsts, lasts : (parts,) int64
        Its first column, and the one after its last.
    scores : (K * width,) int8
        For each word, the scores of the columns, in steps.
    most : (width,) int8
        127, or -128 for a part's first column.
    values : int
        Values of the processor (``word_loops``): the width is as many lanes.
    """

    queries: list[int]
    firsts: Int64
    lasts: Int64
    scores: Int8
    most: Int8
    values: int


class RoughProfiles:
    """Scores of several queries with K words, in the order in which a rough look needs them.

    Parameters
    ----------
    scores : iterable of (L, K) float32
        Each query's scores with each word, in nats, at least one row. They are read one by one.

    Examples
    --------
    >>> profiles = RoughProfiles([np.array([[2.0, -3.0]] * 8)])
    >>> words, offsets = np.array([0, 0, 0, 1], np.uint16), np.array([0, 3, 4])
    >>> rough_scores(profiles, words, offsets).tolist()
    [[3, 0]]
    """

    def __init__(self, scores: Iterable[Float32]) -> None:
        self.tiles = [_tile(parts) for parts in _shared(_parts(scores))]
        self.n_queries = 1 + max((tile.queries[-1] for tile in self.tiles), default=-1)


def rough_scores(profiles: RoughProfiles, words: Words, offsets: Int64) -> Bytes:
    """Score each target roughly for each query.

    Parameters
    ----------
    profiles : RoughProfiles
        Those of q queries.
    words : (R,) uint16
        Words of n targets, one after another, also memory-mapped; each below the profiles' number
        of words, which is not checked here.
    offsets : (n + 1,) int64
        Words before each target, and of all.

    Returns
    -------
    (q, n) uint8
        Scores in steps, at most 255; 0 for a target without residues.
    """
    best = np.zeros((profiles.n_queries, len(offsets) - 1), dtype=np.uint8)
    total = int(offsets[-1] - offsets[0])
    if total == 0:
        return best
    n_threads = max(1, min(threads_here(), total // _THREAD_WORDS))
    n_parts = n_threads * _PARTS if n_threads > 1 else 1
    ends = np.linspace(offsets[0], offsets[-1], n_parts + 1)[1:-1]
    cuts = [0, *np.searchsorted(offsets, ends).tolist(), len(offsets) - 1]
    parts = iter([(first, last) for first, last in pairwise(cuts) if first < last])
    loop = _loops().shared_bests

    def work(_: int) -> None:
        for first, last in parts:  # threads may share it
            for tile in profiles.tiles:
                found = np.empty(len(tile.most), dtype=np.int8)
                each = np.empty((len(tile.queries), last - first), dtype=np.uint8)
                loop(
                    *(words, offsets[first : last + 1], tile.scores, tile.values, SHIFT),
                    *(tile.most, tile.firsts, tile.lasts, found, each),
                )
                for query, scores in zip(tile.queries, each, strict=True):
                    np.maximum(best[query, first:last], scores, out=best[query, first:last])

    share(n_threads, work)
    return best


def _parts(scores: Iterable[Float32]) -> Iterator[tuple[int, Int8]]:
    """Yield (query, (K, columns) scores) of parts of queries that fit into a tile."""
    for query, each in enumerate(scores):
        blocks = _block_scores(each)
        for first in range(0, len(blocks), _most()):
            yield query, blocks[first : first + _most()].T


def _block_scores(scores: Float32) -> Int8:
    """Return the (blocks, K) scores of the query's blocks, in steps."""
    size = 1 << SHIFT
    blocks = -(-len(scores) // size)
    ratios = np.zeros((blocks * size + 2 * MARGIN, scores.shape[1]), dtype=np.float32)
    inside = slice(MARGIN, MARGIN + len(scores))
    np.exp(np.clip(scores, LOWEST / STEPS, HIGHEST / STEPS), out=ratios[inside])
    is_residue = np.zeros((len(ratios), 1), dtype=np.float32)
    is_residue[inside] = 1
    sums, counts = (
        sum(rows[first:][: blocks * size : size] for first in range(size + 2 * MARGIN))
        for rows in (ratios, is_residue)
    )
    steps: Int8 = np.rint(STEPS * np.log(sums / counts)).astype(np.int8)
    return steps


def _shared(parts: Iterable[tuple[int, Int8]]) -> Iterator[list[tuple[int, Int8]]]:
    """Yield the parts of each tile, as many as have room."""
    tile: list[tuple[int, Int8]] = []
    room = _most()
    for query, scores in parts:
        if _columns(scores) > room:
            yield tile
            tile, room = [], _most()
        tile.append((query, scores))
        room -= _columns(scores)
    if tile:
        yield tile


def _most() -> int:
    """Return the columns of a tile, at most."""
    loops = _loops()
    return int(loops.VALUES[-1] * loops.LANES)


def _columns(scores: Int8) -> int:
    """Return the columns of a part: a multiple of ``QUERY_LANES``."""
    each = int(_loops().QUERY_LANES)
    return int(-(-scores.shape[1] // each) * each)


def _tile(parts: list[tuple[int, Int8]]) -> _Tile:
    """Lay the parts of some queries side by side."""
    loops = _loops()
    lasts = np.cumsum([_columns(scores) for _, scores in parts])
    firsts = np.concatenate([[0], lasts[:-1]])
    values = next(each for each in loops.VALUES if each * loops.LANES >= lasts[-1])
    profile = aligned((len(parts[0][1]), values * loops.LANES), LOWEST)
    for first, (_, scores) in zip(firsts, parts, strict=True):
        profile[:, first : first + scores.shape[1]] = scores
    most = np.full(profile.shape[1], 127, dtype=np.int8)
    most[firsts] = loops.ROUGH_EMPTY
    return _Tile([query for query, _ in parts], firsts, lasts, profile.reshape(-1), most, values)


@cache
def _loops() -> Any:
    """Return the compiled loops; numba takes a second to import."""
    from protalign.residues.kernels import word_loops

    return word_loops
