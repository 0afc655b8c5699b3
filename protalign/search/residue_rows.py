"""The rows of one protein with the names of their residues, from a file or from a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.errors import InputError
from protalign.core.protein import Chain, Modality, Protein, Structure
from protalign.heads.model import Model
from protalign.stores import EmbeddingStore

_NO_CODE = ord(" ")


@dataclass(frozen=True, slots=True)
class IncompleteResidue:
    """A residue of the coordinates without a complete backbone: a structure has no row of it.

    Attributes
    ----------
    before : int
        Rows before it.
    chain : str
        The author's name of its chain.
    number : int
        The author's number.
    insertion_code : str
        "" for none.
    letter : str
        Its one-letter code.
    """

    before: int
    chain: str
    number: int
    insertion_code: str
    letter: str


@dataclass(frozen=True, eq=False)
class ResidueRows:
    """The residue embeddings of one modality of a protein, and the residue of each row.

    Attributes
    ----------
    id : str
        The protein's id.
    modality : "sequence" or "structure"
        A sequence has a row for each residue; a structure has one for each residue with a complete
        backbone.
    embeddings : (n, D) float
        The rows.
    letters : str
        n one-letter codes.
    chains : tuple of str
        The author's names of the chains that have rows; "" for a FASTA record.
    chain_index : (n,) int64
        The chain of each row, ascending.
    residue_numbers : (n,) int32
        The author's numbers; 0 for a residue that is not in the coordinates.
    insertion_codes : (n,) uint8
        ASCII; 32 (space) for none.
    observed : (n,) bool
        Whether the coordinates hold the residue; True for all of a FASTA record's.
    positions : (n,) int64
        The position of each row's residue in the chains' sequences, one after another.
    structure : Structure or None
        The complex that the chains are of; None for a FASTA record.
    source : str
        The file that it was read from; "" if unknown.
    source_sha256 : bytes
        The SHA-256 of that file when it was read, 32 bytes; empty if unknown.
    part_index : int
        The chain's place in the protein, if these are the rows of one chain of several; else -1.
    incomplete : tuple of IncompleteResidue
        The residues that a structure has no row of, in order; empty for the rows of one chain of
        several, and for a sequence.

    Examples
    --------
    >>> chain = Chain.from_sequence("MKV", id="A")
    >>> rows = ResidueRows.of("1abc", "sequence", (chain,), np.zeros((3, 8), np.float32))
    >>> len(rows), rows.label(1), rows.name
    (3, 'A:2', '1abc')
    """

    id: str
    modality: Modality
    embeddings: npt.NDArray[np.floating]
    letters: str
    chains: tuple[str, ...]
    chain_index: Int64
    residue_numbers: npt.NDArray[np.int32]
    insertion_codes: npt.NDArray[np.uint8]
    observed: Bool
    positions: Int64
    structure: Structure | None = None
    source: str = ""
    source_sha256: bytes = b""
    part_index: int = -1
    incomplete: tuple[IncompleteResidue, ...] = ()

    def __post_init__(self) -> None:
        residues = (self.letters, self.residue_numbers, self.insertion_codes, self.observed)
        rows = (self.chain_index, self.positions, self.embeddings)
        lengths = {len(column) for column in (*residues, *rows)}
        if len(lengths) != 1:
            raise ValueError(f"{self.id}: rows of different numbers {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.letters)

    @classmethod
    def of(
        cls,
        id: str,
        modality: Modality,
        chains: Sequence[Chain],
        embeddings: npt.NDArray[np.floating],
        *,
        structure: Structure | None = None,
        source: str = "",
        source_sha256: bytes = b"",
    ) -> ResidueRows:
        """Return the rows of an entry's chains.

        Parameters
        ----------
        id : str
            The protein's id.
        modality : "sequence" or "structure"
            The modality of the embeddings.
        chains : sequence of Chain
            The entry's chains, in order.
        embeddings : (n, D) float
            Their rows, chain after chain.
        structure, source, source_sha256
            As the attributes.
        """
        rows = [chain.rows(modality) for chain in chains]
        pairs = [pair for pair in zip(chains, rows, strict=True) if len(pair[1])]
        letters = ["".join(np.array(list(chain.sequence))[kept].tolist()) for chain, kept in pairs]
        return cls(
            id,
            modality,
            embeddings,
            "".join(letters),
            tuple(chain.id for chain, _ in pairs),
            np.repeat(np.arange(len(pairs)), [len(kept) for _, kept in pairs]),
            _joined([chain.residue_numbers[kept] for chain, kept in pairs], np.int32),
            _joined([chain.insertion_codes[kept] for chain, kept in pairs], np.uint8),
            _joined([chain.observed[kept] for chain, kept in pairs], np.bool_),
            positions(chains, modality),
            structure,
            source,
            source_sha256,
            incomplete=_incomplete(chains) if modality == "structure" else (),
        )

    @property
    def name(self) -> str:
        """The id, with ``_`` and the chain's name if these are the rows of one of its chains."""
        return self.id if self.part is None else f"{self.id}_{self.part}"

    @property
    def part(self) -> str | None:
        """The chain's name (its place, if it has none) if these are one chain of several."""
        if self.part_index < 0:
            return None
        return self.chains[0] or str(self.part_index + 1)

    def chain(self, index: int) -> ResidueRows:
        """Return the rows of one chain: the whole protein if it has one."""
        if len(self.chains) == 1:
            return self
        kept = slice(*np.searchsorted(self.chain_index, [index, index + 1]).tolist())
        return ResidueRows(
            self.id,
            self.modality,
            self.embeddings[kept],
            self.letters[kept],
            (self.chains[index],),
            np.zeros(kept.stop - kept.start, dtype=np.int64),
            self.residue_numbers[kept],
            self.insertion_codes[kept],
            self.observed[kept],
            self.positions[kept],
            self.structure,
            self.source,
            self.source_sha256,
            part_index=index,
        )

    def first_row(self, index: int) -> int:
        """Return the first row of a chain."""
        return int(np.searchsorted(self.chain_index, index))

    @cached_property
    def residues(self) -> list[tuple[str, int | None, str]]:
        """The residue of each row: chain, number (None if not observed), insertion code or ""."""
        columns = zip(
            self.chain_index.tolist(),
            self.residue_numbers.tolist(),
            self.insertion_codes.tolist(),
            self.observed.tolist(),
            strict=True,
        )
        return [
            (self.chains[chain], number if seen else None, _code(code))
            for chain, number, code, seen in columns
        ]

    def label(self, row: int) -> str:
        """Return a residue as text: "A:27", or "A:27B" with a code, or "A:?" if not observed."""
        chain, number, code = self.residues[row]
        text = "?" if number is None else f"{number}{code}"
        return f"{chain}:{text}" if chain else text


def _code(code: int) -> str:
    return "" if code == _NO_CODE else chr(code)


def positions(chains: Sequence[Chain], modality: Modality) -> Int64:
    """Return (rows,) int64: the position of each row of a modality in the chains' sequences.

    Positions count from 0 through all chains, one after another.
    """
    starts = np.cumsum([0, *(len(chain) for chain in chains)])[:-1].tolist()
    parts = [start + chain.rows(modality) for start, chain in zip(starts, chains, strict=True)]
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def _incomplete(chains: Sequence[Chain]) -> tuple[IncompleteResidue, ...]:
    """Return the residues that are in the coordinates and have no row of a structure."""
    found, before = [], 0
    for chain in chains:
        rows = chain.structure_rows
        for place in np.setdiff1d(np.flatnonzero(chain.observed), rows).tolist():
            residue = (
                int(chain.residue_numbers[place]),
                _code(int(chain.insertion_codes[place])),
                chain.sequence[place],
            )
            earlier = before + int(np.searchsorted(rows, place))
            found.append(IncompleteResidue(earlier, chain.id, *residue))
        before += len(rows)
    return tuple(found)


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype=dtype), *parts]).astype(dtype, copy=False)


def not_finite(entry_id: str, modality: Modality) -> InputError:
    """Return the error of an entry whose residues cannot be compared."""
    return InputError(
        f"{entry_id}: its {modality} embedding holds NaN, infinity or huge values",
        "embed it again, or leave it out",
    )


def check_finite_rows(finite: Bool, offsets: Int64, ids: Sequence[str], modality: Modality) -> None:
    """Raise InputError, which names the entry, if residue rows of entries are not finite.

    Parameters
    ----------
    finite : (R, K) bool
        Which numbers of the rows are finite; the entries' rows are one after another.
    offsets : (n + 1,) int64
        Rows before each entry.
    ids : sequence of str
        The entries' ids.
    modality : "sequence" or "structure"
        Theirs.
    """
    broken = np.flatnonzero(~finite.all(axis=1))
    if len(broken):
        place = int(np.searchsorted(offsets, broken[0], side="right")) - 1
        raise not_finite(ids[place], modality)


def stored_rows(
    model: Model, store: EmbeddingStore, entry_id: str, modality: Modality
) -> ResidueRows | None:
    """Return the rows of a store's entry, of the encoder that a model was fitted on.

    None if the modality is missing or not embedded. Raise InputError for an unknown id, and
    ModelError if the store has embeddings of other encoders only.
    """
    inputs = model.inputs(store[entry_id], (modality,))
    if modality not in inputs.dims or inputs.items(modality)[0] < 0:
        return None
    return ResidueRows.of(
        entry_id,
        modality,
        stored_chains(store, entry_id),
        inputs.rows(modality, np.array([0]))[0],
        structure=store.structure(entry_id) if store[entry_id].has_structure[0] else None,
        source=store.source(entry_id),
        source_sha256=store.source_sha256(entry_id),
    )


def stored_chains(store: EmbeddingStore, entry_id: str) -> tuple[Chain, ...]:
    """Return an entry's chains; without a structure they have no names and are numbered from 1."""
    view = store[entry_id]
    if not view.has_structure[0]:
        return tuple(Chain.from_sequence(sequence) for sequence in store.sequence(entry_id))
    kept = store.structure(entry_id).kept_chains
    first, count = store.log.chains(int(view.entry_rows[0]))
    return kept[first : first + count]


@dataclass(frozen=True, eq=False)
class StoredProtein:
    """An entry of a store, whose chains are read when they are wanted.

    Attributes
    ----------
    store : EmbeddingStore
        The store.
    id : str
        The entry.
    """

    store: EmbeddingStore
    id: str

    def read(self) -> Protein | None:
        """Return the entry's chains, structure and source; None if the store does not have it."""
        if self.id not in self.store:
            return None
        has_structure = bool(self.store[self.id].has_structure[0])
        return Protein(
            self.id,
            self.store.source(self.id),
            stored_chains(self.store, self.id),
            self.store.structure(self.id) if has_structure else None,
        )


def has_coordinates(protein: Protein | StoredProtein | None) -> bool:
    """Return whether a query has coordinates."""
    if isinstance(protein, StoredProtein):
        return protein.id in protein.store and bool(protein.store[protein.id].has_structure[0])
    return protein is not None and any(len(chain.structure_rows) for chain in protein.chains)
