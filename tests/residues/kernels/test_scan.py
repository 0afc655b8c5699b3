"""Searches of a database by best diagonals find what scoring every target finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.errors import InputError
from protalign.core.ragged import Ragged
from protalign.residues.kernels import correlation
from protalign.residues.kernels.correlation import ERROR, Correlation
from protalign.residues.kernels.scan import TRANSFORMED_QUERIES, DiagonalHits, DiagonalScan
from protalign.residues.kernels.scores import diagonal_scores
from tests.residues.kernels.test_scores import ragged, real_rows, whole_rows

WIDTH = 5


def every_target(queries: Ragged, targets: Ragged, k: int, floor: float | None) -> DiagonalHits:
    """Score every target, and sort."""
    scores, offsets = diagonal_scores(queries, targets, floor=floor)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return DiagonalHits(
        order, *(np.take_along_axis(column, order, axis=1) for column in (scores, offsets))
    )


def check_same(found: DiagonalHits, expected: DiagonalHits) -> None:
    np.testing.assert_array_equal(found.targets, expected.targets)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.offsets, expected.offsets)


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 30), min_size=1, max_size=TRANSFORMED_QUERIES + 2),
    st.lists(st.integers(0, 40), min_size=1, max_size=40),
    st.integers(1, 9),
    st.sampled_from([None, -1.0]),
    st.sampled_from([1, 50, 10_000]),
)
def test_hits_are_the_best_of_all(
    seed: int, queries: list[int], targets: list[int], k: int, floor: float | None, block: int
) -> None:
    """For any number of queries and targets, blocks and floor, and with equal scores."""
    rng = np.random.default_rng(seed)
    asked = ragged([whole_rows(rng, n) for n in queries])
    database = ragged([whole_rows(rng, n) for n in targets])
    scan = DiagonalScan(database.values, database.offsets, block_rows=block)
    expected = every_target(asked, database, min(k, len(targets)), floor)
    check_same(scan.nearest(asked, k, floor=floor), expected)


def test_small_numbers_in_a_file(tmp_path: Path) -> None:
    """int8 rows with a scale, memory-mapped, are the rows that they stand for."""
    rng = np.random.default_rng(0)
    scale = rng.choice([0.25, 0.5, 2], 50).astype(np.float32)
    database = ragged([whole_rows(rng, n, 50) for n in rng.integers(1, 60, 30)], 50)
    file = np.memmap(tmp_path / "rows", np.int8, "w+", shape=database.values.shape)
    file[:] = database.values
    queries = ragged([whole_rows(rng, n, 50) for n in (20, 30, 1, 8, 9)], 50)
    found = DiagonalScan(file, database.offsets, scale=scale, block_rows=300).nearest(queries, 5)
    check_same(
        found, every_target(queries, Ragged(database.values * scale, database.offsets), 5, None)
    )


def test_transforms_give_sums_within_their_error() -> None:
    """Far within it, for lengths from one residue to many, and rows of very unequal numbers."""
    rng = np.random.default_rng(1)
    queries = real_rows(rng, [1, 2, 90, 300])
    targets = real_rows(rng, [1, 5, 64, 65, 250, 700])
    targets[2] *= 1e4
    targets[3][:, 0] += 100
    scores, error = Correlation(queries).scores(ragged(targets, 50))
    exact, _ = diagonal_scores(ragged(queries, 50), ragged(targets, 50))
    assert np.all(np.abs(scores - exact) <= error / 10)


def test_hits_do_not_depend_on_the_way_that_they_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Related proteins of any numbers, found by transforms in small batches, or one by one."""
    rng = np.random.default_rng(2)
    database = real_rows(rng, rng.integers(1, 200, 60))
    queries = [rows + 0.1 * rng.standard_normal(rows.shape, dtype=np.float32) for rows in database]
    asked = ragged(queries[:20], 50)
    packed = ragged(database, 50)
    monkeypatch.setattr(correlation, "TRANSFORMED", 1 << 14)
    monkeypatch.setattr(correlation, "TOGETHER", 1 << 17)
    monkeypatch.setattr(correlation, "KEPT", 0)
    found = DiagonalScan(packed.values, packed.offsets, block_rows=1000).nearest(asked, 3)
    assert (found.targets[:, 0] == np.arange(20)).mean() > 0.8
    for place, query in enumerate(asked):
        alone = DiagonalScan(packed.values, packed.offsets).nearest(ragged([query], 50), 3)
        np.testing.assert_array_equal(alone.targets[0], found.targets[place])
        np.testing.assert_array_equal(alone.scores[0], found.scores[place])


def test_what_cannot_be_searched_is_refused() -> None:
    """Numbers that are not finite on either side, other widths, no hits."""
    rng = np.random.default_rng(3)
    database = ragged([whole_rows(rng, 9) for _ in range(3)])
    scan = DiagonalScan(database.values, database.offsets)
    several = ragged([whole_rows(rng, 4)] * 5)
    with pytest.raises(InputError, match="k=0"):
        scan.nearest(several, 0)
    with pytest.raises(InputError, match="same model"):
        scan.nearest(ragged([whole_rows(rng, 4, 7)], 7), 1)
    with pytest.raises(InputError, match="no residue rows"):
        scan.nearest(ragged([whole_rows(rng, 0)]), 1)
    with pytest.raises(InputError, match="scale"):
        DiagonalScan(database.values, database.offsets, scale=np.ones(3, np.float32))
    database.values[4, 1] = np.nan
    for queries in (several, ragged([several[0]])):
        with pytest.raises(InputError, match=r"targets: .* not finite"):
            scan.nearest(queries, 1)
    database.values[4, 1] = 0
    several.values[0, 0] = np.inf
    with pytest.raises(InputError, match=r"query: .* not finite"):
        scan.nearest(several, 1)


def test_a_database_of_nothing_has_no_hits() -> None:
    """No targets, or no queries."""
    rng = np.random.default_rng(4)
    nothing = DiagonalScan(np.zeros((0, WIDTH), np.float32), np.zeros(1, np.int64))
    assert nothing.nearest(ragged([whole_rows(rng, 4)] * 5), 3).targets.shape == (5, 0)
    one = ragged([whole_rows(rng, 4)])
    found = DiagonalScan(one.values, one.offsets).nearest(ragged([]), 3)
    assert found.scores.shape == (0, 1)


def test_the_bound_is_not_wide() -> None:
    """It is a small part of what related proteins score, so that few targets are scored again."""
    assert ERROR < 1e-5
