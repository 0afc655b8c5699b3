"""One direction of retrieval: the relevant candidates of each task, and their rank by each scorer.

Tasks, for a query and its own partners (the other modality of its entries):

- "protein": the partners are relevant, among all candidates;
- "family": the members of the query's family are relevant, its partners among them;
- "within_family": the partners are relevant, among the family's candidates only; queries with no
  other candidate in their family are left out;
- "scop_fold", "scop_superfamily", "scop_family", "cath_topology", "cath_superfamily": candidates
  that share the query's label are relevant, and its partners are not candidates; queries that are
  alone with their label are left out. ``protalign.evaluation.remote`` leaves out nearer relatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from protalign.core.arrays import Bool, Int64
from protalign.evaluation.baselines import SCORES_AT_ONCE, Scorer, query_parts
from protalign.heads.ranks import RankCounts

#: A slice of the queries -> (b, m) bool, the candidates that each is related to.
Relation = Callable[[slice], Bool]


@dataclass(frozen=True, slots=True, eq=False)
class TaskRanks:
    """One task's queries and their rank counts.

    Attributes
    ----------
    queries : (q,) int64
        Indices of the queries that have a relevant candidate.
    left_out : dict
        Numbers of queries left out: with a label but alone ("alone"), without one
        ("unlabelled"), not selected ("others").
    counts : dict
        Scorer -> RankCounts of these queries.
    """

    queries: Int64
    left_out: dict[str, int]
    counts: dict[str, RankCounts]

    def select(self, mask: Bool) -> TaskRanks:
        """Return some of ``queries``; the others are left out as "others"."""
        return TaskRanks(
            queries=self.queries[mask],
            left_out={**self.left_out, "others": int((~mask).sum())},
            counts={name: counts[mask] for name, counts in self.counts.items()},
        )


def related(queries: sparse.csr_array, candidates: sparse.csr_array) -> Relation:
    """Relate rows of (n, c) and (m, c) matrices of ones that share a column."""
    transposed = candidates.T.tocsr()

    def relation(part: slice) -> Bool:
        return np.asarray((queries[part] @ transposed).toarray() > 0)

    return relation


def paired(pairs: Int64, n_queries: int, n_candidates: int) -> Relation:
    """Relate the (query, candidate) of (k, 2) pairs."""
    matrix = sparse.coo_array(
        (np.ones(len(pairs), dtype=np.float32), tuple(pairs.T)), shape=(n_queries, n_candidates)
    ).tocsr()

    def relation(part: slice) -> Bool:
        return np.asarray(matrix[part].toarray() > 0)

    return relation


def task_ranks(
    n_queries: int,
    n_candidates: int,
    scorers: Mapping[str, Scorer],
    partners: Relation,
    family: Relation,
    classes: Mapping[str, tuple[Relation, Bool]],
) -> dict[str, TaskRanks]:
    """Return the queries and rank counts of every task.

    Parameters
    ----------
    n_queries, n_candidates : int
        n and m.
    scorers : mapping
        Name -> scorer.
    partners, family : Relation
        Partners of the queries, and members of their families.
    classes : mapping
        Task -> (relation, (n,) bool: the queries that have a label).
    """
    collected: dict[str, list[tuple[Int64, dict[str, RankCounts]]]] = {}
    for part in query_parts(n_queries, n_candidates, SCORES_AT_ONCE):
        scores = {name: scorer(part) for name, scorer in scorers.items()}
        for task, relevant, candidates in _tasks(part, partners, family, classes):
            answerable = (relevant & candidates).any(axis=1)
            if task == "within_family":  # something to mistake for the partner
                answerable &= (candidates & ~relevant).any(axis=1)
            rows = np.flatnonzero(answerable)
            counts = {
                name: RankCounts.of(values[rows], relevant[rows], candidates[rows])
                for name, values in scores.items()
            }
            collected.setdefault(task, []).append((part.start + rows, counts))
    labelled = {task: mask for task, (_, mask) in classes.items()}
    return {
        task: _joined(parts, n_queries, labelled.get(task)) for task, parts in collected.items()
    }


def _tasks(
    part: slice, partners: Relation, family: Relation, classes: Mapping[str, tuple[Relation, Bool]]
) -> Iterator[tuple[str, Bool, Bool]]:
    """Yield (task, relevant, candidates) of some queries."""
    is_partner = partners(part)
    in_family = is_partner | family(part)
    everyone = np.ones_like(is_partner)
    yield "protein", is_partner, everyone
    yield "family", in_family, everyone
    yield "within_family", is_partner, in_family
    for task, (relation, _) in classes.items():
        yield task, relation(part) & ~is_partner, ~is_partner


def _joined(
    parts: list[tuple[Int64, dict[str, RankCounts]]], n_queries: int, labelled: Bool | None
) -> TaskRanks:
    queries = np.concatenate([rows for rows, _ in parts])
    n_labelled = n_queries if labelled is None else int(labelled.sum())
    return TaskRanks(
        queries=queries,
        left_out={"alone": n_labelled - len(queries), "unlabelled": n_queries - n_labelled},
        counts={
            name: RankCounts.concatenate([counts[name] for _, counts in parts])
            for name in parts[0][1]
        },
    )
