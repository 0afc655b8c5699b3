"""The domain types: Chain, Backbone, Structure, Protein. Plain values; nothing reads a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from protalign.core.annotation import Annotation
from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.words import Modality as Modality

MODALITIES: tuple[Modality, Modality] = ("sequence", "structure")
#: The modality that a protein of a modality is compared with.
OTHER: Mapping[Modality, Modality] = {"sequence": "structure", "structure": "sequence"}

#: The two directions of retrieval, as reports name them.
DIRECTIONS = ("sequence_to_structure", "structure_to_sequence")

#: The 20 standard amino acids.
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
#: The letters that a chain's sequence may hold: the standard 20, selenocysteine (U), pyrrolysine
#: (O), the ambiguous B and Z, and X, the unknown. ESM2's alphabet has the same. J is read as X.
SEQUENCE_LETTERS = frozenset(AMINO_ACIDS + "UOBZX")
#: Order of the atoms in a backbone's second axis.
BACKBONE_ATOMS = ("N", "CA", "C", "O")

#: The code that ``amino_acid_codes`` gives to every letter that is not a standard amino acid.
OTHER_LETTER = len(AMINO_ACIDS)
_CODES = np.full(128, OTHER_LETTER, dtype=np.int64)
_CODES[[ord(letter) for letter in AMINO_ACIDS]] = np.arange(len(AMINO_ACIDS))


def amino_acid_codes(sequence: str) -> Int64:
    """Return each residue's number in ``AMINO_ACIDS``.

    Parameters
    ----------
    sequence : str
        L one-letter codes, ASCII.

    Returns
    -------
    (L,) int64
        0 to 19, and ``OTHER_LETTER`` (20) for any other letter.

    Examples
    --------
    >>> amino_acid_codes("ACYX")
    array([ 0,  1, 19, 20])
    """
    return _CODES[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]


@dataclass(frozen=True, eq=False)
class Backbone:
    """The backbone coordinates of one chain.

    Attributes
    ----------
    coordinates : (L, 4, 3) float32
        Atoms N, CA, C and O, in Å; NaN if an atom is missing.

    Examples
    --------
    >>> backbone = Backbone(np.zeros((3, 4, 3), np.float32))
    >>> backbone.coordinates[1, 3] = np.nan
    >>> backbone.complete
    array([ True, False,  True])
    """

    coordinates: Float32

    def __post_init__(self) -> None:
        if self.coordinates.dtype != np.float32 or self.coordinates.shape[1:] != (4, 3):
            raise ValueError(
                "backbone coordinates must be (L, 4, 3) float32, "
                f"not {self.coordinates.shape} {self.coordinates.dtype}"
            )

    def __len__(self) -> int:
        return len(self.coordinates)

    @cached_property
    def complete(self) -> Bool:
        """(L,) bool: residues with all four atoms; only these get a row of structure embedding."""
        return np.asarray(np.isfinite(self.coordinates).all(axis=(1, 2)), dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class Chain:
    """One polypeptide.

    Attributes
    ----------
    id : str
        The chain's name in its file (the author's), "" for a FASTA record.
    sequence : str
        L one-letter codes out of ``SEQUENCE_LETTERS``.
    residue_numbers : (L,) int32
        The author's numbers; 0 if a residue was not observed; 1..L for a sequence without a
        structure.
    insertion_codes : (L,) uint8
        ASCII code of the insertion code, 32 (space) for none.
    observed : (L,) bool
        True for residues that are in the coordinates at all. All True in a chain that was read
        with ``sequence="observed"``.
    backbone : Backbone or None
        Of the same length and order as the sequence; None without a structure.

    Examples
    --------
    >>> chain = Chain.from_sequence("MKVL", id="A")
    >>> len(chain), chain.residue_numbers.tolist()
    (4, [1, 2, 3, 4])
    """

    id: str
    sequence: str
    residue_numbers: npt.NDArray[np.int32]
    insertion_codes: npt.NDArray[np.uint8]
    observed: Bool
    backbone: Backbone | None = None

    def __post_init__(self) -> None:
        columns = (self.residue_numbers, self.insertion_codes, self.observed)
        lengths = {len(self.sequence), *(len(column) for column in columns)}
        if self.backbone is not None:
            lengths.add(len(self.backbone))
        if len(lengths) != 1:
            raise ValueError(f"chain {self.id!r}: columns of different lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.sequence)

    @classmethod
    def from_sequence(cls, sequence: str, id: str = "") -> Chain:
        """Return a chain that has a sequence and no structure, numbered 1..L."""
        length = len(sequence)
        return cls(
            id=id,
            sequence=sequence,
            residue_numbers=np.arange(1, length + 1, dtype=np.int32),
            insertion_codes=np.full(length, ord(" "), dtype=np.uint8),
            observed=np.ones(length, dtype=np.bool_),
        )

    @property
    def structure_rows(self) -> Int64:
        """(rows,) int64: positions in the sequence that have a complete backbone, ascending."""
        if self.backbone is None:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.backbone.complete)

    def rows(self, modality: Modality) -> Int64:
        """Return (rows,) int64: positions in the sequence that have a row of an embedding.

        A sequence has a row for each residue, a structure for each with a complete backbone.
        """
        return np.arange(len(self)) if modality == "sequence" else self.structure_rows


@dataclass(frozen=True, eq=False)
class Structure:
    """The input of a structure encoder: a whole complex, and the chains to give rows for.

    Attributes
    ----------
    chains : tuple of Chain
        Every polypeptide of the model that has a backbone, in the file's order.
    kept : tuple of int
        Indices into ``chains``, ascending, of those with rows in the embedding. The other chains
        are context.

    Examples
    --------
    >>> sequence = Chain.from_sequence("MKV", id="A")
    >>> backbone = Backbone(np.zeros((3, 4, 3), np.float32))
    >>> chain = Chain("A", "MKV", sequence.residue_numbers, sequence.insertion_codes,
    ...               sequence.observed, backbone)
    >>> dimer = Structure(chains=(chain, chain), kept=(0,))
    >>> len(dimer), dimer.context_length
    (3, 6)
    """

    chains: tuple[Chain, ...]
    kept: tuple[int, ...]

    @property
    def kept_chains(self) -> tuple[Chain, ...]:
        """The chains that an encoder returns rows for, in order."""
        return tuple(self.chains[index] for index in self.kept)

    @property
    def context_length(self) -> int:
        """Residues with a complete backbone over all chains: the cost of encoding."""
        return sum(len(chain.structure_rows) for chain in self.chains)

    def __len__(self) -> int:
        """Return the rows of the embedding: kept residues with a complete backbone."""
        return sum(len(chain.structure_rows) for chain in self.kept_chains)

    @cached_property
    def content_hash(self) -> bytes:
        """SHA-256 (32 bytes) of everything that decides the embedding and its residue map."""
        digest = hashlib.sha256(b"protalign structure 1\n")
        digest.update(repr(self.kept).encode())
        for chain in self.chains:
            assert chain.backbone is not None
            digest.update(f"\n{chain.id}\n{chain.sequence}\n".encode())
            digest.update(chain.residue_numbers.astype("<i4").tobytes())
            digest.update(chain.insertion_codes.tobytes())
            digest.update(chain.observed.tobytes())
            digest.update(chain.backbone.coordinates.astype("<f4").tobytes())
        return digest.digest()


@dataclass(frozen=True, eq=False)
class Protein:
    """One entry: the protein that an id stands for.

    Attributes
    ----------
    id : str
        Unique within a store.
    source : str
        Path of the file that it was read from, as the user gave it (or found below a folder).
    chains : tuple of Chain
        Its unique chains, in the file's order (``per="protein"``), or its one chain
        (``per="chain"``).
    structure : Structure or None
        The complex that its rows come from, None for a FASTA record. ``chains`` are among
        ``structure.kept_chains``. Entries of one file share the same Structure object.
    notes : tuple of str
        Remarks that were made while the file was read.
    annotation : Annotation
        Name, organism and accession, as the file has them. No hash depends on it.

    Examples
    --------
    >>> protein = Protein("P01308", "insulin.fasta", (Chain.from_sequence("GIVEQ"),))
    >>> protein.sequences, len(protein)
    (('GIVEQ',), 5)
    """

    id: str
    source: str
    chains: tuple[Chain, ...]
    structure: Structure | None = None
    notes: tuple[str, ...] = field(default=())
    annotation: Annotation = field(default=Annotation())

    @property
    def sequences(self) -> tuple[str, ...]:
        """The chains' sequences: the input of a sequence encoder."""
        return tuple(chain.sequence for chain in self.chains)

    def chain_rows(self, modality: Modality) -> Int64:
        """Return (c,) int64: the rows of an embedding that each chain has; no chain without any."""
        rows = np.array([len(chain.rows(modality)) for chain in self.chains], dtype=np.int64)
        return rows[rows > 0]

    def __len__(self) -> int:
        """Return the number of residues over all chains."""
        return sum(len(chain) for chain in self.chains)


def sequence_hash(sequences: tuple[str, ...]) -> bytes:
    """Return the SHA-256 (32 bytes) of the chains' sequences.

    One chain ACDE differs from two chains AC and DE.
    """
    return hashlib.sha256(("protalign sequence 1\n" + "\n".join(sequences)).encode()).digest()
