"""A search by an index of words: candidates from the index, everything else from its store."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.heads.inputs import choose_encoder
from protalign.heads.model import Model, as_model
from protalign.search.provenance import open_store, store_paths
from protalign.search.word_index import WordIndex, lacking_words
from protalign.stores import AlignedVectors, EmbeddingStore
from protalign.stores.union.paths import StorePaths

#: Entries that the second stage compares with a query, unless it is told how many.
CANDIDATES = 200


class WordSearch:
    """An index of words with the model and the store that it was made with.

    Parameters
    ----------
    index : WordIndex, str or path
        The index, or its folder.
    model : Model, ProtAlignEstimator, str or path
        The model that made it.
    store : EmbeddingStore, path or paths, optional
        The store that it was made from; default: the recorded one.
    device : str
        Where the model of a path computes.

    Raises
    ------
    InputError
        No model is given, the index is missing, damaged or another store's, or the store is
        missing.
    ModelError
        The index is another model's.

    Warns
    -----
    UserWarning
        Some entries of the store are not in the index.
    """

    def __init__(
        self,
        index: WordIndex | str | os.PathLike[str],
        model: Any,
        store: EmbeddingStore | StorePaths | None = None,
        device: str = "auto",
    ) -> None:
        self.index = index if isinstance(index, WordIndex) else WordIndex(index)
        if model is None:
            raise InputError(
                f"{self.index.path}: a search by words needs a model",
                "give the one that the index was made with (--model)",
            )
        is_path = isinstance(model, (str, os.PathLike))
        self.model = Model.load(model, device) if is_path else as_model(model)
        self.index.check_made_by(self.model)
        self.store = (
            store
            if isinstance(store, EmbeddingStore)
            else open_store(store or store_paths(self.index.provenance), self.index.path)
        )
        self.index.check_is_of(self.store)
        #: Modality -> (n,) bool: the index's entries that the store has today.
        self._current: dict[Modality, Bool] = {}
        for modality in self.index.modalities:
            rows = self.index.entry_rows(modality)
            self._current[modality] = np.isin(rows, self.store.entry_rows)
        lacking = self.index.n_lacking(self.store)
        if lacking:
            warnings.warn(
                f"{self.index.path}: {lacking_words(lacking)}",
                stacklevel=3,
            )

    def n_targets(self, modality: Modality) -> int:
        """Return the entries that are searched for a query of the other modality."""
        return int(self._current[modality].sum()) if modality in self._current else 0

    def entry_rows(self, modality: Modality) -> Int64:
        """Return (n,) int64: these entries' rows in the store's log."""
        rows = self.index.entry_rows(modality)
        return rows[self._current[modality]] if modality in self._current else rows

    def candidates(
        self, against: Modality, queries: Sequence[Float32], count: int
    ) -> list[list[str]]:
        """Return the ids of the entries whose words fit each query best, best first.

        Parameters
        ----------
        against : "sequence" or "structure"
            The entries' modality.
        queries : sequence of (L, k + 2) float32
            Plain rows (``ResidueStage.plain_rows``) of proteins of the other modality.
        count : int
            Entries for each query, at most.
        """
        found = self.index.nearest(against, queries, count, self._current.get(against))
        return [self.store.log.ids_at(rows).tolist() for rows, _ in found]

    def vectors(self, ids: Sequence[str]) -> AlignedVectors:
        """Return the vectors of some entries, pooled now, as an exported file would have them."""
        entries = self.store[list(ids)] if ids else self.store[:0]
        sequence, structure = (self._pooled(modality, ids) for modality in MODALITIES)
        has_sequence: Bool = np.all(np.isfinite(sequence), axis=1)
        has_structure: Bool = np.all(np.isfinite(structure), axis=1)
        return AlignedVectors(
            entries.ids,
            sequence,
            structure,
            has_sequence,
            has_structure,
            {
                "model": {"weights_sha256": self.model.weights_sha256},
                "store": self.index.provenance["store"],
            },
            self.lengths(ids),
        )

    def lengths(self, ids: Sequence[str]) -> Int64:
        """Return (n,) int64 residues of entries: of the sequence, else of the structure."""
        entries = self.store[list(ids)] if ids else self.store[:0]
        lengths = entries.lengths
        encoder = choose_encoder(self.store, "structure", None, self._record("structure"))
        if encoder is None:
            return lengths
        return np.where(lengths > 0, lengths, entries.rows(encoder.name)[1])

    def cosines(
        self, modality: Modality, hits: Sequence[Sequence[str]], vectors: Float32
    ) -> list[list[float]]:
        """Return the cosines of each query's vector, (n, dim), with its hits' vectors."""
        unique = sorted({entry_id for ids in hits for entry_id in ids})
        place = {entry_id: row for row, entry_id in enumerate(unique)}
        pooled = self._pooled(modality, unique)
        return [
            (pooled[[place[entry_id] for entry_id in ids]] @ vector).tolist() if ids else []
            for ids, vector in zip(hits, vectors, strict=True)
        ]

    def _pooled(self, modality: Modality, ids: Sequence[str]) -> Float32:
        if not ids:
            return np.empty((0, self.model.embed_dim), dtype=np.float32)
        return self.model.vectors(self.store[list(ids)], modality)

    def _record(self, modality: Modality) -> Any:
        return self.model.encoders.get(modality)
