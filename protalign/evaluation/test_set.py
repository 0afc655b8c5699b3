"""What is evaluated: the unique sequences and structures of a test set, with all that is known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.tables import ID_COLUMNS, Table
from protalign.heads.inputs import means_of
from protalign.heads.pairs import Pairs
from protalign.splits.clusters import cluster_proteins
from protalign.stores import Entries

Chains = tuple[str, ...]

#: Levels of a SCOPe sccs (class.fold.superfamily.family), by how many of its numbers name them.
SCOP_LEVELS = {"fold": 2, "superfamily": 3, "family": 4}
#: Usual names of the columns of a table of families, and of SCOPe labels.
FAMILY_COLUMNS = ("family", "cluster", "label")
SCOP_COLUMNS = ("scop", "scope", "sccs", "label")
#: Identity at which families are computed where none are given.
FAMILY_IDENTITY = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The n unique items of one modality.

    Attributes
    ----------
    ids : first entry of each item.
    entries : all entries of each item, what is known of one of them being known of the item.
    vectors : (n, E) float32, what the model makes of them.
    means : (n, D) float32 means of the residues' embeddings.
    lengths : (n,) int64 rows of embedding: residues of a sequence, residues of a structure that
        have a complete backbone.
    chains : their letters; of a structure those of the same residues.
    """

    ids: list[str]
    entries: list[list[str]]
    vectors: Float32
    means: Float32
    lengths: Int64
    chains: list[Chains]


def sides_of(entries: Entries, pairs: Pairs, vectors: Sequence[Float32]) -> tuple[Side, Side]:
    """Sequences and structures of some pairs; ``vectors`` of each modality's items."""
    sides = []
    for column, modality in enumerate(MODALITIES):
        positions = pairs.positions_of_items(column)
        ids = [str(entry_id) for entry_id in entries.ids[positions]]
        sides.append(
            Side(
                ids=ids,
                entries=_entries_of_items(entries, pairs, modality, positions),
                vectors=vectors[column],
                means=means_of(pairs.inputs, modality, positions),
                lengths=pairs.inputs.lengths(modality)[positions],
                chains=chains_of(entries, ids, modality),
            )
        )
    return sides[0], sides[1]


def _entries_of_items(
    entries: Entries, pairs: Pairs, modality: Modality, positions: Int64
) -> list[list[str]]:
    """Ids of the entries, of those with both modalities, that share the items at ``positions``."""
    both = np.stack([pairs.inputs.items(m) >= 0 for m in MODALITIES]).all(axis=0)
    items = pairs.inputs.items(modality)
    found: dict[int, list[str]] = {item: [] for item in items[positions].tolist()}
    for item, entry_id in zip(items[both].tolist(), entries.ids[both].tolist(), strict=True):
        found[item].append(entry_id)
    return list(found.values())


def chains_of(entries: Entries, ids: Iterable[str], modality: Modality) -> list[Chains]:
    """The letters of entries' chains; for structures, of the residues that have a row."""
    sequences = [entries.store.sequence(entry_id) for entry_id in ids]
    if modality == "sequence":
        return sequences
    return [
        _observed(chains, entries.store.residue_map(entry_id).sequence_index)
        for entry_id, chains in zip(ids, sequences, strict=True)
    ]


def _observed(chains: Chains, index: Int64) -> Chains:
    """The letters at positions of the chains one after another, chain by chain."""
    letters = np.frombuffer("".join(chains).encode("ascii"), dtype=np.uint8)[index]
    ends = np.searchsorted(index, np.cumsum([len(chain) for chain in chains]))
    return tuple(part.tobytes().decode("ascii") for part in np.split(letters, ends[:-1]))


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels of n items, as a matrix that tells at once which items share one.

    Attributes
    ----------
    of : n sets of labels; an empty one where nothing is known.
    """

    of: list[frozenset[str]]

    def matrices(self, other: Labels) -> tuple[sparse.csr_array, sparse.csr_array]:
        """(n, labels) and (m, labels) matrices of ones: items share a label where the product is
        above 0.
        """
        names = sorted(frozenset().union(*self.of, *other.of))
        column = {name: index for index, name in enumerate(names)}
        return self._matrix(column), other._matrix(column)

    def _matrix(self, column: Mapping[str, int]) -> sparse.csr_array:
        rows = np.repeat(np.arange(len(self.of)), [len(labels) for labels in self.of])
        columns = np.array([column[name] for labels in self.of for name in labels], dtype=np.int64)
        ones = np.ones(len(rows), dtype=np.float32)
        return sparse.coo_array((ones, (rows, columns)), shape=(len(self.of), len(column))).tocsr()


def read_labels(
    path: str | os.PathLike[str], column: str | None, usual: Sequence[str]
) -> dict[str, str]:
    """Id -> label out of a column of a user's table, by default the first of the usual names.

    Raises InputError, naming file and line, for a file that is no table, a column that is not
    there, or an id with two labels.
    """
    table = Table.read(path)
    ids = table.column(None, ID_COLUMNS, "ids")
    labels = table.column(column, usual, "labels")
    found: dict[str, str] = {}
    for line, row in table.rows():
        if found.setdefault(row[ids], row[labels]) != row[labels]:
            raise InputError(
                f"{path}, line {line}: {row[ids]!r} had another label before", "keep one of them"
            )
    return found


def families_of(items: Sequence[Sequence[str]], families: Mapping[str, str]) -> Labels:
    """The families of items' entries; an item none of whose entries has one is its own."""
    return Labels(
        [
            frozenset(families[i] for i in ids if families.get(i))
            or frozenset(f"of its own: {i}" for i in ids)
            for ids in items
        ]
    )


def computed_families(entries: Entries) -> tuple[dict[str, str], str]:
    """(id -> family, how): clusters of the entries' sequences at ``FAMILY_IDENTITY``."""
    ids = [str(entry_id) for entry_id in entries.ids]
    found = cluster_proteins([entries.store.sequence(i) for i in ids], FAMILY_IDENTITY)
    how = f"clusters at {100 * FAMILY_IDENTITY:g} % sequence identity, {found.method}"
    return dict(zip(ids, map(str, found.labels.tolist()), strict=True)), how


def scop_of(items: Sequence[Sequence[str]], scop: Mapping[str, str], level: str) -> Labels:
    """Labels of a SCOPe level of items' entries, out of an sccs each ("b.1.1.1"), or several.

    A number 0 is SCOPe's for what is matched automatically and not classified there: no label.
    """
    depth = SCOP_LEVELS[level]
    return Labels(
        [
            frozenset(
                ".".join(parts[:depth])
                for entry_id in ids
                for sccs in re.split(r"[,;\s]+", scop.get(entry_id, ""))
                if len(parts := sccs.split(".")) >= depth and parts[depth - 1] != "0"
            )
            for ids in items
        ]
    )
