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
#: Largest number of a byte.
_BYTE = 255
#: Words for a thread, at least: fewer are not worth a second thread.
_THREAD_WORDS = 1 << 18
#: Parts of the targets for each thread, so that none waits long for the last.
_PARTS = 8

Words = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class WordProfile:
    """A query's scores with K words, in the order in which bands need them.

    Attributes
    ----------
    values : (K * (bands + 32) + 32,) uint8
        For each word, 32 zeros and the best score in each block, the last block first; and 32
        zeros. Scores are in steps, plus ``BIAS``.
    bands : int
        Bands that one residue of a target is in: the query's blocks.
    highest : int
        The largest of the values.

    Examples
    --------
    >>> profile = WordProfile.of(np.array([[2.0, -3.0], [-1.0, 4.0]]))
    >>> profile.bands, profile.highest - BIAS
    (1, 4)
    >>> word_scores(profile, np.array([0, 1, 0], np.uint16), np.array([0, 2, 3])).tolist()
    [6, 2]
    """

    values: npt.NDArray[np.uint8]
    bands: int
    highest: int

    @classmethod
    def of(cls, scores: Float32) -> WordProfile:
        """Build it of a query's (L, K) scores with each word, in nats."""
        from protalign.residues.kernels.word_loops import LANES

        n_query, n_words = scores.shape
        size = 1 << SHIFT
        bands = -(-n_query // size)
        steps = np.zeros((bands * size + 2 * MARGIN, n_words), dtype=np.uint8)
        steps[MARGIN : MARGIN + n_query] = np.clip(np.rint(STEPS * scores), -BIAS, HIGHEST) + BIAS
        near = [steps[first:][: bands * size : size] for first in range(size + 2 * MARGIN)]
        values = np.zeros((n_words, bands + LANES), dtype=np.uint8)
        values[:, LANES:] = np.maximum.reduce(near)[::-1].T
        flat = np.concatenate([values.reshape(-1), np.zeros(LANES, dtype=np.uint8)])
        return cls(flat, bands, int(steps.max(initial=0)))


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
    loops = _loops()
    targets = np.flatnonzero(np.diff(offsets))
    _share(loops.best_segments, profile, words, offsets, targets, best)
    # A byte that reached its end may stand for more.
    full = np.flatnonzero(best > _BYTE - profile.highest)
    _share(loops.best_wide_segments, profile, words, offsets, full, best)
    return best


def _share(
    loop: Any,
    profile: WordProfile,
    words: Words,
    offsets: Int64,
    targets: Int64,
    best: npt.NDArray[np.int32],
) -> None:
    """Score some targets in threads, each of which takes the next part as it has done one."""
    ends = np.cumsum(offsets[targets + 1] - offsets[targets])
    if len(targets) == 0:
        return
    n_threads = max(1, min(threads_here(), int(ends[-1]) // _THREAD_WORDS))
    n_parts = n_threads * _PARTS if n_threads > 1 else 1
    cuts = np.searchsorted(ends, np.arange(1, n_parts) * (ends[-1] / n_parts))
    parts = iter(np.split(targets, cuts))  # threads may share it
    flat = profile.values

    def work(_: int) -> None:
        for part in parts:
            loop(words, offsets, part, flat, profile.bands, SHIFT, BIAS, best)

    share(n_threads, work)


@cache
def _loops() -> Any:
    """Return the compiled loops; numba takes a second to import."""
    from protalign.residues.kernels import word_loops

    return word_loops
