"""Put unique items into a store: an item with a known content hash is not put in again."""

from __future__ import annotations

import numpy as np

from protalign.core.protein import Protein, Structure, sequence_hash
from protalign.stores.format.append import Appender


class ItemWriter:
    """Finds an item by its hash, or appends it."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._known = {
            modality: {
                row.tobytes(): item
                for item, row in enumerate(appender.arrays.read(f"{modality}s/hash"))
            }
            for modality in ("sequence", "structure")
        }

    def sequence(self, sequences: tuple[str, ...]) -> int:
        """Return the number of the item with these chain sequences."""
        digest, known = sequence_hash(sequences), self._known["sequence"]
        if digest not in known:
            known[digest] = len(known)
            self._appender.append("sequences/hash", np.frombuffer(digest, np.uint8))
            self._appender.append_texts("sequences/letters", ["".join(sequences)])
            lengths = [len(sequence) for sequence in sequences]
            self._appender.append_one("sequences/chain_length", lengths)
        return known[digest]

    def structure(self, structure: Structure) -> int:
        """Return the number of the item with this complex."""
        digest, known = structure.content_hash, self._known["structure"]
        if digest not in known:
            known[digest] = len(known)
            self._append_structure(structure, digest)
        return known[digest]

    def _append_structure(self, structure: Structure, digest: bytes) -> None:
        append = self._appender.append
        append("structures/hash", np.frombuffer(digest, np.uint8))
        append("structures/chain", [self._appender.rows("chains/kept")])
        append("structures/chains", [len(structure.chains)])
        append("structures/rows", [len(structure)])
        append("structures/context", [structure.context_length])
        self._appender.append_texts("chains/id", [chain.id for chain in structure.chains])
        append("chains/kept", [index in structure.kept for index in range(len(structure.chains))])
        for chain in structure.chains:
            assert chain.backbone is not None
            append("chains/residue", [self._appender.rows("residues/letter")])
            append("chains/residues", [len(chain)])
            append("residues/letter", np.frombuffer(chain.sequence.encode("ascii"), np.uint8))
            append("residues/number", chain.residue_numbers)
            append("residues/insertion_code", chain.insertion_codes)
            append("residues/observed", chain.observed)
            append("residues/backbone", chain.backbone.coordinates)


def place_in_structure(protein: Protein) -> tuple[int, int]:
    """Return (first, count): the protein's chains among its structure's kept chains."""
    assert protein.structure is not None
    kept = [(chain.id, chain.sequence) for chain in protein.structure.kept_chains]
    wanted = [(chain.id, chain.sequence) for chain in protein.chains]
    for first in range(len(kept) - len(wanted) + 1):
        if kept[first : first + len(wanted)] == wanted:
            return first, len(wanted)
    raise ValueError(
        f"protein {protein.id}: its chains are not a run of its structure's kept chains"
    )
