"""The unique items of a store, rebuilt as the values that encoders take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.protein import Backbone, Chain, Structure
from protalign.core.ragged import ranges
from protalign.stores.format.arrays import Arrays

_NOT_ITS_CHAINS = "a sequence is not as long as its chains"


@dataclass(frozen=True, eq=False)
class ResidueMap:
    """The residue of each row of an entry's structure embedding.

    Attributes
    ----------
    sequence_index : (rows,) int64
        Position in the entry's chain sequences, one after another.
    chain_ids : (rows,) object array of str
        The author's chain names.
    residue_numbers : (rows,) int32
        The author's residue numbers.
    insertion_codes : (rows,) uint8
        ASCII; 32 (space) for none.
    observed : (L,) bool
        For each residue of the whole sequence: whether the coordinates hold it.

    Examples
    --------
    >>> residues = ResidueMap(
    ...     sequence_index=np.array([0, 2]),  # the second residue has no complete backbone
    ...     chain_ids=np.array(["A", "A"], dtype=object),
    ...     residue_numbers=np.array([5, 7], dtype=np.int32),
    ...     insertion_codes=np.array([32, 32], dtype=np.uint8),
    ...     observed=np.array([True, True, True]),
    ... )
    >>> [f"{c}{n}" for c, n in zip(residues.chain_ids, residues.residue_numbers)]
    ['A5', 'A7']
    """

    sequence_index: Int64
    chain_ids: npt.NDArray[np.object_]
    residue_numbers: npt.NDArray[np.int32]
    insertion_codes: npt.NDArray[np.uint8]
    observed: Bool

    def __len__(self) -> int:
        return len(self.sequence_index)

    @classmethod
    def of(cls, chains: tuple[Chain, ...]) -> ResidueMap:
        """Return the map of an entry's chains, each of which has a backbone."""
        rows = [chain.structure_rows for chain in chains]
        begins = np.cumsum([0, *(len(chain) for chain in chains)])[:-1]
        chain_ids = np.empty(sum(len(positions) for positions in rows), dtype=object)
        chain_ids[:] = [
            chain.id
            for chain, positions in zip(chains, rows, strict=True)
            for _ in range(len(positions))
        ]
        pairs = list(zip(chains, rows, strict=True))
        return cls(
            sequence_index=np.concatenate(
                [positions + begin for positions, begin in zip(rows, begins, strict=True)]
            ),
            chain_ids=chain_ids,
            residue_numbers=np.concatenate([c.residue_numbers[p] for c, p in pairs]),
            insertion_codes=np.concatenate([c.insertion_codes[p] for c, p in pairs]),
            observed=np.concatenate([chain.observed for chain in chains]),
        )


class SequenceItems:
    """Unique tuples of chain sequences."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return self._arrays.rows("sequences/hash")

    def __getitem__(self, index: int) -> tuple[str, ...]:
        return self.several(index, index + 1)[0]

    def several(self, first: int, stop: int) -> list[tuple[str, ...]]:
        """Return items first to stop, read at once."""
        letters = self._ragged("letters", first, stop)
        lengths = self._ragged("chain_length", first, stop)
        if any(
            (cut < 0).any() or cut.sum() != len(text)
            for text, cut in zip(letters, lengths, strict=True)
        ):
            raise self._arrays.inconsistent(_NOT_ITS_CHAINS)
        try:
            return [
                _cut(text.tobytes().decode("ascii"), chain_lengths)
                for text, chain_lengths in zip(letters, lengths, strict=True)
            ]
        except UnicodeDecodeError:
            raise self._arrays.inconsistent("a sequence is not of ASCII letters") from None

    def chain_rows(self, items: Int64) -> list[Int64]:
        """Return, for each of n items, the rows of each of its chains that has any."""
        arrays, one = self._arrays, np.ones_like(items)
        start, count = (
            arrays.gather(f"sequences/chain_length/{which}", items, one)
            for which in ("start", "length")
        )
        chains = _gathered(arrays, "sequences/chain_length/values", start, count)
        residues = arrays.gather("sequences/letters/length", items, one)
        found = [rows[rows != 0].astype(np.int64) for rows in chains]
        for rows, total in zip(found, residues.tolist(), strict=True):
            if (rows < 0).any() or rows.sum() != total:
                raise arrays.inconsistent(_NOT_ITS_CHAINS)
        return found

    def _ragged(self, column: str, first: int, stop: int) -> list[npt.NDArray[Any]]:
        start, length = (
            self._arrays.read(f"sequences/{column}/{which}", first, stop)
            for which in ("start", "length")
        )
        return _gathered(self._arrays, f"sequences/{column}/values", start, length)

    def rows(self, start: int = 0) -> Int64:
        """Return (n,) int64: residues of each item from ``start`` on, the rows of an embedding."""
        return _counts(self._arrays, "sequences/letters/length", start)

    def cost(self, start: int = 0) -> Int64:
        """Return (n,) int64: residues that encoding each item takes."""
        return self.rows(start)

    def longest(self, start: int = 0) -> int:
        """Return the residues of the longest single chain."""
        if start >= len(self):
            return 0
        first = int(self._arrays.read("sequences/chain_length/start", start, start + 1)[0])
        return int(self._arrays.read("sequences/chain_length/values", first).max(initial=0))


class StructureItems:
    """Unique complexes."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return self._arrays.rows("structures/hash")

    def __getitem__(self, index: int) -> Structure:
        return self.several(index, index + 1)[0]

    def several(self, first: int, stop: int) -> list[Structure]:
        """Return items first to stop, read at once."""
        arrays = self._arrays
        begin = arrays.read("structures/chain", first, stop)
        count = arrays.read("structures/chains", first, stop)
        try:
            chains = iter(list(self._chains(begin, count)))
        except UnicodeDecodeError:
            raise arrays.inconsistent("a chain's name or sequence is not text") from None
        return [
            Structure(
                chains=tuple(islice(chains, len(kept))), kept=tuple(np.flatnonzero(kept).tolist())
            )
            for kept in _gathered(arrays, "chains/kept", begin, count)
        ]

    def _chains(self, begin: npt.NDArray[Any], count: npt.NDArray[Any]) -> Iterator[Chain]:
        """Yield the chains of some ranges, one range after another."""
        arrays = self._arrays
        start, length, id_start, id_length = (
            arrays.gather(f"chains/{column}", begin, count)
            for column in ("residue", "residues", "id/start", "id/length")
        )
        columns = [
            _gathered(arrays, f"residues/{column}", start, length)
            for column in ("letter", "number", "insertion_code", "observed", "backbone")
        ]
        ids = _gathered(arrays, "chains/id/values", id_start, id_length)
        for name, letters, numbers, codes, observed, backbone in zip(ids, *columns, strict=True):
            yield Chain(
                id=name.tobytes().decode("utf-8"),
                sequence=letters.tobytes().decode("ascii"),
                residue_numbers=numbers,
                insertion_codes=codes,
                observed=observed,
                backbone=Backbone(backbone),
            )

    def complete_residues(self, items: Int64, first: Int64, count: Int64) -> tuple[Bool, Int64]:
        """Find the residues with a complete backbone in some chains of each of n items.

        Parameters
        ----------
        items, first, count : (n,) int64
            The items, and which of an item's kept chains: ``count`` of them from ``first`` on.

        Returns
        -------
        complete : (R,) bool
            For each residue of these chains, one item after another.
        residues : (sum of count,) int64
            The residues of each of these chains.
        """
        arrays, one = self._arrays, np.ones_like(items)
        begin = arrays.gather("structures/chain", items, one).astype(np.int64)
        chains = arrays.gather("structures/chains", items, one).astype(np.int64)
        kept = np.flatnonzero(arrays.gather("chains/kept", begin, chains))
        of_item = np.repeat(np.arange(len(items)), chains)
        n_kept = np.bincount(of_item[kept], minlength=len(items))
        if ((first < 0) | (count < 1) | (first + count > n_kept)).any():
            raise arrays.inconsistent("an entry has chains that its structure has not")
        wanted = kept[ranges(np.cumsum(n_kept) - n_kept + first, count)]
        item = of_item[wanted]
        chain = begin[item] + wanted - (np.cumsum(chains) - chains)[item]
        start, length = (
            arrays.gather(f"chains/{column}", chain, np.ones_like(chain)).astype(np.int64)
            for column in ("residue", "residues")
        )
        backbone = arrays.gather("residues/backbone", start, length)
        return np.isfinite(backbone).all(axis=(1, 2)), length

    def rows(self, start: int = 0) -> Int64:
        """Return (n,) int64: kept residues with a complete backbone, the rows of an embedding."""
        return _counts(self._arrays, "structures/rows", start)

    def cost(self, start: int = 0) -> Int64:
        """Return (n,) int64: residues of each whole complex, which encoding it takes."""
        return _counts(self._arrays, "structures/context", start)

    def longest(self, start: int = 0) -> int:
        """Return the residues of the largest complex."""
        return int(self.cost(start).max(initial=0))


def _gathered(
    arrays: Arrays, name: str, start: npt.NDArray[Any], length: npt.NDArray[Any]
) -> list[npt.NDArray[Any]]:
    """Return the rows of each of n ranges."""
    return np.split(arrays.gather(name, start, length), np.cumsum(length)[:-1])


def _counts(arrays: Arrays, name: str, start: int) -> Int64:
    """Return the rows of a column of counts from ``start`` on; raise StoreError for one below 0."""
    counts: Int64 = arrays.read(name, start).astype(np.int64)
    if (counts < 0).any():
        raise arrays.inconsistent(f"{name} has a number below 0")
    return counts


def _cut(text: str, lengths: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return a text's parts of these lengths."""
    ends = np.cumsum(lengths).tolist()
    return tuple(text[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True))


def items_of(arrays: Arrays, modality: str) -> SequenceItems | StructureItems:
    """Return the unique items of a modality."""
    return SequenceItems(arrays) if modality == "sequence" else StructureItems(arrays)
