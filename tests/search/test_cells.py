"""Cells of near vectors: exact if all are read, and the same by any number of threads."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protalign.core.errors import InputError
from protalign.core.machine import computing_with
from protalign.search import VectorIndex, cell_building, cells, index_vectors
from protalign.search.cell_building import drawn_rows, learned_centroids, nearest_centroids
from protalign.search.cells import Cells, rounded, whole_queries
from protalign.search.index import Index
from protalign.search.rescored import CANDIDATES
from protalign.stores import AlignedVectors

DIM = 8


def _unit(count: int, seed: int, dim: int = DIM) -> np.ndarray:
    """(count, dim) float32 of unit length."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _aligned(structure: np.ndarray, present: np.ndarray) -> AlignedVectors:
    ids = np.array([f"p{row}" for row in range(len(structure))], dtype=object)
    structure = np.where(present[:, None], structure, np.float32(np.nan))
    none = np.zeros(len(ids), dtype=np.bool_)
    return AlignedVectors(ids, np.full_like(structure, np.nan), structure, none, present)


@settings(max_examples=20, deadline=None)
@example(168, 1, 12, 3, False, True, 3)
@given(
    st.integers(1, 400),
    st.integers(0, 9),
    st.integers(1, 12),
    st.integers(1, 300),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_all_cells_give_what_an_exact_search_gives(
    count: int, n_queries: int, k: int, different: int, some_lack: bool, moved: bool, seed: int
) -> None:
    """For any number of vectors and hits, vectors that occur often, and entries without one.

    Of more vectors than candidates, equal ones may push out others that rounding cannot tell apart.
    """
    generator = np.random.default_rng(seed)
    values = _unit(different, seed)[generator.integers(0, different, count)]
    present = generator.random(count) < (0.5 if some_lack else 2)
    present[0] = True
    vectors = _aligned(values, present)
    queries = _unit(n_queries, seed + 1) if moved else values[:n_queries]
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_building, "TRAINING", 2)
        patch.setattr(cell_building, "BLOCK", 50)
        patch.setattr(cells, "THREAD_PAIRS", 1)
        index_vectors(vectors, Path(place) / "index")
        index = VectorIndex(Path(place) / "index", vectors)
        with computing_with(1 + seed % 3):
            built = index._built["structure"]
            built.nprobe = (len(built.cells.centroids),) * 2  # type: ignore[attr-defined]
            rows, cosines = index.search(queries, k)
            assert index.search(queries, k, against="sequence")[0].shape == (len(queries), 0)
    expected, exact = Index(vectors).search(queries, k)
    assert rows.shape == expected.shape
    np.testing.assert_allclose(cosines, exact, atol=3e-7 if count <= CANDIDATES else 0.01)
    for found, row in zip(rows.tolist(), expected, strict=True):
        assert len(set(found)) == len(row)
        assert present[found].all()
    np.testing.assert_allclose(np.einsum("qkd,qd->qk", values[rows], queries), cosines, atol=3e-7)


def test_equal_vectors_come_in_the_order_of_their_rows() -> None:
    """Of a thousand equal ones, the first are found."""
    vectors = _aligned(np.repeat(_unit(2, 0), 500, axis=0), np.ones(1000, dtype=np.bool_))
    with tempfile.TemporaryDirectory() as place:
        index_vectors(vectors, Path(place) / "index")
        rows = VectorIndex(Path(place) / "index", vectors).search(vectors.structure[600:602], 5)[0]
    assert rows.tolist() == [[500, 501, 502, 503, 504]] * 2


def test_a_query_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    """One NaN or infinity, in one line."""
    vectors = _aligned(_unit(100, 0), np.ones(100, dtype=np.bool_))
    index_vectors(vectors, tmp_path / "index")
    index = VectorIndex(tmp_path / "index", vectors)
    for number in (np.nan, np.inf):
        queries = _unit(3, 1)
        queries[1, 3] = number
        with pytest.raises(InputError, match="1 queries: they are not finite, the first in row 1"):
            index.search(queries)


def test_more_cells_are_read_if_the_nearest_have_too_few_vectors(tmp_path: Path) -> None:
    """As many as it takes to find what is wanted."""
    vectors = _unit(1000, 0)
    built, _ = cell_building.build_cells(
        tmp_path, "structure", vectors, np.ones(1000, dtype=np.bool_), lambda *_: None
    )
    assert len(built.centroids) == 25
    for count in (1, 64, 500, 1000):
        rows = built.nearest(_unit(7, 1), 1, count)
        assert rows.shape == (7, count)
        assert all(len(set(each)) == count for each in rows.tolist())


@pytest.mark.parametrize("dim", [1, 7, 128, 3000])
def test_rounded_scores_are_near_the_products(tmp_path: Path, dim: int) -> None:
    """No sum leaves 32 bits, of any query: long, short, zero, or all of one sign."""
    vectors = np.concatenate([_unit(60, 0, dim), np.full((1, dim), dim**-0.5, np.float32)])
    numbers, scales = rounded(vectors)
    assert np.abs(numbers).max(axis=1).min() == 127
    queries = np.concatenate([_unit(3, 1, dim), vectors[-1:], -vectors[-1:]])
    queries = np.concatenate([queries, 1e30 * queries, 1e-30 * queries, 0 * queries[:1]])
    whole = whole_queries(queries).astype(np.int64)
    products = whole @ numbers.T.astype(np.int64)
    assert np.abs(whole).sum(axis=1).max() * 128 < 2**31
    length = np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1)
    expected = queries / np.maximum(np.linalg.norm(queries.astype("f8"), axis=1), 1e-40)[:, None]
    np.testing.assert_allclose(products * scales / length, expected @ vectors.T, atol=0.02)


def test_centroids_are_nearest_to_their_vectors() -> None:
    """K-means finds groups that lie apart, and each vector is given to the nearest centroid."""
    groups = np.repeat(np.eye(DIM, dtype=np.float32), 100, axis=0) + 0.1 * _unit(100 * DIM, 0)
    groups /= np.linalg.norm(groups, axis=1, keepdims=True)
    centroids = learned_centroids(groups, 40, 10)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    nearest = nearest_centroids(groups, centroids)
    np.testing.assert_array_equal(nearest, (groups @ centroids.T).argmax(axis=1))
    start = learned_centroids(groups, 40, 0)
    assert (groups * centroids[nearest]).sum() > (groups @ start.T).max(axis=1).sum()


def test_rows_are_drawn_among_the_present_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Different ones in order, all if there are not more, from every part of them."""
    monkeypatch.setattr(cell_building, "BLOCK", 64)
    present = np.random.default_rng(0).random(1000) < 0.3
    rows = drawn_rows(present, 50)
    assert len(np.unique(rows)) == 50
    assert present[rows].all()
    assert (np.diff(np.flatnonzero(present).searchsorted(rows)) < 20).all()
    np.testing.assert_array_equal(drawn_rows(present, 999), np.flatnonzero(present))
    assert not len(drawn_rows(np.zeros(10, dtype=np.bool_), 5))
    assert (drawn_rows(present, 50) != drawn_rows(present, 50, seed=1)).any()


def test_four_bytes_for_each_vector_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are put into cells: the number of each one's cell, and some of them at a time."""
    monkeypatch.setattr(cell_building, "BLOCK", 2048)
    monkeypatch.setattr(cell_building, "_PRODUCTS", 1 << 14)
    vectors, present = _unit(200_000, 0), np.ones(200_000, dtype=np.bool_)
    peaks: list[int] = []

    def watch(name: str, done: int, total: int) -> None:
        if (name, done) == ("filling cells", 2048):
            tracemalloc.reset_peak()
        if name == "writing cells":
            peaks.append(tracemalloc.get_traced_memory()[1])
            raise KeyboardInterrupt

    tracemalloc.start()
    try:
        with computing_with(1), pytest.raises(KeyboardInterrupt):
            cell_building.build_cells(tmp_path, "sequence", vectors, present, watch)
    finally:
        tracemalloc.stop()
    assert 4 * len(vectors) < peaks[0] < 8 * len(vectors)


def test_a_cell_holds_the_rows_nearest_to_its_centroid(tmp_path: Path) -> None:
    """In ascending order, with their rounded numbers; rows without a vector are in none."""
    vectors, present = _unit(600, 0), np.arange(600) % 5 > 0
    built, checksums = cell_building.build_cells(
        tmp_path, "sequence", vectors, present, lambda *_: None
    )
    np.testing.assert_array_equal(np.sort(built.rows), np.flatnonzero(present))
    for cell in range(len(built.centroids)):
        rows = built.rows[built.offsets[cell] : built.offsets[cell + 1]]
        assert (np.diff(rows) > 0).all()
        assert (nearest_centroids(vectors[rows], built.centroids) == cell).all()
    numbers, scales = rounded(vectors[built.rows])
    np.testing.assert_array_equal(built.vectors, numbers)
    np.testing.assert_array_equal(built.scales, scales)
    again = Cells.open(tmp_path, "sequence", (480, len(built.centroids), DIM), checksums)
    np.testing.assert_array_equal(again.centroids, built.centroids)
