"""An inverted index of words: lists of where each word occurs, and the hits of queries in them.

Hits are counted on diagonals, as MMseqs2 and Foldseek do with k-mers (Steinegger and Söding 2017,
doi:10.1038/nbt.3988). Theirs are rare, so two on a diagonal are enough. A word is not, so a hit
counts for what it tells: the log-likelihood ratio of the query's residues and the word. Eight
residues of a target are a group, of which the word that tells most is listed, and eight residues of
a query are a group too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from protalign.core.arrays import Float32, Int32, Int64, UInt32, Words
from protalign.core.machine import threads_here
from protalign.core.ragged import blocks
from protalign.residues.kernels.packed import share
from protalign.residues.kernels.word_scores import added_by_chance, compiled_loops, contiguous

#: Residues of a group.
GROUP = 8
#: Groups of a block of lists, at most: a place is a uint16.
MOST_GROUPS = 1 << 15
#: Groups of a query that are counted together, at most. Those of a longer one are counted in parts,
#: so that few hits of a target's neighbours count for it.
_MOST_OF_QUERY = 64
#: The part of the pairs of a query's groups and the words that are hits, those of the largest
#: scores: 16 of 1,024 words for each group.
_HITS = 1 / 64
#: Steps of a score in one nat, and the smallest and the largest score. A few pairs of residues have
#: more, far out where no residues were when the stage was fitted.
STEPS, _LOWEST, _HIGHEST = 2.0, -8.0, 12.0
#: Steps that chance adds to a target's hits for each factor of e in its length.
_STEPS_OF_LENGTH = 24.0
#: Blocks that a thread counts in one call.
_BLOCKS_AT_ONCE = 8
#: What a target counts for that is too long for lists, so that it is scored in any case.
_TOO_LONG = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class WordLists:
    """The inverted lists of a block of targets, which are sequences of words.

    Attributes
    ----------
    starts : (K + 1,) uint32
        Where the list of each word begins in ``places``, and the end of all.
    places : (G,) uint16
        The groups of the block that have the word, ascending; G is at most ``MOST_GROUPS``. Groups
        are counted on from target to target, and each begins with one.

    Examples
    --------
    >>> words, offsets = np.array([0] * 8 + [2, 1, 0], np.uint16), np.array([0, 9, 11])
    >>> lists = WordLists.of(words, offsets, telling=np.array([1.0, 2.0, 3.0]))
    >>> lists.starts.tolist(), lists.places.tolist()  # words 0 and 2 of a target, 1 of another
    ([0, 1, 2, 3], [0, 2, 1])
    """

    starts: UInt32
    places: Words

    @classmethod
    def of(cls, words: Words, offsets: Int64, telling: Float32) -> Self:
        """List the words of a block of targets.

        Parameters
        ----------
        words : (R,) uint16
            Words of all targets, one after another.
        offsets : (n + 1,) int64
            Where each target begins in them, and the end of all.
        telling : (K,) float32
            How much each word tells. Of a group's words the one with the largest number is listed;
            of equal ones the later word.
        """
        n_words = len(telling)
        order = np.argsort(telling, kind="stable")
        ranks = np.empty(n_words, dtype=np.uint16)
        ranks[order] = np.arange(n_words)
        counts = n_groups(np.diff(offsets))
        ends = np.cumsum(counts)
        first = np.repeat(offsets[:-1] - GROUP * (ends - counts), counts)
        first += GROUP * np.arange(len(first))
        # the next group may begin later: a target that is too long for lists has none
        last = np.minimum(first + GROUP, np.repeat(offsets[1:], counts))
        edges = np.stack([first, last], axis=1).reshape(-1)
        padded = np.append(ranks[words], np.uint16(0))
        most = np.maximum.reduceat(padded, edges)[::2] if len(edges) else padded[:0]
        listed = order[most]
        starts = np.zeros(n_words + 1, dtype=np.uint32)
        np.cumsum(np.bincount(listed, minlength=n_words), out=starts[1:])
        places = np.argsort(listed.astype(np.uint16), kind="stable").astype(np.uint16)
        return cls(starts, places)


def n_groups(lengths: Int64) -> Int64:
    """Return the groups of targets by their residues: none if a target is too long for lists.

    Examples
    --------
    >>> n_groups(np.array([0, 1, 8, 9, 262_144, 262_145])).tolist()
    [0, 1, 1, 2, 32768, 0]
    """
    groups = -(-lengths // GROUP)
    return np.where(groups > MOST_GROUPS, 0, groups)


def list_blocks(lengths: Int64) -> list[slice]:
    """Return the targets of each block of lists: as many, in order, as have ``MOST_GROUPS`` groups.

    Examples
    --------
    >>> [(part.start, part.stop) for part in list_blocks(np.array([200_000, 62_144, 1]))]
    [(0, 2), (2, 3)]
    """
    return list(blocks(n_groups(lengths), MOST_GROUPS))


@dataclass(frozen=True, slots=True, eq=False)
class ListedWords:
    """Targets that are sequences of words, with their inverted lists.

    Attributes
    ----------
    words : (R,) uint16
        Words of n targets, one after another, also memory-mapped.
    offsets : (n + 1,) int64
        Words before each target, and of all.
    starts : (b, K + 1) uint32
        Those of the lists (``WordLists``) of each of ``list_blocks``.
    places : (G,) uint16
        The places of all blocks, one after another.
    """

    words: Words
    offsets: Int64
    starts: UInt32
    places: Words

    @classmethod
    def of(cls, words: Words, offsets: Int64, telling: Float32) -> Self:
        """List the words of some targets; see ``WordLists.of``."""
        lists = []
        for part in list_blocks(np.diff(offsets)):
            ends = offsets[part.start : part.stop + 1]
            lists.append(WordLists.of(words[ends[0] : ends[-1]], ends - ends[0], telling))
        starts = [each.starts for each in lists] or [np.empty(0, dtype=np.uint32)]
        places = [np.empty(0, dtype=np.uint16), *(each.places for each in lists)]
        return cls(words, offsets, np.stack(starts)[: len(lists)], np.concatenate(places))


class QueryHits:
    """What hits of several queries count for.

    Parameters
    ----------
    queries : sequence of list of (groups, K) float32
        Each query's scores with each word, in nats, in parts, of ``group_scores``.

    Examples
    --------
    >>> hits = QueryHits([group_scores(np.array([[2.0, -3.0, 1.0]] * 8))])
    >>> words, offsets = np.array([0, 0, 2, 0], np.uint16), np.array([0, 2, 4])
    >>> most_hits(hits, ListedWords.of(words, offsets, np.array([1.0, 2.0, 3.0]))).tolist()
    [[4, 0]]
    """

    def __init__(self, queries: Sequence[Sequence[Float32]]) -> None:
        parts = [(query, part) for query, several in enumerate(queries) for part in several]
        pairs = [_pairs(part) for _, part in parts]
        self.n_queries = len(queries)
        self.queries = np.array([query for query, _ in parts], dtype=np.int64)
        self.sizes = np.array([len(part) for _, part in parts], dtype=np.int64)
        self.ends = np.cumsum([0, *(len(words) for _, words, _ in pairs)])
        self.groups = np.concatenate([groups for groups, _, _ in pairs])
        self.words = np.concatenate([words for _, words, _ in pairs])
        self.weights = np.concatenate([weights for _, _, weights in pairs])


def group_scores(scores: Float32) -> list[Float32]:
    """Return the scores of a query's groups: the logarithm of the mean likelihood ratio of eight.

    The mean does not rise for unrelated residues, as the best of eight does.

    Parameters
    ----------
    scores : (L, K) float32
        Its scores with each word, in nats, at least one row.

    Returns
    -------
    list of (groups, K) float32
        Parts of at most 64 groups.

    Examples
    --------
    >>> [part.round(3).tolist() for part in group_scores(np.array([[2.0]] * 8 + [[-3.0]]))]
    [[[2.0], [-3.0]]]
    """
    first = np.arange(0, len(scores), GROUP)
    counts = np.diff(first, append=len(scores))[:, None]
    ratios = np.exp(np.clip(scores, _LOWEST, _HIGHEST), dtype=np.float32)
    groups = np.log(np.add.reduceat(ratios, first, axis=0) / counts.astype(np.float32))
    return [groups[part : part + _MOST_OF_QUERY] for part in range(0, len(groups), _MOST_OF_QUERY)]


def _pairs(scores: Float32) -> tuple[Int64, Words, Int64]:
    """Return the groups, words and weights of the pairs that are hits, group by group."""
    n_pairs = max(1, round(_HITS * scores.size))
    best = np.sort(np.argpartition(-scores.reshape(-1), n_pairs - 1)[:n_pairs])
    weights = np.rint(STEPS * scores.reshape(-1)[best]).astype(np.int64)
    best, weights = best[weights > 0], weights[weights > 0]
    groups, words = np.divmod(best, scores.shape[1])
    return groups, words.astype(np.uint16), weights


def most_hits(queries: QueryHits, targets: ListedWords) -> Int32:
    """Return what the hits on the best diagonal of each target count for, for each query.

    Parameters
    ----------
    queries : QueryHits
        Those of q queries.
    targets : ListedWords
        n targets; each word is below the queries' number of words, and each place is one of the
        block's, which is not checked here.

    Returns
    -------
    (q, n) int32
        In steps, less what chance adds for a target's length: most are below 0.
    """
    lengths = np.diff(targets.offsets)
    most = np.zeros((queries.n_queries, len(lengths)), dtype=np.int32)
    groups = n_groups(lengths)
    bounds = np.concatenate([[0], np.cumsum(groups)])
    firsts = np.array([0, *(block.stop for block in list_blocks(lengths))])
    n_blocks = len(targets.starts)
    n_threads = max(1, min(threads_here(), n_blocks))
    parts = iter(range(0, n_blocks, _BLOCKS_AT_ONCE))
    loops, places = compiled_loops(), contiguous(targets.places)

    def work(_: int) -> None:
        hits = np.empty(MOST_GROUPS + _MOST_OF_QUERY + loops.WINDOW, dtype=np.uint16)
        for first in parts:  # threads share it: each takes the next as it has done one
            loops.most_hits(
                targets.starts[first : first + _BLOCKS_AT_ONCE],
                places,
                firsts[first:],
                bounds,
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
    most[:, groups < -(-lengths // GROUP)] = _TOO_LONG
    by_chance = np.rint(added_by_chance(lengths, _STEPS_OF_LENGTH)).astype(np.int32)
    most -= by_chance
    return most
