"""A rough look at words equals plain loops, for each of several queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.residues.kernels import rough_scores as looking
from protalign.residues.kernels.rough_scores import (
    RoughProfiles,
    rough_blocks,
    rough_scores,
)
from tests.helpers.words import random_words

WORDS = 9
#: Words tell in no order of their numbers, and two tell the same.
TELLING = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0, 5.0], dtype=np.float32)
ORDER = np.argsort(TELLING, kind="stable").tolist()


def profiles_of(scores: Sequence[npt.NDArray[np.float32]]) -> RoughProfiles:
    """The profiles of queries by their scores with each word."""
    return RoughProfiles([rough_blocks(each) for each in scores], TELLING)


def every(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """All targets."""
    return np.arange(len(offsets) - 1)


def best_segment(scores: npt.NDArray[np.float32], words: Sequence[int]) -> int:
    """The best segment of a band that ends with a block, less what chance adds for the length.

    It is at most 255 before, and at least 0 after.

    Blocks have eight residues, those of the query one more on each side. Of four residues of the
    target the most telling word counts. A step is two nats; a pair has -8 to 12 nats.
    """
    ratios = np.exp(np.clip(scores.astype(float), -8, 12))
    blocks = [
        ratios[max(0, start - 1) : start + 9].mean(axis=0) for start in range(0, len(scores), 8)
    ]
    steps = np.rint(0.5 * np.log(blocks)).astype(int)
    fours = [words[first : first + 4] for first in range(0, len(words), 4)]
    ending: dict[int, int] = {}
    best = 0
    for number, four in enumerate(fours):
        word = max(four, key=ORDER.index)
        for block in range(len(blocks)):
            band = number // 2 - block
            ending[band] = min(255, max(0, ending.get(band, 0) + steps[block, word]))
            if number % 2 or number + 1 == len(fours):
                best = max(best, ending[band])
    by_chance = round(4 * np.log(max(len(words), 50) / 50))
    return max(0, best - by_chance)


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 150), min_size=1, max_size=5),
    st.lists(st.integers(0, 90), max_size=5),
    st.sampled_from([-2.0, 0.0, 9.0]),
)
def test_scores_are_those_of_loops(
    seed: int, queries: list[int], lengths: list[int], mean: float
) -> None:
    """For all lengths, also of one residue and none; large ones if the mean is 9."""
    rng = np.random.default_rng(seed)
    scores = [rng.normal(mean, 2.5, (length, WORDS)).astype(np.float32) for length in queries]
    words, offsets = random_words(rng, lengths, WORDS)
    found = rough_scores(profiles_of(scores), words, offsets, every(offsets))
    assert found.shape == (len(queries), len(lengths))
    parts = np.split(words, offsets[1:-1]) if lengths else []
    for each, row in zip(scores, found, strict=True):
        assert row.tolist() == [best_segment(each, part.tolist()) for part in parts]


def test_scores_end_with_a_byte() -> None:
    """More than 255 counts as 255, in a tile of any number of values."""
    scores = np.full((900, WORDS), 12.0, dtype=np.float32)
    words, offsets = random_words(np.random.default_rng(4), [160, 168, 172, 400], WORDS)
    for count in (300, 600, 900):  # residues of the query
        profiles = profiles_of([scores[:count]])
        [found] = rough_scores(profiles, words, offsets, every(offsets))
        assert found.tolist() == [240 - 5, 252 - 5, 255 - 5, 255 - 8]


def test_queries_of_several_tiles_do_not_touch() -> None:
    """What is found for a query is what is found for it alone, wherever its bands lie."""
    rng = np.random.default_rng(0)
    lengths = [300, 700, 64, 65, 1, 1200, 300, 8, 900]  # about three tiles
    scores = [rng.normal(0, 2.5, (length, WORDS)).astype(np.float32) for length in lengths]
    words, offsets = random_words(rng, [40, 0, 300, 7], WORDS)
    together = profiles_of(scores)
    assert len(together.tiles) > 1
    found = rough_scores(together, words, offsets, every(offsets))
    for each, row in zip(scores, found, strict=True):
        alone = rough_scores(profiles_of([each]), words, offsets, every(offsets))
        assert row.tolist() == alone[0].tolist()


def test_a_long_query_has_parts() -> None:
    """A query longer than a tile scores as its best part."""
    rng = np.random.default_rng(1)
    scores = rng.normal(-6, 1, (5000, WORDS)).astype(np.float32)
    own = np.repeat(rng.integers(0, WORDS, 12), 8)
    scores[3900 + np.arange(96), own] = 6.0
    words, offsets = random_words(rng, [50], WORDS)
    words, offsets = np.concatenate([words, own]).astype(np.uint16), np.append(offsets, 146)
    profiles = profiles_of([scores])
    found = rough_scores(profiles, words, offsets, every(offsets))[0]
    assert len(profiles.tiles) == 3
    alone = profiles_of([scores[2048:4096]])
    part = rough_scores(alone, words, offsets, every(offsets))[0]
    assert found[1] == part[1] > 2 * found[0]


def test_some_targets_score_as_they_do_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets may begin anywhere in the words, some targets are wanted, and threads share them."""
    rng = np.random.default_rng(2)
    scores = [rng.normal(0, 2, (n, WORDS)).astype(np.float32) for n in (40, 3000)]
    profiles = profiles_of(scores)
    words, offsets = random_words(rng, rng.integers(0, 60, 50).tolist(), WORDS)
    whole = rough_scores(profiles, words, offsets, every(offsets))
    part = offsets[20:31]
    assert rough_scores(profiles, words, part, every(part)).tolist() == whole[:, 20:30].tolist()
    some = np.array([3, 4, 17, 49])
    assert rough_scores(profiles, words, offsets, some).tolist() == whole[:, some].tolist()
    assert rough_scores(profiles, words, offsets, some[:0]).shape == (2, 0)
    monkeypatch.setattr(looking, "_THREAD_WORDS", 1)
    monkeypatch.setattr(looking, "threads_here", lambda: 2)
    assert rough_scores(profiles, words, offsets, every(offsets)).tolist() == whole.tolist()
    assert rough_scores(profiles, words, offsets, some).tolist() == whole[:, some].tolist()


def test_a_pair_has_8_to_12_nats() -> None:
    """At least -8, at most 12, for each of the words that are read."""
    scores = np.tile(np.array([30.0, -30.0], dtype=np.float32), (60, 1))
    profiles = RoughProfiles([rough_blocks(scores)], np.ones(2, dtype=np.float32))
    words = np.repeat(np.array([0, 1, 0], dtype=np.uint16), [16, 8, 24])
    found = rough_scores(profiles, words, np.array([0, 48]), np.arange(1))
    assert found.tolist() == [[(4 * 12 - 2 * 8 + 6 * 12) / 2]]


def test_words_may_lie_apart_in_memory() -> None:
    """A column of a table of words scores as its copy does."""
    rng = np.random.default_rng(3)
    profiles = profiles_of([rng.normal(0, 2, (40, WORDS)).astype(np.float32)])
    words, offsets = random_words(rng, [30, 50], WORDS)
    apart = np.stack([words, words[::-1]], axis=1)[:, 0]
    assert not apart.flags.c_contiguous
    found = rough_scores(profiles, apart, offsets, every(offsets))
    assert found.tolist() == rough_scores(profiles, words, offsets, every(offsets)).tolist()
