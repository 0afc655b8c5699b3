"""Group sequences that share k-mers, so that whole groups can be held out.

Two sequences are linked if they have at least `MIN_SHARED` different words of `WORD` residues
in common and these are at least `MIN_SHARE` of the shorter one's words; a cluster is a connected
component of those links. Two unrelated proteins of 400 residues share 400 * 400 / 20**6 = 0.0025
words of six, so shared words are a sign of homology. Words of fewer than four different
letters (repeats, tags) do not count. The rule finds homologs down to about 50 % identity; more
distant ones can fall in different clusters. Without `MIN_SHARE`, proteins of several domains chain
most families into one.

A word's sequences are compared along a line and with the longest of them instead of all with all:
the work grows with the number of residues, as in linclust (Steinegger & Söding 2018).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import (  # type: ignore[import-untyped]
    connected_components,
)

from protalign.core.protein import AMINO_ACIDS

WORD = 6
MIN_SHARED = 3
MIN_SHARE = 0.05
_CODES = np.full(256, 0, dtype=np.int64)
for _index, _residue in enumerate(AMINO_ACIDS):
    _CODES[ord(_residue)] = _index


def _words(sequence: str) -> NDArray[np.int64]:
    """Return a sequence's different words as sorted base-20 numbers, without repeats."""
    codes = _CODES[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
    if len(codes) < WORD:
        return np.empty(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, WORD)
    in_order = np.sort(windows, axis=1)
    varied = (in_order[:, 1:] != in_order[:, :-1]).sum(axis=1) >= 3
    return np.unique(windows[varied] @ 20 ** np.arange(WORD))


def _candidate_pairs(words: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return pairs of sequences that share a word, one row per word: (pairs, 2)."""
    owner = np.repeat(np.arange(len(words)), [len(each) for each in words])
    word = np.concatenate(words)
    order = np.argsort(word, kind="stable")
    word, owner = word[order], owner[order]
    starts = np.flatnonzero(np.concatenate([[True], word[1:] != word[:-1]]))
    first = np.repeat(owner[starts], np.diff(np.append(starts, len(word))))
    to_longest = np.stack([first, owner], axis=1)
    along_line = np.stack([owner[:-1], owner[1:]], axis=1)[word[1:] == word[:-1]]
    return np.concatenate([to_longest[first != owner], along_line])


def cluster(sequences: Sequence[str]) -> NDArray[np.int64]:
    """Return the cluster number of every sequence: (sequences,), numbered from 0."""
    size = len(sequences)
    # Sequences are ordered by length, so that a word's first sequence is its longest.
    by_length = np.argsort([-len(sequence) for sequence in sequences], kind="stable")
    words = [_words(sequences[i]) for i in by_length]
    pairs = _candidate_pairs(words)
    ones = np.ones(len(pairs), dtype=np.int32)
    # The conversion to CSR adds up the words that a pair shares.
    shared = coo_array((ones, (pairs[:, 0], pairs[:, 1])), (size, size)).tocsr().tocoo()
    count = np.array([len(each) for each in words])
    shorter = np.minimum(*(count[axis] for axis in shared.coords))
    needed = np.maximum(MIN_SHARED, MIN_SHARE * shorter)
    kept = shared.data >= needed
    first, second = (axis[kept] for axis in shared.coords)
    links = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), (size, size))
    _, labels = connected_components(links, directed=False)
    result = np.empty(size, dtype=np.int64)
    result[by_length] = labels
    return result


def _digest(sequences: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{WORD},{MIN_SHARED},{MIN_SHARE}".encode())
    for sequence in sequences:
        digest.update(sequence.encode() + b"\n")
    return digest.hexdigest()[:16]


def cached_clusters(sequences: Sequence[str], folder: Path) -> NDArray[np.int64]:
    """Return `cluster(sequences)`, cached in a text file of `folder` named after its input."""
    path = folder / f"clusters-{_digest(sequences)}.txt"
    if path.exists():
        return np.loadtxt(path, dtype=np.int64, ndmin=1)
    labels = cluster(sequences)
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, labels, fmt="%d")
    return labels


def held_out(
    labels: NDArray[np.int64], weights: NDArray[np.int64], share: float, seed: int
) -> NDArray[np.bool_]:
    """Choose whole clusters at random until they hold `share` of the weight: (sequences,) bool.

    Clusters above a fifth of that share are never selected: no family is most of the validation.
    """
    size = np.bincount(labels, weights=weights)
    goal = share * size.sum()
    order = np.random.default_rng([seed, 0x5E9]).permutation(len(size))
    order = order[size[order] <= max(goal / 5, size.min())]
    selected = order[np.cumsum(size[order]) <= goal]
    return np.isin(labels, selected)
