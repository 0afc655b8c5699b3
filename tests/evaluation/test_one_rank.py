"""Every rank of a partner is one: the training's, the score's and the evaluation's."""

from __future__ import annotations

import numpy as np

from protalign.evaluation.baselines import by_cosine
from protalign.evaluation.summary import retrieval_figures
from protalign.evaluation.tasks import paired, task_ranks
from protalign.heads.ranks import RankCounts, RetrievalSet, mean_reciprocal_rank, ranks


def test_ranks_agree_with_ties_and_shared_structures() -> None:
    """Vectors that tie count against the query; a structure that two entries share does not."""
    rng = np.random.default_rng(0)
    sequences, structures = (rng.normal(size=(n, 4)).astype(np.float32) for n in (30, 20))
    sequences /= np.linalg.norm(sequences, axis=1, keepdims=True)
    structures /= np.linalg.norm(structures, axis=1, keepdims=True)
    structures[5:9] = structures[4]
    pairs = np.array([(q, c) for q in range(30) for c in sorted({q % 20, (3 * q) % 20})])
    assert (np.bincount(pairs[:, 1]) > 1).any()
    everyone = paired(pairs, 30, 20)
    scorer = by_cosine(sequences, structures)
    counts = task_ranks(30, 20, {"model": scorer}, everyone, everyone, {})["protein"].counts
    by_task = counts["model"].ranks()
    relevant = np.zeros((30, 20), dtype=bool)
    relevant[pairs[:, 0], pairs[:, 1]] = True
    by_matrix = RankCounts.of(sequences @ structures.T, relevant).ranks()
    by_ranks = ranks(sequences, structures, pairs)
    assert counts["model"].tied.max() >= 3
    assert by_task.tolist() == by_matrix.tolist() == by_ranks.tolist()
    retrieval = RetrievalSet(sequences, structures, pairs)
    assert retrieval_figures(retrieval)["mrr"] == mean_reciprocal_rank(by_task)
