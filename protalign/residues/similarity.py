"""Similarity of proteins within one modality, by the rows that the other one is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Float64
from protalign.core.ragged import Ragged
from protalign.residues.kernels.packed import PackedTargets, pack
from protalign.residues.kernels.scores import local_scores
from protalign.residues.tail import tail_of

#: The part of the pairs whose similarity decides the scale of chance. Some of those above are
#: relatives: with (0.2, 0.02) the scale differed by half between backgrounds, and relatives of one
#: choice of topologies were not similar.
_TAIL = (0.5, 0.1)
#: The least scale of chance. Copies of few proteins have nearly one similarity.
_LEAST_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class Compared:
    """n proteins of one modality that others are compared with, and each one's score with itself.

    Attributes
    ----------
    rows : PackedTargets
        Their rows.
    own : (n,) float32
        By the best stretch of each protein on itself.
    """

    rows: PackedTargets
    own: Float32

    @classmethod
    def of(cls, rows: Ragged) -> Self:
        """Lay out some."""
        return cls(pack(rows), _own_scores(rows))


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
    >>> [[one, other], _] = Similarity.between(rows, Compared.of(rows)).tolist()
    >>> round(one, 2), round(other, 2)
    (1.0, 0.87)
    >>> float(Similarity(start=0.0, scale=0.03).rarity(0.87).round(1))
    29.0
    """

    start: float
    scale: float

    @classmethod
    def fit(cls, rows: Ragged) -> Self:
        """Fit it on the (R, k + 2) rows of at least two proteins, most of them unrelated."""
        places = np.arange(len(rows))  # every second one with the others: a quarter of all pairs
        others = Compared.of(rows.take(places[1::2]))
        return cls(*tail_of(cls.between(rows.take(places[::2]), others), _TAIL, _LEAST_SCALE))

    @staticmethod
    def between(some: Ragged, others: Compared) -> Float32:
        """Return the (m, n) float32 similarities of m proteins and n others, 0 to about 1."""
        found = local_scores(_as_other_modality(some), others.rows)[0]
        norm = np.sqrt(_own_scores(some)[:, None] * others.own)
        share: Float32 = np.divide(found, norm, out=np.zeros_like(found), where=norm > 0)
        return share

    def rarity(self, similarities: npt.ArrayLike) -> Float64:
        """Return -ln of how often chance gives such similarities; float64, below 0 if always."""
        rarity: Float64 = (np.asarray(similarities, np.float64) - self.start) / self.scale
        return rarity


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
