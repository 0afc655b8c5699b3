"""The register of an alignment: windows, and stretches that fit better some residues further on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.arrays import Float32
from protalign.residues import align
from protalign.residues.register import (
    BOUNDS,
    EXCURSION,
    MAX_SHIFT,
    WINDOW,
    check_register,
    find_stretches,
    without_excursions,
)


def chain(length: int, seed: int = 0, fit: float = 6.0) -> Float32:
    """Return rows of a chain each of which fits itself by 6 nats, and no other one."""
    rows = np.random.default_rng(seed).normal(size=(length, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows * np.sqrt(fit)).astype(np.float32)


@given(
    shift=st.sampled_from([-3, -2, -1, 1, 2, 3]),
    first=st.integers(5, 60),
    length=st.integers(15, 30),
    seed=st.integers(0, 1000),
)
def test_a_shifted_stretch_is_found(shift: int, first: int, length: int, seed: int) -> None:
    """Its ends, its direction and the verdict about its residues are right; no other is found."""
    structure = chain(100, seed)
    sequence = structure.copy()
    sequence[first : first + length] = structure[first + shift : first + shift + length]
    pairs = np.arange(100)
    register = check_register(sequence, structure, pairs, pairs)
    (slip,) = register.slips
    assert slip.shift == shift
    assert abs(slip.first - first) <= 2
    assert abs(slip.last - (first + length - 1)) <= 2
    assert {place for place, v in enumerate(register.verdicts) if v == "shifted"} == set(
        range(slip.first, slip.last + 1)
    )
    inside = np.isin(pairs, np.arange(slip.first, slip.last + 1))
    assert (register.shift[inside] == shift).mean() > 0.5


@pytest.mark.parametrize("length", [1, 2, 20, 21, 22, 100])
def test_a_right_register_has_no_slip(length: int) -> None:
    """The chosen diagonal is the best of each window, also of a chain shorter than a window."""
    rows, pairs = chain(length), np.arange(length)
    register = check_register(rows, rows, pairs, pairs)
    assert register.slips == ()
    assert set(register.verdicts) == {"supported"}
    assert not register.shift.any()
    assert not register.gain.any()


def test_nothing_aligned_gives_nothing() -> None:
    """An alignment without pairs has an empty register."""
    rows, none = chain(5), np.empty(0, dtype=np.int64)
    register = check_register(rows, rows, none, none)
    assert len(register.ratios) == len(register.verdicts) == len(register.slips) == 0


def test_unrelated_rows_are_unsupported() -> None:
    """Rows that do not fit are no slip, since no diagonal is better."""
    sequence, structure, pairs = chain(80), chain(80, 1), np.arange(80)
    constant = np.full((80, 1), -3, np.float32), np.ones((80, 1), np.float32)
    register = check_register(
        np.hstack([sequence, constant[0]]), np.hstack([structure, constant[1]]), pairs, pairs
    )
    assert set(register.verdicts) == {"unsupported"}
    assert register.slips == ()


def test_windows_are_as_loops_have_them() -> None:
    """Ratios, support and gain of an alignment with gaps equal sums written as loops."""
    rng = np.random.default_rng(3)
    sequence, structure = rng.normal(size=(2, 60, 8)).astype(np.float32) * 2
    q = np.flatnonzero(rng.random(60) < 0.7)
    t = np.sort(rng.permutation(60)[: len(q)])
    register = check_register(sequence, structure, q, t, max_shift=2)
    scores = sequence @ structure.T
    for place in range(len(q)):
        window = range(max(place - WINDOW // 2, 0), min(place + WINDOW // 2 + 1, len(q)))
        chosen = [float(np.clip(scores[q[i], t[i]], *BOUNDS)) for i in window]
        sums = {0: 0.0}
        for shift in (-2, -1, 1, 2):
            sums[shift] = sum(
                float(np.clip(scores[q[i], t[i] + shift], *BOUNDS)) - value
                for i, value in zip(window, chosen, strict=True)
                if 0 <= t[i] + shift < 60
            )
        best = max(sums, key=lambda shift: sums[shift])
        assert register.ratios[place] == pytest.approx(scores[q[place], t[place]], abs=1e-4)
        assert register.support[place] == pytest.approx(np.mean(chosen), abs=1e-4)
        assert register.shift[place] == best
        assert register.gain[place] == pytest.approx(sums[best], abs=1e-3)


@given(
    shift=st.sampled_from([-3, -2, -1, 1, 2, 3]),
    first=st.integers(12, 60),
    length=st.integers(15, 30),
    seed=st.integers(0, 1000),
)
def test_a_slip_that_a_local_alignment_follows_is_found(
    shift: int, first: int, length: int, seed: int
) -> None:
    """Its gaps put the stretch where it fits; it is reported as without gaps, and as followed."""
    structure = chain(110, seed)
    sequence = structure.copy()
    sequence[first : first + length] = structure[first + shift : first + shift + length]
    pairs = np.arange(110)
    expected = find_stretches(
        *(sequence, structure, pairs, pairs), check_register(sequence, structure, pairs, pairs)
    )
    found = align(sequence, structure)
    rows = sequence, structure, found.query_rows, found.target_rows
    assert found.gap_openings == 2
    register = check_register(*rows)
    assert register.slips == ()
    (stretch,) = find_stretches(*rows, register)
    assert stretch.followed
    assert not expected[0].followed
    assert (stretch.first, stretch.last, stretch.shift) == (
        expected[0].first,
        expected[0].last,
        shift,
    )
    assert stretch.gain == pytest.approx(expected[0].gain)


def steps(*runs: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return pairs in runs of a length on a diagonal, as close together as they can be."""
    query, target = [0], [0]
    for length, diagonal in runs:
        begin = max(query[-1] + 1, target[-1] + 1 - diagonal)
        query += range(begin, begin + length)
        target += range(begin + diagonal, begin + length + diagonal)
    return np.array(query[1:]), np.array(target[1:])


@pytest.mark.parametrize("shift", [-MAX_SHIFT, 1, MAX_SHIFT])
@pytest.mark.parametrize("length", [1, EXCURSION])
def test_an_excursion_is_straightened(shift: int, length: int) -> None:
    """What lies between its two ends is paired on the diagonal; all others stay."""
    query, target = steps((9, 2), (length, 2 + shift), (9, 2))
    straight, also, replaced = without_excursions(query, target)
    np.testing.assert_array_equal(straight, np.arange(query[0], query[-1] + 1))
    np.testing.assert_array_equal(also, straight + 2)
    assert not replaced[:9].any()
    assert replaced[9:-9].all()
    assert not replaced[-9:].any()


@pytest.mark.parametrize(
    "runs",
    [
        [(9, 2)],
        [(9, 0), (9, 2)],
        [(9, 0), (9, 2), (9, 1)],
        [(9, 0), (9, MAX_SHIFT + 1), (9, 0)],
        [(9, 0), (9, 2), (9, MAX_SHIFT + 1), (9, 0)],
        [(9, 0), (EXCURSION + 1, 2), (9, 0)],
    ],
)
def test_what_is_no_excursion_stays(runs: list[tuple[int, int]]) -> None:
    """A gap that nothing takes back, a diagonal too far away, a stretch that is too long."""
    query, target = steps(*runs)
    same = without_excursions(query, target)
    np.testing.assert_array_equal(same[0], query)
    np.testing.assert_array_equal(same[1], target)
    assert not same[2].any()


def test_two_excursions_close_together_are_both_straightened() -> None:
    """The way between them is on the diagonal that was left, not an excursion from the others."""
    query, target = steps((9, 0), (20, 1), (20, 0), (20, 1), (9, 0))
    straight, also, replaced = without_excursions(query, target)
    np.testing.assert_array_equal(straight, np.arange(query[0], query[-1] + 1))
    np.testing.assert_array_equal(also, straight)
    between = (straight >= query[29]) & (straight <= query[48])
    assert not replaced[between].any()
