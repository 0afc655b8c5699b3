"""Similarity of sequences by the k-mers that they share: coarse, but needs no other program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import AMINO_ACIDS, OTHER_LETTER, amino_acid_codes

#: Length of a k-mer. Two unrelated chains of 300 residues share one k-mer in 300.
K = 4
#: The fewest k-mers that two similar sequences share.
LEAST_SHARED = 3
#: Standard deviations by which they share more than two random sequences.
LEAST_SIGMAS = 5
#: Lower estimates are noise: repeats and common motifs would link all families.
LEAST_IDENTITY = 0.5
#: Queries compared at once.
_QUERIES_AT_ONCE = 512


def kmer_pairs(queries: Sequence[str], targets: Sequence[str]) -> tuple[Int64, Int64, Float32]:
    """Find pairs that share more k-mers than by chance, and estimate their identity.

    If each residue of the shorter sequence is conserved with probability p, about p^K of its k-mers
    are: the estimate is (shared / k-mers of the one that has fewer)^(1/K). A pair counts if it
    shares at least ``LEAST_SHARED`` k-mers, more than ``LEAST_SIGMAS`` standard deviations above
    what two random sequences of the input's composition share, and if the estimate is at least
    ``LEAST_IDENTITY``.

    Parameters
    ----------
    queries, targets : sequences of str
        One-letter codes.

    Returns
    -------
    query, target : (m,) int64
        Indices.
    identity : (m,) float32
        ``LEAST_IDENTITY`` to 1.

    Examples
    --------
    >>> one, other = "MKVLAAGIVGLCHWERTYPDNQ" * 3, "GSHMASWPLEDNCYFTRQIKVA" * 3
    >>> kmer_pairs([other, one], [one])
    (array([1]), array([0]), array([1.], dtype=float32))
    """
    from scipy.sparse import coo_array

    query_sets, target_sets = _kmer_sets(queries), _kmer_sets(targets)
    chance = _chance_of_equal_kmers([*queries, *targets])
    query_sizes, target_sizes = (
        np.diff(sets.indptr).astype(np.float64) for sets in (query_sets, target_sets)
    )
    transposed = target_sets.T.tocsr()
    empty = np.empty(0, dtype=np.int64)
    parts = [(empty, empty, np.empty(0, dtype=np.float32))]
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        shared = coo_array(query_sets[start : start + _QUERIES_AT_ONCE] @ transposed)
        query, target = shared.coords[0].astype(np.int64) + start, shared.coords[1].astype(np.int64)
        n_query, n_target = query_sizes[query], target_sizes[target]
        by_chance = n_query * n_target * chance
        least = np.maximum(LEAST_SHARED, by_chance + LEAST_SIGMAS * np.sqrt(by_chance))
        identity = (shared.data / np.minimum(n_query, n_target)) ** (1 / K)
        similar = (shared.data >= least) & (identity >= LEAST_IDENTITY)
        parts.append((query[similar], target[similar], identity[similar].astype(np.float32)))
    query, target, identity = (np.concatenate(column) for column in zip(*parts, strict=True))
    return query, target, identity


def _kmer_sets(sequences: Sequence[str]) -> Any:
    """Return an (n, 20^K) sparse array: 1 if a sequence has the k-mer, none across an X."""
    from scipy.sparse import csr_array

    indices, ends = [np.empty(0, dtype=np.int64)], [0]
    for sequence in sequences:
        codes = amino_acid_codes(sequence)
        if len(codes) >= K:
            windows = np.lib.stride_tricks.sliding_window_view(codes, K)
            standard = windows[(windows < OTHER_LETTER).all(axis=1)]
            indices.append(np.unique(standard @ len(AMINO_ACIDS) ** np.arange(K)))
            ends.append(ends[-1] + len(indices[-1]))
        else:
            ends.append(ends[-1])
    columns = np.concatenate(indices)
    data = np.ones(len(columns), dtype=np.int32)
    return csr_array((data, columns, ends), shape=(len(sequences), len(AMINO_ACIDS) ** K))


def _chance_of_equal_kmers(sequences: Sequence[str]) -> float:
    """Return the probability that two random k-mers of the sequences' composition are equal."""
    codes = amino_acid_codes("".join(sequences))
    counts = np.bincount(codes[codes < OTHER_LETTER], minlength=len(AMINO_ACIDS))
    frequency = counts / max(1, counts.sum())
    return float((frequency**2).sum() ** K)
