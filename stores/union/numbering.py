"""Numbers that go on from one store to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64


class Numbering:
    """Rows or items of several stores, numbered through.

    Parameters
    ----------
    counts : sequence of int
        How many each store has.

    Attributes
    ----------
    begins : (stores,) int64
        The first number of each store.

    Examples
    --------
    >>> numbering = Numbering([2, 0, 3])
    >>> for store, positions, numbers in numbering.parts(np.array([4, 0, 2])):
    ...     print(store, positions.tolist(), numbers.tolist())
    0 [1] [0]
    2 [0, 2] [2, 0]
    """

    def __init__(self, counts: Sequence[int]) -> None:
        ends: Int64 = np.cumsum(counts, dtype=np.int64)
        self._ends = ends
        self.begins: Int64 = ends - np.asarray(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def store_of(self, number: int) -> tuple[int, int]:
        """Return the store of a number, and its number there."""
        ((store, _, numbers),) = self.parts(np.array([number], dtype=np.int64))
        return store, int(numbers[0])

    def parts(self, numbers: Int64) -> Iterator[tuple[int, Int64, Int64]]:
        """Yield each store with some of the numbers, their positions, and their numbers there.

        Numbers that no store has are of the last store, whose arrays refuse them.
        """
        if len(numbers) == 0:
            return
        first, last = self._stores([numbers.min(), numbers.max()]).tolist()
        if first == last:  # as of most batches: no order is needed
            yield first, np.arange(len(numbers)), numbers - self.begins[first]
            return
        store = self._stores(numbers)
        order = np.argsort(store, kind="stable")
        borders = np.flatnonzero(np.diff(store[order])) + 1
        for positions in np.split(order, borders):
            which = int(store[positions[0]])
            yield which, positions, numbers[positions] - self.begins[which]

    def _stores(self, numbers: npt.ArrayLike) -> Int64:
        """Return the store of each number."""
        return np.searchsorted(self._ends[:-1], numbers, side="right")
