"""A scan of all targets keeps those that a second stage would put first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.arrays import Int64
from protalign.core.errors import InputError
from protalign.core.words import AlignMode
from protalign.residues import scan
from protalign.residues.calibration import Calibration
from protalign.residues.kernels import diagonals
from protalign.residues.proteins import PackedRows, ProteinRows
from protalign.residues.scan import best_targets
from protalign.residues.targets import less_length_term, score_targets
from tests.residues.kernels.test_scores import real_rows, whole_rows

#: None is the processor; without a GPU, the kernel of one is interpreted.
GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DEVICES = [None, GPU]
CALIBRATION = Calibration(3.0, 0.4, 1.5, scale=2.0, n_pairs=1000)


@pytest.fixture(autouse=True)
def on_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is used wherever a device is named, in tiles of 16 residues."""
    monkeypatch.setattr(scan, "runs_triton", lambda device: True)
    monkeypatch.setattr(diagonals, "_TILE", 16)


def protein(rows: np.ndarray, rng: np.random.Generator) -> ProteinRows:
    """A protein of up to three chains, maybe with gaps, whose rows differ for the two modes."""
    n_chains = int(rng.integers(1, min(3, len(rows)) + 1))
    cuts = np.sort(rng.choice(np.arange(1, len(rows)), n_chains - 1, replace=False))
    chains = np.diff([0, *cuts, len(rows)]).astype(np.int64)
    made = ProteinRows(rows[:, ::-1].copy(), rows, chains)
    if rng.random() < 0.5:
        return made
    return made.placed(np.cumsum(rng.choice([1, 1, 1, 4], len(rows))))


def some_at_a_time(targets: list[ProteinRows], at_once: int) -> Iterator[tuple[Int64, PackedRows]]:
    """Targets in blocks; their numbers begin with 10 and are even."""
    for first in range(0, len(targets), at_once):
        block = targets[first : first + at_once]
        yield 10 + 2 * (first + np.arange(len(block))), PackedRows.of(block)


def of_score_targets(
    query: ProteinRows,
    targets: list[ProteinRows],
    count: int,
    mode: AlignMode,
    calibration: Calibration | None,
    length_term: float,
) -> list[int]:
    """The numbers of the targets that are the best, or equal to the last of them."""
    packed = PackedRows.of(targets)
    scores = score_targets(query, packed, calibration)
    lengths = len(query.local), packed.local.lengths
    less = less_length_term(scores.diagonal, length_term, *lengths)
    keys = scores.local_order if mode == "local" else less
    least = np.sort(keys)[::-1][:count][-1]
    return [10 + 2 * place for place in np.flatnonzero(keys >= least).tolist()]


@settings(max_examples=20)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 20), min_size=1, max_size=2),
    st.lists(st.integers(1, 24), min_size=1, max_size=7),
    st.integers(1, 4),
    st.sampled_from([("local", 0.0), ("global", 0.0), ("global", 2.0)]),
    st.sampled_from([1, 5, 50]),
    st.sampled_from([None, CALIBRATION]),
    st.sampled_from(DEVICES),
)
def test_the_best_of_all_are_kept(
    seed: int,
    queries: list[int],
    targets: list[int],
    count: int,
    order: tuple[AlignMode, float],
    at_once: int,
    calibration: Calibration | None,
    device: torch.device | None,
) -> None:
    """Of one chain and of several, in blocks of any size; all that equal the last one too."""
    mode, length_term = order
    rng = np.random.default_rng(seed)
    asked = [protein(whole_rows(rng, n), rng) for n in queries]
    database = [protein(whole_rows(rng, n), rng) for n in targets]
    found = best_targets(
        PackedRows.of(asked),
        some_at_a_time(database, at_once),
        count,
        mode,
        calibration,
        length_term=length_term,
        device=device,
    )
    for query, numbers in zip(asked, found, strict=True):
        expected = of_score_targets(query, database, count, mode, calibration, length_term)
        assert set(expected) <= set(numbers.tolist())
        # Whole numbers have exact sums; what is kept beside the best is a tie by rounding alone.
        assert len(numbers) <= len(expected) + (mode == "global")
        assert (np.diff(numbers) > 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length_term", [0.0, 20.0])
def test_few_are_kept(device: torch.device | None, length_term: float) -> None:
    """Of real numbers, whose scores differ, hardly more than were asked for."""
    rng = np.random.default_rng(0)
    database = [protein(rows, rng) for rows in real_rows(rng, rng.integers(5, 20, 12))]
    query = database[7]
    expected = of_score_targets(query, database, 3, "global", None, length_term)
    if length_term:
        assert expected != of_score_targets(query, database, 3, "global", None, 0.0)
    [found] = best_targets(
        PackedRows.of([query]),
        some_at_a_time(database, 7),
        3,
        "global",
        length_term=length_term,
        device=device,
    )
    assert set(expected) <= set(found.tolist())
    assert len(found) <= 4


@pytest.mark.parametrize("device", DEVICES)
def test_equal_scores_are_all_kept(device: torch.device | None) -> None:
    """However they are rounded: a protein with more and more residues that count nothing."""
    rng = np.random.default_rng(3)
    own, other = (ProteinRows(rows, rows, np.array([40])) for rows in real_rows(rng, [40, 40]))
    targets = [other]
    for more in (0, 5, 30, 60):
        rows = np.pad(own.diagonal, ((0, more), (0, 0)))
        targets.append(ProteinRows(rows, rows, np.array([40 + more])))
    asked = PackedRows.of([own])
    [found] = best_targets(asked, some_at_a_time(targets, 2), 1, "global", device=device)
    assert found.tolist() == [12, 14, 16, 18]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["local", "global"])
def test_what_cannot_be_compared_is_refused(mode: AlignMode, device: torch.device | None) -> None:
    """Numbers that are not finite on either side, and a query without rows."""
    rng = np.random.default_rng(1)
    good, bad = (protein(rows, rng) for rows in real_rows(rng, [9, 12]))
    for rows in (bad.local, bad.diagonal):
        rows[4, 2] = np.nan

    def compared(query: ProteinRows, target: ProteinRows) -> None:
        best_targets(PackedRows.of([query]), some_at_a_time([target], 1), 1, mode, device=device)

    with pytest.raises(InputError, match=r"targets: .* not finite"):
        compared(good, bad)
    with pytest.raises(InputError, match=r"query: .* not finite"):
        compared(bad, good)
    none = ProteinRows(good.local[:0], good.diagonal[:0], np.empty(0, dtype=np.int64))
    with pytest.raises(InputError, match="query: it has no residue rows"):
        compared(none, good)


@pytest.mark.parametrize("device", DEVICES)
def test_huge_numbers_hide_no_other_target(device: torch.device | None) -> None:
    """A target whose sums are beyond float32 is left to the second stage; others keep theirs."""
    rng = np.random.default_rng(2)
    database = [protein(rows, rng) for rows in real_rows(rng, [12, 12, 12])]
    huge = ProteinRows(
        database[1].local, database[1].diagonal * np.float32(1e38), database[1].chains
    )
    targets = [database[0], huge, database[2]]
    with np.errstate(all="ignore"):
        [found] = best_targets(
            PackedRows.of([database[0]]), some_at_a_time(targets, 3), 1, "global", device=device
        )
    assert found.tolist()[:2] == [10, 12]
