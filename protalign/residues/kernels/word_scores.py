"""Scores of one query against targets that are sequences of words: the best segment of a band.

A word stands for the residues near it, so the score of a query's residue and a target's is looked
up in a table, the query's profile. Both proteins are cut into blocks of four residues. A band is
all pairs of blocks that are equally far apart, some neighbouring diagonals: each residue of a
target adds to it the score of the residue of the query that fits it best in the block there, or
just beside that block. A segment is a part of a band, with short gaps for nothing and no others,
and counts by what it has where a block of the target ends.

Of many targets only those are scored that hits in inverted lists of the words choose
(``protalign.residues.word_lists``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Float64, Int8, Int32, Int64, Words
from protalign.core.machine import threads_here
from protalign.residues.kernels.packed import share

#: Residues of the query beside a block, on either side, that belong to it too.
MARGIN = 1
#: Steps of a score in one nat. Finer ones find no more, and a byte holds fewer scores.
STEPS = 0.5
#: A score is at least and at most this, in steps. A few pairs of residues have more, far out where
#: no residues were when the stage was fitted.
LOWEST, HIGHEST = -4, 6
#: Bytes of a line of the processor's cache.
_LINE = 64
#: Words for a thread, at least: fewer are not worth a second thread.
_THREAD_WORDS = 1 << 18
#: Parts of the targets for each thread, so that none waits long for the last.
_PARTS = 8

#: Steps that chance adds to a score for each factor of e in a target's length, and the residues
#: from which it does. If long targets keep it, the first hit of a full comparison is among the
#: first 200 of 1,000,000 for 83 and 98 % of queries; else for 95 and 100 %
#: (benchmarks/quality/words.py --made-up 1000000 --queries 60 --seeds 2).
_STEPS_OF_LENGTH, _FROM_LENGTH = 15.0, 50


@dataclass(frozen=True, slots=True, eq=False)
class WordProfile:
    """A query's scores with K words, in the order in which bands need them.

    Attributes
    ----------
    scores : (K * width,) int8
        For each word, the best score in each block of the query, and ``LOWEST``, in steps; in the
        order of ``striped``.
    width : int
        Bytes for a word.
    values : int
        Values of the processor in a tile (``word_loops``); a row is whole tiles.

    Examples
    --------
    >>> profile = WordProfile.of(np.array([[2.0, -3.0], [-1.0, 4.0]]))
    >>> profile.width, profile.scores.max()
    (32, np.int8(2))
    >>> word_scores(profile, np.array([0, 1, 0], np.uint16), np.array([0, 2, 3])).tolist()
    [3, 1]
    """

    scores: Int8
    width: int
    values: int

    @classmethod
    def of(cls, scores: Float32) -> WordProfile:
        """Build it of a query's (L, K) scores with each word, in nats."""
        loops = compiled_loops()
        n_query, n_words = scores.shape
        size = loops.BLOCK
        blocks = -(-n_query // size)
        steps = np.full((blocks * size + 2 * MARGIN, n_words), LOWEST, dtype=np.int8)
        steps[MARGIN : MARGIN + n_query] = np.clip(np.rint(STEPS * scores), LOWEST, HIGHEST)
        near = [steps[first:][: blocks * size : size] for first in range(size + 2 * MARGIN)]
        n_values = -(-blocks // loops.LANES)
        n_tiles = -(-n_values // loops.VALUES[-1])
        values = next(each for each in loops.VALUES if each * n_tiles >= n_values)
        columns = np.full((n_tiles * loops.LANES * values, n_words), LOWEST, dtype=np.int8)
        columns[:blocks] = np.maximum.reduce(near)
        return cls(striped(columns, values), len(columns), values)


def striped(columns: Int8, values: int) -> Int8:
    """Return the scores of a tile's columns, or of several tiles', as the loops read them.

    Parameters
    ----------
    columns : (tiles * LANES * values, K) int8
        Each column's scores with each word.
    values : int
        Values of a tile.

    Returns
    -------
    (K * columns,) int8
        Of each word the tiles, of each the values, and of each of those its lanes: lane l of value
        v has column l * values + v. Rows of whole lines of the cache begin with one. Others may
        begin in the middle of one, where their length leaves them: fewer lines are read.
    """
    memory = np.empty(columns.size + _LINE, dtype=np.int8)
    scores: Int8 = memory[-memory.ctypes.data % _LINE :][: columns.size]
    lanes = compiled_loops().LANES
    of_tiles = columns.reshape(-1, lanes, values, columns.shape[1])
    scores.reshape(-1, len(of_tiles), values, lanes)[:] = of_tiles.transpose(3, 0, 2, 1)
    return scores


def word_scores(profile: WordProfile, words: Words, offsets: Int64) -> Int32:
    """Score each target by its best segment in a band.

    Parameters
    ----------
    profile : WordProfile
        The query's.
    words : (R,) uint16
        Words of n targets, one after another, also memory-mapped; each below the profile's number
        of words, which is not checked here.
    offsets : (n + 1,) int64
        Words before each target, and of all.

    Returns
    -------
    (n,) int32
        The scores, in steps, at most 65,535; 0 for a target without a positive pair.
    """
    [best] = scores_of([(profile, np.arange(len(offsets) - 1))], words, offsets)
    return best


def scores_of(
    wanted: Sequence[tuple[WordProfile, Int64]], words: Words, offsets: Int64
) -> list[Int32]:
    """Score some targets for each of several queries, as ``word_scores`` does.

    Parameters
    ----------
    wanted : sequence of (WordProfile, (m,) int64)
        A query's profile, and its targets.
    words, offsets
        As for ``word_scores``.

    Returns
    -------
    list of (m,) int32
        The scores of each query's targets.
    """
    best = [np.zeros(len(targets), dtype=np.int32) for _, targets in wanted]
    lengths = [offsets[targets + 1] - offsets[targets] for _, targets in wanted]
    total = sum(int(each.sum()) for each in lengths)
    if total == 0:
        return best
    longest = max(int(each.max(initial=0)) for each in lengths)
    n_threads = max(1, min(threads_here(), total // _THREAD_WORDS))
    size = total / (n_threads * _PARTS) if n_threads > 1 else float(total)
    parts = iter(
        [
            (profile, some, results)
            for (profile, targets), each, scores in zip(wanted, lengths, best, strict=True)
            for some, results in zip(*_cut(size, np.cumsum(each), targets, scores), strict=True)
        ]
    )  # threads share it: each takes the next part as it has done one
    loops, words = compiled_loops(), contiguous(words)
    most = loops.MOST + (loops.BLOCK - 1) * LOWEST  # a block that reaches a byte's end may fall yet

    def work(_: int) -> None:
        leaving = [np.empty(-(-longest // loops.BLOCK), dtype) for dtype in (np.int8, np.int16)]
        for profile, targets, results in parts:
            sizes = profile.width, profile.values, most
            loops.best_segments(words, offsets, targets, profile.scores, *sizes, *leaving, results)

    share(n_threads, work)
    return best


def contiguous(words: Words) -> Words:
    """Return words as the loops read them: one after another in memory; copied only if needed."""
    return np.ascontiguousarray(words, dtype=np.uint16)


def without_length(scores: Int32, lengths: Int64) -> Float32:
    """Return scores less what chance adds for the targets' lengths.

    Parameters
    ----------
    scores : (n,) int32
        As of ``word_scores``.
    lengths : (n,) int64
        Residues of each target.

    Returns
    -------
    (n,) float32
        In steps.

    Examples
    --------
    >>> without_length(np.array([90, 90, 90], np.int32), np.array([20, 50, 136])).round().tolist()
    [90.0, 90.0, 75.0]
    """
    return (scores - added_by_chance(lengths, _STEPS_OF_LENGTH)).astype(np.float32)


def added_by_chance(lengths: Int64, steps: float) -> Float64:
    """Return what chance adds to scores for targets' lengths, if so much for each factor of e."""
    return steps * np.log(np.maximum(lengths, _FROM_LENGTH) / _FROM_LENGTH)


def _cut(size: float, ends: Int64, *arrays: npt.NDArray[Any]) -> list[list[npt.NDArray[Any]]]:
    """Cut arrays of targets into parts of about some residues; ``ends`` are sums of theirs."""
    total = int(ends[-1]) if len(ends) else 0
    n_parts = max(1, round(total / size))
    cuts = np.searchsorted(ends, np.arange(1, n_parts) * (total / n_parts))
    return [np.split(array, cuts) for array in arrays]


@cache
def compiled_loops() -> Any:
    """Return the compiled loops; numba takes a second to import."""
    from protalign.residues.kernels import word_loops

    return word_loops
