"""Register accuracy: the residues that an alignment and a structural alignment place alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.evaluation.bootstrap import Bootstrap
from protalign.evaluation.remote import Kinship
from protalign.evaluation.rivals import blosum_alignment
from protalign.evaluation.tasks import Relation
from protalign.evaluation.test_set import RetrievalItems
from protalign.residues import align
from protalign.search.queries import stored_backbone
from protalign.search.superposition import structural_alignment
from protalign.stores import EmbeddingStore

#: Residues that an alignment may be off by to be nearly right.
NEAR = 4
#: The least TM-score of a pair whose structural alignment says where residues belong.
LEAST_TM = 0.5
#: Pairs of a level that are measured, and superimposed at most: a tenth of a second each.
PAIRS, TRIED = 60, 240
#: Relatives of one query that are superimposed, at most.
_TRIED_EACH = 3
#: Aligner -> what it does.
ALIGNERS = {
    "residues_local": "residue stage: the best local alignment",
    "blosum": "Smith-Waterman with BLOSUM62; a structure's sequence is read off it",
}


def register_accuracy(
    query: Int64, target: Int64, true_query: Int64, true_target: Int64
) -> dict[str, float]:
    """Compare aligned pairs of residues with those of a reference.

    Parameters
    ----------
    query, target : (n,) int64
        Aligned residues, each query residue once.
    true_query, true_target : (m,) int64
        The reference's, each query residue once, such as those of a structural alignment.

    Returns
    -------
    dict
        Shares, 0 to 1. Of the reference's pairs: "exact", those that are aligned too, and "near",
        those whose query residue is aligned at most ``NEAR`` residues off. "exact_of_aligned" and
        "near_of_aligned": the same numbers as shares of the n aligned pairs, 0 if there are none.

    Examples
    --------
    >>> rows = np.arange(4)
    >>> register_accuracy(rows, rows + np.array([0, 0, 1, 9]), rows, rows)["exact"]
    0.5
    """
    _, mine, theirs = np.intersect1d(query, true_query, assume_unique=True, return_indices=True)
    off = np.abs(target[mine] - true_target[theirs])
    exact, near = int(np.count_nonzero(off == 0)), int(np.count_nonzero(off <= NEAR))
    return {
        "exact": exact / max(1, len(true_query)),
        "near": near / max(1, len(true_query)),
        "exact_of_aligned": exact / max(1, len(query)),
        "near_of_aligned": near / max(1, len(query)),
    }


def register_figures(
    store: EmbeddingStore,
    items: tuple[RetrievalItems, RetrievalItems],
    own: Relation,
    classes: Mapping[str, Mapping[str, str]],
    units: npt.NDArray[Any],
    resampling: tuple[int, int],
) -> dict[str, Any]:
    """Compare alignments of sequences with relatives' structures with structural alignments.

    At each level pairs of a query and a relative without nearer ones (``Kinship.parts``) are drawn,
    from as many queries as there are. Those with a TM-score of ``LEAST_TM`` or more, by the length
    of the query's own structure, count.

    Parameters
    ----------
    store : EmbeddingStore
        The store of the entries.
    items : two of RetrievalItems
        The n sequences, whole, and the structures, with rows of the residue stage.
    own : Relation
        The structures that are the query itself.
    classes : mapping
        "scop" or "cath" -> id -> code.
    units : (n,) array
        What is resampled.
    resampling : (int, int)
        Resamples, and the seed of the resamples and of the pairs.

    Returns
    -------
    dict
        Scheme -> level -> n_pairs, n_superposed (the pairs that were superimposed to find these),
        and for each of ``ALIGNERS`` the measures of ``register_accuracy``, each with value, low,
        high. A level without pairs has no figures.
    """
    figures: dict[str, Any] = {}
    for scheme, codes in classes.items():
        kinship = Kinship.of(items[0].entries, items[1].entries, codes, scheme)
        figures[scheme] = {}
        for level in kinship.levels:
            drawn = _relatives(kinship, level, own, np.random.default_rng(resampling[1]))
            queries, accuracies, tried = _measured(store, items, drawn)
            found: dict[str, Any] = {"n_pairs": len(queries), "n_superposed": tried}
            if queries:
                bootstrap = Bootstrap(units[queries], *resampling)
                found |= {name: _means(each, bootstrap) for name, each in accuracies.items()}
            figures[scheme][level] = found
    return figures


def _measured(
    store: EmbeddingStore,
    items: tuple[RetrievalItems, RetrievalItems],
    drawn: Iterator[tuple[int, int]],
) -> tuple[list[int], dict[str, list[dict[str, float]]], int]:
    """Return the queries of the pairs that are alike, accuracies, and the pairs superimposed."""
    sequences, structures = items
    assert sequences.residues is not None
    assert structures.residues is not None
    queries: list[int] = []
    accuracies: dict[str, list[dict[str, float]]] = {name: [] for name in ALIGNERS}
    tried = 0
    for q, t in drawn:
        tried += 1
        reference = _reference(store, sequences.ids[q], structures.ids[t])
        if reference is not None:
            queries.append(q)
            alignments = {
                "residues_local": align(sequences.residues.local[q], structures.residues.local[t]),
                "blosum": blosum_alignment(sequences.chains[q], structures.chains[t]),
            }
            for name, found in alignments.items():
                accuracy = register_accuracy(found.query_rows, found.target_rows, *reference)
                accuracies[name].append(accuracy)
        if len(queries) == PAIRS or tried == TRIED:
            break
    return queries, accuracies, tried


def _relatives(
    kinship: Kinship, level: str, own: Relation, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Yield pairs of a query and a relative: one of each query, then a second of each."""
    remaining: list[tuple[int, Int64]] = []
    for q in rng.permutation(len(kinship.known[level][0])).tolist():
        part = slice(q, q + 1)
        relatives = np.flatnonzero(kinship.parts(level, part, own(part))[0][0])
        if len(relatives):
            drawn = rng.permutation(relatives)[:_TRIED_EACH]
            yield q, int(drawn[0])
            remaining.append((q, drawn[1:]))
    for place in range(_TRIED_EACH - 1):
        yield from ((q, int(drawn[place])) for q, drawn in remaining if place < len(drawn))


def _reference(store: EmbeddingStore, query: str, target: str) -> tuple[Int64, Int64] | None:
    """Return the residues that a structural alignment pairs, None if the two are not alike.

    They are counted as the rows of the query's sequence and of the target's structure.
    """
    backbones = stored_backbone(store, query), stored_backbone(store, target)
    if backbones[0] is None or backbones[1] is None:
        return None
    score, mine, theirs = structural_alignment(backbones[0], backbones[1])
    if not score >= LEAST_TM:
        return None
    return store.residue_map(query).sequence_index[mine], theirs


def _means(accuracies: list[dict[str, float]], bootstrap: Bootstrap) -> Mapping[str, Any]:
    return {
        measure: bootstrap.mean(np.array([accuracy[measure] for accuracy in accuracies]))
        for measure in accuracies[0]
    }
