"""Words of residues: each stands for the residues of one modality near a centroid."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from protalign.core.arrays import Bool, Float32, Float64, Int64, Words
from protalign.core.checks import check_whole
from protalign.core.errors import InputError
from protalign.core.machine import threads_here
from protalign.core.protein import Modality
from protalign.core.threads import run_single_threaded
from protalign.residues.kernels.word_scores import WordProfile
from protalign.residues.word_lists import HitPairs, ListedWords, QueryHits, WordLists, hit_pairs

#: K, the words of a modality.
WORDS = 1024
#: K at least, since one word tells nothing, and at most: a word is a uint16.
LEAST_WORDS, MOST_WORDS = 2, 65_535
#: Residues of a modality that the centroids are computed from, at most.
SAMPLED = 150_000
#: Residues that k-means looks at in one step, and its rounds, at most.
_BATCH, _ROUNDS = 4096, 30
#: Centroids are the same if their squared distance is this share of the mean square.
_SAME = 1e-8
#: Rows compared with all centroids at once: 4 MB of products.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class ResidueWords:
    """The words of each modality, by rows of a residue stage.

    A residue is the word whose centroid is nearest, by all numbers of a row but the last two. A
    query of the other modality is compared with the words themselves: the log-likelihood ratio of
    its residue and a word is the mean of those with the word's residues, which is the product with
    the mean of their rows.

    Attributes
    ----------
    centroids : mapping
        Modality -> (K, k + 2) float32, mean rows of each word's residues. K is at most 65,535.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> words = ResidueWords.fit({"structure": rng.normal(size=(500, 6))}, n_words=8)
    >>> words.centroids["structure"].shape
    (8, 6)
    >>> words.of("structure", words.centroids["structure"]).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """

    centroids: Mapping[Modality, Float32]

    @classmethod
    def fit(
        cls,
        rows: Mapping[Modality, npt.ArrayLike],
        n_words: int = WORDS,
        seed: int = 0,
    ) -> Self:
        """Find the words of some residues by k-means.

        Parameters
        ----------
        rows : mapping
            Modality -> (R, k + 2), rows of some residues (``ResidueStage.plain_rows``), at
            least one.
        n_words : int
            K, from ``LEAST_WORDS`` to ``MOST_WORDS``; fewer if there are fewer different residues.
        seed : int
            The same seed gives the same words.

        Raises
        ------
        InputError
            ``n_words`` is too few or too many.
        """
        check_whole("n_words", n_words, LEAST_WORDS, MOST_WORDS)
        centroids = {
            m: _centroids(np.asarray(r, np.float32), n_words, seed) for m, r in rows.items()
        }
        return cls(centroids)

    def of(self, modality: Modality, rows: Float32) -> Words:
        """Return the (R,) uint16 words of residues by their rows (R, k + 2)."""
        return _nearest(rows[:, :-2], *self._ready[modality])

    def profile(self, modality: Modality, query: Float32) -> WordProfile:
        """Return a query's scores with the words of a modality.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The words' modality.
        query : (L, k + 2) float32
            Plain rows of a protein of the other modality, at least one.

        Raises
        ------
        InputError
            The query has no rows.
        """
        return WordProfile.of(self.scores(modality, query))

    def profiles(
        self, modality: Modality, queries: Sequence[Float32]
    ) -> tuple[list[WordProfile], QueryHits]:
        """Return queries' scores with words, and what hits in lists of the words count for.

        Products are small, so each thread makes those of some queries; see ``profile``.
        """
        profiles: list[WordProfile | None] = [None] * len(queries)
        pairs: list[list[HitPairs]] = [[]] * len(queries)
        places = iter(range(len(queries)))

        def prepare(_: int) -> None:
            for place in places:  # threads share it
                scores = self.scores(modality, queries[place])
                profiles[place] = WordProfile.of(scores)
                pairs[place] = hit_pairs(scores)

        run_single_threaded(max(1, min(threads_here(), len(queries))), prepare)
        return [each for each in profiles if each is not None], QueryHits(pairs)

    def listed(self, modality: Modality, words: Words, offsets: Int64) -> ListedWords:
        """Return targets of a modality, (R,) uint16 words, with their inverted lists.

        ``offsets`` (n + 1,) are the words before each target, and of all.
        """
        return ListedWords.of(words, offsets, self._telling[modality])

    def lists(self, modality: Modality, words: Words, offsets: Int64) -> WordLists:
        """Return the inverted lists of a block of targets; see ``WordLists.of``."""
        return WordLists.of(words, offsets, self._telling[modality])

    def scores(self, modality: Modality, query: Float32) -> Float32:
        """Return a query's (L, K) float32 scores with each word, in nats; see ``profile``."""
        if len(query) == 0:
            raise InputError("query: it has no residue rows", "give an array (residues, K)")
        rows, words = (
            torch.from_numpy(np.array(each, dtype=np.float32))  # torch warns of what is read-only
            for each in (query, self.centroids[modality])
        )
        scores: Float32 = (rows @ words.T).numpy()
        return scores

    @cached_property
    def _telling(self) -> dict[Modality, Float64]:
        """Modality -> how much each word tells: the more, the farther it is from 0, the mean.

        The log-likelihood ratio of the same residue to two residues that have nothing to do with
        each other is large there.
        """
        return {
            modality: np.square(centroids[:, :-2], dtype=np.float64).sum(axis=1)
            for modality, centroids in self.centroids.items()
        }

    @cached_property
    def _ready(self) -> dict[Modality, tuple[Float32, Float32]]:
        """Modality -> coordinates of the centroids, and half of their squared lengths."""
        ready: dict[Modality, tuple[Float32, Float32]] = {}
        for modality, centroids in self.centroids.items():
            coordinates = np.ascontiguousarray(centroids[:, :-2])
            ready[modality] = coordinates, 0.5 * (coordinates**2).sum(axis=1)
        return ready


def _nearest(points: Float32, centres: Float32, half_squares: Float32) -> Words:
    """Return the (n,) uint16 numbers of the centres nearest to (n, k) points.

    Products are small, so each thread compares blocks of its own. Those are cut in the same places
    for any number of threads: so are the last bits.
    """
    across, less = torch.from_numpy(centres).T, torch.from_numpy(-half_squares)
    nearest = np.empty(len(points), dtype=np.uint16)
    starts = range(0, len(points), _ROWS_AT_ONCE)
    threads = max(1, min(threads_here(), len(starts)))

    def compare(thread: int) -> None:
        for start in starts[thread::threads]:
            block = np.ascontiguousarray(points[start : start + _ROWS_AT_ONCE])
            products = torch.addmm(less, torch.from_numpy(block), across).numpy()
            nearest[start : start + _ROWS_AT_ONCE] = products.argmax(axis=1)

    run_single_threaded(threads, compare)
    return nearest


def _centroids(rows: Float32, n_words: int, seed: int) -> Float32:
    """Return the mean rows of the clusters that k-means finds, none of which is empty."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    points = rows[:, :-2]
    kmeans = MiniBatchKMeans(
        min(n_words, len(points)),
        batch_size=_BATCH,
        max_iter=_ROUNDS,
        n_init=1,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different residues than words
        centres = kmeans.fit(points).cluster_centers_.astype(np.float32)
    half_squares = 0.5 * (centres**2).sum(axis=1)
    nearest = _nearest(points, centres, half_squares)
    cluster = np.unique(nearest, return_inverse=True)[1]
    order = np.argsort(cluster, kind="stable")
    begin = np.searchsorted(cluster[order], np.arange(cluster.max() + 1))
    sums = np.add.reduceat(rows[order].astype(np.float64), begin, axis=0)
    means = sums / np.bincount(cluster)[:, None]
    return np.ascontiguousarray(means[~_is_repeated(means[:, :-2])], dtype=np.float32)


def _is_repeated(points: Float64) -> Bool:
    """Return (n,) bool: whether an earlier point is the same but for rounding.

    If there are fewer different residues than words, k-means has some words several times, and the
    last bit would decide between them.
    """
    squares = (points**2).sum(axis=1)
    same, repeated = _SAME * squares.mean(), np.zeros(len(points), dtype=np.bool_)
    for start in range(0, len(points), _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        distances = squares[block, None] + squares - 2 * points[block] @ points.T
        repeated |= np.triu(distances <= same, start + 1).any(axis=0)
    return repeated
