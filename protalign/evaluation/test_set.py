"""The unique sequences and structures of a test set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import MODALITIES, Modality
from protalign.heads.inputs import means_of
from protalign.heads.pairs import Pairs
from protalign.residues import ResidueStage
from protalign.residues.proteins import PackedRows
from protalign.stores import Entries, StoreView

#: The sequences of a protein's chains, one-letter codes.
Chains = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalItems:
    """The n unique items of one modality.

    Attributes
    ----------
    ids : list of str
        The first entry of each item.
    entries : list of list of str
        All entries of each item. What is known of one of them is known of the item.
    vectors : (n, E) float32
        The model's vectors.
    means : (n, D) float32
        Means of the residues' embeddings.
    lengths : (n,) int64
        Rows of each embedding: residues of a sequence, or residues of a structure that have a
        complete backbone.
    chains : list of tuple of str
        The sequences of these residues, by chain.
    residues : PackedRows, optional
        The residue stage's rows of each item; None if they are not wanted.
    """

    ids: list[str]
    entries: list[list[str]]
    vectors: Float32
    means: Float32
    lengths: Int64
    chains: list[Chains]
    residues: PackedRows | None = None


def retrieval_items(
    entries: Entries,
    pairs: Pairs,
    vectors: Sequence[Float32],
    stage: ResidueStage | None = None,
) -> tuple[RetrievalItems, RetrievalItems]:
    """Return the sequences and the structures of some pairs.

    Parameters
    ----------
    entries : EmbeddingStore or StoreView
        The entries that the pairs were made of.
    pairs : Pairs
        Pairs of ``entries``.
    vectors : two (n, E) float32
        The vectors of the unique sequences, and of the unique structures.
    stage : ResidueStage, optional
        Makes the items' residue rows; default: they are left out.
    """
    both = np.stack([pairs.inputs.items(modality) >= 0 for modality in MODALITIES]).all(axis=0)
    items = []
    for column, modality in enumerate(MODALITIES):
        positions = pairs.positions_of_items(column)
        ids = [str(entry_id) for entry_id in entries.ids[positions]]
        item_of = pairs.inputs.items(modality)
        sharing: dict[int, list[str]] = {item: [] for item in item_of[positions].tolist()}
        for item, entry_id in zip(item_of[both].tolist(), entries.ids[both].tolist(), strict=True):
            sharing[item].append(entry_id)
        residues = None
        if stage is not None:
            residues = _rows(stage, pairs, modality, positions, entries[ids])
        items.append(
            RetrievalItems(
                ids=ids,
                entries=list(sharing.values()),
                vectors=vectors[column],
                means=means_of(pairs.inputs, modality, positions),
                lengths=pairs.inputs.lengths(modality)[positions],
                chains=chains_of(entries, ids, modality),
                residues=residues,
            )
        )
    return items[0], items[1]


def _rows(
    stage: ResidueStage, pairs: Pairs, modality: Modality, positions: Int64, entries: StoreView
) -> PackedRows:
    """Return the residue stage's rows of some entries, block by block: embeddings are wide."""
    blocks, chains = pairs.inputs.blocks(modality, positions), entries.chain_rows(modality)
    proteins = zip((rows for block in blocks for rows in block), chains, strict=True)
    return PackedRows.of(
        [stage.protein_rows(modality, rows, lengths) for rows, lengths in proteins]
    ).placed(entries.row_positions(modality))


def chain_rows(chains: Chains) -> Int64:
    """Return (c,) int64: the residues of each chain that has any."""
    return np.array([len(chain) for chain in chains if chain], dtype=np.int64)


def chains_of(entries: Entries, ids: Iterable[str], modality: Modality) -> list[Chains]:
    """Return the sequences of entries' chains.

    Parameters
    ----------
    entries : EmbeddingStore or StoreView
    ids : iterable of str
        Ids of the store.
    modality : "sequence" or "structure"
        For structures only the residues that have a row of embedding count.
    """
    sequences = [entries.store.sequence(entry_id) for entry_id in ids]
    if modality == "sequence":
        return sequences
    return [
        _letters_at(chains, entries.store.residue_map(entry_id).sequence_index)
        for entry_id, chains in zip(ids, sequences, strict=True)
    ]


def _letters_at(chains: Chains, index: Int64) -> Chains:
    """Return the residues at positions of the concatenated chains, chain by chain."""
    residues = np.frombuffer("".join(chains).encode("ascii"), dtype=np.uint8)[index]
    ends = np.searchsorted(index, np.cumsum([len(chain) for chain in chains]))
    return tuple(part.tobytes().decode("ascii") for part in np.split(residues, ends[:-1]))
