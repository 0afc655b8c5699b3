"""A searcher: vectors or words with the model, the encoders and the store, opened once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from protalign.core.devices import resolve_device
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, OTHER, Modality, Protein
from protalign.core.words import Against, AlignMode
from protalign.encoders.recorded import RecordedEncoders
from protalign.heads.model import Model, as_model
from protalign.reading import ReadOptions
from protalign.residues import ResidueStage
from protalign.search.candidates import (
    by_residues,
    by_words,
    n_targets,
    nearest,
    reranked,
    with_annotations,
    with_cosines,
    with_global_scores,
)
from protalign.search.comparison import Comparison
from protalign.search.hit import Hit
from protalign.search.hit_list import Hits
from protalign.search.index import Index
from protalign.search.provenance import (
    check_made_by,
    check_same_model,
    coordinates_of,
    open_coordinates,
    read_options,
)
from protalign.search.queries import (
    Queries,
    Query,
    SortedQueries,
    embed_queries,
    embedding_queries,
    protein_queries,
    sequence_queries,
    sort_queries,
    stored_queries,
)
from protalign.search.rerank import StoredResidues
from protalign.search.search_options import SearchOptions
from protalign.search.vector_index import is_vector_index, with_index
from protalign.search.wanted import (
    refuse_uncalibrated,
    refuse_unknown,
    refuse_without_coordinates,
)
from protalign.search.word_index import WordIndex
from protalign.search.word_search import CANDIDATES, WordSearch
from protalign.stores import AlignedVectors, EmbeddingStore, read_vectors
from protalign.stores.union.paths import StorePaths


class Searcher:
    """Vectors or words, with what their searches need; each part is opened once, at first need.

    Parameters
    ----------
    vectors, index, model, store, weights, device
        As for ``protalign.search``.

    Attributes
    ----------
    words : WordSearch or None
        The index of words; None in a search by vectors.
    nearest : Index or None
        The vectors; None in a search by words.

    Raises
    ------
    InputError
        The vectors or the index are missing or do not fit together; neither is given.
    ModelError
        The index is another model's.

    Notes
    -----
    After ``open_all``, threads may share it.

    Examples
    --------
    >>> import numpy as np
    >>> eye, every = np.eye(3, dtype=np.float32), np.ones(3, dtype=np.bool_)
    >>> ids = np.array(["1a30", "3ebp", "1bcu"], dtype=object)
    >>> searcher = Searcher(AlignedVectors(ids, eye, eye, every, every))
    >>> hits = searcher.find(searcher.stored(["3ebp", "1bcu"]), SearchOptions(k=1))
    >>> [hit.id for hit in hits]
    ['3ebp', '1bcu']
    """

    def __init__(
        self,
        vectors: AlignedVectors | Index | str | os.PathLike[str] | None = None,
        *,
        index: WordIndex | str | os.PathLike[str] | None = None,
        model: Any = None,
        store: EmbeddingStore | StorePaths | None = None,
        weights: Mapping[Modality, str] | None = None,
        device: str = "auto",
    ) -> None:
        self.words: WordSearch | None = None
        self.nearest: Index | None = None
        self._given_model, self._given_store = model, store
        self._weights, self._device = weights, device
        if index is not None and vectors is not None and not isinstance(vectors, Index):
            vectors, index = with_index(vectors, index), None
        if index is not None and vectors is None:
            if not isinstance(index, WordIndex) and is_vector_index(index):
                raise InputError(
                    f"{index}: it is an index of vectors", "name the vectors too (--vectors)"
                )
            self.words = WordSearch(index, model, store, device)
            self._given_model, self._given_store = self.words.model, self.words.store
        elif vectors is not None and index is None:
            if not isinstance(vectors, Index):
                vectors = Index(
                    vectors if isinstance(vectors, AlignedVectors) else read_vectors(vectors)
                )
            self.nearest = vectors
        else:
            raise InputError(
                "search: it needs vectors, an index of words, or vectors with their index",
                "give those to search (--vectors, --index)",
            )

    @cached_property
    def vectors(self) -> AlignedVectors:
        """The vectors that are searched; of a search by words none, with its provenance."""
        if self.nearest is not None:
            return self.nearest.vectors
        assert self.words is not None
        return self.words.vectors([])

    @cached_property
    def store(self) -> EmbeddingStore:
        """The store of the entries; raises InputError if it is missing."""
        given = self._given_store
        return given if isinstance(given, EmbeddingStore) else open_coordinates(self.vectors, given)

    @cached_property
    def model(self) -> Model:
        """The model, checked to have made the vectors; raises InputError if none was given."""
        given = self._given_model
        if given is None:
            raise InputError("rerank: it needs a model", "give the one of the vectors (--model)")
        is_path = isinstance(given, (str, os.PathLike))
        model = Model.load(given, self._device) if is_path else as_model(given)
        check_made_by(self.vectors, model)
        return model

    @cached_property
    def encoders(self) -> RecordedEncoders:
        """The model's encoders, each loaded when it is first needed."""
        return RecordedEncoders(self.model.encoders, self._weights, self._device)

    @cached_property
    def residues(self) -> StoredResidues:
        """The residue rows of the store's entries; raises an error if the model has no stage."""
        return StoredResidues(self.model, self.store)

    @cached_property
    def reading(self) -> ReadOptions:
        """The options to read queries' structure files with."""
        return read_options(self.vectors)

    def open_all(self) -> None:
        """Open everything now, so that no search waits for it and threads may share it.

        Raises
        ------
        ProtAlignError
            A part is missing or does not fit the others.
        """
        for modality in self.model.encoders:
            self.encoders.load(modality)
        self.store, self.reading, "" in self.vectors  # noqa: B018  # each made at its first use
        if self.model.residue_stage is not None:
            calibration = self.residues.stage.calibration
            if calibration is not None and calibration.background is not None:
                for modality in MODALITIES:
                    calibration.background.similarity(modality)
        if self.nearest is not None:
            for modality in MODALITIES:
                present = self.vectors.present(modality)
                if present.any():
                    first = np.array([np.argmax(present)])
                    vector = self.vectors.vectors_at(modality, first)
                    self.nearest.search(vector, 1, against=modality)

    def search(
        self, queries: Query | Iterable[Query], options: SearchOptions | None = None
    ) -> Hits:
        """Find the hits of queries of every kind, as ``protalign.search`` does.

        Raises
        ------
        InputError
            A query is not an id, a file or a sequence, or the search cannot give what is asked.
        """
        options = options or SearchOptions()
        known = self.vectors if self.words is None else self.words.store
        by_kind = sort_queries(queries, known)
        targets = self.vectors if self.words is None else self.words.vectors(by_kind.ids)
        opened = self._store_for(options)
        if options.query_by is not None and not by_kind.have_modalities:
            raise InputError(
                f"query_by={options.query_by!r}: it is for ids and vectors, and all queries are "
                "files or sequences",
                "leave query_by (--query-by) out: a file is compared by its backbone if it has one",
            )
        query_by = options.query_by or "sequence"
        if not by_kind.may_have_coordinates:
            refuse_without_coordinates(options.wanted)
        if by_kind.needs_model and self._given_model is None:
            raise _needs_model(by_kind)
        by_residues = self._by_residues(options)
        if by_kind.needs_model or by_residues:
            self.model  # noqa: B018  # refuses another model's vectors
        residues = self._residues_for(options)
        parts = self._embedded(by_kind, query_by, residues)
        parts.append(stored_queries(targets, by_kind.ids, query_by, opened, residues))
        for table in by_kind.tables:
            check_same_model(table, targets)
            of_table = None if opened is None else coordinates_of(table, targets, opened)
            rows = None
            if by_residues and of_table is not None:
                rows = StoredResidues(self.model, of_table)
            ids = table.ids.tolist()
            parts.append(stored_queries(table, ids, query_by, of_table, rows))
        return self.find(Queries.joined(parts, targets.dim), options)

    def pooled(self, proteins: Sequence[Protein], *, residues: bool = False) -> Queries:
        """Embed and pool proteins: those with a backbone by their structure.

        ``Queries.part`` takes some of them, so that proteins of several requests can be encoded
        together.

        Parameters
        ----------
        proteins : sequence of Protein
            The proteins; all are encoded at once.
        residues : bool
            Whether to make the residue rows for a second stage.
        """
        stage = self.model.residue_scorer() if residues else None
        return protein_queries(proteins, self.model, self.encoders, stage)

    def stored(
        self, ids: Sequence[str], query_by: Modality = "sequence", *, residues: bool = False
    ) -> Queries:
        """Return queries with vectors that the searched ones have.

        Parameters
        ----------
        ids : sequence of str
            Ids of the vectors, or of the index's store; InputError for others.
        query_by : "sequence" or "structure"
            The vector to query with; the other one if that is missing.
        residues : bool
            Whether to read the proteins and their residue rows from the store.
        """
        targets = self.vectors if self.words is None else self.words.vectors(ids)
        store, rows = (self.store, self.residues) if residues else (None, None)
        return stored_queries(targets, ids, query_by, store, rows)

    def candidates(self, queries: Queries, against: Against, count: int) -> list[list[Hit]]:
        """Return each query's nearest entries, best first: the first part of ``find``.

        Queries of several requests can be searched together, which reads the vectors once.
        """
        if self.nearest is not None:
            return nearest(queries, self.nearest, count, against)
        assert self.words is not None
        return by_words(queries, self.words, count)

    def find(
        self,
        queries: Queries,
        options: SearchOptions | None = None,
        candidates: list[list[Hit]] | None = None,
    ) -> Hits:
        """Find the hits of queries that are pooled.

        Parameters
        ----------
        queries : Queries
            The queries; with their residue rows if the options ask for a second stage.
        options : SearchOptions, optional
            What is asked.
        candidates : list of lists of Hit, optional
            What ``candidates`` gave for these queries, ``count(options)`` each.

        Raises
        ------
        InputError
            The search cannot give a column or a filter, or a second stage is asked for with
            queries of the modality that is searched.
        """
        options = options or SearchOptions()
        opened, residues = self._store_for(options), self._residues_for(options)
        refuse_unknown(options.wanted, queries, opened)
        if self._by_residues(options) and options.against in queries.modality:
            against = options.against
            raise InputError(
                f"rerank: a query by {against} cannot be compared with a {against} residue by "
                "residue",
                "search against the other modality",
            )
        hits = candidates
        if hits is None and residues is not None and options.rerank == "all":
            targets, device = self.words or self.vectors, resolve_device(self._device)
            hits = by_residues(queries, targets, residues, options, self.count(options), device)
        elif hits is None:
            hits = self.candidates(queries, options.against, self.count(options))
        if residues is not None:
            hits = self._in_order(hits, queries, residues, options)
        comparison = Comparison(queries, opened, residues, options.mode, options.length_term)
        filters = options.filters
        hits = [comparison.best(place, each, options.k, filters) for place, each in enumerate(hits)]
        hits = _with_global_scores(hits, queries, residues)
        if self.words is not None:
            hits = with_annotations(with_cosines(hits, queries, self.words), self.words.store)
        return _finished(hits, comparison, options)

    def compare(self, queries: Queries, target: str, mode: AlignMode = "local") -> Hits:
        """Compare each query with one entry, residue by residue if the model can.

        Parameters
        ----------
        queries : Queries
            The queries, with their residue rows.
        target : str
            Id of an entry of the vectors.
        mode : "local" or "global"
            The alignment.

        Returns
        -------
        Hits
            One for each query: with the entry's other modality if it has that.

        Raises
        ------
        InputError
            The entry is not among the vectors.
        """
        options = SearchOptions(k=1, rerank=1, mode=mode)
        entry = self.vectors.select([target])
        residues = None if self.model.residue_stage is None else self.residues
        (length,) = [None] if entry.lengths is None else entry.lengths.tolist()
        (about,) = entry.annotations_at([0])
        hits = []
        for place, modality in enumerate(queries.modality):
            kind = OTHER[modality]
            if not entry.candidates(kind)[1][0]:
                kind = modality
            cosine = float(entry.candidates(kind)[0][0] @ queries.vectors[place])
            name = queries.ids[place]
            hits.append([Hit(name, 1, target, cosine, length, kind, **about.as_dict())])
        if residues is not None:
            comparable = [
                each[0].against != m for each, m in zip(hits, queries.modality, strict=True)
            ]
            scored = self._in_order(hits, queries, residues, options)
            hits = [
                new if yes else old for yes, new, old in zip(comparable, scored, hits, strict=True)
            ]
            hits = _with_global_scores(hits, queries, residues)
        return _finished(hits, Comparison(queries, self.store, residues, mode), options)

    def _by_residues(self, options: SearchOptions) -> bool:
        return bool(options.rerank) or self.words is not None

    def count(self, options: SearchOptions) -> int:
        """Return the number of a query's candidates, of which a second stage orders the best."""
        count = options.rerank
        if count == "all" or (self.words is not None and not count):
            count = CANDIDATES
        return max(options.k, count)

    def _store_for(self, options: SearchOptions) -> EmbeddingStore | None:
        needs = options.wanted.that_need("coordinates")
        return self.store if needs or self._by_residues(options) else None

    def _residues_for(self, options: SearchOptions) -> StoredResidues | None:
        if not self._by_residues(options):
            return None
        if self.residues.stage.calibration is None:
            refuse_uncalibrated(options.wanted)
        return self.residues

    def _in_order(
        self,
        hits: list[list[Hit]],
        queries: Queries,
        residues: StoredResidues,
        options: SearchOptions,
    ) -> list[list[Hit]]:
        """Return each query's hits ordered by their residues' scores."""
        return [
            reranked(
                each,
                query,
                residues,
                options.mode,
                options.length_term,
                n_targets(each, self.vectors, self.words),
            )
            for each, query in zip(hits, queries.residues, strict=True)
        ]

    def _embedded(
        self, queries: SortedQueries, query_by: Modality, residues: StoredResidues | None
    ) -> list[Queries]:
        """Return the queries that must be embedded or pooled."""
        stage: ResidueStage | None = None if residues is None else residues.stage
        parts = []
        if queries.files:
            files = embed_queries(
                queries.files, self.model, self.encoders, options=self.reading, stage=stage
            )
            parts.append(files)
        if queries.sequences:
            parts.append(sequence_queries(queries.sequences, self.model, self.encoders, stage))
        if queries.proteins:
            parts.append(protein_queries(queries.proteins, self.model, self.encoders, stage))
        if queries.embeddings:
            parts.append(embedding_queries(queries.embeddings, self.model, query_by, stage))
        return parts


def _with_global_scores(
    hits: list[list[Hit]], queries: Queries, residues: StoredResidues | None
) -> list[list[Hit]]:
    """Return the hits that are given with the global scores that they lack."""
    if residues is None:
        return hits
    return [
        with_global_scores(each, query, residues)
        for each, query in zip(hits, queries.residues, strict=True)
    ]


def _finished(hits: list[list[Hit]], comparison: Comparison, options: SearchOptions) -> Hits:
    """Return the hits of all queries as one sequence."""
    if options.tm_score:
        hits = [
            [replace(hit, tm_score=comparison.tm_score(place, hit)) for hit in each]
            for place, each in enumerate(hits)
        ]
    return Hits(
        tuple(hit for each in hits for hit in each),
        tuple(comparison.queries.failures),
        comparison,
        tuple(place for place, each in enumerate(hits) for _ in each),
        options.columns,
        options.tm_score,
    )


def _needs_model(queries: SortedQueries) -> InputError:
    """Return the error of queries that have no vector, in a search without a model."""
    unknown = [*queries.files, *queries.sequences, *(each.id for each in queries.proteins)]
    name = unknown[0] if unknown else "the residue embeddings"
    return InputError(
        f"{name[:60]}: it has no vector yet", "give the model that made the others (--model)"
    )
