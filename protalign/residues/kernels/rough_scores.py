"""A rough look at targets that are sequences of words, for many queries at once.

It chooses the targets that ``word_scores`` compares with a query. Bands are twice as wide: blocks
have eight residues, and a block's score with a word is the logarithm of the mean likelihood ratio
of its residues, which unrelated residues do not raise as they raise the best of eight. Of each four
residues of a target only the word that tells most is read. The bands of several queries lie side
by side, and one instruction works on all of them. A segment counts by what it has where a block
ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from protalign.core.arrays import Bytes, Float32, Int8, Int64, Words
from protalign.core.machine import threads_here
from protalign.residues.kernels.packed import share
from protalign.residues.kernels.word_scores import (
    added_by_chance,
    compiled_loops,
    contiguous,
    striped,
)

#: Steps of a score in one nat: fewer than those of ``word_scores``, since the best of many like
#: proteins must not all reach a byte's end.
STEPS = 0.5
#: A score is at least and at most this, in steps.
LOWEST, HIGHEST = -4, 6
#: Residues of the query beside a block, on either side, that belong to it too.
MARGIN = 1
#: Steps that chance adds to a score for each factor of e in a target's length.
_STEPS_OF_LENGTH = 4.0
#: Words of a thread's part, at least, and parts for each thread.
_THREAD_WORDS, _PARTS = 1 << 18, 8


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    """Queries whose bands lie side by side; a long query has parts in several tiles.

    Attributes
    ----------
    queries : (parts,) int64
        The query of each part.
    firsts, lasts : (parts,) int64
        Its first lane, and the one after its last.
    scores : (K * values * LANES,) int8
        For each word, in the order of their ranks, the scores of the columns (``striped``), in
        steps.
    most : (LANES,) int8
        127, or -128 for a part's first lane.
    values : int
        Values of the processor (``word_loops``).
    """

    queries: Int64
    firsts: Int64
    lasts: Int64
    scores: Int8
    most: Int8
    values: int


class RoughProfiles:
    """Scores of several queries with K words, in the order in which a rough look needs them.

    Parameters
    ----------
    queries : sequence of (blocks, K) int8
        Each query's scores, of ``rough_blocks``.
    telling : (K,) float32
        How much a word tells: of four residues of a target the one with the largest number counts;
        of equal ones the later word.

    Examples
    --------
    >>> blocks = rough_blocks(np.array([[2.0, -3.0]] * 8))
    >>> profiles = RoughProfiles([blocks], np.array([1.0, 2.0]))
    >>> words, offsets = np.array([0, 0, 0, 0, 0, 0, 1], np.uint16), np.array([0, 5, 7])
    >>> rough_scores(profiles, words, offsets, np.arange(2)).tolist()
    [[2, 0]]
    """

    def __init__(self, queries: Sequence[Int8], telling: Float32) -> None:
        order = np.argsort(telling, kind="stable")
        self.ranks = np.empty(len(order), dtype=np.uint16)
        self.ranks[order] = np.arange(len(order))
        self.n_queries, most = len(queries), _most_columns()
        parts = [
            _Part(query, blocks[first : first + most])
            for query, blocks in enumerate(queries)
            for first in range(0, len(blocks), most)
        ]
        self.tiles = [_tile(each, order) for each in _shared(parts)]


def rough_scores(profiles: RoughProfiles, words: Words, offsets: Int64, targets: Int64) -> Bytes:
    """Score some targets roughly for each query.

    Parameters
    ----------
    profiles : RoughProfiles
        Those of q queries.
    words : (R,) uint16
        Words of n targets, one after another, also memory-mapped; each below the profiles' number
        of words, which is not checked here.
    offsets : (n + 1,) int64
        Words before each target, and of all.
    targets : (m,) int64
        The targets to score.

    Returns
    -------
    (q, m) uint8
        Scores in steps, less what chance adds for a target's length: at least 0, at most 255.
    """
    best = np.zeros((profiles.n_queries, len(targets)), dtype=np.uint8)
    ends = np.cumsum(offsets[targets + 1] - offsets[targets])
    total = int(ends[-1]) if len(ends) else 0
    n_threads = max(1, min(threads_here(), total // _THREAD_WORDS))
    n_parts = n_threads * _PARTS if n_threads > 1 else 1
    cuts = np.searchsorted(ends, np.linspace(0, total, n_parts + 1)[1:-1]).tolist()
    bounds = pairwise([0, *cuts, len(targets)])
    parts = iter([(first, last) for first, last in bounds if first < last])
    words = contiguous(words)

    def work(_: int) -> None:
        for first, last in parts:  # threads may share it
            _look(profiles, words, offsets, targets[first:last], best[:, first:last])

    share(n_threads, work)
    return best


def _look(
    profiles: RoughProfiles, words: Words, offsets: Int64, targets: Int64, best: Bytes
) -> None:
    """Score some targets in this thread."""
    loops = compiled_loops()
    lengths = offsets[targets + 1] - offsets[targets]
    ends = np.zeros(len(targets) + 1, dtype=np.int64)
    chosen = np.empty(int((-(-lengths // loops.ONE_OF)).sum()), dtype=np.uint16)
    loops.most_telling(words, offsets, targets, profiles.ranks, chosen, ends)
    by_chance = np.rint(added_by_chance(lengths, _STEPS_OF_LENGTH)).astype(np.uint8)
    found = np.empty(loops.LANES, dtype=np.int8)
    for tile in profiles.tiles:
        lanes = tile.most, tile.queries, tile.firsts, tile.lasts
        loops.shared_bests(chosen, ends, tile.scores, tile.values, *lanes, by_chance, found, best)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A part of a query that fits into a tile: (blocks, K) int8 scores."""

    query: int
    blocks: Int8

    def lanes(self, values: int) -> int:
        """Return the lanes of a tile that it takes."""
        return -(-len(self.blocks) // values)


def rough_blocks(scores: Float32) -> Int8:
    """Return the (blocks, K) int8 scores of a query's blocks, in steps.

    Parameters
    ----------
    scores : (L, K) float32
        Its scores with each word, in nats, at least one row.

    Examples
    --------
    >>> rough_blocks(np.array([[2.0, -3.0]] * 9))
    array([[ 1, -2],
           [ 1, -2]], dtype=int8)
    """
    loops = compiled_loops()
    size = loops.ROUGH_BLOCK * loops.ONE_OF
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


def _most_columns() -> int:
    """Return the columns of a tile, at most."""
    loops = compiled_loops()
    return int(loops.VALUES[-1] * loops.LANES)


def _shared(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Yield the parts of each tile: the longest first, and shorter ones where they have room."""
    loops = compiled_loops()
    left = sorted(parts, key=lambda part: -len(part.blocks))
    while left:
        tile: list[_Part] = []
        others: list[_Part] = []
        room = loops.LANES
        for part in left:
            lanes = part.lanes(loops.VALUES[-1])
            (tile if lanes <= room else others).append(part)
            room -= lanes if lanes <= room else 0
        yield tile
        left = others


def _tile(parts: list[_Part], order: Int64) -> _Tile:
    """Lay the parts of some queries side by side, and the words in an order."""
    loops = compiled_loops()
    values = next(
        each for each in loops.VALUES if sum(part.lanes(each) for part in parts) <= loops.LANES
    )
    lasts = np.cumsum([part.lanes(values) for part in parts])
    firsts = np.concatenate([[0], lasts[:-1]])
    columns = np.full((loops.LANES * values, parts[0].blocks.shape[1]), LOWEST, dtype=np.int8)
    for first, part in zip(firsts * values, parts, strict=True):
        columns[first : first + len(part.blocks)] = part.blocks
    most = np.full(loops.LANES, 127, dtype=np.int8)
    most[firsts] = loops.EMPTY
    queries = np.array([part.query for part in parts], dtype=np.int64)
    return _Tile(queries, firsts, lasts, striped(columns[:, order], values), most, values)
