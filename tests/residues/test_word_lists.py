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
    ListBlocks,
    ListedWords,
    QueryHits,
    WordLists,
    hit_pairs,
    listable,
    most_hits,
)
from tests.helpers.words import random_words

WORDS = 9
#: Words tell in no order of their numbers, and two tell the same.
TELLING = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0, 5.0], dtype=np.float32)
ORDER = np.argsort(TELLING, kind="stable").tolist()


def hits_of(scores: Sequence[Float32]) -> QueryHits:
    """The hits of queries by their scores with each word."""
    return QueryHits([hit_pairs(each) for each in scores])


def listed(words: Words, offsets: npt.NDArray[np.int64]) -> ListedWords:
    """Targets with their lists."""
    return ListedWords.of(words, offsets, TELLING)


def listed_words(words: Sequence[int]) -> list[int]:
    """The most telling word of each eight of a target."""
    return [max(words[first : first + 8], key=ORDER.index) for first in range(0, len(words), 8)]


def weights_of(scores: Float32) -> list[dict[tuple[int, int], int]]:
    """What pairs of a group and a word count for, of each 64 groups of a query.

    Of all pairs those count that have the largest scores, one in 64, or one for each group if there
    are few words, in steps of half a nat; a residue has -8 to 12 nats.
    """
    ratios = np.exp(np.clip(scores.astype(float), -8, 12))
    groups = np.log([ratios[first : first + 8].mean(axis=0) for first in range(0, len(scores), 8)])
    parts = []
    for first in range(0, len(groups), 64):
        part = groups[first : first + 64]
        best = np.argsort(-part, axis=None)[: max(len(part), round(part.size / 64))]
        best = np.flatnonzero(part >= part.reshape(-1)[best[-1]])
        pairs = [divmod(int(pair), part.shape[1]) for pair in best]
        parts.append({pair: round(2 * part[pair]) for pair in pairs if round(2 * part[pair]) > 0})
    return parts


def most_of(scores: Float32, target: Sequence[int]) -> int:
    """The most that a diagonal of a target has, by loops."""
    row, most = listed_words(target), 0
    for part, weights in enumerate(weights_of(scores)):
        size = min(64, -(-len(scores) // 8) - 64 * part)
        for diagonal in range(1 - size, len(row)):
            pairs = (
                (group, row[diagonal + group])
                for group in range(size)
                if 0 <= diagonal + group < len(row)
            )
            most = max(most, sum(weights.get(pair, 0) for pair in pairs))
    return most - round(24 * np.log(max(len(target), 50) / 50))


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
        assert row.tolist() == [most_of(each, part) for part in parts]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 60), max_size=12))
def test_each_group_is_in_one_list(seed: int, lengths: list[int]) -> None:
    """That of its most telling word; a target's columns are its groups, and 63 more."""
    words, offsets = random_words(np.random.default_rng(seed), lengths, WORDS)
    lists = WordLists.of(words, offsets, TELLING)
    assert (lists.starts.dtype, lists.places.dtype) == (np.dtype("u4"), np.dtype("u2"))
    found = {}
    for word in range(WORDS):
        places = lists.places[lists.starts[word] : lists.starts[word + 1]].tolist()
        assert places == sorted(set(places))
        found |= dict.fromkeys(places, word)
    expected, column = {}, 0
    for part in np.split(words, offsets[1:-1]) if lengths else []:
        every = listed_words(part.tolist())
        expected |= {column + number: word for number, word in enumerate(every)}
        column += len(every) + 63 if every else 0
    assert found == expected


def test_targets_score_alike_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside any others, wherever offsets begin, and on any number of threads."""
    rng = np.random.default_rng(2)
    scores = [rng.normal(0, 2, (n, WORDS)).astype(np.float32) for n in (40, 3000)]
    words, offsets = random_words(rng, [900, *rng.integers(0, 90, 50).tolist()], WORDS)
    whole = most_hits(hits_of(scores), listed(words, offsets))
    assert most_hits(hits_of(scores), listed(words, offsets[20:31])).tolist() == (
        whole[:, 20:30].tolist()
    )
    monkeypatch.setattr(word_lists, "MOST_COLUMNS", 176)  # 113 groups
    monkeypatch.setattr(word_lists, "threads_here", lambda: 3)
    targets = listed(words, offsets)
    assert len(targets.starts) >= 24  # so two at once
    assert most_hits(hits_of(scores), targets).tolist() == whole.tolist()


def test_a_long_query_has_parts() -> None:
    """A query of more than 512 residues counts as its best part."""
    rng = np.random.default_rng(1)
    scores = rng.normal(-6, 1, (1300, WORDS)).astype(np.float32)
    own = np.repeat(rng.integers(0, WORDS, 12), 8)
    scores[600 + np.arange(96), own] = 6.0  # of the second part
    words, offsets = random_words(rng, [50], WORDS)
    words, offsets = np.concatenate([words, own]).astype(np.uint16), np.append(offsets, 146)
    assert [part.size for part in hit_pairs(scores)] == [64, 64, 35]
    [found] = most_hits(hits_of([scores]), listed(words, offsets))
    [part] = most_hits(hits_of([scores[512:1024]]), listed(words, offsets))
    assert found[1] == part[1] > 60
    assert 2 * found[0] < found[1]


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
    monkeypatch.setattr(word_lists, "MOST_COLUMNS", 93)
    rng = np.random.default_rng(5)
    scores = [np.full((512, WORDS), 12.0, dtype=np.float32)]
    words, offsets = random_words(rng, [100, 240, 241, 60], WORDS)
    lengths = np.diff(offsets)
    cut = ListBlocks.of(lengths)
    assert cut.targets.tolist() == [0, 1, 3, 4]
    assert np.diff(cut.begins).tolist() == [13, 30, 8]
    [found] = most_hits(hits_of(scores), listed(words, offsets))
    assert found[2] > 10 * max(found[[0, 1, 3]])
    kept, others = listable(lengths, words)
    assert kept.tolist() == [100, 240, 0, 60]
    assert others.tolist() == np.delete(words, np.s_[offsets[2] : offsets[3]]).tolist()
    [same] = most_hits(hits_of(scores), listed(others, np.concatenate([[0], np.cumsum(kept)])))
    assert same[[0, 1, 3]].tolist() == found[[0, 1, 3]].tolist()


def test_no_queries_and_no_targets() -> None:
    """There is nothing to count."""
    words, offsets = random_words(np.random.default_rng(0), [30, 8], WORDS)
    assert most_hits(hits_of([]), listed(words, offsets)).shape == (0, 2)
    scores = np.zeros((5, WORDS), dtype=np.float32)
    assert most_hits(hits_of([scores]), listed(words[:0], offsets[:1])).shape == (1, 0)


def test_a_word_that_is_none_is_refused() -> None:
    """The loops would write outside of their arrays."""
    for words in (np.array([0, 9], dtype=np.uint16), np.array([0, 9])):
        with pytest.raises(IndexError, match="word 9 of 9"):
            listed(words, np.array([0, 2]))
    for number in (-1, -65_535, 65_537):  # two of which are below 9 in 16 bits
        with pytest.raises(IndexError, match=f"word {number} of 9"):
            WordLists.of(np.array([0, number]), np.array([0, 2]), np.arange(9.0))
    with pytest.raises(IndexError, match="words of float64"):
        WordLists.of(np.array([0.0, 1.9]), np.array([0, 2]), np.arange(9.0))


@pytest.mark.parametrize("offsets", [[0, 8000, 1000], [0, 8001], [-1, 8], [5, 4]])
def test_offsets_that_lead_out_of_the_words_are_refused(offsets: list[int]) -> None:
    with pytest.raises(IndexError, match="offsets do not ascend within 8000 words"):
        WordLists.of(np.zeros(8000, dtype=np.uint16), np.array(offsets), np.arange(9.0))


def test_words_may_lie_apart_in_memory() -> None:
    """A column of a table of words is listed as its copy is."""
    rng = np.random.default_rng(3)
    words, offsets = random_words(rng, [30, 50], WORDS)
    apart = np.stack([words, words[::-1]], axis=1)[:, 0]
    assert not apart.flags.c_contiguous
    one, other = listed(apart, offsets), listed(words, offsets)
    assert one.places.tolist() == other.places.tolist()
    assert one.starts.tolist() == other.starts.tolist()
