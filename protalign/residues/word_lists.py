"""An inverted index of words: lists of the groups that have each word, and queries' hits in them.

Hits are counted on diagonals, as MMseqs2 and Foldseek do with k-mers (Steinegger and Söding 2017,
doi:10.1038/nbt.3988). Theirs are rare, so two on a diagonal are enough. A word is not, so a hit
counts for what it tells: the log-likelihood ratio of the query's residues and the word. Eight
residues of a target are a group, of which the word that tells most is listed, and eight residues of
a query are a group too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from protalign.core.arrays import Float32, Float64, Int32, Int64, UInt16, UInt32, Words
from protalign.core.machine import threads_here
from protalign.core.ragged import ascend, blocks
from protalign.residues.kernels.packed import share
from protalign.residues.kernels.word_scores import added_by_chance, compiled_loops, contiguous

#: Residues of a group.
GROUP = 8
#: Groups of a query that are counted together, at most. Those of a longer one are counted in parts.
MOST_OF_QUERY = 64
#: Columns of a block of lists, at most: a place is a uint16. A target has one for each of its
#: groups, and as many more as other diagonals may have, so that no hit counts for its neighbour.
MOST_COLUMNS = 1 << 16
#: The part of the pairs of a query's groups and the words that are hits, those of the largest
#: scores: 16 of 1,024 words for a group on average. Of few words one for a group on average.
_HITS = 1 / 64
#: Steps of a score in one nat, and the smallest and the largest score. A few pairs of residues have
#: more, far out where no residues were when the stage was fitted.
_STEPS, _LOWEST, _HIGHEST = 2.0, -8.0, 12.0
#: Steps that chance adds to a target's hits for each factor of e in its length.
_STEPS_OF_LENGTH = 24.0
#: Blocks that a thread counts in one call, at most.
_BLOCKS_AT_ONCE = 8
#: What a target counts for that is too long for lists: more than any other, so that it is scored.
_TOO_LONG = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class WordLists:
    """The inverted lists of a block of targets, which are sequences of words.

    Attributes
    ----------
    starts : (K + 1,) uint32
        Where the list of each word begins in ``places``, and the end of all.
    places : (G,) uint16
        The columns of the block's groups that have the word, ascending. A target of g groups has
        g + 63 columns after those of the target before; its groups are the first of them.

    Examples
    --------
    >>> words, offsets = np.array([0] * 8 + [2, 1, 0], np.uint16), np.array([0, 9, 11])
    >>> lists = WordLists.of(words, offsets, telling=np.array([1.0, 2.0, 3.0]))
    >>> lists.starts.tolist(), lists.places.tolist()  # words 0 and 2 of a target, 1 of another
    ([0, 1, 2, 3], [0, 65, 1])
    """

    starts: UInt32
    places: UInt16

    @classmethod
    def of(cls, words: Words, offsets: Int64, telling: Float64) -> Self:
        """List the words of a block of targets.

        Parameters
        ----------
        words : (R,) uint16
            Words of all targets, one after another.
        offsets : (n + 1,) int64
            Where each target begins in them, and the end of all.
        telling : (K,) float64
            How much each word tells. Of a group's words that with the largest number is listed; of
            equal ones the word with the larger number.

        Raises
        ------
        IndexError
            A word is not a whole number from 0 to below K, or the offsets do not ascend within
            the words.
        """
        if not (offsets[0] >= 0 and ascend(offsets) and offsets[-1] <= len(words)):
            raise IndexError(f"the offsets do not ascend within {len(words)} words")
        if words.dtype.kind not in "iu":
            raise IndexError(f"words of {words.dtype}, not whole numbers")
        lengths, words = listable(np.diff(offsets), words[offsets[0] : offsets[-1]])
        words = np.array(words)  # its own: a file may change between the check and the loop
        n_words = len(telling)
        if len(words) and words.min() < 0:
            raise IndexError(f"word {words.min()} of {n_words}")
        if len(words) and words.max() >= n_words:
            raise IndexError(f"word {words.max()} of {n_words}")
        order = np.argsort(telling, kind="stable").astype(np.uint16)
        ranks = np.empty(n_words, dtype=np.uint16)
        ranks[order] = np.arange(n_words)
        counts, widths = _sizes(lengths)
        starts = np.zeros(n_words + 1, dtype=np.uint32)
        places = np.empty(counts.sum(), dtype=np.uint16)
        compiled_loops().list_groups(
            contiguous(words),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.cumsum(widths) - widths,
            ranks,
            order,
            GROUP,
            starts,
            places,
        )
        return cls(starts, places)


def _sizes(lengths: Int64) -> tuple[Int64, Int64]:
    """Return the groups and the columns of targets by their residues: none if it is too long.

    A target may have 65,473 groups, 523,784 residues.
    """
    groups = lengths + (GROUP - 1)
    groups //= GROUP
    columns = groups + (MOST_OF_QUERY - 1)
    if len(lengths) and (columns.max() > MOST_COLUMNS or groups.min() <= 0):
        has_no_lists = (groups <= 0) | (columns > MOST_COLUMNS)
        groups[has_no_lists] = columns[has_no_lists] = 0
    return groups, columns


def listable(lengths: Int64, words: Words) -> tuple[Int64, Words]:
    """Return targets without the residues of those that are too long for lists.

    Parameters
    ----------
    lengths : (n,) int64
        Residues of each target.
    words : (R,) uint16
        Words of all, one after another.

    Examples
    --------
    >>> lengths, words = listable(np.array([1, 600_000, 2]), np.zeros(600_003, np.uint16))
    >>> lengths.tolist(), len(words)
    ([1, 0, 2], 3)
    """
    too_long = (lengths > 0) & (_sizes(lengths)[0] == 0)
    if not too_long.any():
        return lengths, words
    ends = np.cumsum(lengths)
    cuts = np.stack([ends - lengths, ends], axis=1)[too_long].reshape(-1)
    kept = np.split(words, cuts)[::2]  # what lies between them
    return np.where(too_long, 0, lengths), np.concatenate(kept)


@dataclass(frozen=True, slots=True, eq=False)
class ListBlocks:
    """How targets are cut into blocks of lists: as many, in order, as fit into a block's columns.

    Attributes
    ----------
    targets : (b + 1,) int64
        The first target of each block, and the targets of all.
    begins : (b + 1,) int64
        Places before each block, and of all.
    columns : (b,) int64
        Columns that a place may have: those up to the last group.

    Examples
    --------
    >>> cut = ListBlocks.of(np.array([400_000, 123_272, 9]))
    >>> cut.targets.tolist(), cut.begins.tolist(), cut.columns.tolist()
    ([0, 2, 3], [0, 65409, 65411], [65472, 2])
    """

    targets: Int64
    begins: Int64
    columns: Int64

    @classmethod
    def of(cls, lengths: Int64) -> Self:
        """Cut targets by their residues (n,)."""
        groups, widths = _sizes(lengths)
        targets = np.array([0, *(part.stop for part in blocks(widths, MOST_COLUMNS))])
        begins, ends = (
            np.concatenate([[0], np.cumsum(each)])[targets] for each in (groups, widths)
        )
        return cls(targets, begins, np.maximum(np.diff(ends) - (MOST_OF_QUERY - 1), 0))


@dataclass(frozen=True, slots=True, eq=False)
class ListedWords:
    """Targets that are sequences of words, with their inverted lists.

    Attributes
    ----------
    words : (R,) uint16
        Words of n targets, one after another, also memory-mapped.
    offsets : (n + 1,) int64
        Words before each target, and of all.
    targets : (b + 1,) int64
        The first target of each block (``ListBlocks``), and n.
    starts : (b, K + 1) uint32
        Those of the lists (``WordLists``) of each block.
    places : (G,) uint16
        The places of all blocks, one after another.
    """

    words: Words
    offsets: Int64
    targets: Int64
    starts: UInt32
    places: UInt16

    @classmethod
    def of(cls, words: Words, offsets: Int64, telling: Float64) -> Self:
        """List the words of some targets; see ``WordLists.of``."""
        targets = ListBlocks.of(np.diff(offsets)).targets
        lists = [
            WordLists.of(words, offsets[first : last + 1], telling)
            for first, last in pairwise(targets.tolist())
        ]
        starts = [each.starts for each in lists] or [np.empty(0, dtype=np.uint32)]
        places = [np.empty(0, dtype=np.uint16), *(each.places for each in lists)]
        return cls(words, offsets, targets, np.stack(starts)[: len(lists)], np.concatenate(places))


class QueryHits:
    """Pairs of several queries' groups and words that are hits, and what they count for.

    Parameters
    ----------
    queries : sequence of list of HitPairs
        Each query's pairs, of ``hit_pairs``.

    Examples
    --------
    >>> hits = QueryHits([hit_pairs(np.array([[2.0, -3.0, 1.0]] * 8))])
    >>> words, offsets = np.array([0, 0, 2, 0], np.uint16), np.array([0, 2, 4])
    >>> most_hits(hits, ListedWords.of(words, offsets, np.array([1.0, 2.0, 3.0]))).tolist()
    [[4, 0]]
    """

    def __init__(self, queries: Sequence[Sequence[HitPairs]]) -> None:
        parts = [(query, part) for query, several in enumerate(queries) for part in several]
        pairs = [HitPairs.none(), *(part for _, part in parts)]
        self.n_queries = len(queries)
        self.queries = np.array([query for query, _ in parts], dtype=np.int64)
        self.sizes = np.array([part.size for _, part in parts], dtype=np.int64)
        self.ends = np.cumsum([len(each.words) for each in pairs])
        self.groups = np.concatenate([each.groups for each in pairs])
        self.words = np.concatenate([each.words for each in pairs])
        self.weights = np.concatenate([each.weights for each in pairs])


@dataclass(frozen=True, slots=True, eq=False)
class HitPairs:
    """Pairs of a group and a word that are hits, of a part of a query.

    Attributes
    ----------
    size : int
        Groups of the part, at most 64.
    groups : (P,) int64
        The group of each pair, ascending.
    words : (P,) uint16
        Its word.
    weights : (P,) int64
        What a hit counts for, in steps of half a nat, more than 0.
    """

    size: int
    groups: Int64
    words: Words
    weights: Int64

    @classmethod
    def none(cls) -> Self:
        """Return no pairs."""
        return cls(0, np.empty(0, np.int64), np.empty(0, np.uint16), np.empty(0, np.int64))


def hit_pairs(scores: Float32) -> list[HitPairs]:
    """Return the pairs of a query's groups and words that are hits, for each part of the query.

    The score of a group is the logarithm of the mean likelihood ratio of its residues, which
    unrelated residues do not raise as they raise the best of eight.

    Parameters
    ----------
    scores : (L, K) float32
        Its scores with each word, in nats, at least one row.

    Examples
    --------
    >>> [part] = hit_pairs(np.array([[2.0, -3.0]] * 8 + [[-3.0, -2.0]]))
    >>> part.size, part.groups.tolist(), part.words.tolist(), part.weights.tolist()
    (2, [0], [0], [4])
    """
    first = np.arange(0, len(scores), GROUP)
    counts = np.diff(first, append=len(scores))[:, None]
    ratios = np.exp(np.clip(scores, _LOWEST, _HIGHEST), dtype=np.float32)
    groups = np.log(np.add.reduceat(ratios, first, axis=0) / counts.astype(np.float32))
    return [
        _pairs(groups[part : part + MOST_OF_QUERY]) for part in range(0, len(groups), MOST_OF_QUERY)
    ]


def _pairs(scores: Float32) -> HitPairs:
    """Return the pairs that are hits of (groups, K) scores: also those that equal the last."""
    every = scores.reshape(-1)
    n_pairs = max(len(scores), round(_HITS * len(every)))
    best = np.flatnonzero(every >= np.partition(every, -n_pairs)[-n_pairs])
    weights = np.rint(_STEPS * every[best]).astype(np.int64)
    best, weights = best[weights > 0], weights[weights > 0]
    groups, words = np.divmod(best, scores.shape[1])
    return HitPairs(len(scores), groups, words.astype(np.uint16), weights)


def most_hits(queries: QueryHits, targets: ListedWords) -> Int32:
    """Return what the hits on the best diagonal of each target count for, for each query.

    Parameters
    ----------
    queries : QueryHits
        Those of q queries.
    targets : ListedWords
        n targets; each word is below the queries' number of words, and each place is a column of
        its block's groups, which is not checked here.

    Returns
    -------
    (q, n) int32
        In steps, less what chance adds for a target's length: most are below 0.
    """
    lengths = np.diff(targets.offsets)
    most = np.zeros((queries.n_queries, len(lengths)), dtype=np.int32)
    groups, widths = _sizes(lengths)
    columns = np.concatenate([[0], np.cumsum(widths)])
    begins = np.concatenate([[0], np.cumsum(groups)])[targets.targets]
    n_blocks = len(targets.starts)
    n_threads = max(1, min(threads_here(), n_blocks))
    at_once = max(1, min(_BLOCKS_AT_ONCE, n_blocks // (4 * n_threads)))
    parts = iter(range(0, n_blocks, at_once))
    loops, places = compiled_loops(), contiguous(targets.places)

    def work(_: int) -> None:
        hits = np.empty(MOST_COLUMNS, dtype=np.uint16)
        for first in parts:  # threads share it: each takes the next as it has done one
            loops.most_hits(
                targets.starts[first : first + at_once],
                places,
                begins[first:],
                targets.targets[first:],
                columns,
                groups,
                queries.groups,
                queries.words,
                queries.weights,
                queries.queries,
                queries.sizes,
                queries.ends,
                hits,
                most,
            )

    share(n_threads, work)
    most[:, (lengths > 0) & (groups == 0)] = _TOO_LONG
    by_chance = np.rint(added_by_chance(lengths, _STEPS_OF_LENGTH)).astype(np.int32)
    most -= by_chance
    return most
