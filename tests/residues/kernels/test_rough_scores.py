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
    HIGHEST,
    LOWEST,
    MARGIN,
    SHIFT,
    STEPS,
    RoughProfiles,
    rough_scores,
)
from tests.helpers.words import random_words

WORDS = 9


def best_segment(scores: npt.NDArray[np.float32], words: Sequence[int]) -> int:
    """The best segment of a band that ends with a block, as it is defined; no more than 255."""
    size = 2**SHIFT
    ratios = np.exp(np.clip(scores.astype(float), LOWEST / STEPS, HIGHEST / STEPS))
    starts = range(0, len(scores), size)
    blocks = [
        ratios[max(0, start - MARGIN) : start + size + MARGIN].mean(axis=0) for start in starts
    ]
    steps = np.rint(STEPS * np.log(blocks)).astype(int)
    ending: dict[int, int] = {}
    best = 0
    for position, word in enumerate(words):
        for block in range(len(blocks)):
            band = position // size - block
            ending[band] = min(255, max(0, ending.get(band, 0) + steps[block, word]))
            if (position + 1) % size == 0 or position + 1 == len(words):
                best = max(best, ending[band])
    return best


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
    """For all lengths, also of one residue and none; up to a byte's end if the mean is 9."""
    rng = np.random.default_rng(seed)
    scores = [rng.normal(mean, 2.5, (length, WORDS)).astype(np.float32) for length in queries]
    words, offsets = random_words(rng, lengths, WORDS)
    found = rough_scores(RoughProfiles(scores), words, offsets)
    assert found.shape == (len(queries), len(lengths))
    parts = np.split(words, offsets[1:-1]) if lengths else []
    for each, row in zip(scores, found, strict=True):
        assert row.tolist() == [best_segment(each, part.tolist()) for part in parts]


def test_queries_of_several_tiles_do_not_touch() -> None:
    """What is found for a query is what is found for it alone, wherever its bands lie."""
    rng = np.random.default_rng(0)
    lengths = [300, 700, 64, 65, 1, 1200, 300, 8, 900]  # about three tiles
    scores = [rng.normal(0, 2.5, (length, WORDS)).astype(np.float32) for length in lengths]
    words, offsets = random_words(rng, [40, 0, 300, 7], WORDS)
    together = RoughProfiles(scores)
    assert len(together.tiles) > 1
    found = rough_scores(together, words, offsets)
    for each, row in zip(scores, found, strict=True):
        assert row.tolist() == rough_scores(RoughProfiles([each]), words, offsets)[0].tolist()


def test_a_long_query_has_parts() -> None:
    """A query longer than a tile scores as its best part."""
    rng = np.random.default_rng(1)
    scores = rng.normal(-6, 1, (5000, WORDS)).astype(np.float32)
    own = rng.integers(0, WORDS, 60)
    scores[4000 + np.arange(60), own] = 6.0
    words, offsets = random_words(rng, [50], WORDS)
    words, offsets = np.concatenate([words, own]).astype(np.uint16), np.append(offsets, 110)
    found = rough_scores(RoughProfiles([scores]), words, offsets)[0]
    assert len(RoughProfiles([scores]).tiles) == 3
    part = rough_scores(RoughProfiles([scores[2048:4096]]), words, offsets)[0]
    assert found[1] == part[1] > 2 * found[0]


def test_a_part_of_the_targets_scores_as_it_does_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets may begin anywhere in the words, and threads share the targets."""
    rng = np.random.default_rng(2)
    profiles = RoughProfiles([rng.normal(0, 2, (n, WORDS)).astype(np.float32) for n in (40, 3000)])
    words, offsets = random_words(rng, rng.integers(0, 60, 50).tolist(), WORDS)
    whole = rough_scores(profiles, words, offsets)
    assert rough_scores(profiles, words, offsets[20:31]).tolist() == whole[:, 20:30].tolist()
    monkeypatch.setattr(looking, "_THREAD_WORDS", 1)
    monkeypatch.setattr(looking, "threads_here", lambda: 2)
    assert rough_scores(profiles, words, offsets).tolist() == whole.tolist()
