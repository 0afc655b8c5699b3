"""Retrieval: how high a query's own partner stands among the candidates, by cosine similarity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64

#: Similarities closer than this are a tie. Rounding of a float32 dot product of unit vectors is
#: about 1e-7, so vectors that are equal in truth may differ by that much.
TIE = 1e-6
#: Similarities held at once: 64 MB of float32.
_BLOCK = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalSet:
    """Unique vectors of both modalities, and which belong together.

    Attributes
    ----------
    sequence : (n, E) float32 unit-length vectors of the unique sequence items.
    structure : (m, E) float32 unit-length vectors of the unique structure items.
    pairs : (k, 2) int64, unique (row of ``sequence``, row of ``structure``) of one entry; every
        row of both occurs.
    """

    sequence: Float32
    structure: Float32
    pairs: Int64

    def ranks(self) -> Int64:
        """(n,) ranks of the sequences' own structures; see ``ranks``."""
        return ranks(self.sequence, self.structure, self.pairs)

    def reverse(self) -> RetrievalSet:
        """The same with the modalities' parts exchanged: structures as queries."""
        return RetrievalSet(self.structure, self.sequence, self.pairs[:, ::-1])


def ranks(queries: Float32, candidates: Float32, pairs: npt.ArrayLike | None = None) -> Int64:
    """Rank of each query's partner among the candidates, 1 for the nearest.

    A query with several partners counts by the best of them, and its other partners are not its
    competitors (as in image-caption retrieval). Ties count against the query: constant vectors
    rank every partner last. Memory does not grow with the number of queries.

    Parameters
    ----------
    queries : (n, E) unit-length vectors.
    candidates : (m, E) unit-length vectors.
    pairs : (k, 2) integers, (query, candidate) that belong together, each query at least once;
        None where query i belongs to candidate i alone.

    Returns
    -------
    (n,) int64 between 1 and m.
    """
    if pairs is None:
        pairs = np.repeat(np.arange(len(queries))[:, None], 2, axis=1)
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    bounds = np.searchsorted(pairs[:, 0], np.arange(len(queries) + 1))
    if np.any(np.diff(bounds) < 1):
        raise ValueError("every query needs at least one candidate that belongs to it")
    found = np.empty(len(queries), dtype=np.int64)
    step = max(1, _BLOCK // max(1, len(candidates)))
    for start in range(0, len(queries), step):
        stop = min(start + step, len(queries))
        similar = queries[start:stop] @ candidates.T
        query, candidate = pairs[bounds[start] : bounds[stop]].T
        query = query - start
        best = np.maximum.reduceat(similar[query, candidate], bounds[start:stop] - bounds[start])
        similar[query, candidate] = -np.inf  # partners do not compete
        found[start:stop] = 1 + np.count_nonzero(similar >= (best - TIE)[:, None], axis=1)
    return found


def recall_at_k(ranks: Int64, k: int) -> float:
    """Fraction of queries whose partner is among the k nearest candidates."""
    return float(np.mean(ranks <= k))


def mean_reciprocal_rank(ranks: Int64) -> float:
    """Mean of 1 / rank (MRR)."""
    return float(np.mean(1.0 / ranks))


def chance_recall(n_candidates: int, partners: npt.ArrayLike, k: int) -> float:
    """Recall@k of a random order of the candidates.

    ``partners``: (n,) number of partners of each query. For one partner each this is
    k / n_candidates.
    """
    partners = np.asarray(partners)
    missed = np.ones(len(partners))
    for drawn in range(min(k, n_candidates)):  # without replacement
        missed *= np.maximum(n_candidates - partners - drawn, 0) / (n_candidates - drawn)
    return float(np.mean(1.0 - missed))
