"""Figures of rank counts in expectation: tied candidates come in a random order.

A baseline such as "same family" gives many candidates one score. Its figures are expectations over
all orders of the ties, every order as likely, and are computed without drawing any.

What a search does not report is not found: no recall at any k, and no reciprocal rank.
"""

from __future__ import annotations

import numpy as np

from protalign.core.arrays import Float64, Int64
from protalign.heads.ranks import RankCounts


def expected_recall(counts: RankCounts, k: int) -> Float64:
    """Return (n,) probabilities that the first relevant candidate's rank is at most k.

    Examples
    --------
    >>> one = np.array([1])
    >>> expected_recall(RankCounts(above=one, tied=one, relevant=one), k=2)
    array([0.5])
    """
    missed = np.ones(len(counts))
    for drawn in range(k):  # of the tied candidates, without replacement
        irrelevant = np.maximum(counts.tied - drawn, 0)
        passed = irrelevant / np.maximum(irrelevant + counts.relevant, 1)
        missed *= np.where(drawn < k - counts.above, passed, 1.0)
    return np.where(counts.relevant > 0, 1.0 - missed, 0.0)


def expected_reciprocal_rank(counts: RankCounts) -> Float64:
    """Return (n,) expectations of 1 / rank, 0 for what is not found."""
    kinds, kind_of_query = _kinds(counts)
    expected = [float(pmf @ (1.0 / ranks)) for ranks, pmf in map(_rank_distribution, kinds)]
    return np.where(counts.relevant > 0, np.array(expected)[kind_of_query], 0.0)


def median_rank(counts: RankCounts) -> float:
    """Return the median rank over queries and orders of ties; of two middle ranks, their mean.

    What is not found is behind all others.
    """
    kinds, kind_of_query = _kinds(counts)
    mass = np.zeros(max(above + tied for above, tied, _ in kinds) + 2)
    for kind, n_queries in zip(kinds, np.bincount(kind_of_query), strict=True):
        ranks, pmf = _rank_distribution(kind)
        mass[ranks] += n_queries * pmf
    cumulative = np.cumsum(mass) / len(counts)
    lower = np.argmax(cumulative >= 0.5 - 1e-9)
    upper = np.argmax(cumulative > 0.5 + 1e-9)
    return float(lower + upper) / 2


def _kinds(counts: RankCounts) -> tuple[list[tuple[int, int, int]], Int64]:
    """Return the different (above, tied, relevant), and the index of each query's."""
    table = np.stack([counts.above, counts.tied, counts.relevant], axis=1)
    kinds, kind_of_query = np.unique(table, axis=0, return_inverse=True)
    return [tuple(kind) for kind in kinds.tolist()], kind_of_query.ravel()


def _rank_distribution(kind: tuple[int, int, int]) -> tuple[Int64, Float64]:
    """Return (ranks, probabilities) of the first relevant candidate in a random order of ties."""
    above, tied, relevant = kind
    passed = np.arange(tied + 1)  # irrelevant candidates before the first relevant one
    remaining = tied - passed
    first = max(relevant, 1)  # what is not found is behind those that are counted
    stops = first / (remaining + first)
    reaches = np.concatenate([[1.0], np.cumprod(1.0 - stops[:-1])])
    return above + 1 + passed, reaches * stops
