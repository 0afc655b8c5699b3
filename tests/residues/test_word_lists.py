"""Inverted lists of words, and the hits in them, equal plain loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.arrays import Float32, Words
from protalign.residues import word_lists
from protalign.residues.word_lists import (
    ListedWords,
    QueryHits,
    WordLists,
    group_scores,
    list_blocks,
    most_hits,
    n_groups,
)
from tests.helpers.words import random_words

WORDS = 9
#: Words tell in no order of their numbers, and two tell the same.
TELLING = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0, 5.0], dtype=np.float32)
ORDER = np.argsort(TELLING, kind="stable").tolist()


def hits_of(scores: Sequence[Float32]) -> QueryHits:
    """The hits of queries by their scores with each word."""
    return QueryHits([group_scores(each) for each in scores])


def listed(words: Words, offsets: npt.NDArray[np.int64]) -> ListedWords:
    """Targets with their lists."""
    return ListedWords.of(words, offsets, TELLING)


def listed_words(words: Sequence[int]) -> list[int]:
    """The most telling word of each eight of a target."""
    return [max(words[first : first + 8], key=ORDER.index) for first in range(0, len(words), 8)]


def weights_of(scores: Float32) -> list[dict[tuple[int, int], int]]:
    """What pairs of a group and a word count for, of each 64 groups of a query.

    Of all pairs those count that have the largest scores, one in 64, in steps of half a nat; a
    residue has -8 to 12 nats.
    """
    ratios = np.exp(np.clip(scores.astype(float), -8, 12))
    groups = np.log([ratios[first : first + 8].mean(axis=0) for first in range(0, len(scores), 8)])
    parts = []
    for first in range(0, len(groups), 64):
        part = groups[first : first + 64]
        best = np.argsort(-part, axis=None)[: max(1, round(part.size / 64))]
        pairs = [divmod(int(pair), part.shape[1]) for pair in best]
        parts.append({pair: round(2 * part[pair]) for pair in pairs if round(2 * part[pair]) > 0})
    return parts


def most_of(scores: Float32, targets: Sequence[Sequence[int]]) -> list[int]:
    """The most that a diagonal has, at least eight neighbouring ones of each target, by loops."""
    every = [listed_words(target) for target in targets]
    row = [word for each in every for word in each]
    most = [0] * len(targets)
    n_query = -(-len(scores) // 8)
    for part, weights in enumerate(weights_of(scores)):
        size = min(64, n_query - 64 * part)
        begin = 0
        for number, target in enumerate(every):
            last = max(begin + len(target), begin - size + 1 + 8)
            for diagonal in range(begin - size + 1, last) if target else ():
                pairs = (
                    (group, row[diagonal + group])
                    for group in range(size)
                    if 0 <= diagonal + group < len(row)
                )
                most[number] = max(most[number], sum(weights.get(pair, 0) for pair in pairs))
            begin += len(target)
    return [
        each - round(24 * np.log(max(len(target), 50) / 50))
        for each, target in zip(most, targets, strict=True)
    ]


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 700), min_size=1, max_size=4),
    st.lists(st.integers(0, 150), max_size=6),
    st.sampled_from([-2.0, 0.0, 9.0]),
)
def test_hits_are_those_of_loops(
    seed: int, queries: list[int], lengths: list[int], mean: float
) -> None:
    """For all lengths, also of one residue and none, and of queries with two parts."""
    rng = np.random.default_rng(seed)
    scores = [rng.normal(mean, 2.5, (length, WORDS)).astype(np.float32) for length in queries]
    words, offsets = random_words(rng, lengths, WORDS)
    found = most_hits(hits_of(scores), listed(words, offsets))
    assert found.shape == (len(queries), len(lengths))
    parts = [part.tolist() for part in np.split(words, offsets[1:-1])] if lengths else []
    for each, row in zip(scores, found, strict=True):
        assert row.tolist() == most_of(each, parts)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 60), max_size=12))
def test_each_group_is_in_one_list(seed: int, lengths: list[int]) -> None:
    """That of its most telling word, and places ascend in each list."""
    words, offsets = random_words(np.random.default_rng(seed), lengths, WORDS)
    lists = WordLists.of(words, offsets, TELLING)
    assert (lists.starts.dtype, lists.places.dtype) == (np.dtype("u4"), np.dtype("u2"))
    found = [0] * len(lists.places)
    for word in range(WORDS):
        places = lists.places[lists.starts[word] : lists.starts[word + 1]].tolist()
        assert places == sorted(set(places))
        for place in places:
            found[place] = word
    parts = np.split(words, offsets[1:-1]) if lengths else []
    assert found == [word for part in parts for word in listed_words(part.tolist())]


def test_targets_of_blocks_score_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a block begins, and on any number of threads, but for a neighbour's hits."""
    rng = np.random.default_rng(2)
    scores = [rng.normal(0, 2, (n, WORDS)).astype(np.float32) for n in (40, 3000)]
    words, offsets = random_words(rng, [5000, *rng.integers(400, 900, 50).tolist()], WORDS)
    whole = most_hits(hits_of(scores), listed(words, offsets))
    later = listed(words, offsets[1:])  # offsets may begin anywhere in the words
    assert np.mean(most_hits(hits_of(scores), later)[:, 1:] == whole[:, 2:]) == 1
    monkeypatch.setattr(word_lists, "MOST_GROUPS", 700)
    monkeypatch.setattr(word_lists, "threads_here", lambda: 3)
    targets = listed(words, offsets)
    assert len(targets.starts) > 5
    in_blocks = most_hits(hits_of(scores), targets)
    assert np.mean(in_blocks == whole) > 0.7
    assert (in_blocks <= whole).all()  # a block has fewer neighbours


def test_a_long_query_has_parts() -> None:
    """A query of more than 512 residues counts as its best part."""
    rng = np.random.default_rng(1)
    scores = rng.normal(-6, 1, (1300, WORDS)).astype(np.float32)
    own = np.repeat(rng.integers(0, WORDS, 12), 8)
    scores[600 + np.arange(96), own] = 6.0  # of the second part
    words, offsets = random_words(rng, [50, 600], WORDS)
    words, offsets = np.concatenate([words, own]).astype(np.uint16), np.append(offsets, 746)
    assert [len(part) for part in group_scores(scores)] == [64, 64, 35]
    [found] = most_hits(hits_of([scores]), listed(words, offsets))
    [part] = most_hits(hits_of([scores[512:1024]]), listed(words, offsets))
    assert found[2] == part[2] > 60
    assert 2 * found[0] < found[2]  # the one between has diagonals of its neighbour


def test_queries_do_not_touch() -> None:
    """What is found for a query is what is found for it alone."""
    rng = np.random.default_rng(0)
    scores = [rng.normal(0, 2.5, (n, WORDS)).astype(np.float32) for n in (300, 700, 64, 1, 1200)]
    targets = listed(*random_words(rng, [40, 0, 300, 7], WORDS))
    found = most_hits(hits_of(scores), targets)
    for each, row in zip(scores, found, strict=True):
        assert most_hits(hits_of([each]), targets).tolist() == [row.tolist()]


def test_a_target_too_long_for_lists_is_never_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts more than any other can, and its neighbours as they do without it."""
    monkeypatch.setattr(word_lists, "MOST_GROUPS", 30)
    rng = np.random.default_rng(5)
    scores = [np.full((512, WORDS), 12.0, dtype=np.float32)]
    words, offsets = random_words(rng, [100, 240, 241, 60], WORDS)
    assert n_groups(np.diff(offsets)).tolist() == [13, 30, 0, 8]
    assert [(part.start, part.stop) for part in list_blocks(np.diff(offsets))] == [
        (0, 1),
        (1, 3),
        (3, 4),
    ]
    [found] = most_hits(hits_of(scores), listed(words, offsets))
    assert found[2] > 10 * max(found[[0, 1, 3]])
    others = np.concatenate([words[: offsets[2]], words[offsets[3] :]])
    without = np.concatenate([[0], np.cumsum(np.diff(offsets)[[0, 1, 3]])])
    [same] = most_hits(hits_of(scores), listed(others, without))
    assert same.tolist() == found[[0, 1, 3]].tolist()


def test_words_may_lie_apart_in_memory() -> None:
    """A column of a table of words is listed as its copy is."""
    rng = np.random.default_rng(3)
    words, offsets = random_words(rng, [30, 50], WORDS)
    apart = np.stack([words, words[::-1]], axis=1)[:, 0]
    assert not apart.flags.c_contiguous
    one, other = listed(apart, offsets), listed(words, offsets)
    assert one.places.tolist() == other.places.tolist()
    assert one.starts.tolist() == other.starts.tolist()
