"""Exact search: equal to sorting everything, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.errors import InputError
from protalign.stores import nearest as module
from protalign.stores.nearest import Candidates


def unit_vectors(count: int, seed: int) -> np.ndarray:
    """(count, 8) float32 of unit length."""
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 12), st.integers(4, 200))
def test_equals_a_full_sort(count: int, queries: int, k: int, block: int) -> None:
    """The k best of every query, best first, for any number of candidates and block size."""
    candidates, asked = unit_vectors(count, 0), unit_vectors(queries, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ELEMENTS", block)
        patch.setattr(module, "FIRST_ROWS", 1 + block % 7)
        patch.setattr(module, "THREAD_ELEMENTS", 20)  # as many threads as there are cores
        patch.setattr(module, "_cores", lambda: 3)
        rows, cosine = Candidates(candidates).nearest(asked, k)
    similarity = asked @ candidates.T
    expected = -np.sort(-similarity, axis=1)[:, :k]
    np.testing.assert_allclose(cosine, expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(similarity, rows, axis=1), cosine, atol=1e-6)


@given(
    st.integers(1, 300),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(64, 4000),
    st.sampled_from([0.001, 0.02, 1.0]),
    st.sampled_from([-1, 1]),
)
def test_bfloat16_changes_nothing(
    count: int, queries: int, k: int, block: int, spread: float, sign: int
) -> None:
    """Near ties that bfloat16 cannot tell apart come out as in float32, negative ones too."""
    rng = np.random.default_rng(count)
    candidates = sign * np.ones((count, 8), np.float32) / np.float32(8**0.5)
    candidates += spread * rng.normal(size=(count, 8)).astype(np.float32)
    candidates[rng.random(count) < 0.1] = np.nan
    candidates[0] = sign
    asked = np.abs(unit_vectors(queries, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ELEMENTS", block)
        patch.setattr(module, "THREAD_ELEMENTS", 500)
        patch.setattr(module, "_cores", lambda: 2)
        exact = Candidates(candidates).nearest(asked, k)
        patch.setattr(module, "processor_has_amx", lambda: True)
        patch.setattr(module, "HALF_BATCH", 1)
        patch.setattr(module, "HALF_VECTORS", 1)
        patch.setattr(module, "HALF_QUERIES", 0)
        searched = Candidates(candidates)
        rows, cosine = searched.nearest(asked, k)
        assert searched.memory_bytes > 0
    np.testing.assert_allclose(cosine, exact[1], atol=3e-7 * 8)
    similarity = asked @ np.nan_to_num(candidates).T
    assert not np.isnan(candidates[rows]).any()
    np.testing.assert_allclose(np.take_along_axis(similarity, rows, 1), cosine, atol=3e-7 * 8)
    assert all(len(set(found)) == len(found) for found in rows.tolist())


def test_missing_vectors_are_never_found() -> None:
    """Rows of NaN, entries without the modality, are passed over; indices still fit the ids."""
    candidates = unit_vectors(20, 2)
    asked = candidates[[3, 7]].copy()
    candidates[3] = np.nan
    rows, cosine = Candidates(candidates).nearest(asked, 19)
    assert not (rows == 3).any()
    assert rows[1, 0] == 7
    assert np.isfinite(cosine).all()
    assert rows.shape == (2, 19)
    assert Candidates(candidates).nearest(asked, 50)[0].shape == (2, 19)


def test_queries_that_are_missing_are_told() -> None:
    """An entry that lacks the modality cannot ask."""
    asked = unit_vectors(3, 3)
    asked[1] = np.nan
    with pytest.raises(InputError, match="1 queries are not finite, the first in row 1"):
        Candidates(unit_vectors(20, 4)).nearest(asked, 2)
