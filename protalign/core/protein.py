"""The domain types: Chain, Backbone, Structure, Protein. Plain values; nothing reads a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

Modality = Literal["sequence", "structure"]
MODALITIES: tuple[Modality, Modality] = ("sequence", "structure")

#: The two directions of retrieval, as reports name them.
DIRECTIONS = ("sequence_to_structure", "structure_to_sequence")

#: The 20 standard amino acids.
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
#: The letters a chain's sequence may hold: the standard 20; selenocysteine, pyrrolysine, the
#: ambiguous B and Z, and X, the unknown: those that ESM2's alphabet knows too. J is read as X.
SEQUENCE_LETTERS = frozenset(AMINO_ACIDS + "UOBZX")
#: Order of the atoms in a backbone's second axis.
BACKBONE_ATOMS = ("N", "CA", "C", "O")


@dataclass(frozen=True, eq=False)
class Backbone:
    """Backbone coordinates of one chain.

    Attributes
    ----------
    coordinates : (L, 4, 3) float32, atoms N, CA, C, O, in Å; NaN where an atom is missing.
    """

    coordinates: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.coordinates.dtype != np.float32 or self.coordinates.shape[1:] != (4, 3):
            raise ValueError(
                "backbone coordinates must be (L, 4, 3) float32, "
                f"not {self.coordinates.shape} {self.coordinates.dtype}"
            )

    def __len__(self) -> int:
        return len(self.coordinates)

    @cached_property
    def complete(self) -> npt.NDArray[np.bool_]:
        """(L,) bool: residues with all four atoms; only these get a row of structure embedding."""
        return np.asarray(np.isfinite(self.coordinates).all(axis=(1, 2)), dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class Chain:
    """One polypeptide.

    Attributes
    ----------
    id : the chain's name in its file (author's), "" for a FASTA record.
    sequence : L one-letter codes out of ``SEQUENCE_LETTERS``.
    residue_numbers : (L,) int32, the author's numbers; 0 where a residue was not observed;
        1..L for a sequence without a structure.
    insertion_codes : (L,) uint8, ASCII code of the insertion code, 32 (space) for none.
    backbone : of the same length and order as the sequence, or None without a structure.
    observed : (L,) bool, whether the residue is in the coordinates at all. All True in a chain
        read with ``sequence="observed"``.
    """

    id: str
    sequence: str
    residue_numbers: npt.NDArray[np.int32]
    insertion_codes: npt.NDArray[np.uint8]
    observed: npt.NDArray[np.bool_]
    backbone: Backbone | None = None

    def __post_init__(self) -> None:
        columns = (self.residue_numbers, self.insertion_codes, self.observed)
        sizes = {len(self.sequence), *(len(column) for column in columns)}
        if self.backbone is not None:
            sizes.add(len(self.backbone))
        if len(sizes) != 1:
            raise ValueError(f"chain {self.id!r}: columns of different lengths {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.sequence)

    @classmethod
    def from_sequence(cls, sequence: str, id: str = "") -> Chain:
        """A chain that has a sequence and no structure, numbered 1..L."""
        length = len(sequence)
        return cls(
            id=id,
            sequence=sequence,
            residue_numbers=np.arange(1, length + 1, dtype=np.int32),
            insertion_codes=np.full(length, ord(" "), dtype=np.uint8),
            observed=np.ones(length, dtype=np.bool_),
        )

    @property
    def structure_rows(self) -> npt.NDArray[np.int64]:
        """(rows,) int64: positions in the sequence that have a complete backbone, ascending."""
        if self.backbone is None:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.backbone.complete)


@dataclass(frozen=True, eq=False)
class Structure:
    """What a structure encoder sees: a whole complex, and which chains' rows are wanted.

    Attributes
    ----------
    chains : every polypeptide of the model that has a backbone, in the file's order.
    kept : indices into ``chains``, ascending, of those whose rows are stored.
    """

    chains: tuple[Chain, ...]
    kept: tuple[int, ...]

    @property
    def kept_chains(self) -> tuple[Chain, ...]:
        """The chains whose rows an encoder returns, in order."""
        return tuple(self.chains[index] for index in self.kept)

    @property
    def context_length(self) -> int:
        """Residues with a complete backbone over all chains: what encoding costs."""
        return sum(len(chain.structure_rows) for chain in self.chains)

    def __len__(self) -> int:
        """Rows of the embedding: kept residues with a complete backbone."""
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
    """One entry: what an id stands for.

    Attributes
    ----------
    id : unique within a store.
    source : path of the file it was read from, as the user gave it (or found below a folder).
    chains : its unique chains, in the file's order (``per="protein"``), or its one chain
        (``per="chain"``).
    structure : the complex that its rows come from, None for a FASTA record. ``chains`` are among
        ``structure.kept_chains``; entries of one file share the same Structure object.
    """

    id: str
    source: str
    chains: tuple[Chain, ...]
    structure: Structure | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def sequences(self) -> tuple[str, ...]:
        """The chains' sequences: what a sequence encoder sees."""
        return tuple(chain.sequence for chain in self.chains)

    def __len__(self) -> int:
        """Residues over all chains."""
        return sum(len(chain) for chain in self.chains)


def sequence_hash(sequences: tuple[str, ...]) -> bytes:
    """SHA-256 (32 bytes) of the chains' sequences; one chain AC, DE differs from one chain ACDE."""
    return hashlib.sha256(("protalign sequence 1\n" + "\n".join(sequences)).encode()).digest()
