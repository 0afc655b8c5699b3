"""Scorers that align: the residue stage, and MMseqs2 as its rival."""

from __future__ import annotations

from protalign.core.arrays import Float32
from protalign.evaluation.baselines import Scorer
from protalign.evaluation.residues import CUT_FLOOR, PairScores, residue_scores
from protalign.evaluation.rivals import by_hits, mmseqs_hits
from protalign.evaluation.tasks import Relation
from protalign.evaluation.test_set import RetrievalItems
from protalign.residues import ResidueStage
from protalign.residues.proteins import PackedRows

#: Sequences and structures.
Sides = tuple[RetrievalItems, RetrievalItems]


def aligned_scorers(
    stage: ResidueStage | None,
    searched: bool,
    queries: Sides,
    candidates: Sides,
    own: tuple[Relation, Relation],
    *,
    cut: bool,
) -> tuple[dict[str, Scorer], dict[str, Scorer]]:
    """Return each direction's scorers: of sequences as queries, and of structures.

    The residue stage aligns whole proteins once for both directions. MMseqs2 searches in each: its
    prefilter and its correction for composition depend on the query.

    Parameters
    ----------
    stage : ResidueStage or None
        Scores residues; the items have rows of it.
    searched : bool
        MMseqs2 is wanted as well.
    queries, candidates : two of RetrievalItems
        The sequences and the structures, as queries and as candidates.
    own : two of Relation
        The structures that are each sequence's own, and the sequences that are each structure's.
    cut : bool
        The queries are cut; else they are the candidates.

    Raises
    ------
    HomologyError
        MMseqs2 is missing or failed.
    """
    both: tuple[dict[str, Scorer], dict[str, Scorer]] = ({}, {})
    if stage is not None:
        scored = _residues(stage, queries, candidates, own, cut)
        for scorers, scores in zip(both, scored, strict=True):
            scorers |= {name: values.__getitem__ for name, values in scores.items()}
    if searched:
        for column, scorers in enumerate(both):
            hits = mmseqs_hits(queries[column].chains, candidates[1 - column].chains)
            scorers["mmseqs"] = by_hits(hits)
    return both


def _residues(
    stage: ResidueStage,
    queries: Sides,
    candidates: Sides,
    own: tuple[Relation, Relation],
    cut: bool,
) -> list[dict[str, Float32]]:
    """Return the residue stage's scores of each direction."""
    (sequences, structures), others = map(_rows, (queries, candidates))
    if cut:
        return [
            residue_scores(stage, sequences, others[1], floor=CUT_FLOOR, own=own[0]),
            residue_scores(stage, structures, others[0], floor=CUT_FLOOR, own=own[1]),
        ]
    scores = PairScores.of(stage, sequences, structures)
    return [
        scores.of_queries(stage, sequences, structures, own[0]),
        scores.transposed.of_queries(stage, structures, sequences, own[1]),
    ]


def _rows(sides: Sides) -> tuple[PackedRows, PackedRows]:
    sequences, structures = (side.residues for side in sides)
    if sequences is None or structures is None:
        raise ValueError("the items have no rows of the residue stage")
    return sequences, structures
