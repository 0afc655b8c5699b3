"""Rows of many proteins, one after another: the form of all per-residue values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """n arrays of different lengths, packed without padding.

    Attributes
    ----------
    values : (R, D) array
        Any float dtype; the rows of item i are ``values[offsets[i]:offsets[i + 1]]``.
    offsets : (n + 1,) int64
        ``offsets[0] == 0``, ``offsets[-1] == R``, non-decreasing.

    Examples
    --------
    >>> ragged = Ragged.pack([np.zeros((3, 2)), np.ones((1, 2))])
    >>> ragged.lengths.tolist(), ragged[1].tolist()
    ([3, 1], [[1.0, 1.0]])
    """

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"values must be (rows, dim), not {self.values.shape}")
        if self.offsets.ndim != 1 or len(self.offsets) == 0 or self.offsets[0] != 0:
            raise ValueError("offsets must be (n + 1,) and begin with 0")
        if self.offsets[-1] != len(self.values) or not ascend(self.offsets):
            raise ValueError("offsets must not decrease and must end at the number of rows")

    @classmethod
    def pack(cls, arrays: Sequence[npt.NDArray[Any]]) -> Ragged:
        """Pack a list of (L_i, D) arrays; raise ValueError for an empty list or unequal D."""
        if len(arrays) == 0:
            raise ValueError("nothing to pack: the list is empty")
        lengths = [len(array) for array in arrays]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(np.concatenate([np.asarray(array) for array in arrays]), offsets)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(n,) int64 rows of each item."""
        return np.diff(self.offsets)

    @property
    def dim(self) -> int:
        """D, the width of a row."""
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def take(self, items: npt.NDArray[np.int64]) -> Ragged:
        """Return some items, at least one, in their order."""
        return Ragged.pack([self[item] for item in items.tolist()])

    def backward(self) -> Ragged:
        """Return the items, at least one, each with its last row first."""
        return Ragged.pack([rows[::-1] for rows in self])

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[index] for index in range(len(self)))


def ranges(start: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers of n ranges, (n,) int64 each, one range after another.

    Examples
    --------
    >>> ranges(np.array([7, 0]), np.array([2, 3])).tolist()
    [7, 8, 0, 1, 2]
    """
    before = np.cumsum(length) - length
    numbers: npt.NDArray[np.int64] = np.arange(length.sum()) + np.repeat(start - before, length)
    return numbers


def blocks(lengths: npt.NDArray[np.int64], at_once: int) -> Iterator[slice]:
    """Yield slices of items, in order, of ``at_once`` rows together at most, or of a single item.

    Examples
    --------
    >>> [(part.start, part.stop) for part in blocks(np.array([2, 3, 9, 1, 1]), 5)]
    [(0, 2), (2, 3), (3, 5)]
    """
    ends, first = np.cumsum(lengths), 0
    while first < len(lengths):
        before = ends[first] - lengths[first]
        last = int(np.searchsorted(ends, before + at_once, side="right"))
        yield slice(first, max(first + 1, last))
        first = max(first + 1, last)


def ascend(numbers: npt.NDArray[np.integer[Any]], *, strictly: bool = False) -> bool:
    """Return whether numbers never fall, or always rise.

    Neighbours are compared, not subtracted: the difference of two of a damaged file may leave 64
    bits, and look like any number.

    Examples
    --------
    >>> ascend(np.array([0, 3, 3])), ascend(np.array([0, 3, 3]), strictly=True)
    (True, False)
    >>> ascend(np.array([0, 2**63 - 1, -2, 5])), bool((np.diff([0, 2**63 - 1, -2, 5]) >= 0).all())
    (False, True)
    """
    before, after = numbers[:-1], numbers[1:]
    return bool((after > before).all() if strictly else (after >= before).all())
