"""The register of an alignment: whether a stretch of it fits better some residues further on.

The register slips if a stretch of a sequence is put on its backbone a few residues too early or too
late: in an alignment, or in a model that was built into a map of low resolution. Each residue then
sits on a neighbour's place, and the log-likelihood ratios on a diagonal beside the chosen one are
higher than those on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Float32, Float64, Int64

#: Pairs of a window. A shorter window finds shorter stretches, and more that are none.
WINDOW = 21
#: Residues further on, or back, that are looked at.
MAX_SHIFT = 3
#: Nats by which another diagonal must be better over a window. benchmarks/quality/register.py
#: measured it: one protein of 20 in its right register has a window above it.
LEAST_GAIN = 24.0
#: Pairs of the longest stretch for which an alignment leaves its diagonal and comes back.
EXCURSION = 40
#: Ratios count at least and at most this: one residue must not decide about a window.
BOUNDS = (-4.0, 10.0)
#: Mean ratio of a window. Above the first, 94 % of the windows of right pairs and 1 % of those of
#: unrelated proteins; below the second, 1 % of right and 95 % of unrelated ones.
SUPPORTED, UNSUPPORTED = 1.0, -0.5

#: Verdicts about a residue on its backbone.
VERDICTS = ("supported", "unclear", "unsupported", "shifted")


@dataclass(frozen=True, slots=True)
class Slip:
    """A stretch of an alignment whose sequence fits better elsewhere on the backbone.

    Attributes
    ----------
    first, last : int
        Its first and its last pair, counted from 0 in the alignment.
    shift : int
        The sequence's residues fit the backbone this many residues further on; negative for back.
    gain : float
        Nats that the stretch gains there.
    """

    first: int
    last: int
    shift: int
    gain: float

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """A slip by the residues of the backbone, also one that the alignment follows with gaps.

    Attributes
    ----------
    first, last : int
        Rows of the structure, on the diagonal on which the alignment goes on.
    shift : int
        The sequence's residues fit the backbone this many residues further on; negative for back.
    gain : float
        Nats that the stretch gains there.
    followed : bool
        Whether the alignment has left its diagonal for it, with a gap out and a gap back.
    """

    first: int
    last: int
    shift: int
    gain: float
    followed: bool = False


@dataclass(frozen=True, eq=False)
class Register:
    """How well each pair of an alignment fits, and where its register slips.

    Attributes
    ----------
    ratios : (n,) float32
        Log-likelihood ratio of each pair, in nats.
    support : (n,) float32
        Mean over the window around the pair, each ratio within ``BOUNDS``.
    shift : (n,) int64
        The best diagonal of the window; 0 for the chosen one.
    gain : (n,) float32
        Nats by which it is better over the window than the chosen one, at least 0.
    slips : tuple of Slip
        Stretches whose windows gain at least the least gain on another diagonal, where their mean
        ratio is at least 0, in order.

    Examples
    --------
    >>> rows = 6 * np.eye(60, dtype=np.float32)
    >>> sequence = rows.copy()
    >>> sequence[20:40] = rows[22:42]  # two residues too early on the backbone
    >>> pairs = np.arange(60)
    >>> (slip,) = check_register(sequence, rows, pairs, pairs).slips
    >>> slip.first, slip.last, slip.shift
    (20, 39, 2)
    """

    ratios: Float32
    support: Float32
    shift: Int64
    gain: Float32
    slips: tuple[Slip, ...]

    @property
    def verdicts(self) -> list[str]:
        """One of ``VERDICTS`` for each pair."""
        verdicts = [
            "supported" if mean >= SUPPORTED else "unsupported" if mean < UNSUPPORTED else "unclear"
            for mean in self.support.tolist()
        ]
        for slip in self.slips:
            verdicts[slip.first : slip.last + 1] = ["shifted"] * len(slip)
        return verdicts


def check_register(
    sequence: Float32,
    structure: Float32,
    sequence_rows: Int64,
    structure_rows: Int64,
    *,
    window: int = WINDOW,
    max_shift: int = MAX_SHIFT,
    least_gain: float = LEAST_GAIN,
) -> Register:
    """Compare each window of an alignment with the diagonals beside the chosen one.

    Parameters
    ----------
    sequence, structure : (L, k + 2) and (L', k + 2) float32
        Rows of one chain's sequence and of one chain's structure (``ResidueStage.plain_rows``).
    sequence_rows, structure_rows : (n,) int64
        The aligned rows, ascending.
    window : int
        Pairs of a window, odd.
    max_shift : int
        Residues further on and back to look at. A pair that would leave the chain counts alike on
        both diagonals.
    least_gain : float
        Nats by which another diagonal must be better over a window.

    Returns
    -------
    Register
    """
    shifts = np.arange(-max_shift, max_shift + 1)
    others = structure_rows[:, None] + shifts
    inside = (others >= 0) & (others < len(structure))
    around = structure[np.clip(others, 0, max(len(structure) - 1, 0))]
    ratios = np.einsum("nd,nsd->ns", sequence[sequence_rows], around).astype(np.float32)
    chosen = ratios[:, max_shift]
    bounded = np.clip(ratios, *BOUNDS)
    gains = np.where(inside, bounded - bounded[:, [max_shift]], 0)
    windows, sizes = _window_sums(gains, window)
    support = _window_sums(bounded[:, [max_shift]], window)[0][:, 0] / sizes
    # The chosen diagonal comes first, so that of equal ones it is the best.
    order = np.argsort(np.abs(shifts), kind="stable")
    best = order[np.argmax(windows[:, order], axis=1)]
    gain = windows[np.arange(len(best)), best]
    slips = _slips(gains, best, gain >= least_gain, window // 2)
    return Register(
        chosen,
        support.astype(np.float32),
        shifts[best],
        gain.astype(np.float32),
        tuple(
            Slip(first, last, int(shifts[column]), total)
            for first, last, column, total in _without_overlaps(slips)
            # A stretch that fits nowhere is unsupported, not shifted.
            if column != max_shift and bounded[first : last + 1, column].mean() >= 0
        ),
    )


def find_stretches(
    sequence: Float32,
    structure: Float32,
    sequence_rows: Int64,
    structure_rows: Int64,
    register: Register,
    *,
    least_gain: float = LEAST_GAIN,
) -> tuple[Stretch, ...]:
    """Return the slips of an alignment, also those that it follows with gaps, in order.

    Where it has left a diagonal and come back, what ``check_register`` finds on the diagonal that
    it left counts: the same slip that an alignment without gaps has.

    Parameters
    ----------
    sequence, structure, sequence_rows, structure_rows, least_gain
        As for ``check_register``.
    register : Register
        What it returned for them.

    Examples
    --------
    >>> rows = 6 * np.eye(60, dtype=np.float32)
    >>> sequence = rows.copy()
    >>> sequence[20:40] = rows[22:42]  # two residues too early on the backbone
    >>> pairs = np.r_[:40, 42:60], np.r_[:20, 22:60]  # as a local alignment has them
    >>> register = check_register(sequence, rows, *pairs)
    >>> register.slips, find_stretches(sequence, rows, *pairs, register)
    ((), (Stretch(first=20, last=39, shift=2, gain=200.0, followed=True),))
    """
    found = [
        Stretch(
            int(structure_rows[slip.first]), int(structure_rows[slip.last]), slip.shift, slip.gain
        )
        for slip in register.slips
    ]
    query, target, left = without_excursions(sequence_rows, structure_rows)
    if left.any():
        own = check_register(sequence, structure, query, target, least_gain=least_gain)
        followed = [
            Stretch(int(target[slip.first]), int(target[slip.last]), slip.shift, slip.gain, True)
            for slip in own.slips
            if left[slip.first : slip.last + 1].any()
        ]
        found = followed + [
            each
            for each in found
            if all(each.last < other.first or each.first > other.last for other in followed)
        ]
    return tuple(sorted(found, key=lambda stretch: stretch.first))


def without_excursions(query_rows: Int64, target_rows: Int64) -> tuple[Int64, Int64, Bool]:
    """Return an alignment that stays on its diagonal where it left it and came back.

    A local alignment follows a slip of the register with two gaps: out to a diagonal beside its
    own, and back. ``check_register`` finds such a slip on the diagonal that was left.

    Parameters
    ----------
    query_rows, target_rows : (n,) int64
        The aligned rows, ascending.

    Returns
    -------
    query_rows, target_rows : (m,) int64
        The pairs, with those of the left diagonal in place of each stretch of at most
        ``EXCURSION`` pairs that lies at most ``MAX_SHIFT`` residues off the diagonal before it,
        which is also the one after it.
    replaced : (m,) bool
        Those in place of such a stretch.

    Examples
    --------
    >>> query, target = np.arange(9), np.array([0, 1, 2, 5, 6, 7, 8, 9, 10])
    >>> without_excursions(query, target)[1].tolist()  # it does not come back
    [0, 1, 2, 5, 6, 7, 8, 9, 10]
    >>> query, target = np.array([0, 1, 2, 3, 4, 7, 8]), np.array([0, 1, 2, 5, 6, 7, 8])
    >>> without_excursions(query, target)[1].tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    kept = np.ones(len(query_rows), dtype=np.bool_)
    rows, others = [query_rows[:0]], [target_rows[:0]]
    for first, end in _excursions(target_rows - query_rows):
        kept[first:end] = False
        for side, every in ((query_rows, rows), (target_rows, others)):
            every.append(np.arange(side[first - 1] + 1, side[end]))
    left, also = np.concatenate(rows), np.concatenate(others)
    query, target = np.r_[query_rows[kept], left], np.r_[target_rows[kept], also]
    order = np.argsort(query, kind="stable")
    return query[order], target[order], order >= np.count_nonzero(kept)


def _excursions(diagonal: Int64) -> Iterator[tuple[int, int]]:
    """Yield the first pair off a diagonal and the first that is back on it."""
    done = 0
    for first in (np.flatnonzero(np.diff(diagonal)) + 1).tolist():
        own = diagonal[first - 1]
        next_ones = diagonal[first : first + EXCURSION + 1]
        off = int(np.argmax(next_ones == own))
        if first > done and off and (np.abs(next_ones[:off] - own) <= MAX_SHIFT).all():
            done = first + off
            yield first, done


def _window_sums(values: npt.NDArray[Any], window: int) -> tuple[Float64, Int64]:
    """Return the sums over the window around each row, and the rows of each window."""
    n, half = len(values), window // 2
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=float)])
    first = np.maximum(np.arange(n) - half, 0)
    last = np.minimum(np.arange(n) + half + 1, n)
    return sums[last] - sums[first], last - first


def _slips(
    gains: npt.NDArray[Any], best: Int64, found: Bool, half: int
) -> Iterator[tuple[int, int, int, float]]:
    """Yield first and last pair, column and gain of the best part around each run of windows."""
    keys = np.where(found, best, -1)
    starts = np.flatnonzero(np.diff(keys, prepend=-2)).tolist()
    for start, stop in pairwise([*starts, len(keys)]):
        column = int(keys[start])
        if column < 0:
            continue
        begin = max(start - half, 0)
        first, last, total = _best_part(gains[begin : stop + half, column])
        yield begin + first, begin + last, column, total


def _best_part(values: npt.NDArray[Any]) -> tuple[int, int, float]:
    """Return the first and last place of the part with the largest sum, and the sum."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=float)])
    lowest = np.minimum.accumulate(sums[:-1])
    last = int(np.argmax(sums[1:] - lowest))
    first = int(np.argmin(sums[: last + 1]))
    return first, last, float(sums[last + 1] - sums[first])


def _without_overlaps(
    slips: Iterator[tuple[int, int, int, float]],
) -> Sequence[tuple[int, int, int, float]]:
    """Return the slips in order; where two overlap, only the one that gains more."""
    kept: list[tuple[int, int, int, float]] = []
    for slip in sorted(slips, key=lambda slip: -slip[3]):
        if all(slip[1] < other[0] or slip[0] > other[1] for other in kept):
            kept.append(slip)
    return sorted(kept)
