"""Search: queries in, hits out. The command line and other programs call this one function."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from protalign.core.protein import Modality
from protalign.core.words import Against, AlignMode, Rerank
from protalign.search.comparison import HitFilters
from protalign.search.hit import Hit as Hit
from protalign.search.hit_columns import parse_columns
from protalign.search.hit_list import Hits as Hits
from protalign.search.index import Index
from protalign.search.queries import Query
from protalign.search.search_options import SearchOptions
from protalign.search.searcher import Searcher
from protalign.search.word_index import WordIndex
from protalign.stores import AlignedVectors, EmbeddingStore
from protalign.stores.union.paths import StorePaths


def search(
    queries: Query | Iterable[Query],
    vectors: AlignedVectors | Index | str | os.PathLike[str] | None = None,
    *,
    index: WordIndex | str | os.PathLike[str] | None = None,
    model: Any = None,
    k: int = 5,
    against: Against = "other",
    query_by: Modality | None = None,
    rerank: Rerank = 0,
    mode: AlignMode = "local",
    length_term: float = 0.0,
    tm_score: bool = False,
    max_evalue: float | None = None,
    min_prob: float | None = None,
    min_score: float | None = None,
    min_cov: float | None = None,
    min_tm: float | None = None,
    columns: str | Iterable[str] | None = None,
    superpose: bool = False,
    store: EmbeddingStore | StorePaths | None = None,
    weights: Mapping[Modality, str] | None = None,
    device: str = "auto",
) -> Hits:
    """Find the nearest entries by cosine similarity or residue words, and order them by residues.

    Parameters
    ----------
    queries : one query or an iterable of them
        Ids of the vectors, or of the index's store; FASTA files, structure files or folders of
        them; sequences as text (at least 10 letters); ``Protein`` objects; (L, D) arrays of residue
        embeddings; other Parquet files of vectors, or ``AlignedVectors``. A text that is an id and
        a file is the id.
    vectors : AlignedVectors, Index, str or path, optional
        The vectors to search, or the Parquet file or folder that ``protalign export`` wrote.
    index : WordIndex, str or path, optional
        The folder that ``protalign index`` wrote: of the vectors, which finds nearly all of the
        nearest among many millions; or, without vectors, an index of residue words. The latter
        needs the model, the index's store, and entries of the other modality.
    model : Model, ProtAlignEstimator, str or path, optional
        The model that made the vectors or the index. Needed for an index, and for queries that
        have no vector yet.
    k : int
        Hits per query, at least 1.
    against : "other", "sequence" or "structure"
        The vectors that are ranked. "other": structures for a sequence, sequences for a structure.
    query_by : "sequence" or "structure", optional
        The vector to query with if a query has both, as ids and other files' vectors may; default:
        "sequence". It is refused if all queries are files, sequences or ``Protein`` objects: those
        are compared by their backbone if they have one, else by their letters.
    rerank : int or "all"
        Compare this many of the nearest entries with the query residue by residue, and give the
        best ``k`` of them; 0: no second stage, or of an index's entries 200. "all": every entry, so
        that no vector decides what is found. It takes much longer, reads the residues of the whole
        store once for 64 queries, and keeps the best 200, or ``k``. A second stage needs the model,
        its store, and candidates of the other modality.
    mode : "local" or "global"
        What orders the hits of a second stage: the best local alignment, which finds relatives, or
        the best diagonal, which tells the query's own partner from its near-identical siblings.
        Both are given. In mode "local" the first hits back others that are like them
        (``Hit.backing``), so the order of a calibrated model is that of ``Hit.probability``, not of
        E-values.
    length_term : float
        Order by the global score less so many nats for each residue by which the two lengths
        differ (``Hit.score``; ``Hit.global_score`` stays without it); 2 is a good value. It tells
        candidates apart by their length alone, which is a different thing from their residues.
        "global" only; 0: do not.
    tm_score : bool
        Superpose each hit on its query and give the TM-score; None for a query or an entry without
        coordinates. Refused if no query has any.
    max_evalue, min_prob, min_score, min_cov, min_tm : float, optional
        Give only hits with at most this E-value and at least this probability of a common fold (0
        to 1), score (in nats, of ``mode``), coverage of both proteins (0 to 1) and TM-score (by the
        query's length). A hit whose number is unknown does not pass. The candidates of the second
        stage are tried in their order until ``k`` have passed; without one only the ``k`` nearest
        are tried.
    columns : str or iterable of str, optional
        Columns that ``Hits.write`` is to write (docs/formats.md), as a list or as text with
        commas. One that this search cannot give is refused before it begins.
    superpose : bool
        Open the store for ``Hits.superpose``, and refuse queries of which none has coordinates.
    store : EmbeddingStore, path or paths, optional
        The store with the hits' coordinates and residues, for ``tm_score``, ``rerank``, ``index``
        and columns of alignments and superpositions; default: the recorded one.
    weights : mapping, optional
        Modality -> weights file of the model's encoder, if it is not found by itself.
    device : str
        "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps": where queries are
        embedded, and where the global scores of ``rerank="all"`` find the best. Hits and their
        scores do not depend on the latter.

    Returns
    -------
    Hits
        A sequence of ``Hit``: files' hits first, then those of sequences, embeddings, ids and
        other files' vectors; best first for each query. ``failures`` are queries that could not be
        read.

    Raises
    ------
    InputError
        A query is not an id, a file or a sequence; a model is needed; the vectors or the index
        are missing or do not fit together; the search cannot give a column or a filter;
        ``query_by`` has nothing to choose.
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
    options = SearchOptions(
        k,
        against,
        query_by,
        rerank,
        mode,
        length_term,
        tm_score,
        HitFilters(max_evalue, min_prob, min_score, min_cov, min_tm),
        parse_columns(columns),
        superpose,
    )
    options.check(by_words=index is not None and vectors is None)
    searcher = Searcher(
        vectors, index=index, model=model, store=store, weights=weights, device=device
    )
    return searcher.search(queries, options)
