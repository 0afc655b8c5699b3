"""Words of residues: the nearest centroid, and scores of a query's residues with words."""

from __future__ import annotations

import numpy as np
import pytest

from protalign.core.errors import InputError
from protalign.core.threads import torch_pool
from protalign.residues.kernels.word_scores import HIGHEST, LOWEST, STEPS
from protalign.residues.words import ResidueWords, _is_repeated


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """(3,000, 10) rows in twelve clusters."""
    rng = np.random.default_rng(0)
    centres = rng.normal(scale=5, size=(12, 10))
    return (centres[rng.integers(12, size=3000)] + rng.normal(size=(3000, 10))).astype(np.float32)


@pytest.fixture(scope="module")
def words(rows: np.ndarray) -> ResidueWords:
    """Words of these rows."""
    return ResidueWords.fit({"structure": rows}, n_words=12, seed=3)


def test_a_residue_is_the_word_of_the_nearest_centroid(
    words: ResidueWords, rows: np.ndarray
) -> None:
    """By all numbers but the last two, however many rows are given at once."""
    centroids = words.centroids["structure"][:, :-2]
    distances = np.linalg.norm(rows[:, None, :-2] - centroids, axis=2)
    given = words.of("structure", rows)
    assert given.dtype == np.uint16
    assert given.tolist() == distances.argmin(axis=1).tolist()
    assert words.of("structure", rows[5:6]).tolist() == given[5:6].tolist()
    assert words.of("structure", rows[:0]).shape == (0,)


def test_centroids_are_means_of_rows(words: ResidueWords, rows: np.ndarray) -> None:
    """Of all numbers: the product with a query's row is the mean of its products."""
    given = words.of("structure", rows)
    means = [rows[given == word].mean(axis=0) for word in range(12)]
    np.testing.assert_allclose(words.centroids["structure"], means, atol=0.3)
    query = np.random.default_rng(1).normal(size=(1, 10)).astype(np.float32)
    profile = words.profile("structure", query)
    steps = profile.scores.reshape(12, -1)[:, 0].astype(int)
    expected = np.clip(STEPS * (query @ words.centroids["structure"].T)[0], LOWEST, HIGHEST)
    np.testing.assert_allclose(steps, expected, atol=0.51)


def test_the_seed_decides(words: ResidueWords, rows: np.ndarray) -> None:
    """The same seed gives the same words."""
    again = ResidueWords.fit({"structure": rows}, n_words=12, seed=3)
    assert np.array_equal(again.centroids["structure"], words.centroids["structure"])


def test_few_residues_have_few_words() -> None:
    """No word is empty; equal residues are one word."""
    rows = np.repeat(np.eye(3, 6, dtype=np.float32), 4, axis=0)
    words = ResidueWords.fit({"sequence": rows}, n_words=10)
    assert len(words.centroids["sequence"]) == 3
    assert len(np.unique(words.of("sequence", rows))) == 3


@pytest.mark.parametrize("n_words", [0, 1, 65_536, 10.0])
def test_words_are_as_many_as_their_type_can_tell_apart(n_words: int) -> None:
    """From 2 to 65,535; one tells nothing, and more would be one word without a warning."""
    problem = f"^n_words={n_words}: not a whole number from 2 to 65,535; give a whole number"
    with pytest.raises(InputError, match=problem):
        ResidueWords.fit({"sequence": np.eye(6, dtype=np.float32)}, n_words=n_words)


def test_threads_find_the_same_words(words: ResidueWords, rows: np.ndarray) -> None:
    """Blocks are cut in the same places, so one thread and three agree on each residue."""
    found = []
    for threads in (1, 3):
        with torch_pool(1, threads) as pool:
            found.append(pool.submit(words.of, "structure", rows).result())
    assert np.array_equal(*found)
    assert np.array_equal(found[0], [words.of("structure", row[None])[0] for row in rows])


def test_no_residues_have_no_words(words: ResidueWords) -> None:
    """An empty protein is not an error."""
    assert len(words.of("structure", np.empty((0, 10), np.float32))) == 0


def test_a_query_has_residues(words: ResidueWords) -> None:
    """A query without any is an error in one line."""
    with pytest.raises(InputError, match="no residue rows"):
        words.profile("structure", np.empty((0, 10), np.float32))


def test_words_far_from_the_mean_tell_most() -> None:
    """By all numbers but the last two: of a target's group the most telling word is listed."""
    centroids = np.zeros((4, 6), dtype=np.float32)
    centroids[:, :-2] = np.array([[-3.0], [1.0], [4.0], [-2.0]])
    centroids[:, -2:] = np.array([[0.0], [90.0], [-10.0], [50.0]])
    words = ResidueWords({"structure": centroids})
    targets = np.array([0, 1, 2, 3, 0, 1, 3, 1, 3, 1], dtype=np.uint16)
    lists = words.lists("structure", targets, np.array([0, 4, 7, 9, 10]))
    assert lists.starts.tolist() == [0, 1, 2, 3, 4]  # one group has each word
    assert lists.places.tolist() == [64, 192, 0, 128]


def test_a_repeated_centroid_is_found_in_any_block() -> None:
    """Only the first of equal ones stays, however far away the others are."""
    points = np.random.default_rng(0).normal(size=(2500, 6))
    points[2000], points[1500], points[2400] = points[3], points[1400], points[3]
    assert np.flatnonzero(_is_repeated(points)).tolist() == [1500, 2000, 2400]
