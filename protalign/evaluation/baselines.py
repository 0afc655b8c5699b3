"""What retrieval is worth without a model: scores of candidates that anyone could give.

A baseline is a function of the queries' positions that gives their scores, (b, m); ties are exact
and are resolved in expectation, not by drawing (``protalign.evaluation.ranking.Standing``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import AMINO_ACIDS

Scores = npt.NDArray[Any]
Scorer = Callable[[slice], Scores]

#: Length of the words whose counts are compared.
KMER = 3
#: More than any difference of lengths: what a family counts beside it.
_FAR = 1e9
#: Letter -> code; every letter but the standard 20 is one more.
_CODES = np.full(128, len(AMINO_ACIDS), dtype=np.int64)
_CODES[[ord(letter) for letter in AMINO_ACIDS]] = np.arange(len(AMINO_ACIDS))


def by_chance(n_candidates: int) -> Scorer:
    """Every candidate alike."""

    def scores(queries: slice) -> Scores:
        return np.zeros((queries.stop - queries.start, n_candidates), dtype=np.float32)

    return scores


def by_length(queries: Int64, candidates: Int64) -> Scorer:
    """The nearest number of residues first: equal ones, then those that differ by 1, …"""

    def scores(part: slice) -> Scores:
        return np.asarray(-abs(queries[part, None] - candidates), dtype=np.float64)

    return scores


def by_family(queries: sparse.csr_array, candidates: sparse.csr_array) -> Scorer:
    """The query's own family first; within it, and outside it, every candidate alike."""
    transposed = candidates.T.tocsr()

    def scores(part: slice) -> Scores:
        return np.asarray((queries[part] @ transposed).toarray() > 0, dtype=np.float64)

    return scores


def by_family_and_length(family: Scorer, length: Scorer) -> Scorer:
    """The query's own family first, and the nearest length within it."""

    def scores(part: slice) -> Scores:
        return _FAR * family(part) + length(part)

    return scores


def by_kmers(queries: Sequence[tuple[str, ...]], candidates: Sequence[tuple[str, ...]]) -> Scorer:
    """Cosine of the counts of ``KMER``-letter words.

    A structure's words are those of its own observed residues, read off the structure: no encoder
    sees them. So this is no rival but a ceiling, what retrieval is worth to one who may read the
    letters on both sides.
    """
    left, right = _kmer_profiles(queries), _kmer_profiles(candidates).T.tocsr()

    def scores(part: slice) -> Scores:
        return np.asarray((left[part] @ right).toarray())

    return scores


def by_cosine(queries: Float32, candidates: Float32) -> Scorer:
    """Dot products of unit-length vectors."""

    def scores(part: slice) -> Scores:
        return np.asarray(queries[part] @ candidates.T)

    return scores


def _kmer_profiles(proteins: Sequence[tuple[str, ...]]) -> sparse.csr_array:
    """(n, 21 ** KMER) counts of each protein's words, no word across two chains; unit length."""
    base = len(AMINO_ACIDS) + 1
    powers = base ** np.arange(KMER)
    rows, words = [], []
    for place, chains in enumerate(proteins):
        for chain in chains:
            codes = _CODES[np.frombuffer(chain.encode("ascii"), dtype=np.uint8)]
            if len(codes) >= KMER:
                own = np.lib.stride_tricks.sliding_window_view(codes, KMER) @ powers
                rows.append(np.full(len(own), place))
                words.append(own)
    none = [np.empty(0, dtype=np.int64)]
    index = np.concatenate([*none, *rows]), np.concatenate([*none, *words])
    counts = sparse.coo_array(
        (np.ones(len(index[0])), index), shape=(len(proteins), base**KMER)
    ).tocsr()
    norms = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    return sparse.csr_array(sparse.diags_array(1 / np.maximum(norms, 1e-12)) @ counts)
