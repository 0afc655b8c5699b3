"""Real proteins out of the sample, and stores made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import gemmi
import numpy as np

from protalign.core.protein import BACKBONE_ATOMS, Backbone, Chain, Protein, Structure
from protalign.stores import EncoderRecord, StoreWriter
from protalign.stores.filling.encode import encode_pending
from tests.helpers.one_hot import load_from_centre, load_one_hot

OPTIONS = {"per": "protein", "sequence": "observed", "min_plddt": None}
ONE_HOT = EncoderRecord(
    "one_hot", "sequence", 20, "0" * 64, {"layer": 1}, "float16", {"numpy": "2"}
)
CENTRE = EncoderRecord("from_centre", "structure", 12, "1" * 64, {}, "float32")
#: Small enough for the sample to make many tasks.
CHUNK_ROWS = 256
BATCH_ROWS = 200


def read_protein(path: Path) -> Protein:
    """A sample file's protein; just enough reading for the tests of stores."""
    model = gemmi.read_structure(str(path))[0]
    chains = tuple(_chain(chain) for chain in model)
    name = path.name.partition(".")[0]
    return Protein(name, str(path), chains, Structure(chains, tuple(range(len(chains)))))


def _chain(chain: gemmi.Chain) -> Chain:
    residues = list(chain.first_conformer())
    coordinates = np.full((len(residues), 4, 3), np.nan, dtype=np.float32)
    for row, residue in enumerate(residues):
        for column, name in enumerate(BACKBONE_ATOMS):
            for atom in residue:
                if atom.name == name:
                    coordinates[row, column] = atom.pos.tolist()
    return Chain(
        id=chain.name,
        sequence=gemmi.one_letter_code([residue.name for residue in residues]).upper(),
        residue_numbers=np.array([residue.seqid.num for residue in residues], dtype=np.int32),
        insertion_codes=np.array([ord(residue.seqid.icode) for residue in residues], np.uint8),
        observed=np.ones(len(residues), dtype=np.bool_),
        backbone=Backbone(coordinates),
    )


def complex_of(name: str, *proteins: Protein) -> Protein:
    """Return one protein of the chains of several, renamed A, B and so on."""
    chains = tuple(
        Chain(
            chr(ord("A") + index),
            chain.sequence,
            chain.residue_numbers,
            chain.insertion_codes,
            chain.observed,
            chain.backbone,
        )
        for index, chain in enumerate(c for protein in proteins for c in protein.chains)
    )
    source = f"{name}.pdb"
    return Protein(name, source, chains, Structure(chains, tuple(range(len(chains)))), ("zwei μ",))


def sequence_only(name: str, *sequences: str) -> Protein:
    """Return a protein as a FASTA record gives it."""
    return Protein(name, f"{name}.fasta", tuple(Chain.from_sequence(s) for s in sequences))


def digest(text: str) -> bytes:
    """Return 32 bytes that stand for a source file's SHA-256."""
    return hashlib.sha256(text.encode()).digest()


def add_all(writer: StoreWriter, proteins: Sequence[Protein]) -> None:
    """Add each protein as the whole of its source file; skip files that are current."""
    for protein in proteins:
        sha256 = digest(protein.source)
        if not writer.source_is_current(protein.source, sha256):
            assert writer.add(protein.source, sha256, [protein]) == []


def plan_both(writer: StoreWriter) -> None:
    writer.plan("one_hot", ONE_HOT, BATCH_ROWS, CHUNK_ROWS)
    writer.plan("from_centre", CENTRE, BATCH_ROWS, CHUNK_ROWS)


def build(path: Path, proteins: Sequence[Protein], per_commit: int = 7) -> Path:
    """Make or extend a store as `protalign embed` does: add, commit now and then, plan, encode."""
    with StoreWriter(path, OPTIONS) as writer:
        for begin in range(0, len(proteins), per_commit):
            add_all(writer, proteins[begin : begin + per_commit])
            writer.commit()
        plan_both(writer)
        encode_pending(path, "one_hot", load_one_hot)
        encode_pending(path, "from_centre", load_from_centre)
    return path


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a store, by its path in it."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
