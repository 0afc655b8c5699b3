"""Search: queries in, hits out. The command line and other programs call this one function."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, overload

from protalign.core.checks import check_choice
from protalign.core.errors import Failure, InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.words import Against
from protalign.encoders.recorded import RecordedEncoders
from protalign.heads.model import Model, as_model
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
    sequence_queries,
    sort_queries,
    stored_backbone,
    stored_queries,
)
from protalign.search.superposition import tm_score as tm_score_of
from protalign.stores import AlignedVectors, EmbeddingStore, read_vectors


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that was found for a query.

    Attributes
    ----------
    query : str
        The query's id.
    rank : int
        1 for the nearest entry.
    id : str
        The entry's id.
    cosine : float
        Cosine of the two vectors, -1 to 1.
    length : int or None
        The entry's residues; None if unknown.
    against : "sequence" or "structure"
        The entry's vector that was compared.
    tm_score : float or None
        TM-score of the entry superposed on the query, normalised by the query's length; None if it
        was not asked for, or if coordinates are missing.

    Examples
    --------
    >>> hit = Hit("1a30", 1, "3ebp", cosine=0.81, length=842, against="structure")
    >>> hit.as_dict()["id"]
    '3ebp'
    """

    query: str
    rank: int
    id: str
    cosine: float
    length: int | None
    against: Modality
    tm_score: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Hits(Sequence[Hit]):
    """The hits of all queries: query by query, best first.

    Attributes
    ----------
    hits : tuple of Hit
        The hits. ``Hits`` itself is a sequence of them.
    failures : tuple of Failure
        Queries that could not be read.

    Examples
    --------
    >>> hits = Hits((Hit("1a30", 1, "3ebp", 0.81, 842, "structure"),))
    >>> len(hits), hits[0].cosine, hits.failures
    (1, 0.81, ())
    """

    hits: tuple[Hit, ...]
    failures: tuple[Failure, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


def search(
    queries: Query | Iterable[Query],
    vectors: AlignedVectors | Index | str | os.PathLike[str],
    *,
    model: Any = None,
    k: int = 5,
    against: Against = "other",
    query_by: Modality = "sequence",
    tm_score: bool = False,
    store: EmbeddingStore | str | os.PathLike[str] | None = None,
    weights: Mapping[Modality, str] | None = None,
    device: str = "auto",
) -> Hits:
    """Find the nearest entries by cosine similarity.

    Parameters
    ----------
    queries : one query or an iterable of them
        Ids of the vectors; FASTA files, structure files or folders of them; sequences as text (at
        least 10 letters); (L, D) arrays of residue embeddings; other Parquet files of vectors, or
        ``AlignedVectors``. A text that is an id and a file is the id.
    vectors : AlignedVectors, Index, str or path
        The vectors to search, or the Parquet file that ``protalign export`` wrote.
    model : Model, ProtAlignEstimator, str or path, optional
        The model that made the vectors. Needed for queries that have no vector yet.
    k : int
        Hits per query, at least 1.
    against : "other", "sequence" or "structure"
        The vectors that are ranked. "other": structures for a sequence, sequences for a structure.
    query_by : "sequence" or "structure"
        The vector to query with if a query has both.
    tm_score : bool
        Superpose each hit on its query and give the TM-score.
    store : EmbeddingStore, str or path, optional
        The store with the hits' coordinates, for ``tm_score``; default: the recorded one.
    weights : mapping, optional
        Modality -> weights file of the model's encoder, if it is not found by itself.
    device : str
        "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".

    Returns
    -------
    Hits
        A sequence of ``Hit``: files' hits first, then those of sequences, embeddings, ids and
        other files' vectors; best first for each query. ``failures`` are queries that could not be
        read.

    Raises
    ------
    InputError
        A query is not an id, a file or a sequence; a model is needed; the Parquet file is missing.
    ModelError
        The vectors are another model's.
    WeightsError
        The weights of the model's encoder are missing.

    Examples
    --------
    >>> import numpy as np
    >>> import protalign
    >>> from protalign import AlignedVectors
    >>> eye = np.eye(3, dtype=np.float32)
    >>> every = np.ones(3, dtype=np.bool_)
    >>> ids = np.array(["1a30", "3ebp", "1bcu"], dtype=object)
    >>> hits = protalign.search("3ebp", AlignedVectors(ids, eye, eye, every, every), k=1)
    >>> [(hit.query, hit.id, hit.cosine) for hit in hits]
    [('3ebp', '3ebp', 1.0)]
    """
    check_choice("against", against, ("other", *MODALITIES))
    check_choice("query_by", query_by, MODALITIES)
    index = vectors if isinstance(vectors, Index) else Index(_opened(vectors))
    targets = index.vectors
    by_kind = sort_queries(queries, targets.ids.tolist())
    coordinates: EmbeddingStore | None = None
    if tm_score:
        coordinates = _opened_store(store, targets)
    parts = []
    if by_kind.needs_model:
        parts += _embedded(
            by_kind, targets, _model_for(by_kind, model, device), query_by, weights, device
        )
    parts.append(stored_queries(targets, by_kind.ids, query_by, coordinates))
    for table in by_kind.tables:
        check_same_model(table, targets)
        known = coordinates and coordinates_of(table, targets, coordinates)
        parts.append(stored_queries(table, table.ids.tolist(), query_by, known))
    everything = Queries.joined(parts, targets.sequence.shape[1])
    hits = _ranked(everything, index, k, against)
    if coordinates is not None:
        hits = _with_tm_scores(hits, everything, coordinates)
    return Hits(tuple(hit for each in hits for hit in each), tuple(everything.failures))


def _opened(vectors: AlignedVectors | str | os.PathLike[str]) -> AlignedVectors:
    return vectors if isinstance(vectors, AlignedVectors) else read_vectors(vectors)


def _opened_store(
    store: EmbeddingStore | str | os.PathLike[str] | None, targets: AlignedVectors
) -> EmbeddingStore:
    return store if isinstance(store, EmbeddingStore) else open_coordinates(targets, store)


def _model_for(queries: SortedQueries, model: Any, device: str) -> Model:
    if model is None:
        first = [*queries.files, *queries.sequences, "the residue embeddings"][0]
        raise InputError(
            f"{first[:60]}: it has no vector yet", "give the model that made the others (--model)"
        )
    return Model.load(model, device) if isinstance(model, (str, os.PathLike)) else as_model(model)


def _embedded(
    queries: SortedQueries,
    targets: AlignedVectors,
    model: Model,
    query_by: Modality,
    weights: Mapping[Modality, str] | None,
    device: str,
) -> list[Queries]:
    """Return the queries that must be embedded or pooled."""
    check_made_by(targets, model)
    encoders = RecordedEncoders(model.encoders, weights, device)
    options = read_options(targets)
    parts = []
    if queries.files:
        parts.append(embed_queries(queries.files, model, encoders, options=options))
    if queries.sequences:
        parts.append(sequence_queries(queries.sequences, model, encoders))
    if queries.embeddings:
        parts.append(embedding_queries(queries.embeddings, model, query_by))
    return parts


def _ranked(queries: Queries, index: Index, k: int, against: Against) -> list[list[Hit]]:
    """Return the hits of each query, best first."""
    other: dict[Modality, Modality] = {"sequence": "structure", "structure": "sequence"}
    kinds = [other[m] if against == "other" else against for m in queries.modality]
    targets = index.vectors
    hits: list[list[Hit]] = [[] for _ in queries.ids]
    for kind in MODALITIES:
        indices = [position for position, each in enumerate(kinds) if each == kind]
        if not indices:
            continue
        rows, cosines = index.search(queries.vectors[indices], k, against=kind)
        for position, row, cosine in zip(indices, rows.tolist(), cosines.tolist(), strict=True):
            hits[position] = [
                Hit(
                    queries.ids[position],
                    rank,
                    str(targets.ids[r]),
                    c,
                    None if targets.lengths is None else int(targets.lengths[r]),
                    kind,
                )
                for rank, (r, c) in enumerate(zip(row, cosine, strict=True), start=1)
                if r >= 0  # an approximate index may find fewer
            ]
    return hits


def _with_tm_scores(
    hits: list[list[Hit]], queries: Queries, store: EmbeddingStore
) -> list[list[Hit]]:
    """Return the hits with TM-scores; None if the query or the hit has no coordinates."""
    scored = []
    for query, each in zip(queries.backbones, hits, strict=True):
        targets = [None if query is None else stored_backbone(store, hit.id) for hit in each]
        scores = [
            math.nan if query is None or target is None else tm_score_of(query, target)
            for target in targets
        ]
        scored.append(
            [
                replace(hit, tm_score=None if math.isnan(score) else score)
                for hit, score in zip(each, scores, strict=True)
            ]
        )
    return scored
