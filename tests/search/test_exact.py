"""Exact search: equal to sorting everything, whatever the blocks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from protalign.core.errors import InputError
from protalign.search.kernels.exact import ExactIndex
from protalign.search.kernels.sizes import Bfloat16Sizes, ExactSizes


def unit_vectors(count: int, seed: int) -> np.ndarray:
    """(count, 8) float32 of unit length."""
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 12), st.integers(4, 200))
def test_equals_a_full_sort(count: int, queries: int, k: int, block: int) -> None:
    """The k best of every query, best first, for any number of vectors and any block size."""
    vectors, asked = unit_vectors(count, 0), unit_vectors(queries, 1)
    sizes = ExactSizes(
        block_elements=block,
        first_rows=1 + block % 7,
        thread_elements=20,  # as many threads as there may be
        threads=3,
        rounded=None,
    )
    rows, cosine = ExactIndex(vectors, sizes=sizes).nearest(asked, k)
    similarity = asked @ vectors.T
    expected = -np.sort(-similarity, axis=1)[:, :k]
    np.testing.assert_allclose(cosine, expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(similarity, rows, axis=1), cosine, atol=1e-6)


#: Every search multiplies in bfloat16, in many small blocks.
ALWAYS_ROUNDED = ExactSizes(
    first_rows=32,
    rounded_batch=1,
    rounded_vectors=1,
    rounded_queries=0,
    rounded=Bfloat16Sizes(block_elements=512, groups=1, again=1, timed=False),
)


FAMILIES = {
    "unit vectors": lambda rng, shape: rng.normal(size=shape),
    "whole numbers": lambda rng, shape: rng.integers(-127, 128, shape),
    "negative": lambda rng, shape: -np.abs(rng.normal(size=shape)),
    "alike": lambda rng, shape: 1 + 0.01 * rng.normal(size=shape),
}


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("dim", [3, 16, 128])
@pytest.mark.parametrize("n_queries", [1, 7])
@pytest.mark.parametrize("rounded", [False, True])
def test_bfloat16_changes_nothing(kind: str, dim: int, n_queries: int, rounded: bool) -> None:
    """Families of near ties, which bfloat16 rounds to one value or in the wrong order."""
    rng = np.random.default_rng(dim)
    centres = FAMILIES[kind](rng, (20, dim))
    scale = np.abs(centres).mean()
    for spread in (0, 1e-4, 1e-3, 1e-2, 1e-1):
        members = np.repeat(centres, 100, axis=0)
        members = members + spread * scale * rng.normal(size=members.shape)
        candidates = members[rng.permutation(len(members))].astype(np.float32)
        if rounded:  # then it is the products that bfloat16 rounds
            candidates = torch.from_numpy(candidates).bfloat16().float().numpy()
        there = rng.random(len(candidates)) < 0.9
        asked = np.abs(centres[:n_queries]).astype(np.float32)
        searched = ExactIndex(candidates, there, ALWAYS_ROUNDED)
        rows, value = searched.nearest(asked, 5)
        assert searched.memory_bytes == candidates.nbytes / 2
        exact = asked.astype(np.float64) @ candidates.T.astype(np.float64)
        exact[:, ~there] = -np.inf
        best = -np.sort(-exact, axis=1)[:, :5]
        close = 1e-6 * dim * np.abs(asked).max() * scale * 3
        np.testing.assert_allclose(np.take_along_axis(exact, rows, axis=1), best, atol=close)
        np.testing.assert_allclose(value, best, atol=close)
        assert all(len(set(found)) == len(found) for found in rows.tolist())


def test_a_product_that_bfloat16_rounds_furthest() -> None:
    """1 + 2^-8 rounds to 1, the largest error there is: half a unit of the last of 8 bits."""
    candidates = np.tile(np.float32([1, 0.75]), (2000, 1))
    candidates[1500] = 1, 1 - 2**-8
    rows, _ = ExactIndex(candidates, sizes=ALWAYS_ROUNDED).nearest(np.float32([[1, 2**-8]]), 1)
    assert rows.tolist() == [[1500]]


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_lengths_beyond_bfloat16_are_left_to_float32(scale: float) -> None:
    """What would overflow, or vanish, is not estimated."""
    candidates = unit_vectors(500, 5)
    scaled = candidates * np.float32(scale)
    for vectors, queries in ((scaled, candidates[:7]), (candidates, scaled[:7])):
        rows, _ = ExactIndex(vectors, sizes=ALWAYS_ROUNDED).nearest(queries, 1)
        assert rows.ravel().tolist() == list(range(7))


def test_crowds_are_multiplied_in_float32() -> None:
    """Where nearly everything may be among the best, the estimate is no use and is left."""
    crowded = replace(ALWAYS_ROUNDED.rounded, again=1 / 64, crowded=2)
    sizes = replace(ALWAYS_ROUNDED, rounded=crowded)
    there = np.arange(3000) % 10 != 0
    alike = np.float32(1) + 1e-4 * np.random.default_rng(6).random((3000, 8), dtype=np.float32)
    rows, value = ExactIndex(alike, there, sizes).nearest(alike[:7], 4)
    exact = np.where(there, alike[:7] @ alike.T, -np.inf)
    np.testing.assert_allclose(value, -np.sort(-exact, axis=1)[:, :4], rtol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, rows, axis=1), value, rtol=1e-6)


def test_searching_leaves_thread_counts() -> None:
    """Of the matrix libraries, in the thread that searches and in new ones."""

    def counts() -> tuple[int, list[int]]:
        blas = [library["num_threads"] for library in threadpool_info()]
        return torch.get_num_threads(), blas

    def counts_of_a_new_thread() -> tuple[int, list[int]]:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(counts).result()

    before, before_new = counts(), counts_of_a_new_thread()
    sizes = replace(ALWAYS_ROUNDED, threads=3, thread_elements=20)
    candidates = ExactIndex(unit_vectors(500, 8), sizes=sizes)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: candidates.nearest(unit_vectors(9, seed), 3), range(8)))
    candidates.nearest(unit_vectors(9, 9), 3)
    assert (counts(), counts_of_a_new_thread()) == (before, before_new)


def test_missing_vectors_are_never_found() -> None:
    """Rows of NaN, entries without the modality, are passed over; indices still fit the ids."""
    candidates = unit_vectors(20, 2)
    asked = candidates[[3, 7]].copy()
    candidates[3] = np.nan
    rows, cosine = ExactIndex(candidates).nearest(asked, 19)
    assert not (rows == 3).any()
    assert rows[1, 0] == 7
    assert np.isfinite(cosine).all()
    assert rows.shape == (2, 19)
    assert ExactIndex(candidates).nearest(asked, 50)[0].shape == (2, 19)


@pytest.mark.parametrize("row", [3, 15_000, 19_999])
@pytest.mark.parametrize("number", [-np.inf, -3e38, np.inf, np.nan], ids=str)
def test_what_is_not_finite_comes_first_wherever_it_is(row: int, number: float) -> None:
    """Among the first rows and long after, for queries that it is infinitely far from too."""
    vectors = unit_vectors(20_000, 4)
    asked = np.abs(unit_vectors(3, 4)) + 1
    vectors[row] = number
    missing = np.zeros(len(vectors), np.bool_)
    missing[[5, 15_001]] = True
    vectors[missing] = -np.inf
    rows, similarity = ExactIndex(vectors, ~missing).nearest(asked, 10)
    assert rows[:, 0].tolist() == [row] * 3
    assert np.isposinf(similarity[:, 0]).all()
    assert np.isfinite(similarity[:, 1:]).all()


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("is_missing", [False, True])
def test_nan_beside_it_hides_nothing_that_is_infinitely_far(
    is_missing: bool, rounded: bool
) -> None:
    """Of a missing entry, or of another damaged one, in the same block."""
    vectors = unit_vectors(200, 4)
    asked = np.abs(unit_vectors(3, 4)) + 1
    vectors[20], vectors[21] = np.nan, -3e38
    present = np.ones(len(vectors), np.bool_)
    present[20] = not is_missing
    sizes = ALWAYS_ROUNDED if rounded else ExactSizes(rounded=None)
    rows, similarity = ExactIndex(vectors, present, sizes).nearest(asked, 5)
    damaged = [21] if is_missing else [20, 21]
    assert rows[:, : len(damaged)].tolist() == [damaged] * 3
    assert np.isposinf(similarity[:, : len(damaged)]).all()
    assert np.isfinite(similarity[:, len(damaged) :]).all()


def test_queries_that_are_missing_are_told() -> None:
    """An entry that lacks the modality cannot ask."""
    asked = unit_vectors(3, 3)
    asked[1] = np.nan
    with pytest.raises(InputError, match="1 queries: they are not finite, the first in row 1"):
        ExactIndex(unit_vectors(20, 4)).nearest(asked, 2)
