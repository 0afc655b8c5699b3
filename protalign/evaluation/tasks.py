"""One direction of retrieval: what counts as a hit, and where each scorer puts the hits.

Tasks, for a query and its own partners (the other modality of its entries):

- "protein": a hit is a partner, among all candidates;
- "family": a hit is a member of the query's family, its partners among them;
- "within_family": a hit is a partner, among the family's candidates only; queries whose family has
  no other candidate are left out;
- "scop_fold", "scop_superfamily", "scop_family": a hit shares the query's label, its partners being
  no candidates; queries that are alone with their label are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from protalign.core.arrays import Bool, Int64
from protalign.evaluation.baselines import Scorer
from protalign.evaluation.ranking import Standing

#: (b, m) bool for some of the queries: which candidates they are related to.
Relation = Callable[[slice], Bool]

#: Scores of one scorer held at once: 32 MB of float64.
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One task's result.

    Attributes
    ----------
    queries : (q,) int64 which of the queries have a hit to find.
    left_out : how many were left out: with a label but alone ("alone"), without one
        ("unlabelled"), not selected ("others").
    standings : where the best hit of each of these queries stands, by scorer.
    """

    queries: Int64
    left_out: dict[str, int]
    standings: dict[str, Standing]

    def select(self, chosen: Bool) -> Outcome:
        """Some of ``queries``, the others left out as "others"."""
        return Outcome(
            queries=self.queries[chosen],
            left_out={**self.left_out, "others": int((~chosen).sum())},
            standings={name: standing[chosen] for name, standing in self.standings.items()},
        )


def related(queries: sparse.csr_array, candidates: sparse.csr_array) -> Relation:
    """Those that share a column of (n, c) and (m, c) matrices of ones."""
    transposed = candidates.T.tocsr()

    def relation(part: slice) -> Bool:
        return np.asarray((queries[part] @ transposed).toarray() > 0)

    return relation


def paired(pairs: Int64, n_queries: int, n_candidates: int) -> Relation:
    """Those that (k, 2) pairs name."""
    matrix = sparse.coo_array(
        (np.ones(len(pairs), dtype=np.float32), tuple(pairs.T)), shape=(n_queries, n_candidates)
    ).tocsr()

    def relation(part: slice) -> Bool:
        return np.asarray(matrix[part].toarray() > 0)

    return relation


def outcomes(
    n_queries: int,
    n_candidates: int,
    scorers: Mapping[str, Scorer],
    partners: Relation,
    family: Relation,
    scop: Mapping[str, tuple[Relation, Bool]],
) -> dict[str, Outcome]:
    """Every task's outcome; ``scop``: a level's relation, and (n,) bool which queries it labels."""
    collected: dict[str, list[tuple[Int64, dict[str, Standing]]]] = {}
    step = max(1, _BLOCK // max(1, n_candidates))
    for start in range(0, n_queries, step):
        part = slice(start, min(start + step, n_queries))
        scores = {name: scorer(part) for name, scorer in scorers.items()}
        for task, hits, candidates in _tasks(part, partners, family, scop):
            asked = np.flatnonzero(_answerable(task, hits, candidates))
            standings = {
                name: Standing.of(own[asked], hits[asked], candidates[asked])
                for name, own in scores.items()
            }
            collected.setdefault(task, []).append((start + asked, standings))
    labelled = {f"scop_{level}": known for level, (_, known) in scop.items()}
    return {
        task: _joined(parts, n_queries, labelled.get(task)) for task, parts in collected.items()
    }


def _tasks(
    part: slice, partners: Relation, family: Relation, scop: Mapping[str, tuple[Relation, Bool]]
) -> Iterator[tuple[str, Bool, Bool]]:
    """(task, hits, candidates) of some queries."""
    own = partners(part)
    kin = own | family(part)
    everyone = np.ones_like(own)
    yield "protein", own, everyone
    yield "family", kin, everyone
    yield "within_family", own, kin
    for level, (relation, _) in scop.items():
        yield f"scop_{level}", relation(part) & ~own, ~own


def _answerable(task: str, hits: Bool, candidates: Bool) -> Bool:
    """(b,) queries with something to find, and with something to mistake for it."""
    found = hits.any(axis=1)
    if task == "within_family":
        found = found & (candidates & ~hits).any(axis=1)
    return np.asarray(found)


def _joined(
    parts: list[tuple[Int64, dict[str, Standing]]], n_queries: int, labelled: Bool | None
) -> Outcome:
    queries = np.concatenate([asked for asked, _ in parts])
    n_labelled = n_queries if labelled is None else int(labelled.sum())
    return Outcome(
        queries=queries,
        left_out={"alone": n_labelled - len(queries), "unlabelled": n_queries - n_labelled},
        standings={
            name: Standing.concatenate([standings[name] for _, standings in parts])
            for name in parts[0][1]
        },
    )
