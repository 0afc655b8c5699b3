"""Candidates of queries: the nearest vectors or the best words, and their order by residues."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import Failure
from protalign.core.protein import MODALITIES, OTHER, Modality
from protalign.core.steps import step
from protalign.core.words import Against, AlignMode
from protalign.residues.proteins import ProteinRows
from protalign.search.hit import Hit
from protalign.search.index import Index
from protalign.search.queries import Queries
from protalign.search.rerank import (
    SearchedEntries,
    StoredResidues,
    best_of_all,
    global_scores,
    rescored,
)
from protalign.search.search_options import SearchOptions
from protalign.search.word_search import WordSearch
from protalign.stores import AlignedVectors, EmbeddingStore


def nearest(queries: Queries, index: Index, k: int, against: Against) -> list[list[Hit]]:
    """Return the hits of each query, best first."""
    kinds = [OTHER[m] if against == "other" else against for m in queries.modality]
    hits: list[list[Hit]] = [[] for _ in queries.ids]
    for kind in MODALITIES:
        indices = [position for position, each in enumerate(kinds) if each == kind]
        if not indices:
            continue
        rows, cosines = index.search(queries.vectors[indices], k, against=kind)
        for position, row, cosine in zip(indices, rows, cosines, strict=True):
            found = row >= 0  # an approximate index may find fewer
            query = queries.ids[position]
            hits[position] = _of_vectors(query, index.vectors, kind, row[found], cosine[found])
    return hits


def _of_vectors(
    query: str, targets: AlignedVectors, kind: Modality, rows: Int64, cosines: Float32
) -> list[Hit]:
    """Return hits at some rows of the vectors."""
    about = targets.annotations_at(rows.tolist())
    names, lengths = targets.ids_at(rows).tolist(), targets.lengths_at(rows)
    return [
        Hit(query, rank, str(name), cosine, length, kind, **known.as_dict())
        for rank, (name, cosine, length, known) in enumerate(
            zip(names, cosines.tolist(), lengths, about, strict=True), start=1
        )
    ]


def by_words(queries: Queries, words: WordSearch, count: int) -> list[list[Hit]]:
    """Return the candidates of each query by its words; their cosines are not known yet."""
    hits: list[list[Hit]] = [[] for _ in queries.ids]
    for kind, asking in _asking(queries).items():
        found = words.candidates(kind, [_for_words(rows) for _, rows in asking], count)
        for (position, _), ids in zip(asking, found, strict=True):
            hits[position] = _of_words(queries.ids[position], words, kind, ids)
    return hits


def _for_words(rows: ProteinRows) -> Float32:
    """Return the rows that a query's words are compared by: its other rows would fit none."""
    if rows.plain is None:
        raise ValueError("the query's rows lack those for words")
    return rows.plain


def _of_words(query: str, words: WordSearch, kind: Modality, ids: list[str]) -> list[Hit]:
    """Return hits without cosines."""
    return [
        Hit(query, rank, entry_id, math.nan, length, kind)
        for rank, (entry_id, length) in enumerate(
            zip(ids, words.lengths(ids).tolist(), strict=True), start=1
        )
    ]


def by_residues(
    queries: Queries,
    targets: AlignedVectors | WordSearch,
    residues: StoredResidues,
    options: SearchOptions,
    count: int,
    device: torch.device,
) -> list[list[Hit]]:
    """Return the candidates of each query by its residues: every entry is compared with it."""
    hits: list[list[Hit]] = [[] for _ in queries.ids]
    asked = options.mode, options.length_term, device
    for kind, asking in _asking(queries).items():
        if isinstance(targets, WordSearch):
            entries = SearchedEntries(targets.entry_rows(kind), targets.store.log.ids_at)
        else:
            entries = SearchedEntries(np.flatnonzero(targets.present(kind)), targets.ids_at)
        rows = [each for _, each in asking]
        found = best_of_all(rows, residues, kind, entries, count, *asked)
        for (position, _), places in zip(asking, found, strict=True):
            query = queries.ids[position]
            if isinstance(targets, WordSearch):
                hits[position] = _of_words(query, targets, kind, entries.ids(places))
            else:
                at = entries.rows[places]
                cosines = targets.vectors_at(kind, at) @ queries.vectors[position]
                hits[position] = _of_vectors(query, targets, kind, at, cosines)
    return hits


def _asking(queries: Queries) -> dict[Modality, list[tuple[int, ProteinRows]]]:
    """Return the queries that have residues, by the modality that these are compared with.

    Those that have none are failures.
    """
    asking: dict[Modality, list[tuple[int, ProteinRows]]] = {}
    for position, (query, rows) in enumerate(zip(queries.ids, queries.residues, strict=True)):
        if rows is None:
            advice = "give the protein's file, or name its store"
            queries.failures.append(Failure(query, "", "its residues are unknown", advice))
        else:
            asking.setdefault(OTHER[queries.modality[position]], []).append((position, rows))
    return asking


def with_cosines(hits: list[list[Hit]], queries: Queries, words: WordSearch) -> list[list[Hit]]:
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


def with_annotations(hits: list[list[Hit]], store: EmbeddingStore) -> list[list[Hit]]:
    """Return hits with the names and organisms in the store of an index."""
    ids = [hit.id for each in hits for hit in each]
    about = iter(store.log.annotations(store.log.rows_of(ids)))
    return [[replace(hit, **next(about).as_dict()) for hit in each] for each in hits]


def n_targets(hits: list[Hit], targets: AlignedVectors, words: WordSearch | None) -> int:
    """Return the number of entries among which a query's hits were found."""
    if not hits:
        return 0
    if words is None:  # entries without the modality cannot be hits
        return int(targets.present(hits[0].against).sum())
    return words.n_targets(hits[0].against)


def reranked(
    hits: list[Hit],
    query: ProteinRows | None,
    residues: StoredResidues,
    mode: AlignMode,
    length_term: float,
    n_targets: int,
) -> list[Hit]:
    """Return a query's hits ordered by their residues' scores; those without rows come last.

    Those of mode "local" lack their global scores, which ``with_global_scores`` adds for the few
    that are shown.
    """
    if query is None or not hits:
        return hits
    step()
    ids = [hit.id for hit in hits]
    scored, order, scores, of_mode = rescored(
        query, residues, hits[0].against, ids, mode, length_term, n_targets
    )
    known, calibration = set(scored), residues.stage.calibration
    best = []
    for position in order:
        hit = replace(
            hits[scored[position]],
            local_score=float(scores.local[position]),
            global_score=None if scores.diagonal is None else float(scores.diagonal[position]),
            score=float(of_mode[position]),
        )
        if calibration is not None and scores.excess is not None:
            excess = scores.excess[position]
            hit = replace(
                hit,
                evalue=float(calibration.evalue(excess, n_targets)),
                backing=None if scores.backing is None else float(scores.backing[position]),
                probability=float(calibration.probability(scores.local_order[position])),
                bits=float(calibration.bits(excess)),
            )
        best.append(hit)
    best += [hit for index, hit in enumerate(hits) if index not in known]
    return [replace(hit, rank=rank) for rank, hit in enumerate(best, start=1)]


def with_global_scores(
    hits: list[Hit], query: ProteinRows | None, residues: StoredResidues
) -> list[Hit]:
    """Return a query's hits with the global scores that are lacking.

    Raise InputError if the rows for these of one of them are not finite. Those of the other
    candidates were not made.
    """
    places = [
        place
        for place, hit in enumerate(hits)
        if hit.local_score is not None and hit.global_score is None
    ]
    if query is None or not places:
        return hits
    step()
    ids = [hits[place].id for place in places]
    scores = global_scores(query, residues, hits[0].against, ids).tolist()
    hits = list(hits)
    for place, score in zip(places, scores, strict=True):
        hits[place] = replace(hits[place], global_score=score)
    return hits
