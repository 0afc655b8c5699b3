"""Mutations as rows of features: differences of mutant and wild type, and their position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from biotite.sequence import ProteinSequence
from biotite.sequence.align import SubstitutionMatrix, align_optimal

from benchmarks.quality.downstream_parts.preparation import SEQUENCE, STRUCTURE, name_of
from protalign import AlignedVectors, EmbeddingStore
from protalign.core.arrays import Float32, Int64
from protalign.core.protein import AMINO_ACIDS

LETTERS = AMINO_ACIDS


@dataclass(frozen=True, eq=False)
class Mutations:
    """A set of n mutations; ``reversed`` returns those from the mutant to the wild type.

    Attributes
    ----------
    wild, mutant : (n,) rows of the store of sequences.
    position : (n,) of the mutated residue.
    target : (n,) kcal/mol or °C, negative if the mutation destabilises.
    cluster : (n,) cluster of the wild type at 30 % identity.
    wild_structure, mutant_structure : (n,) rows of the store of structures, -1 for none. They are
        the same if the mutant has no structure.
    wild_row, mutant_row : (n,) the mutated residue's row in the structure, -1 for none.
    from_letter, to_letter : (n,) indices into LETTERS.
    """

    wild: Int64
    mutant: Int64
    position: Int64
    target: npt.NDArray[np.float64]
    cluster: Int64
    wild_structure: Int64
    mutant_structure: Int64
    wild_row: Int64
    mutant_row: Int64
    from_letter: Int64
    to_letter: Int64

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: npt.NDArray[np.generic]) -> Mutations:
        return Mutations(**{name: values[rows] for name, values in vars(self).items()})

    def reversed(self) -> Mutations:
        """Return the mutations from the mutant to the wild type; the targets change their sign."""
        return replace(
            self,
            wild=self.mutant,
            mutant=self.wild,
            target=-self.target,
            wild_structure=self.mutant_structure,
            mutant_structure=self.wild_structure,
            wild_row=self.mutant_row,
            mutant_row=self.wild_row,
            from_letter=self.to_letter,
            to_letter=self.from_letter,
        )


class Placing:
    """Tables of mutations -> Mutations; it keeps the alignments of sequences with structures."""

    def __init__(self, mutants: EmbeddingStore, pool: EmbeddingStore) -> None:
        self._sequence_row = {name: row for row, name in enumerate(mutants.ids.tolist())}
        self._structure_row = {name: row for row, name in enumerate(pool.ids.tolist())}
        self._pool = pool
        self._places: dict[tuple[str, str], Int64] = {}

    def __call__(self, table: pd.DataFrame, cluster: dict[str, int]) -> Mutations:
        """Convert all rows of a table; a structure without the mutated residue counts as none."""
        sides: dict[str, Int64] = {}
        for side in ("wild", "mutant"):
            column = "structure" if side == "wild" else "mutant_structure"
            places = [
                self._row(
                    row.wild if row.structure == row.mutant_structure else row[side],
                    row[column],
                    row.position,
                )
                for _, row in table.iterrows()
            ]
            sides[f"{side}_row"] = np.array(places, dtype=np.int64)
            structures = [self._structure_row.get(name, -1) for name in table[column]]
            sides[f"{side}_structure"] = np.where(sides[f"{side}_row"] < 0, -1, structures)
        pairs = zip(table.wild, table.mutant, table.position, strict=True)
        letters = [(LETTERS.index(w[p]), LETTERS.index(m[p])) for w, m, p in pairs]
        return Mutations(
            wild=np.array([self._sequence_row[name_of(s)] for s in table.wild]),
            mutant=np.array([self._sequence_row[name_of(s)] for s in table.mutant]),
            position=table.position.to_numpy(dtype=np.int64),
            target=table.target.to_numpy(dtype=np.float64),
            cluster=np.array([cluster[s] for s in table.wild]),
            from_letter=np.array([a for a, _ in letters]),
            to_letter=np.array([b for _, b in letters]),
            **sides,
        )

    def _row(self, sequence: str, structure: str, position: int) -> int:
        """Return the structure's row of a residue of a sequence, -1 if it is missing."""
        if not structure:
            return -1
        key = (sequence, structure)
        if key not in self._places:
            self._places[key] = self._align(sequence, structure)
        return int(self._places[key][position])

    def _align(self, sequence: str, structure: str) -> Int64:
        """Return (L,) the structure's row of each residue of the sequence, -1 for none."""
        chains = self._pool.sequence(structure)
        where = self._pool.residue_map(structure).sequence_index
        row_of = np.full(len(chains[0]), -1, dtype=np.int64)
        inside = where < len(chains[0])
        row_of[where[inside]] = np.flatnonzero(inside)
        matrix = SubstitutionMatrix.std_protein_matrix()
        trace = align_optimal(
            ProteinSequence(sequence),
            ProteinSequence(chains[0]),
            matrix,
            gap_penalty=(-10, -1),
            terminal_penalty=False,
            max_number=1,
        )[0].trace
        places = np.full(len(sequence), -1, dtype=np.int64)
        both = (trace >= 0).all(axis=1)
        places[trace[both, 0]] = row_of[trace[both, 1]]
        return places


class Features:
    """The feature sets of mutations, by name: each (n, d) float32.

    Parameters
    ----------
    mutants, pool : the stores of sequences and of structures.
    sequence_vectors, structure_vectors : their exported vectors, rows as in the stores.
    decoder, preferences : log-probabilities of the amino acids at mutated residues, by
        ProteinMPNN's decoder (``downstream_parts.log_odds``) and as read from its encoder
        (``downstream_parts.preferences``).
    """

    def __init__(
        self,
        mutants: EmbeddingStore,
        pool: EmbeddingStore,
        sequence_vectors: AlignedVectors,
        structure_vectors: AlignedVectors,
        decoder: dict[tuple[int, int], Float32],
        preferences: dict[tuple[int, int], Float32],
    ) -> None:
        self._mutants, self._pool = mutants, pool
        self._sequence, self._structure = sequence_vectors, structure_vectors
        self._decoder, self._preferences = decoder, preferences
        letters = [np.array(list("".join(mutants.sequence(i)))) for i in mutants.ids]
        self._composition = np.array(
            [[np.mean(own == letter) for letter in LETTERS] for own in letters], dtype=np.float32
        )
        self.sets: dict[str, Callable[[Mutations], Float32]] = {
            "composition and length": self._counted,
            "aligned, sequence": self._aligned_sequence,
            "aligned, structure": self._aligned_structure,
            "aligned, both": _joined(self._aligned_sequence, self._aligned_structure),
            "mean ESM2": self._mean_sequence,
            "mean ProteinMPNN": self._mean_structure,
            "mean, both": _joined(self._mean_sequence, self._mean_structure),
            "mean ESM2 times length": self._summed_sequence,
            "ESM2 at the residue": self._residue,
            "ESM2 at the residue and its wild type, ProteinMPNN there": _joined(
                self._residue, self._context
            ),
            "log-odds": self._log_odds,
            "composition and length, log-odds": _joined(self._counted, self._log_odds),
            "ESM2 at the residue, log-odds": _joined(self._residue, self._log_odds),
            "preference": self._preference,
            "composition and length, preference": _joined(self._counted, self._preference),
            "ESM2 at the residue, preference": _joined(self._residue, self._preference),
        }

    def _counted(self, m: Mutations) -> Float32:
        change = self._composition[m.mutant] - self._composition[m.wild]
        return np.hstack([change, self._lengths(m)]).astype(np.float32)

    def _lengths(self, m: Mutations) -> Float32:
        assert self._sequence.lengths is not None
        return self._sequence.lengths[m.wild][:, None].astype(np.float32)

    def _aligned_sequence(self, m: Mutations) -> Float32:
        return self._sequence.sequence[m.mutant] - self._sequence.sequence[m.wild]

    def _mean_sequence(self, m: Mutations) -> Float32:
        means = self._sequence.sequence_mean
        assert means is not None
        return means[m.mutant] - means[m.wild]

    def _summed_sequence(self, m: Mutations) -> Float32:
        return self._mean_sequence(m) * self._lengths(m)

    def _aligned_structure(self, m: Mutations) -> Float32:
        return _of_structures(self._structure.structure, m)

    def _mean_structure(self, m: Mutations) -> Float32:
        assert self._structure.structure_mean is not None
        return _of_structures(self._structure.structure_mean, m)

    def _residue(self, m: Mutations) -> Float32:
        return self._rows_of_sequences(m.mutant, m) - self._rows_of_sequences(m.wild, m)

    def wild_residues(self, m: Mutations) -> Float32:
        """Return (n, 320): the embeddings of the wild types' mutated residues."""
        return self._rows_of_sequences(m.wild, m)

    def _rows_of_sequences(self, which: Int64, m: Mutations) -> Float32:
        return self._mutants[which].embeddings_at(SEQUENCE, m.position)

    def _context(self, m: Mutations) -> Float32:
        """Return the wild type's residue: by sequence, and by structure if there is one."""
        present = np.flatnonzero(m.wild_structure >= 0)
        structure = np.zeros((len(m), 128), dtype=np.float32)
        if len(present):
            entries = self._pool[m.wild_structure[present]]
            structure[present] = entries.embeddings_at(STRUCTURE, m.wild_row[present])
        return np.hstack([self.wild_residues(m), structure])

    def _log_odds(self, m: Mutations) -> Float32:
        return _odds(self._decoder, m)

    def _preference(self, m: Mutations) -> Float32:
        return _odds(self._preferences, m)


def _odds(log_probabilities: dict[tuple[int, int], Float32], m: Mutations) -> Float32:
    """Return (n, 2): log p(mutant) - log p(wild type), and 1; or 0, 0 without a structure."""
    odds = np.zeros((len(m), 2), dtype=np.float32)
    for i in np.flatnonzero(m.wild_structure >= 0).tolist():
        known = log_probabilities[int(m.wild_structure[i]), int(m.wild_row[i])]
        odds[i] = known[m.to_letter[i]] - known[m.from_letter[i]], 1
    return odds


def _of_structures(vectors: Float32, m: Mutations) -> Float32:
    """Return the wild type's vector and the change to the mutant's; zeros without a structure."""
    wild = np.where(m.wild_structure[:, None] >= 0, vectors[m.wild_structure], np.float32(0))
    mutant = np.where(m.mutant_structure[:, None] >= 0, vectors[m.mutant_structure], np.float32(0))
    return np.hstack([wild, mutant - wild])


def _joined(*parts: Callable[[Mutations], Float32]) -> Callable[[Mutations], Float32]:
    return lambda mutations: np.hstack([part(mutations) for part in parts])
