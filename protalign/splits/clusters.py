"""Similarity of sequences, and clusters of similar ones: by MMseqs2, or by k-mers without it.

Two sequences are *similar at identity x* if a local alignment of them has at least x of its columns
equal (gaps count as unequal) and covers at least 80 % of one of the two: a domain is similar to the
longer protein that contains it, since knowledge of one is knowledge of the other. Clusters are the
connected components of similarity (single linkage). Two sequences in different clusters are
therefore never similar, as far as the search can tell; members of one cluster may be linked through
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import get_args

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.checks import check_choice
from protalign.core.errors import InputError
from protalign.core.words import ClusterMethod
from protalign.splits.kmers import kmer_pairs
from protalign.splits.mmseqs import HomologyError, find_mmseqs, mmseqs_pairs, mmseqs_version

METHODS: tuple[ClusterMethod, ...] = get_args(ClusterMethod)
#: For clusters at up to this identity, a sequence represents those with about this identity by
#: k-mers and this ratio of lengths.
REPRESENTED_UP_TO, NEAR_IDENTITY, NEAR_LENGTH = 0.8, 0.9, 0.95
KMER_FALLBACK = "k-mer fallback (coarse: misses homologs below about 50 % identity)"


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """A partition of n sequences or proteins.

    Attributes
    ----------
    labels : (n,) int64
        Cluster of each, numbered 0, 1, … by first appearance.
    method : str
        The method in words.
    """

    labels: Int64
    method: str

    def __len__(self) -> int:
        """Return the number of clusters."""
        return int(self.labels.max(initial=-1)) + 1


def cluster(
    sequences: Sequence[str], identity: float, *, method: ClusterMethod = "auto"
) -> Clusters:
    """Cluster sequences at an identity, by single linkage (see the module's text).

    Parameters
    ----------
    sequences : sequence of str
        One-letter codes. Equal sequences are always together; empty ones are together.
    identity : float
        Above 0, at most 1.
    method : "auto", "mmseqs" or "kmer"
        "auto" takes MMseqs2 if it is found, else k-mers.

    Returns
    -------
    Clusters

    Raises
    ------
    InputError
        The identity is out of range, or the method is unknown.
    HomologyError
        MMseqs2 failed, or method="mmseqs" and it is missing.

    Examples
    --------
    >>> one, other = "MKVLAAGIVGLCHWERTYPDNQ" * 3, "GSHMASWPLEDNCYFTRQIKVA" * 3
    >>> cluster([one, other, one[:60]], 0.8, method="kmer").labels
    array([0, 1, 0])
    """
    return cluster_proteins([(sequence,) for sequence in sequences], identity, method=method)


def cluster_proteins(
    proteins: Sequence[Sequence[str]], identity: float, *, method: ClusterMethod = "auto"
) -> Clusters:
    """Cluster proteins of several chains: two are linked if any of their chains are similar.

    Chains are compared one by one, not joined end to end: joined, an antibody with a large antigen
    and the same antibody alone would count as unrelated, and a model would be tested on a chain
    that it was trained on.

    Parameters
    ----------
    proteins : sequence of sequences of str
        The chains' sequences of each protein.
    identity, method
        As for ``cluster``, as are the errors.

    Returns
    -------
    Clusters
    """
    if not 0 < identity <= 1:
        raise InputError(
            f"identity={identity!r}: out of range", "give a number above 0 and at most 1"
        )
    chains = sorted(set(chain.from_iterable(proteins)))
    number = {sequence: index for index, sequence in enumerate(chains)}
    pairs = _linking_pairs(chains, identity, method)
    similar = pairs.identity >= np.float32(identity)
    protein = np.repeat(np.arange(len(proteins)), [len(chains_) for chains_ in proteins])
    chain_of = np.array([number[s] for chains_ in proteins for s in chains_], dtype=np.int64)
    # One graph of proteins and chains; a protein is linked to each of its chains.
    left = np.concatenate([pairs.query[similar] + len(proteins), protein])
    right = np.concatenate([pairs.target[similar] + len(proteins), chain_of + len(proteins)])
    labels = _components(left, right, len(proteins) + len(chains))[: len(proteins)]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return Clusters(rank[inverse], pairs.method)


def best_identity(
    queries: Sequence[str], targets: Sequence[str], *, method: ClusterMethod = "auto"
) -> Float32:
    """Return the highest identity of each query to a target that it is similar to.

    Parameters
    ----------
    queries, targets : sequences of str
        One-letter codes.
    method
        As for ``cluster``, as are the errors.

    Returns
    -------
    (q,) float32
        0 to 1: 1 for equal sequences; 0 if no significant alignment covers 80 % of the query or of
        the target.

    Examples
    --------
    >>> one, other = "MKVLAAGIVGLCHWERTYPDNQ" * 3, "GSHMASWPLEDNCYFTRQIKVA" * 3
    >>> best_identity([one, other], [one], method="kmer")
    array([1., 0.], dtype=float32)
    """
    unique_queries, unique_targets = sorted(set(queries)), sorted(set(targets))
    pairs = _similar_pairs(unique_queries, unique_targets, 0.0, method)
    best = np.zeros(len(unique_queries), dtype=np.float32)
    np.maximum.at(best, pairs.query, pairs.identity)
    equal = set(unique_targets)  # an array of texts would be as wide as the longest
    best[[sequence in equal for sequence in unique_queries]] = 1
    number = {sequence: index for index, sequence in enumerate(unique_queries)}
    return best[[number[sequence] for sequence in queries]]


def method_in_words(method: ClusterMethod = "auto") -> str:
    """Return the method in words: "MMseqs2 18-8cc5c", or the k-mer fallback.

    Examples
    --------
    >>> method_in_words("kmer")
    'k-mer fallback (coarse: misses homologs below about 50 % identity)'
    """
    program = _program(method)
    return KMER_FALLBACK if program is None else f"MMseqs2 {mmseqs_version(program)}"


@dataclass(frozen=True, slots=True, eq=False)
class _SimilarPairs:
    """(m,) indices of similar sequences, their identities, and the method in words."""

    query: Int64
    target: Int64
    identity: Float32
    method: str


def _program(method: ClusterMethod) -> Path | None:
    """Return MMseqs2, or None for the fallback."""
    check_choice("method", method, METHODS)
    program = None if method == "kmer" else find_mmseqs()
    if program is None and method == "mmseqs":
        raise HomologyError(
            'MMseqs2: not found; pip install "protalign[cluster]", or put mmseqs on the PATH'
        )
    return program


def _similar_pairs(
    queries: Sequence[str], targets: Sequence[str], identity: float, method: ClusterMethod
) -> _SimilarPairs:
    program = _program(method)
    columns = (
        kmer_pairs(queries, targets)
        if program is None
        else mmseqs_pairs(program, queries, targets, identity)
    )
    return _SimilarPairs(*columns, method_in_words(method))


def _linking_pairs(
    sequences: Sequence[str], identity: float, method: ClusterMethod
) -> _SimilarPairs:
    """Return enough pairs to link all similar sequences.

    Of 1,000 mutants one is compared with everything else, and each of the others with it: otherwise
    a family would cost the square of its size in alignments.
    """
    if method == "kmer" or identity > REPRESENTED_UP_TO:
        return _similar_pairs(sequences, sequences, identity, method)
    representative = _representatives(sequences)
    member = np.flatnonzero(representative != np.arange(len(sequences)))
    subset = np.unique(representative)
    texts = [sequences[index] for index in subset]
    pairs = _similar_pairs(texts, texts, identity, method)
    return _SimilarPairs(
        np.concatenate([subset[pairs.query], member]),
        np.concatenate([subset[pairs.target], representative[member]]),
        np.concatenate([pairs.identity, np.ones(len(member), dtype=np.float32)]),
        pairs.method,
    )


def _representatives(sequences: Sequence[str]) -> Int64:
    """Return (n,) index of each sequence's representative: itself, or a longer one.

    Longest first, a sequence represents all that share nearly all k-mers and the length with it.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    query, target, identity = kmer_pairs(sequences, sequences)
    ratio = np.minimum(lengths[query], lengths[target]) / np.maximum(
        lengths[query], lengths[target]
    )
    near = (identity >= NEAR_IDENTITY) & (ratio >= NEAR_LENGTH)
    order = np.argsort(query[near], kind="stable")
    query, target = query[near][order], target[near][order]
    begins = np.searchsorted(query, np.arange(len(sequences) + 1))
    representative = np.full(len(sequences), -1, dtype=np.int64)
    for index in np.argsort(-lengths, kind="stable").tolist():
        if representative[index] < 0:
            close = target[begins[index] : begins[index + 1]]
            representative[close[representative[close] < 0]] = index
            representative[index] = index
    return representative


def _components(left: Int64, right: Int64, count: int) -> Int64:
    """Return (count,) component of each node of a graph with these edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(count, count))
    labels: Int64 = connected_components(links, directed=False)[1].astype(np.int64)
    return labels
