"""Scores of words equal plain loops, whatever the lengths, and however large they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.residues.kernels import word_scores as scoring
from protalign.residues.kernels.word_scores import WordProfile, word_scores
from tests.helpers.words import random_words

WORDS = 11


def best_segment(scores: npt.NDArray[np.float32], words: Sequence[int]) -> int:
    """The best segment of a band that ends with a block, as it is defined.

    Blocks have four residues, those of the query one more on each side. A step is two nats; a pair
    has -8 to 12 nats.
    """
    steps = np.clip(np.rint(0.5 * scores), -4, 6).astype(int)
    ending: dict[int, int] = {}
    best = 0
    for position, word in enumerate(words):
        for block in range(-(-len(scores) // 4)):
            band = position // 4 - block
            fitting = steps[max(0, 4 * block - 1) : 4 * block + 5, word].max()
            ending[band] = max(0, ending.get(band, 0) + int(fitting))
            if position % 4 == 3 or position + 1 == len(words):
                best = max(best, ending[band])
    return best


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 75),
    st.lists(st.integers(0, 90), max_size=6),
    st.sampled_from([-3.0, 0.0, 9.0]),
)
def test_scores_are_those_of_loops(seed: int, length: int, lengths: list[int], mean: float) -> None:
    """For all lengths, also of one residue and none; much if the mean is 9."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(mean, 2.5, (length, WORDS)).astype(np.float32)
    words, offsets = random_words(rng, lengths, WORDS)
    given = word_scores(WordProfile.of(scores), words, offsets)
    parts = np.split(words, offsets[1:-1]) if len(lengths) else []
    assert given.tolist() == [best_segment(scores, part.tolist()) for part in parts]
    assert given.dtype == np.int32


@pytest.mark.parametrize("length", [128, 129, 500, 700, 1024, 1025, 1100])
def test_scores_of_long_queries_are_those_of_loops(length: int) -> None:
    """Queries of several values, and of several tiles, in bytes and in larger numbers."""
    rng = np.random.default_rng(length)
    words, offsets = random_words(rng, [1, 4, 5, 38], WORDS)
    own = rng.integers(0, WORDS, length)
    # Parts of the query, some over the end of a value or a tile.
    fitting = [own[first : first + 60] for first in (100, 360, 480, 994, length - 60)]
    words = np.concatenate([words, *fitting]).astype(np.uint16)
    offsets = np.append(offsets, offsets[-1] + np.cumsum([len(part) for part in fitting]))
    for score, is_large in ((3.0, False), (12.0, True)):
        scores = rng.normal(-4, 2, (length, WORDS)).astype(np.float32)
        scores[np.arange(length), own] = score
        given = word_scores(WordProfile.of(scores), words, offsets)
        parts = np.split(words, offsets[1:-1])
        assert given.tolist() == [best_segment(scores, part.tolist()) for part in parts]
        assert (given.max() > 255) == is_large


def test_a_part_of_the_targets_scores_as_it_does_among_all() -> None:
    """Offsets may begin anywhere in the words, and threads share the targets."""
    rng = np.random.default_rng(0)
    profile = WordProfile.of(rng.normal(7, 2, (100, WORDS)).astype(np.float32))
    words, offsets = random_words(rng, rng.integers(0, 120, 50).tolist(), WORDS)
    whole = word_scores(profile, words, offsets)
    assert word_scores(profile, words, offsets[20:31]).tolist() == whole[20:30].tolist()
    large = whole > 255  # more than a byte holds
    assert 10 < large.sum() < 40
    assert (large[1:] & ~large[:-1]).any()
    assert (~large[1:] & large[:-1]).any()


@pytest.mark.parametrize("fitting", range(40, 46))
@pytest.mark.parametrize("others", range(5))
def test_a_score_does_not_depend_on_the_targets_before(fitting: int, others: int) -> None:
    """Also if a band has more than a byte holds in the middle of a block, and less at its end."""
    scores = np.tile(np.array([30.0, -30.0], dtype=np.float32), (200, 1))
    profile = WordProfile.of(scores)
    words = np.repeat(np.array([0, 1], dtype=np.uint16), [fitting, others])
    alone = word_scores(profile, words, np.array([0, len(words)])).tolist()
    assert alone == [best_segment(scores, words.tolist())]
    large = np.zeros(60, dtype=np.uint16)
    both = np.concatenate([large, words])
    assert word_scores(profile, both, np.array([0, 60, len(both)])).tolist() == [360, *alone]


def test_a_pair_has_8_to_12_nats() -> None:
    """At least -8, at most 12: one pair neither ends a segment nor makes one."""
    scores = np.tile(np.array([30.0, -30.0], dtype=np.float32), (40, 1))
    words = np.repeat(np.array([0, 1, 0], dtype=np.uint16), [8, 4, 8])
    [score] = word_scores(WordProfile.of(scores), words, np.array([0, 20]))
    assert score == (8 * 12 - 4 * 8 + 8 * 12) / 2


def test_words_may_lie_apart_in_memory() -> None:
    """A column of a table of words scores as its copy does."""
    rng = np.random.default_rng(2)
    profile = WordProfile.of(rng.normal(0, 2, (40, WORDS)).astype(np.float32))
    words, offsets = random_words(rng, [30, 50], WORDS)
    apart = np.stack([words, words[::-1]], axis=1)[:, 0]
    assert not apart.flags.c_contiguous
    assert (
        word_scores(profile, apart, offsets).tolist()
        == word_scores(profile, words, offsets).tolist()
    )


def test_threads_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there are more parts than targets."""
    rng = np.random.default_rng(1)
    profile = WordProfile.of(rng.normal(-1, 2, (30, WORDS)).astype(np.float32))
    words, offsets = random_words(rng, [0, 50, 0, 0, 31, 7, 0], WORDS)
    alone = word_scores(profile, words, offsets)
    monkeypatch.setattr(scoring, "_THREAD_WORDS", 1)
    monkeypatch.setattr(scoring, "threads_here", lambda: 2)
    assert word_scores(profile, words, offsets).tolist() == alone.tolist()


def test_a_band_forgives_a_short_gap_and_no_long_one() -> None:
    """A residue more moves the rest by one diagonal, within the band; ten move it out."""
    residues = np.arange(60) % WORDS
    scores = np.where(residues[:, None] == np.arange(WORDS), 4.0, -8.0).astype(np.float32)
    words = residues.astype(np.uint16)
    profile = WordProfile.of(scores)
    whole = word_scores(profile, words, np.array([0, 60]))[0]
    assert whole == 2 * 60
    one, ten = (np.insert(words, 30, [words[29]] * count) for count in (1, 10))
    assert word_scores(profile, one, np.array([0, 61]))[0] >= whole
    assert word_scores(profile, ten, np.array([0, 70]))[0] <= 0.8 * whole
