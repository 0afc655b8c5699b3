"""The residue rows of proteins, which know where a chain ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.ragged import Ragged, ascend, ranges


@dataclass(frozen=True, slots=True, eq=False)
class ProteinRows:
    """A protein's residue rows for either mode; ``PackedRows`` checks that the chains fit them.

    Attributes
    ----------
    local, diagonal : (L, k + 2) float32
        The rows for local alignments, and those for diagonals: one array if the stage has no head.
    chains : (c,) int64
        Rows of each chain, in order: at least one each, L together.

    Examples
    --------
    >>> rows = np.eye(3, dtype=np.float32)
    >>> protein = ProteinRows(rows, rows, np.array([2, 1]))
    >>> [chain.tolist() for chain in protein.by_chain]
    [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]
    """

    local: Float32
    diagonal: Float32
    chains: Int64

    @property
    def by_chain(self) -> Ragged:
        """The rows for diagonals, of each chain."""
        return Ragged(self.diagonal, _ends(self.chains))


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """The residue rows of n proteins for either mode, packed.

    Attributes
    ----------
    local, diagonal : Ragged
        Each protein's rows, as in ``ProteinRows``: one object if the stage has no head.
    chains : (c,) int64
        Rows of each chain, at least one each, of one protein after another.

    Examples
    --------
    >>> rows = Ragged(np.zeros((6, 50), np.float32), np.array([0, 4, 6]))
    >>> packed = PackedRows(rows, rows, np.array([1, 3, 2]))
    >>> packed.first_chain.tolist(), packed.by_chain.lengths.tolist()
    ([0, 2, 3], [1, 3, 2])
    """

    local: Ragged
    diagonal: Ragged
    chains: Int64

    def __post_init__(self) -> None:
        ends = _ends(self.chains)
        if not ascend(ends, strictly=True) or not np.isin(self.local.offsets, ends).all():
            raise ValueError("the chains' rows are not those of the proteins")
        if not np.array_equal(self.local.offsets, self.diagonal.offsets):
            raise ValueError("a protein has different numbers of rows for the two modes")
        if ends[-1] != self.local.offsets[-1]:
            raise ValueError("the chains have more rows than the proteins")

    def __len__(self) -> int:
        return len(self.local)

    def __iter__(self) -> Iterator[ProteinRows]:
        first = self.first_chain
        for place, local in enumerate(self.local):
            diagonal = local if self.diagonal is self.local else self.diagonal[place]
            yield ProteinRows(local, diagonal, self.chains[first[place] : first[place + 1]])

    @classmethod
    def of(cls, proteins: Sequence[ProteinRows]) -> Self:
        """Pack the rows of some proteins, at least one."""
        local = Ragged.pack([rows.local for rows in proteins])
        chains = np.concatenate([rows.chains for rows in proteins])
        if all(rows.local is rows.diagonal for rows in proteins):
            return cls(local, local, chains)
        return cls(local, Ragged.pack([rows.diagonal for rows in proteins]), chains)

    @property
    def by_chain(self) -> Ragged:
        """The rows for diagonals, of each chain of all proteins."""
        return Ragged(self.diagonal.values, _ends(self.chains))

    @property
    def first_chain(self) -> Int64:
        """(n + 1,) int64: chains before each protein, and of all."""
        first: Int64 = np.searchsorted(_ends(self.chains), self.local.offsets)
        return first

    def take(self, items: Int64) -> PackedRows:
        """Return the rows of some proteins, at least one, in their order."""
        first = self.first_chain
        local = self.local.take(items)
        return PackedRows(
            local,
            local if self.diagonal is self.local else self.diagonal.take(items),
            self.chains[ranges(first[items], np.diff(first)[items])],
        )


def _ends(lengths: Int64) -> Int64:
    """Return (c + 1,) int64: rows before each chain, and of all."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
