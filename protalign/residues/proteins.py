"""The residue rows of proteins, which know where a chain ends and where it lacks rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError
from protalign.core.ragged import Ragged, ascend, ranges


@dataclass(frozen=True, slots=True, eq=False)
class ProteinRows:
    """A protein's residue rows for either mode; ``PackedRows`` checks that the chains fit them.

    Attributes
    ----------
    local, diagonal : (L, k + 2) float32
        The rows for local alignments, and those for diagonals: one array if the stage has
        neither a head nor a context.
    chains : (c,) int64
        Rows of each chain, in order: at least one each, L together.
    skipped : (L,) int64 or None
        Residues of a row's chain that have no row and lie between this row and the one before it;
        None if there are none. A structure has no row of a residue without a complete backbone.
    plain : (L, k + 2) float32 or None
        The rows of the residues by themselves, which words are made of; one array with ``local`` or
        ``diagonal`` if they are the same. None if nobody asked for them.

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
    skipped: Int64 | None = None
    plain: Float32 | None = None

    @property
    def n_residues(self) -> int:
        """The rows, and the residues between them that have none."""
        # Whole numbers of Python: positions of a user may be too far apart for an int64.
        return len(self.diagonal) + (0 if self.skipped is None else sum(self.skipped.tolist()))

    @property
    def by_chain(self) -> Ragged:
        """The rows for diagonals, of each chain; a residue that is skipped has a row of zeros."""
        return _with_skipped(Ragged(self.diagonal, _ends(self.chains)), self.skipped)

    @property
    def places(self) -> list[Int64]:
        """For each chain the places of its rows in ``by_chain``."""
        steps = np.ones(len(self.diagonal), np.int64)
        if self.skipped is not None:
            steps += self.skipped
        return [np.cumsum(chain) - 1 for chain in np.split(steps, _ends(self.chains)[1:-1])]

    def placed(self, positions: Int64) -> ProteinRows:
        """Return the rows if they are of residues at some positions of the chains' sequences.

        Parameters
        ----------
        positions : (L,) int64
            The position of each row's residue, ascending; they may count through all chains.

        Examples
        --------
        >>> rows = np.ones((3, 1), dtype=np.float32)
        >>> protein = ProteinRows(rows, rows, np.array([3])).placed(np.array([5, 6, 8]))
        >>> protein.by_chain[0][:, 0].tolist()
        [1.0, 1.0, 0.0, 1.0]
        """
        return replace(self, skipped=_skipped(positions, self.chains))


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """The residue rows of n proteins for either mode, packed.

    Attributes
    ----------
    local, diagonal : Ragged
        Each protein's rows, as in ``ProteinRows``: one object if the stage has
        neither a head nor a context.
    chains : (c,) int64
        Rows of each chain, at least one each, of one protein after another.
    skipped : (R,) int64 or None
        As in ``ProteinRows``, for the rows of all.
    plain : Ragged or None
        As in ``ProteinRows``. ``of`` and ``take`` do not keep it.

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
    skipped: Int64 | None = None
    plain: Ragged | None = None

    def __post_init__(self) -> None:
        ends = _ends(self.chains)
        if not ascend(ends, strictly=True) or not np.isin(self.local.offsets, ends).all():
            raise ValueError("the chains' rows are not those of the proteins")
        if not np.array_equal(self.local.offsets, self.diagonal.offsets):
            raise ValueError("a protein has different numbers of rows for the two modes")
        if ends[-1] != self.local.offsets[-1]:
            raise ValueError("the chains have more rows than the proteins")
        if self.skipped is not None and len(self.skipped) != ends[-1]:
            raise ValueError("the numbers of skipped residues are not those of the rows")

    def __len__(self) -> int:
        return len(self.local)

    def __iter__(self) -> Iterator[ProteinRows]:
        first, lacking = self.first_chain, self.lacking
        for place, local in enumerate(self.local):
            diagonal = local if self.diagonal is self.local else self.diagonal[place]
            chains = self.chains[first[place] : first[place + 1]]
            skipped = None
            if self.skipped is not None and lacking[place]:
                skipped = self.skipped[self.local.offsets[place] : self.local.offsets[place + 1]]
            plain = None if self.plain is None else self.plain[place]
            if self.plain is self.local or self.plain is self.diagonal:
                plain = local if self.plain is self.local else diagonal
            yield ProteinRows(local, diagonal, chains, skipped, plain)

    @classmethod
    def of(cls, proteins: Sequence[ProteinRows]) -> Self:
        """Pack the rows of some proteins, at least one."""
        local = Ragged.pack([rows.local for rows in proteins])
        chains = np.concatenate([rows.chains for rows in proteins])
        skipped = None
        if any(rows.skipped is not None for rows in proteins):
            skipped = np.concatenate([_none_or(rows.skipped, len(rows.local)) for rows in proteins])
        if all(rows.local is rows.diagonal for rows in proteins):
            return cls(local, local, chains, skipped)
        diagonal = Ragged.pack([rows.diagonal for rows in proteins])
        return cls(local, diagonal, chains, skipped)

    def placed(self, positions: Sequence[Int64]) -> PackedRows:
        """Return the rows if each protein's are of residues at some positions.

        Parameters
        ----------
        positions : n of (L,) int64
            As for ``ProteinRows.placed``.
        """
        joined = np.concatenate([np.empty(0, np.int64), *positions])
        return replace(self, skipped=_skipped(joined, self.chains))

    @property
    def by_chain(self) -> Ragged:
        """The rows for diagonals, of each chain of all proteins, as in ``ProteinRows``."""
        return _with_skipped(Ragged(self.diagonal.values, _ends(self.chains)), self.skipped)

    @property
    def lacking(self) -> Bool:
        """(n,) bool: the proteins that lack a row within a chain."""
        if self.skipped is None:
            return np.zeros(len(self), dtype=np.bool_)
        before = np.concatenate([[0], np.cumsum(self.skipped)])
        lacking: Bool = np.diff(before[self.local.offsets]) > 0
        return lacking

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
            None
            if self.skipped is None
            else self.skipped[ranges(self.local.offsets[items], self.local.lengths[items])],
        )


def one_chain(name: str, rows: Float32, positions: Int64 | None) -> ProteinRows:
    """Return the rows of a chain's residues, at their positions if they are given.

    Parameters
    ----------
    name : str
        The chain, for the error.
    rows : (L, K) float32
        Its rows, for both modes.
    positions : (L,) integers, optional
        The residues' positions in the whole chain, ascending from 0 on.

    Raises
    ------
    InputError
        The positions are not whole, are below 0, do not ascend, or are of another number.

    Examples
    --------
    >>> one_chain("query", np.ones((2, 3), np.float32), np.array([0, 2])).skipped.tolist()
    [0, 1]
    """
    chains = np.array([len(rows)] if len(rows) else [], dtype=np.int64)
    protein = ProteinRows(rows, rows, chains)
    if positions is None:
        return protein
    numbers = np.asarray(positions)
    whole = numbers.dtype.kind in "iu" or not numbers.size
    ascending = numbers.astype(np.int64) if whole else numbers
    shape = (len(rows),)
    if not whole or numbers.shape != shape or (np.diff(ascending, prepend=-1) < 1).any():
        raise InputError(
            f"{name}_positions: not {len(rows)} ascending whole numbers from 0, one for each "
            "residue",
            "give the positions of the embedded residues in the whole chain",
        )
    return protein.placed(ascending)


def _ends(lengths: Int64) -> Int64:
    """Return (c + 1,) int64: rows before each chain, and of all."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _none_or(skipped: Int64 | None, length: int) -> Int64:
    """Return the numbers of skipped residues before so many rows."""
    return np.zeros(length, np.int64) if skipped is None else skipped


def _skipped(positions: Int64, chains: Int64) -> Int64 | None:
    """Return the residues between each row and the one before it in its chain; None if none."""
    if len(positions) != chains.sum():
        raise ValueError("the positions are not as many as the rows")
    skipped: Int64 = np.diff(positions, prepend=0) - 1
    skipped[_ends(chains)[:-1]] = 0
    if (skipped < 0).any():
        raise ValueError("the rows of a chain do not ascend")
    return skipped if skipped.any() else None


def _with_skipped(chains: Ragged, skipped: Int64 | None) -> Ragged:
    """Return the rows of chains with zeros for residues that are skipped.

    A product with zeros is a log-likelihood ratio of 0: nothing is known of such a residue.
    """
    if skipped is None:
        return chains
    before = np.concatenate([[0], np.cumsum(skipped)])
    values = np.zeros((len(skipped) + before[-1], chains.dim), dtype=chains.values.dtype)
    values[np.arange(len(skipped)) + before[1:]] = chains.values
    return Ragged(values, chains.offsets + before[chains.offsets])
