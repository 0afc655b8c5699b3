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
        Rows of one chain's sequence and of one chain's structure (``ResidueStage.rows``).
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
