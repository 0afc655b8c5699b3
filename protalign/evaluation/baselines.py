"""Retrieval baselines that use no model: chance, family, length, k-mers, and given vectors.

A baseline is a function of a slice of the queries that returns their scores, (b, m). Ties are
exact; ``protalign.evaluation.ranking`` resolves them in expectation, not by drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import AMINO_ACIDS, amino_acid_codes

Scores = npt.NDArray[Any]
Scorer = Callable[[slice], Scores]

#: Scores held at once: 32 MB of float64.
SCORES_AT_ONCE = 1 << 22
#: Scores of one block of queries that are aligned with all candidates.
ALIGNED_AT_ONCE = 1 << 18
#: Length of the k-mers that are counted.
KMER = 3
#: Score of the same family beside a difference of lengths: more than any such difference.
_FAMILY_SCORE = 1e9


def query_parts(n_queries: int, n_candidates: int, at_once: int) -> Iterator[slice]:
    """Yield slices of the queries, of at most so many scores and at least one query.

    Examples
    --------
    >>> list(query_parts(5, 100, at_once=250))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, at_once // max(1, n_candidates))
    for start in range(0, n_queries, step):
        yield slice(start, min(start + step, n_queries))


def by_chance(n_candidates: int) -> Scorer:
    """Score every candidate alike."""

    def scores(queries: slice) -> Scores:
        return np.zeros((queries.stop - queries.start, n_candidates), dtype=np.float32)

    return scores


def by_length(queries: Int64, candidates: Int64) -> Scorer:
    """Score by the difference of the numbers of residues, the smallest first.

    Parameters
    ----------
    queries, candidates : (n,) and (m,) int64
        Numbers of residues.

    Examples
    --------
    >>> by_length(np.array([100]), np.array([90, 100, 130]))(slice(0, 1))
    array([[-10.,   0., -30.]])
    """

    def scores(part: slice) -> Scores:
        return np.asarray(-abs(queries[part, None] - candidates), dtype=np.float64)

    return scores


def by_family(queries: sparse.csr_array, candidates: sparse.csr_array) -> Scorer:
    """Score candidates of the query's family 1, and all others 0.

    Parameters
    ----------
    queries, candidates : (n, families) and (m, families) sparse arrays
        As from ``Labels.matrices``.
    """
    transposed = candidates.T.tocsr()

    def scores(part: slice) -> Scores:
        return np.asarray((queries[part] @ transposed).toarray() > 0, dtype=np.float64)

    return scores


def by_family_and_length(family: Scorer, length: Scorer) -> Scorer:
    """Score the query's family first, and by length within it and outside it."""

    def scores(part: slice) -> Scores:
        return _FAMILY_SCORE * family(part) + length(part)

    return scores


def by_kmers(queries: Sequence[tuple[str, ...]], candidates: Sequence[tuple[str, ...]]) -> Scorer:
    """Score by the cosine of the counts of ``KMER``-mers.

    A structure's k-mers are those of its observed residues, read off the structure, which no
    encoder sees. So this is not a rival but a ceiling: it shows what retrieval is worth if the
    sequence is known on both sides.

    Parameters
    ----------
    queries, candidates : sequences of tuple of str
        The sequences of each protein's chains.

    Examples
    --------
    >>> by_kmers([("MKVLA",)], [("MKVLA",), ("GGGGG",)])(slice(0, 1)).round(3)
    array([[1., 0.]])
    """
    left, right = _kmer_profiles(queries), _kmer_profiles(candidates).T.tocsr()

    def scores(part: slice) -> Scores:
        return np.asarray((left[part] @ right).toarray())

    return scores


def by_cosine(queries: Float32, candidates: Float32) -> Scorer:
    """Score by dot products of (n, E) and (m, E) unit-length vectors."""

    def scores(part: slice) -> Scores:
        return np.asarray(queries[part] @ candidates.T)

    return scores


def _kmer_profiles(proteins: Sequence[tuple[str, ...]]) -> sparse.csr_array:
    """Return (n, 21 ** KMER) counts of k-mers, none across two chains, as unit-length rows."""
    base = len(AMINO_ACIDS) + 1  # every other letter is one more
    powers = base ** np.arange(KMER)
    rows, columns = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for index, chains in enumerate(proteins):
        for chain in chains:
            codes = amino_acid_codes(chain)
            if len(codes) >= KMER:
                kmers = np.lib.stride_tricks.sliding_window_view(codes, KMER) @ powers
                rows.append(np.full(len(kmers), index))
                columns.append(kmers)
    coordinates = np.concatenate(rows), np.concatenate(columns)
    counts = sparse.coo_array(
        (np.ones(len(coordinates[0])), coordinates), shape=(len(proteins), base**KMER)
    ).tocsr()
    norms = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    return sparse.csr_array(sparse.diags_array(1 / np.maximum(norms, 1e-12)) @ counts)
