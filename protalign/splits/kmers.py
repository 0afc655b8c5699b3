"""Similarity of sequences from the k-mers that they share: coarse, and needs no other program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.core.protein import AMINO_ACIDS

#: Letters of a k-mer: of two unrelated chains of 300 residues, one k-mer in 300 is in both.
K = 4
#: Queries compared at once.
BLOCK = 512
#: Fewest k-mers that two sequences must share.
LEAST_SHARED = 3
#: Lower estimates than this are noise: repeats and common motifs would link all families.
LEAST_IDENTITY = 0.5

_CODE = np.full(256, -1, dtype=np.int64)
_CODE[[ord(letter) for letter in AMINO_ACIDS]] = range(20)


def kmer_pairs(
    queries: Sequence[str], targets: Sequence[str]
) -> tuple[Int64, Int64, npt.NDArray[np.float32]]:
    """Pairs that share more k-mers than chance would give, and an estimate of their identity.

    Where each residue of the shorter sequence is kept with probability p, about p^K of its k-mers
    are: the estimate is (shared / k-mers of the one that has fewer)^(1/K). A pair counts where it
    shares at least 3 k-mers, more than 5 standard deviations above what two random sequences of
    the input's composition share, and where the estimate is at least 0.5.

    Returns
    -------
    query, target : (m,) int64 indices.
    identity : (m,) float32, 0.5 to 1.
    """
    from scipy.sparse import coo_array

    asked, known = _kmer_sets(queries), _kmer_sets(targets)
    chance = _chance_of_equal_kmers([*queries, *targets])
    asked_sizes, known_sizes = (np.diff(sets.indptr).astype(np.float64) for sets in (asked, known))
    transposed = known.T.tocsr()
    found = []
    for start in range(0, len(queries), BLOCK):
        shared = coo_array(asked[start : start + BLOCK] @ transposed)
        query, target = shared.coords[0].astype(np.int64) + start, shared.coords[1].astype(np.int64)
        n_query, n_target = asked_sizes[query], known_sizes[target]
        by_chance = n_query * n_target * chance
        least = np.maximum(LEAST_SHARED, by_chance + 5 * np.sqrt(by_chance))
        identity = (shared.data / np.minimum(n_query, n_target)) ** (1 / K)
        real = (shared.data >= least) & (identity >= LEAST_IDENTITY)
        found.append((query[real], target[real], identity[real].astype(np.float32)))
    if not found:
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, np.empty(0, dtype=np.float32)
    query, target, identity = (np.concatenate(column) for column in zip(*found, strict=True))
    return query, target, identity


def _kmer_sets(sequences: Sequence[str]) -> Any:
    """(n, 20^K) sparse array, 1 where a sequence has the k-mer; those with an X count as none."""
    from scipy.sparse import csr_array

    indices, ends = [], [0]
    for sequence in sequences:
        codes = _CODE[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
        windows = np.lib.stride_tricks.sliding_window_view(codes, K) if len(codes) >= K else None
        if windows is None:
            ends.append(ends[-1])
            continue
        whole = windows[(windows >= 0).all(axis=1)]
        indices.append(np.unique(whole @ 20 ** np.arange(K)))
        ends.append(ends[-1] + len(indices[-1]))
    columns = np.concatenate([np.empty(0, dtype=np.int64), *indices])
    data = np.ones(len(columns), dtype=np.int32)
    return csr_array((data, columns, ends), shape=(len(sequences), 20**K))


def _chance_of_equal_kmers(sequences: Sequence[str]) -> float:
    """Probability that two random k-mers of the sequences' composition are the same."""
    codes = _CODE[np.frombuffer("".join(sequences).encode("ascii"), dtype=np.uint8)]
    counts = np.bincount(codes[codes >= 0], minlength=20)
    frequency = counts / max(1, counts.sum())
    return float((frequency**2).sum() ** K)
