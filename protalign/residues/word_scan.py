"""Targets that are sequences of words, compared with several queries in two steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protalign.core.arrays import Bool, Float32, Int32, Int64
from protalign.core.machine import threads_here
from protalign.core.protein import Modality
from protalign.residues.kernels.packed import share
from protalign.residues.kernels.word_scores import (
    compiled_loops,
    scores_of,
    without_length,
)
from protalign.residues.word_lists import ListedWords, most_hits
from protalign.residues.words import ResidueWords

#: The part of the targets that hits choose, and how many they choose at least for each that is
#: wanted. Of 240 queries 233 find the first hit of a full local comparison among their 200 best of
#: 1,000,000, and 233 if all are scored; 234 and 233 that of the best diagonals
#: (benchmarks/quality/words.py --made-up 1000000 --queries 60 --seeds 4).
_KEPT, _AT_LEAST = 1 / 32, 8


class WordScan:
    """Queries, ready to be compared with targets of the other modality.

    Targets have inverted lists of words. A query's hits in them are added up on each diagonal, and
    the targets with the best diagonals are chosen: one in 32, and those that equal the last of
    them. These are scored by all their words. So some of the best may be missing, rarely the first.
    If there are few targets, all are scored. What is found for a query does not depend on the other
    queries.

    Parameters
    ----------
    words : ResidueWords
        The words that targets are made of.
    modality : "sequence" or "structure"
        The targets' modality.
    queries : sequence of (L, k + 2) float32
        Plain rows (``ResidueStage.plain_rows``) of proteins of the other modality.

    Raises
    ------
    InputError
        A query has no rows.

    Examples
    --------
    >>> words = ResidueWords({"structure": np.eye(3, 5, dtype=np.float32)})
    >>> query = 9 * np.eye(2, 5, dtype=np.float32) - 3  # two residues that fit words 0 and 1
    >>> scan = WordScan(words, "structure", [query])
    >>> listed = words.listed("structure", np.array([0, 1, 2], np.uint16), np.array([0, 2, 3]))
    >>> [(targets, scores)] = scan.scores(listed, 1)
    >>> targets.tolist(), scores.tolist()
    ([0, 1], [6.0, 0.0])
    """

    def __init__(self, words: ResidueWords, modality: Modality, queries: Sequence[Float32]) -> None:
        self._profiles, self._hits = words.profiles(modality, queries)

    def scores(
        self, targets: ListedWords, k: int, inside: Bool | None = None
    ) -> list[tuple[Int64, Float32]]:
        """Score the targets that are likely to be among the best k of each query.

        Parameters
        ----------
        targets : ListedWords
            n targets; each word is one of the words, which is not checked here.
        k : int
            Targets that are wanted, at least 1.
        inside : (n,) bool, optional
            The targets to score; default: all.

        Returns
        -------
        list of (targets, scores)
            For each query (m,) int64 targets, ascending, at least k if there are so many, and
            (m,) float32 scores: ``word_scores`` less what chance adds for the length.
        """
        lengths = np.diff(targets.offsets)
        among = np.arange(len(lengths)) if inside is None else np.flatnonzero(inside)
        wanted = [among] * len(self._profiles)
        n_kept = max(round(_KEPT * len(among)), _AT_LEAST * k)
        if n_kept < len(among):
            hits = most_hits(self._hits, targets)
            hits = hits if len(among) == len(lengths) else np.take(hits, among, axis=1)
            wanted = [among[places] for places in _largest(hits, n_kept)]
        jobs = list(zip(self._profiles, wanted, strict=True))
        return [
            (each, without_length(scores, lengths[each]))
            for each, scores in zip(
                wanted, scores_of(jobs, targets.words, targets.offsets), strict=True
            )
        ]


def _largest(scores: Int32, count: int) -> list[Int64]:
    """Return the places of each row's largest: ``count``, and all that equal the last of them."""
    found: list[Int64] = [np.empty(0, dtype=np.int64)] * len(scores)
    largest, rows = compiled_loops().largest, iter(range(len(scores)))

    def work(_: int) -> None:
        for row in rows:  # threads may share it
            found[row] = largest(scores[row], count)

    share(max(1, min(threads_here(), len(scores))), work)
    return found
