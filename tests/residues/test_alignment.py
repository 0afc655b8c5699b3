"""Alignments of rows: the best diagonal, and the best local alignment with gaps."""

from __future__ import annotations

import inspect
import tracemalloc
from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import InputError
from protalign.core.machine import threads_here
from protalign.core.ragged import Ragged
from protalign.core.steps import in_steps
from protalign.residues import Alignment, align
from protalign.residues import targets as in_targets
from protalign.residues.alignment import GAP_EXTEND, GAP_OPEN, diagonals
from protalign.residues.calibration import Calibration
from protalign.residues.kernels.packed import LANES
from protalign.residues.kernels.scores import both_scores, diagonal_scores, local_scores
from protalign.residues.proteins import PackedRows, ProteinRows
from protalign.residues.targets import score_in_blocks, score_targets


def rows(n: int, seed: int) -> Float32:
    """Rows of small whole numbers: their products are exact."""
    return np.random.default_rng(seed).integers(-3, 4, size=(n, 4)).astype(np.float32)


def of_one_chain(local: Float32, diagonal: Float32 | None = None) -> ProteinRows:
    """A protein of one chain."""
    return ProteinRows(local, local if diagonal is None else diagonal, np.array([len(local)]))


lengths = st.integers(1, 25)
seeds = st.integers(0, 10_000)


@given(lengths, lengths, seeds, st.sampled_from([None, 0.0, -2.0]))
def test_the_diagonal_is_the_kernels(n: int, m: int, seed: int, floor: float | None) -> None:
    """Score and offset are those of the fast path, and of plain loops."""
    query, target = rows(n, seed), rows(m, seed + 1)
    alignment = align(query, target, "global", floor=floor)
    [score], [offset] = diagonal_scores(query, Ragged.pack([target]), floor=floor)
    assert alignment.score == score
    assert (alignment.target_rows - alignment.query_rows == offset).all()
    matrix = query @ target.T
    if floor is not None:
        matrix = np.maximum(matrix, floor)
    assert score == max(np.trace(matrix, d) for d in range(1 - n, m))
    assert len(alignment) == min(n, m - offset) - max(0, -offset)


def test_of_equal_diagonals_it_is_the_kernels() -> None:
    """The positive one of two that are equally far from the middle."""
    rows = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    query, target = rows, rows[::-1].copy()
    assert align(query, target, "global").target_rows.tolist() == [1]
    assert diagonal_scores(query, Ragged.pack([target]))[1].tolist() == [1]


@given(lengths, lengths, seeds)
def test_the_sums_of_diagonals_are_those_of_plain_steps(n: int, m: int, seed: int) -> None:
    """To the last bit: pairs are added from the query's end, whichever side is longer."""
    scores = np.random.default_rng(seed).normal(size=(n, m)).astype(np.float32)
    offsets, sums = diagonals(scores)
    assert offsets.tolist() == list(range(1 - n, m))
    for offset, found in zip(offsets.tolist(), sums, strict=True):
        total = np.float32(0)
        for score in np.diagonal(scores, offset)[::-1]:
            total += score
        assert found == total


@pytest.mark.parametrize("shape", [(20_000, 60), (60, 20_000)])
def test_a_long_protein_on_a_short_one_takes_no_more_memory_than_their_pairs(
    shape: tuple[int, int],
) -> None:
    """Whichever of the two is the query: 8 bytes a pair, of which the scores are 4."""
    query, target = (np.ones((n, 4), np.float32) for n in shape)
    tracemalloc.start()
    try:
        assert align(query, target, "global").score == 4 * 60
        assert tracemalloc.get_traced_memory()[1] < 8 * 20_000 * 60
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("n", "m", "name"), [(0, 1, "query"), (1, 0, "target"), (0, 0, "query")])
def test_without_rows_there_is_no_diagonal(n: int, m: int, name: str) -> None:
    """One line says which side has none; the best local alignment is an empty one."""
    with pytest.raises(InputError, match=f"^{name}: it has no residue rows; give an array"):
        align(rows(n, 0), rows(m, 1), "global")
    assert len(align(rows(n, 0), rows(m, 1))) == 0


@pytest.mark.parametrize("function", [align, local_scores, both_scores])
def test_the_usual_gap_costs_are_the_same_everywhere(function: object) -> None:
    """What ranks and what is shown count gaps alike."""
    defaults = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert defaults["gap_open"].default is GAP_OPEN
    assert defaults["gap_extend"].default is GAP_EXTEND


@given(lengths, lengths, seeds)
def test_the_local_alignment_is_the_kernels(n: int, m: int, seed: int) -> None:
    """The path that is shown has the score that the fast path ranks by, recounted step by step."""
    query, target = rows(n, seed), rows(m, seed + 1)
    alignment = align(query, target, gap_open=5, gap_extend=1)
    [score], _, _ = local_scores(query, Ragged.pack([target]), gap_open=5, gap_extend=1)
    assert alignment.score == score
    total = 0.0
    for before, (i, j) in enumerate(
        zip(alignment.query_rows, alignment.target_rows, strict=True), start=-1
    ):
        total += float(query[i] @ target[j])
        if before < 0:
            continue
        for skipped in (
            i - alignment.query_rows[before] - 1,
            j - alignment.target_rows[before] - 1,
        ):
            assert skipped >= 0
            total -= 5 + skipped - 1 if skipped else 0
    assert total == score


def test_an_insertion_is_a_gap() -> None:
    """Three residues more in the query: both sides stay in register."""
    target = 5 * np.eye(40, dtype=np.float32)
    query = np.insert(target, 20, np.zeros((3, 40), np.float32), axis=0)
    alignment = align(query, target)
    assert alignment.target_rows.tolist() == list(range(40))
    assert alignment.query_rows.tolist() == [*range(20), *range(23, 43)]
    assert alignment.gap_openings == 1
    assert alignment.score == 40 * 25 - GAP_OPEN - 2 * GAP_EXTEND
    assert alignment.target_coverage == 1
    assert align(query, target, "global").score == 20 * 25


@pytest.mark.parametrize("n", [0, 3])
def test_nothing_positive_gives_no_local_alignment(n: int) -> None:
    """Score 0, without a residue; coverage is 0."""
    query = np.ones((n, 4), np.float32)
    alignment = align(query, -np.ones((5, 4), np.float32))
    assert (alignment.score, len(alignment)) == (0, 0)
    assert (alignment.query_coverage, alignment.target_coverage) == (0, 0)


def test_many_targets_are_scored_as_each_alone() -> None:
    """Both scores of a search's second stage are those of the alignments that are shown."""
    query = rows(30, 0)
    targets = [rows(n, n) for n in (1, 12, 30, 47)]
    packed = PackedRows.of([of_one_chain(target) for target in targets])
    scores = score_targets(of_one_chain(query), packed)
    assert scores.excess is None
    assert scores.diagonal.tolist() == [align(query, t, "global").score for t in targets]
    assert scores.local.tolist() == [align(query, t).score for t in targets]
    assert (scores.local_order == scores.local).all()


@given(
    st.lists(lengths, min_size=1, max_size=9), lengths, seeds, st.integers(1, 900), st.booleans()
)
def test_targets_in_blocks_are_targets_at_once(
    several: list[int], n: int, seed: int, most: int, with_head: bool
) -> None:
    """However many pairs are scored at once, each target has its score, in its place."""
    heads = [(n, seed + 50), *((m, seed + 51 + i) for i, m in enumerate(several))]
    query, *proteins = (
        ProteinRows(
            rows(length, seed + i),
            rows(length, of_head) if with_head else rows(length, seed + i),
            np.array([1, length - 1]) if length % 3 == 2 else np.array([length]),
        )
        for i, (length, of_head) in enumerate(heads)
    )
    targets = PackedRows.of(proteins)
    want = score_targets(query, targets)
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch, in_steps(lambda: steps.append(1)):
        patch.setattr("protalign.residues.targets.PAIRS_AT_ONCE", most)
        patch.setattr("protalign.residues.targets.LANES", 1)
        found = score_targets(query, targets)
    assert found.local.tolist() == want.local.tolist()
    assert found.diagonal.tolist() == want.diagonal.tolist()
    assert found.excess is None
    assert len(steps) >= min(len(several), n * sum(several) // (most + n * max(several, default=0)))


@given(st.integers(0, 2000), st.integers(1, 1000), st.integers(0, 10_000))
def test_blocks_are_whole_groups_of_lanes(count: int, n_query: int, seed: int) -> None:
    """Longest first, each as large as it may be: a group is never cut, nor counted twice."""
    lengths = np.random.default_rng(seed).integers(0, 400, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_targets, "RESIDUES_AT_ONCE", 30_000)
        patch.setattr(in_targets, "PAIRS_AT_ONCE", 10_000_000)
        found = list(in_targets._blocks(lengths, n_query))
    most, least = min(30_000, 10_000_000 // n_query), LANES * threads_here()
    order = np.argsort(-lengths, kind="stable")
    assert np.concatenate([order[:0], *found]).tolist() == order.tolist()
    assert all(map(len, found))
    for block, following in pairwise(found):
        assert len(block) % LANES == 0
        assert len(block) == least or (len(block) > least and lengths[block].sum() <= most)
        assert lengths[block].sum() + lengths[following[:LANES]].sum() > most


def real_targets(n: int, longest: int) -> list[ProteinRows]:
    """Proteins of one chain, whose products are rounded."""
    rng = np.random.default_rng(0)
    return [
        of_one_chain(*rng.normal(size=(2, length, 50)).astype(np.float32))
        for length in rng.integers(1, longest, size=n)
    ]


@pytest.mark.parametrize("in_steps_too", [False, True])
def test_blocks_change_no_bit_of_a_score(
    monkeypatch: pytest.MonkeyPatch, in_steps_too: bool
) -> None:
    """A block has whole groups of those that are scored at once, and each target its place."""
    query, *proteins = real_targets(90, 80)
    targets = PackedRows.of(proteins)
    calibration = Calibration(-10.0, 0.5, 5.0, scale=25.0, n_pairs=1000)
    want = score_targets(query, targets, calibration)
    asked: list[int] = []

    def rows_of(places: Int64) -> PackedRows:
        asked.append(len(places))
        return targets.take(places)

    monkeypatch.setattr("protalign.residues.targets.RESIDUES_AT_ONCE", 300)
    with in_steps(lambda: None) if in_steps_too else nullcontext():
        found = score_in_blocks(query, targets.local.lengths, rows_of, calibration)
    assert len(asked) > 4
    assert sum(asked) == len(proteins)
    for name in ("diagonal", "local", "excess"):
        np.testing.assert_array_equal(getattr(found, name), getattr(want, name))


def test_memory_does_not_grow_with_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring 640 takes little more beside their rows than scoring 80, also if nobody watches."""
    monkeypatch.setattr("protalign.residues.targets.RESIDUES_AT_ONCE", 1000)
    query, *proteins = real_targets(641, 60)
    peaks = []
    for count in (80, 80, 640):  # the first time the loops are compiled
        targets = PackedRows.of(proteins[:count])
        tracemalloc.start()
        try:
            score_targets(query, targets, Calibration(-10.0, 0.5, 5.0, scale=25.0, n_pairs=1000))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]


def test_coverage_is_from_the_first_to_the_last_aligned_residue() -> None:
    """Gaps inside count as covered."""
    pairs = np.array([2, 3, 7]), np.array([0, 1, 2])
    alignment = Alignment("local", 1.0, *pairs, np.ones(3, np.float32), 12, 6)
    assert (alignment.query_coverage, alignment.target_coverage) == (0.5, 0.5)
