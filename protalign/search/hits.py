"""Search: queries in, hits out. The command line and other programs call this one function."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from protalign.core.checks import check_choice, check_whole
from protalign.core.errors import Failure, InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.words import Against, AlignMode
from protalign.encoders.recorded import RecordedEncoders
from protalign.heads.model import Model, as_model
from protalign.residues import ResidueStage
from protalign.residues.stage import ProteinRows
from protalign.search.comparison import Comparison, HitFilters
from protalign.search.hit import Hit as Hit
from protalign.search.hit_columns import parse_columns
from protalign.search.hit_list import Hits as Hits
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
    stored_queries,
)
from protalign.search.rerank import StoredResidues, check_length_term, rescored
from protalign.search.wanted import (
    Wanted,
    refuse_uncalibrated,
    refuse_unknown,
    refuse_without_coordinates,
    refuse_without_residues,
)
from protalign.search.word_index import WordIndex
from protalign.search.word_search import CANDIDATES, WordSearch
from protalign.stores import AlignedVectors, EmbeddingStore, read_vectors


def search(
    queries: Query | Iterable[Query],
    vectors: AlignedVectors | Index | str | os.PathLike[str] | None = None,
    *,
    index: WordIndex | str | os.PathLike[str] | None = None,
    model: Any = None,
    k: int = 5,
    against: Against = "other",
    query_by: Modality = "sequence",
    rerank: int = 0,
    mode: AlignMode = "local",
    length_term: float = 0.0,
    tm_score: bool = False,
    max_evalue: float | None = None,
    min_score: float | None = None,
    min_cov: float | None = None,
    min_tm: float | None = None,
    columns: str | Iterable[str] | None = None,
    superpose: bool = False,
    store: EmbeddingStore | str | os.PathLike[str] | None = None,
    weights: Mapping[Modality, str] | None = None,
    device: str = "auto",
) -> Hits:
    """Find the nearest entries by cosine similarity or residue words, and order them by residues.

    Parameters
    ----------
    queries : one query or an iterable of them
        Ids of the vectors, or of the index's store; FASTA files, structure files or folders of
        them; sequences as text (at least 10 letters); (L, D) arrays of residue embeddings; other
        Parquet files of vectors, or ``AlignedVectors``. A text that is an id and a file is the id.
    vectors : AlignedVectors, Index, str or path, optional
        The vectors to search, or the Parquet file that ``protalign export`` wrote.
    index : WordIndex, str or path, optional
        An index of residue words to search in place of vectors, or the folder that ``protalign
        index`` wrote. It needs the model, the index's store, and entries of the other modality.
    model : Model, ProtAlignEstimator, str or path, optional
        The model that made the vectors or the index. Needed for an index, and for queries that
        have no vector yet.
    k : int
        Hits per query, at least 1.
    against : "other", "sequence" or "structure"
        The vectors that are ranked. "other": structures for a sequence, sequences for a structure.
    query_by : "sequence" or "structure"
        The vector to query with if a query has both.
    rerank : int
        Compare this many of the nearest entries with the query residue by residue, and give the
        best ``k`` of them; 0: no second stage, or of an index's entries 200. It needs the model,
        its store, and candidates of the other modality.
    mode : "local" or "global"
        The residues' score that orders the hits of a second stage: the best local alignment, which
        finds relatives, or the best diagonal, which tells the query's own partner from its
        near-identical siblings. Both are given.
    length_term : float
        Subtract this, in nats, from a global score for each residue by which the two lengths
        differ; 2 is a good value. It tells candidates apart by their length alone, which is a
        different thing from their residues. "global" only; 0: do not.
    tm_score : bool
        Superpose each hit on its query and give the TM-score.
    max_evalue, min_score, min_cov, min_tm : float, optional
        Give only hits with at most this E-value and at least this score (in nats, of ``mode``),
        coverage of both proteins (0 to 1) and TM-score (by the query's length). A hit whose number
        is unknown does not pass. The candidates of the second stage are tried in their order until
        ``k`` have passed; without one only the ``k`` nearest are tried.
    columns : str or iterable of str, optional
        Columns that ``Hits.write`` is to write (docs/formats.md), as a list or as text with
        commas. One that this search cannot give is refused before it begins.
    superpose : bool
        Open the store for ``Hits.superpose``, and refuse queries of which none has coordinates.
    store : EmbeddingStore, str or path, optional
        The store with the hits' coordinates and residues, for ``tm_score``, ``rerank``, ``index``
        and columns of alignments and superpositions; default: the recorded one.
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
        A query is not an id, a file or a sequence; a model is needed; the Parquet file or the index
        is missing; both are given, or neither; the search cannot give a column or a filter.
    ModelError
        The vectors or the index are another model's; the model has no residue stage.
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
    check_whole("k", k, 1)
    check_whole("rerank", rerank, 0)
    check_choice("mode", mode, get_args(AlignMode))
    check_length_term(length_term, mode if rerank or index is not None else None)
    wanted = Wanted(
        parse_columns(columns), HitFilters(max_evalue, min_score, min_cov, min_tm), superpose
    )
    if not rerank and index is None:
        refuse_without_residues(wanted)
    words: WordSearch | None = None
    nearest: Index | None = None
    opened: EmbeddingStore | None
    if index is not None and vectors is None:
        words = WordSearch(index, model, store, device)
        model, opened, rerank = words.model, words.store, max(k, rerank or CANDIDATES)
        by_kind = sort_queries(queries, opened.ids.tolist())
        targets = words.vectors(by_kind.ids)
    elif vectors is not None and index is None:
        nearest = vectors if isinstance(vectors, Index) else Index(_opened(vectors))
        targets = nearest.vectors
        by_kind = sort_queries(queries, targets.ids.tolist())
        needs_store = tm_score or rerank or wanted.that_need("coordinates")
        opened = _opened_store(store, targets) if needs_store else None
    else:
        raise InputError(
            "search: it needs vectors or an index, one of the two",
            "give the one to search (--vectors or --index)",
        )
    residues: StoredResidues | None = None
    if not (by_kind.files or by_kind.ids or by_kind.tables):
        refuse_without_coordinates(wanted)
    if by_kind.needs_model or rerank:
        model = _model_for(by_kind, model, device)
        check_made_by(targets, model)
    if rerank and opened is not None:
        residues = StoredResidues(model, opened)
        if residues.stage.calibration is None:
            refuse_uncalibrated(wanted)
    parts = []
    if by_kind.needs_model:
        stage = None if residues is None else residues.stage
        parts += _embedded(by_kind, targets, model, query_by, weights, device, stage)
    parts.append(stored_queries(targets, by_kind.ids, query_by, opened, residues))
    for table in by_kind.tables:
        check_same_model(table, targets)
        of_table = None if opened is None else coordinates_of(table, targets, opened)
        parts.append(
            stored_queries(
                table,
                table.ids.tolist(),
                query_by,
                of_table,
                StoredResidues(model, of_table) if rerank and of_table is not None else None,
            )
        )
    everything = Queries.joined(parts, targets.sequence.shape[1])
    refuse_unknown(wanted, everything, opened)
    if rerank and against in everything.modality:
        raise InputError(
            f"rerank: a query by {against} cannot be compared with a {against} residue by residue",
            "search against the other modality",
        )
    if nearest is not None:
        hits = _ranked(everything, nearest, max(k, rerank), against)
    else:
        assert words is not None
        hits = _worded(everything, words, rerank)
    if residues is not None:
        hits = [
            _reranked(each, query, residues, mode, length_term, _n_targets(each, targets, words))
            for each, query in zip(hits, everything.residues, strict=True)
        ]
    comparison = Comparison(everything, opened, residues, mode)
    hits = [comparison.best(place, each, k, wanted.filters) for place, each in enumerate(hits)]
    if words is not None:
        hits = _with_annotations(_with_cosines(hits, everything, words), words.store)
    if tm_score:
        hits = [
            [replace(hit, tm_score=comparison.tm_score(place, hit)) for hit in each]
            for place, each in enumerate(hits)
        ]
    return Hits(
        tuple(hit for each in hits for hit in each),
        tuple(everything.failures),
        comparison,
        tuple(place for place, each in enumerate(hits) for _ in each),
        wanted.columns,
    )


def _opened(vectors: AlignedVectors | str | os.PathLike[str]) -> AlignedVectors:
    return vectors if isinstance(vectors, AlignedVectors) else read_vectors(vectors)


def _opened_store(
    store: EmbeddingStore | str | os.PathLike[str] | None, targets: AlignedVectors
) -> EmbeddingStore:
    return store if isinstance(store, EmbeddingStore) else open_coordinates(targets, store)


def _model_for(queries: SortedQueries, model: Any, device: str) -> Model:
    if model is None:
        arrays = ["the residue embeddings"] if queries.embeddings else []
        unknown = [*queries.files, *queries.sequences, *arrays]
        if not unknown:
            raise InputError("rerank: it needs a model", "give the one of the vectors (--model)")
        raise InputError(
            f"{unknown[0][:60]}: it has no vector yet",
            "give the model that made the others (--model)",
        )
    return Model.load(model, device) if isinstance(model, (str, os.PathLike)) else as_model(model)


def _embedded(
    queries: SortedQueries,
    targets: AlignedVectors,
    model: Model,
    query_by: Modality,
    weights: Mapping[Modality, str] | None,
    device: str,
    stage: ResidueStage | None,
) -> list[Queries]:
    """Return the queries that must be embedded or pooled."""
    encoders = RecordedEncoders(model.encoders, weights, device)
    options = read_options(targets)
    parts = []
    if queries.files:
        parts.append(embed_queries(queries.files, model, encoders, options=options, stage=stage))
    if queries.sequences:
        parts.append(sequence_queries(queries.sequences, model, encoders, stage))
    if queries.embeddings:
        parts.append(embedding_queries(queries.embeddings, model, query_by, stage))
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
            about = targets.annotations_at(row)
            hits[position] = [
                Hit(
                    queries.ids[position],
                    rank,
                    str(targets.ids[r]),
                    c,
                    None if targets.lengths is None else int(targets.lengths[r]),
                    kind,
                    **about[rank - 1].as_dict(),
                )
                for rank, (r, c) in enumerate(zip(row, cosine, strict=True), start=1)
                if r >= 0  # an approximate index may find fewer
            ]
    return hits


def _worded(queries: Queries, words: WordSearch, count: int) -> list[list[Hit]]:
    """Return the candidates of each query by its words; their cosines are not known yet."""
    hits: list[list[Hit]] = [[] for _ in queries.ids]
    for query, rows in zip(queries.ids, queries.residues, strict=True):
        if rows is None:
            advice = "give the protein's file, or name its store"
            queries.failures.append(Failure(query, "", "its residues are unknown", advice))
    for kind in MODALITIES:
        asking = [
            (position, rows)
            for position, rows in enumerate(queries.residues)
            if rows is not None and queries.modality[position] != kind
        ]
        if not asking:
            continue
        found = words.candidates(kind, [rows.local for _, rows in asking], count)
        for (position, _), ids in zip(asking, found, strict=True):
            hits[position] = [
                Hit(queries.ids[position], rank, entry_id, math.nan, length, kind)
                for rank, (entry_id, length) in enumerate(
                    zip(ids, words.lengths(ids).tolist(), strict=True), start=1
                )
            ]
    return hits


def _with_cosines(hits: list[list[Hit]], queries: Queries, words: WordSearch) -> list[list[Hit]]:
    """Return hits with the cosines of their vectors, which are pooled now."""
    for kind in MODALITIES:
        positions = [place for place, each in enumerate(hits) if each and each[0].against == kind]
        ids = [[hit.id for hit in hits[place]] for place in positions]
        cosines = words.cosines(kind, ids, queries.vectors[positions])
        for place, values in zip(positions, cosines, strict=True):
            hits[place] = [
                replace(hit, cosine=value) for hit, value in zip(hits[place], values, strict=True)
            ]
    return hits


def _with_annotations(hits: list[list[Hit]], store: EmbeddingStore) -> list[list[Hit]]:
    """Return hits with the names and organisms in the store of an index."""
    ids = [hit.id for each in hits for hit in each]
    about = iter(store.log.annotations(store.log.rows_of(ids)))
    return [[replace(hit, **next(about).as_dict()) for hit in each] for each in hits]


def _n_targets(hits: list[Hit], targets: AlignedVectors, words: WordSearch | None) -> int:
    """Return the number of entries among which a query's hits were found."""
    if words is None:
        return len(targets)
    return words.n_targets(hits[0].against) if hits else 0


def _reranked(
    hits: list[Hit],
    query: ProteinRows | None,
    residues: StoredResidues,
    mode: AlignMode,
    length_term: float,
    n_targets: int,
) -> list[Hit]:
    """Return a query's hits ordered by their residues' scores; those without rows come last."""
    if query is None or not hits:
        return hits
    targets = residues.rows(hits[0].against, [hit.id for hit in hits])
    scored, order, scores = rescored(query, targets, mode, residues.stage, length_term)
    known, calibration = set(scored), residues.stage.calibration
    best = []
    for position in order:
        hit = replace(
            hits[scored[position]],
            local_score=float(scores.local[position]),
            global_score=float(scores.diagonal[position]),
        )
        if calibration is not None and scores.excess is not None:
            excess = scores.excess[position]
            hit = replace(
                hit,
                evalue=float(calibration.evalue(excess, n_targets)),
                probability=float(calibration.probability(excess)),
                bits=float(calibration.bits(excess)),
            )
        best.append(hit)
    best += [hit for index, hit in enumerate(hits) if index not in known]
    return [replace(hit, rank=rank) for rank, hit in enumerate(best, start=1)]
