"""Scores of one query against targets that are sequences of words: the best segment of a band.

A word stands for the residues near it, so the score of a query's residue and a target's is looked
up in a table, the query's profile. Both proteins are cut into blocks of four residues. A band is
all pairs of blocks that are equally far apart, some neighbouring diagonals: each residue of a
target adds to it the score of the residue of the query that fits it best in the block there, or
just beside that block. A segment is a part of a band, with short gaps for nothing and no others.
MMseqs2 and Foldseek do the like with k-mers and single diagonals before they align.

Every target is scored. A query of some hundred residues has something to say to every word, so
lists of where each word occurs would all be read, and in a worse order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64
from protalign.core.machine import threads_here
from protalign.residues.kernels.packed import share

#: Logarithm of the residues in a block.
SHIFT = 2
#: Residues of the query beside a block, on either side, that belong to it too.
MARGIN = 1
#: Steps of a score in one nat. Finer ones find no more, and more targets reach a byte's end.
STEPS = 1.0
#: Steps below 0 that a score counts as at least, and above 0 at most. A few pairs of residues have
#: more, far out where no residues were when the stage was fitted.
BIAS, HIGHEST = 8, 12
#: Largest number of a byte, and bytes of a line of the processor's cache.
_BYTE, _LINE = 255, 64
#: Words for a thread, at least: fewer are not worth a second thread.
_THREAD_WORDS = 1 << 18
#: Parts of the targets for each thread, so that none waits long for the last.
_PARTS = 8

#: Steps that chance adds to a score for each factor of e in a target's length, and the residues
#: from which it does: the median of unrelated targets and their best in 1,000 grow alike. If long
#: targets keep it, the first hit of a full scan is not among the first 200 of 200,000 for 7 and 11
#: of 100 queries; else for none and 2 (benchmarks/quality/words.py, two encoders).
_STEPS_OF_LENGTH, _FROM_LENGTH = 30.0, 50

Words = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class WordProfile:
    """A query's scores with K words, in the order in which bands need them.

    Attributes
    ----------
    scores : (K * width,) uint8
        For each word, the best score in each block of the query, and zeros. Scores are in steps,
        plus ``BIAS``.
    width : int
        Bytes for a word.
    values : int
        Values of the processor in a tile (``word_loops``); a row is whole tiles.
    highest : int
        The largest of the scores.

    Examples
    --------
    >>> profile = WordProfile.of(np.array([[2.0, -3.0], [-1.0, 4.0]]))
    >>> profile.width, profile.highest - BIAS
    (32, 4)
    >>> word_scores(profile, np.array([0, 1, 0], np.uint16), np.array([0, 2, 3])).tolist()
    [6, 2]
    """

    scores: npt.NDArray[np.uint8]
    width: int
    values: int
    highest: int

    @classmethod
    def of(cls, scores: Float32) -> WordProfile:
        """Build it of a query's (L, K) scores with each word, in nats."""
        loops = _loops()
        n_query, n_words = scores.shape
        size = 1 << SHIFT
        blocks = -(-n_query // size)
        steps = np.zeros((blocks * size + 2 * MARGIN, n_words), dtype=np.uint8)
        steps[MARGIN : MARGIN + n_query] = np.clip(np.rint(STEPS * scores), -BIAS, HIGHEST) + BIAS
        near = [steps[first:][: blocks * size : size] for first in range(size + 2 * MARGIN)]
        n_values = -(-blocks // loops.LANES)
        n_tiles = -(-n_values // loops.VALUES[-1])
        values = next(each for each in loops.VALUES if each * n_tiles >= n_values)
        width = n_tiles * values * loops.LANES
        # A row begins where a line of the cache does, or in its middle: fewer lines are read.
        memory = np.zeros(n_words * width + _LINE, dtype=np.uint8)
        flat = memory[-memory.ctypes.data % _LINE :][: n_words * width]
        flat.reshape(n_words, width)[:, :blocks] = np.maximum.reduce(near).T
        return cls(flat, width, values, int(steps.max(initial=0)))


def word_scores(profile: WordProfile, words: Words, offsets: Int64) -> npt.NDArray[np.int32]:
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
        The scores, in steps, at most 65,535 less a little; 0 for a target without a positive pair.
    """
    best = np.zeros(len(offsets) - 1, dtype=np.int32)
    targets = np.flatnonzero(np.diff(offsets))
    _share(profile, words, offsets, targets, np.uint8, best)
    # A byte that reached its end may stand for more.
    full = np.flatnonzero(best > _BYTE - profile.highest)
    _share(profile, words, offsets, full, np.uint16, best)
    return best


def without_length(scores: npt.NDArray[np.int32], lengths: Int64) -> Float32:
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
    [90.0, 90.0, 60.0]
    """
    longer = np.maximum(lengths, _FROM_LENGTH) / _FROM_LENGTH
    return (scores - _STEPS_OF_LENGTH * np.log(longer)).astype(np.float32)


def _share(
    profile: WordProfile,
    words: Words,
    offsets: Int64,
    targets: Int64,
    kind: type[np.uint8] | type[np.uint16],
    best: npt.NDArray[np.int32],
) -> None:
    """Score some targets in threads, each of which takes the next part as it has done one."""
    if len(targets) == 0:
        return
    lengths = offsets[targets + 1] - offsets[targets]
    ends, longest = np.cumsum(lengths), int(lengths.max())
    n_threads = max(1, min(threads_here(), int(ends[-1]) // _THREAD_WORDS))
    n_parts = n_threads * _PARTS if n_threads > 1 else 1
    cuts = np.searchsorted(ends, np.arange(1, n_parts) * (ends[-1] / n_parts))
    parts = iter(np.split(targets, cuts))  # threads may share it
    loop = _loops().best_segments
    sizes = profile.width, profile.values, SHIFT, BIAS

    def work(_: int) -> None:
        leaving = np.empty(((longest - 1) >> SHIFT) + 1, dtype=kind)
        for part in parts:
            loop(words, offsets, part, profile.scores, *sizes, leaving, best)

    share(n_threads, work)


@cache
def _loops() -> Any:
    """Return the compiled loops; numba takes a second to import."""
    from protalign.residues.kernels import word_loops

    return word_loops
