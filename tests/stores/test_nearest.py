"""Exact search: equal to sorting everything, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.errors import InputError
from protalign.stores import nearest as module
from protalign.stores.nearest import nearest


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
        rows, cosine = nearest(asked, candidates, k)
    similarity = asked @ candidates.T
    expected = -np.sort(-similarity, axis=1)[:, :k]
    np.testing.assert_allclose(cosine, expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(similarity, rows, axis=1), cosine, atol=1e-6)


def test_missing_vectors_are_never_found() -> None:
    """Rows of NaN, entries without the modality, are passed over; indices still fit the ids."""
    candidates = unit_vectors(20, 2)
    asked = candidates[[3, 7]].copy()
    candidates[3] = np.nan
    rows, cosine = nearest(asked, candidates, 19)
    assert not (rows == 3).any()
    assert rows[1, 0] == 7
    assert np.isfinite(cosine).all()
    assert rows.shape == (2, 19)
    assert nearest(asked, candidates, 50)[0].shape == (2, 19)


def test_queries_that_are_missing_are_told() -> None:
    """An entry that lacks the modality cannot ask."""
    asked = unit_vectors(3, 3)
    asked[1] = np.nan
    with pytest.raises(InputError, match="1 queries are not finite, the first in row 1"):
        nearest(asked, unit_vectors(20, 4), 2)
