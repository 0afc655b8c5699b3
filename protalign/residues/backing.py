"""Backing: what a query's first hits say for other proteins that are like them.

A remote relative's own score is often no better than chance's, but it is like the structures of
other relatives, and one of these may be found. So some first hits are aligned with the other
candidates, within one modality, where relatives are much easier to see than across two; and what
speaks for a hit speaks in part for those that are like it. Searches by intermediate sequences (Park
et al., J Mol Biol 273, 349, 1997) and RankProp (Weston et al., PNAS 101, 6559, 2004) do so with
sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Float32, Float64, Int64
from protalign.core.protein import Modality
from protalign.core.ragged import Ragged
from protalign.residues.kernels.scores import local_scores

#: First hits that speak for others. With ten, topologies' sensitivity is the same.
FIRST_HITS = 5
#: Candidates that they can speak for: the best so many. The others are far behind.
SPOKEN_FOR = 200
#: The excess of a hit that counts at most. A hit beyond doubt says no more than a very good one;
#: else near-identical proteins would be ordered by what they say for each other.
_MOST = 10.0
#: The part of what its first hits say that a candidate gets.
_PART = 0.5
#: How rare a similarity of unrelated proteins must be, in -ln, before a hit speaks for a candidate,
#: and where it does so fully.
_SIMILAR = 9.0, 13.0
#: The part of the pairs of training proteins whose similarity decides the scale of chance.
_TAIL = (0.2, 0.02)
#: The least scale of chance. Copies of few proteins have nearly one similarity.
_LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class Similarity:
    """The similarity of proteins of one modality, and how often chance gives as much.

    The similarity of two is the score of their best local alignment, by the rows that are compared
    with the other modality, over the geometric mean of each one's score with itself.

    Attributes
    ----------
    start, scale : float
        Chance gives a similarity of x or more to a share ``exp(-(x - start) / scale)`` of pairs.

    Examples
    --------
    >>> rows = Ragged.pack([np.eye(6, dtype=np.float32)[i] for i in ([0, 1, 2], [0, 1, 2, 3])])
    >>> Similarity.between(rows, rows).round(2).tolist()
    [[1.0, 0.87], [0.87, 1.0]]
    """

    start: float
    scale: float

    @classmethod
    def fit(cls, rows: Ragged) -> Self:
        """Fit it on the (R, k + 2) rows of at least two proteins, most of them unrelated."""
        found = cls.between(rows, rows)
        others = found[~np.eye(len(rows), dtype=np.bool_)]
        first, last = np.quantile(others, [1 - share for share in _TAIL])
        scale = max(float(last - first) / np.log(_TAIL[0] / _TAIL[1]), _LEAST_SCALE)
        return cls(float(first + scale * np.log(_TAIL[0])), scale)

    @staticmethod
    def between(some: Ragged, others: Ragged) -> Float32:
        """Return the (m, n) float32 similarities of m proteins and n others, 0 to about 1."""
        found = local_scores(_as_other_modality(some), others)[0]
        norm = np.sqrt(_own_scores(some)[:, None] * _own_scores(others))
        share: Float32 = np.divide(found, norm, out=np.zeros_like(found), where=norm > 0)
        return share

    def weights(self, similarities: npt.ArrayLike) -> Float64:
        """Return how far hits speak for proteins of such similarities to them: 0 to 1."""
        rarity = (np.asarray(similarities, np.float64) - self.start) / self.scale
        none, full = _SIMILAR
        return np.clip((rarity - none) / (full - none), 0, 1)

    def as_list(self) -> list[float]:
        """Return its numbers as JSON values."""
        return [self.start, self.scale]

    @classmethod
    def of_list(cls, values: Any) -> Self:
        """Build it of ``as_list``; raise TypeError or ValueError if it is damaged."""
        start, scale = map(float, values)
        if not (np.isfinite(start) and np.isfinite(scale) and scale > 0):
            raise ValueError("the scale of similarities is damaged")
        return cls(start, scale)


def backing(
    query: Float32,
    excess: Float64,
    rows: Callable[[Int64], Ragged],
    similarities: Mapping[Modality, Similarity],
    silent: Bool | None = None,
) -> Float64:
    """Return what a query's first hits say for its candidates, in units of the excess.

    The hits and the candidates are ``SPOKEN_FOR`` best ones; the first ``FIRST_HITS`` speak for the
    others. A hit speaks with the part of it that the query's alignment covers, so that another
    domain of it says nothing.

    Parameters
    ----------
    query : (L, k + 2) float32
        The query's rows for the local mode, which show its modality.
    excess : (n,) float64
        The candidates' excess.
    rows : callable
        Given (m,) int64 places of candidates, returns their rows for the local mode.
    similarities : mapping
        Modality -> Similarity; empty in models of before, whose hits say nothing.
    silent : (n,) bool, optional
        Candidates that are to say nothing, as the query's own partner where it is to be left out.

    Returns
    -------
    (n,) float64
        0 or above.
    """
    said = np.zeros(len(excess))
    modality: Modality = "structure" if len(query) and (query[:, -1] == 1).all() else "sequence"
    best = np.argsort(-excess, kind="stable")[:SPOKEN_FOR]
    speaks = excess[best] > 0
    if silent is not None:
        speaks &= ~silent[best]
    first = np.flatnonzero(speaks)[:FIRST_HITS]
    if modality not in similarities or not len(first) or len(best) < 2:
        return said
    of_best = rows(best)
    aligned = Ragged.pack([_aligned(query, of_best[hit]) for hit in first])
    weights = similarities[modality].weights(Similarity.between(aligned, of_best))
    weights[np.arange(len(first)), first] = 0  # a hit says nothing for itself
    evidence = np.minimum(excess[best[first]], _MOST)
    said[best] = _PART * (evidence @ weights) / (1 + weights.sum(axis=0))
    return said


def _aligned(query: Float32, target: Float32) -> Float32:
    """Return the target's rows from the first to the last that the best local alignment pairs."""
    _, [query_end], [target_end] = local_scores(query, Ragged.pack([target]))
    if target_end < 0:
        return target
    # The same alignment from its end: its last pair is the first one of the best alignment.
    before, of_target = query[query_end::-1], target[target_end::-1]
    _, _, [length] = local_scores(
        np.ascontiguousarray(before), Ragged.pack([np.ascontiguousarray(of_target)])
    )
    return target[target_end - length : target_end + 1]


def _as_other_modality(rows: Ragged) -> Ragged:
    """Return rows that, times others of the same modality, count both proteins' residues."""
    values = rows.values.copy()
    values[:, -2:] = values[:, :-3:-1]
    return Ragged(values, rows.offsets)


def _own_scores(rows: Ragged) -> Float32:
    """Return (n,) float32: each protein's score with itself, by the best stretch of it."""
    values = rows.values
    ratios = np.square(values[:, :-2]).sum(axis=1) + 2 * values[:, -2] * values[:, -1]
    own = np.zeros(len(rows), dtype=np.float32)
    for place, (first, last) in enumerate(zip(rows.offsets[:-1], rows.offsets[1:], strict=True)):
        total = np.concatenate([[0], np.cumsum(ratios[first:last], dtype=np.float64)])
        own[place] = (total - np.minimum.accumulate(total)).max()
    return own
