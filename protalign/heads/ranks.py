"""Retrieval: the rank of a query's own partner among the candidates, by cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Float32, Int64

#: Similarities closer than this are a tie. Rounding of a float32 dot product of unit vectors is
#: about 1e-7, so vectors that are equal in truth may differ by that much.
TIE = 1e-6
#: Similarities held at once: 64 MB of float32.
SIMILARITIES_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class RankCounts:
    """The place of each of n queries' best relevant candidate among the others.

    This is the one definition of a rank: ``ranks`` reads it with ties lost, and the baselines of
    ``protalign.evaluation`` in expectation over the orders of ties. Other relevant candidates of a
    query do not compete with the best one. A score of minus infinity means that a search did not
    report the candidate. If none of a query's is reported, it is behind all others.

    Attributes
    ----------
    above : (n,) int64
        Irrelevant candidates with a higher score than the best relevant one.
    tied : (n,) int64
        Irrelevant candidates with its score, up to ``TIE``.
    relevant : (n,) int64
        Relevant candidates with its score, at least 1; 0 if none is reported.
    """

    above: Int64
    tied: Int64
    relevant: Int64

    def __len__(self) -> int:
        """Return n."""
        return len(self.above)

    def __getitem__(self, index: Any) -> RankCounts:
        """Return the counts of some queries."""
        return RankCounts(self.above[index], self.tied[index], self.relevant[index])

    @classmethod
    def of(
        cls, scores: npt.NDArray[Any], relevant: Bool, candidates: Bool | None = None
    ) -> RankCounts:
        """Count in a matrix of scores.

        Parameters
        ----------
        scores : (n, m) array of float
            The candidates' scores for each query; higher is better, minus infinity for what is not
            reported.
        relevant : (n, m) bool
            The candidates that answer a query; every query needs one.
        candidates : (n, m) bool, optional
            The candidates that are ranked at all; default: all.

        Examples
        --------
        >>> counts = RankCounts.of(np.array([[0.9, 0.5, 0.5]]), np.array([[False, True, False]]))
        >>> counts.above, counts.tied, counts.ranks()
        (array([1]), array([1]), array([3]))
        """
        others = ~relevant
        if candidates is not None:
            relevant, others = relevant & candidates, others & candidates
        if not relevant.any(axis=1).all():
            raise ValueError("every query needs at least one candidate that belongs to it")
        best = np.where(relevant, scores, -np.inf).max(axis=1)[:, None]
        reported = best > -np.inf
        reached = reported & (scores >= best - TIE)
        above = np.count_nonzero(others & ((scores > best + TIE) | ~reported), axis=1)
        return cls(
            above=above,
            tied=np.count_nonzero(others & (reached | ~reported), axis=1) - above,
            relevant=np.count_nonzero(relevant & reached, axis=1),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[RankCounts]) -> RankCounts:
        """Return the counts of several parts' queries, one part after another."""
        return RankCounts(
            above=np.concatenate([part.above for part in parts]),
            tied=np.concatenate([part.tied for part in parts]),
            relevant=np.concatenate([part.relevant for part in parts]),
        )

    def ranks(self) -> Int64:
        """Return (n,) ranks, 1 for the first; ties count against the query."""
        return 1 + self.above + self.tied


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalSet:
    """Unique vectors of both modalities, and the pairs that belong together.

    Attributes
    ----------
    sequence : (n, E) float32
        Unit-length vectors of the unique sequence items.
    structure : (m, E) float32
        Unit-length vectors of the unique structure items.
    pairs : (k, 2) int64
        Unique (row of ``sequence``, row of ``structure``) of one entry; every row of both occurs.
    """

    sequence: Float32
    structure: Float32
    pairs: Int64

    def ranks(self) -> Int64:
        """Return (n,) ranks of the sequences' own structures; see ``ranks``."""
        return ranks(self.sequence, self.structure, self.pairs)

    def reverse(self) -> RetrievalSet:
        """Return the set with the modalities exchanged: structures are the queries."""
        return RetrievalSet(self.structure, self.sequence, self.pairs[:, ::-1])


def rank_counts(
    queries: Float32,
    candidates: Float32,
    pairs: npt.ArrayLike | None = None,
    *,
    at_once: int = SIMILARITIES_AT_ONCE,
) -> RankCounts:
    """Count the candidates above and beside each query's partner.

    Parameters
    ----------
    queries, candidates, pairs
        As for ``ranks``.
    at_once : int
        The similarities held at once; memory does not grow with the number of queries.
    """
    if pairs is None:
        pairs = np.repeat(np.arange(len(queries))[:, None], 2, axis=1)
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    step = max(1, at_once // max(1, len(candidates)))
    empty = np.empty(0, dtype=np.int64)
    parts = [RankCounts(empty, empty, empty)]
    for start in range(0, len(queries), step):
        similarities = queries[start : start + step] @ candidates.T
        first, last = np.searchsorted(pairs[:, 0], [start, start + len(similarities)])
        query, candidate = pairs[first:last].T
        relevant = np.zeros(similarities.shape, dtype=np.bool_)
        relevant[query - start, candidate] = True
        parts.append(RankCounts.of(similarities, relevant))
    return RankCounts.concatenate(parts)


def ranks(queries: Float32, candidates: Float32, pairs: npt.ArrayLike | None = None) -> Int64:
    """Return the rank of each query's partner among the candidates, 1 for the nearest.

    A query with several partners counts by the best of them, and its other partners are not its
    competitors (as in image-caption retrieval). Ties count against the query: constant vectors
    rank every partner last. Memory does not grow with the number of queries.

    Parameters
    ----------
    queries : (n, E) float32
        Unit-length vectors.
    candidates : (m, E) float32
        Unit-length vectors.
    pairs : (k, 2) array of int, optional
        (query, candidate) that belong together, each query at least once. Default: query i belongs
        to candidate i alone.

    Returns
    -------
    (n,) int64
        Between 1 and m.

    Raises
    ------
    ValueError
        A query has no partner.

    Examples
    --------
    >>> vectors = np.eye(3, dtype=np.float32)
    >>> ranks(vectors, vectors)
    array([1, 1, 1])
    >>> ranks(vectors, vectors, [(0, 1), (1, 1), (2, 0), (2, 2)])
    array([3, 1, 1])
    """
    return rank_counts(queries, candidates, pairs).ranks()


def recall_at_k(ranks: Int64, k: int) -> float:
    """Return the fraction of queries with their partner among the k nearest candidates.

    Examples
    --------
    >>> recall_at_k(np.array([1, 2, 5, 11]), 5)
    0.75
    """
    return float(np.mean(ranks <= k))


def mean_reciprocal_rank(ranks: Int64) -> float:
    """Return the mean of 1 / rank (MRR).

    Examples
    --------
    >>> mean_reciprocal_rank(np.array([1, 2, 4, 4]))
    0.5
    """
    return float(np.mean(1.0 / ranks))


def chance_recall(n_candidates: int, partners: npt.ArrayLike, k: int) -> float:
    """Return Recall@k of a random order of the candidates.

    Parameters
    ----------
    n_candidates : int
        m, the number of candidates.
    partners : (n,) array of int
        The number of partners of each query. With one partner each the result is k / m.
    k : int
        The k of Recall@k.

    Examples
    --------
    >>> chance_recall(4, [1, 1], k=1)
    0.25
    """
    partners = np.asarray(partners)
    missed = np.ones(len(partners))
    for drawn in range(min(k, n_candidates)):  # without replacement
        missed *= np.maximum(n_candidates - partners - drawn, 0) / (n_candidates - drawn)
    return float(np.mean(1.0 - missed))
