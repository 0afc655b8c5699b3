"""Every rank of a partner is one: the training's, the score's and the evaluation's."""

from __future__ import annotations

import numpy as np
import pytest

from protalign.evaluation.baselines import by_cosine
from protalign.evaluation.ranking import (
    expected_recall,
    expected_reciprocal_rank,
    median_rank,
)
from protalign.evaluation.remote import remote_homology
from protalign.evaluation.summary import retrieval_figures
from protalign.evaluation.tasks import TaskRanks, paired, task_ranks
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


def test_what_a_search_does_not_report_is_not_found() -> None:
    """In both kinds of tasks, although it ties with all others that are not reported."""
    scores = np.full((1, 40), -np.inf)
    scores[0, 1] = 9.0
    own = np.zeros((1, 40), dtype=bool)
    own[0, 0] = True
    counts = RankCounts.of(scores, own)
    assert counts.ranks().tolist() == [40]
    assert [float(expected_recall(counts, k)[0]) for k in (1, 10, 50)] == [0, 0, 0]
    assert expected_reciprocal_rank(counts).tolist() == [0]
    assert median_rank(counts) == 40
    labels = ["a.1.1.1", *["b.1.1.1"] * 39]
    remote = remote_homology({"it": scores}, ["a.1.1.1"], labels, n_bootstrap=0)
    assert remote["family"]["it"]["recall_at_5"]["value"] == 0


def test_a_family_s_only_member_is_no_question_within_it() -> None:
    """Such a query is left out, since it has nothing to mistake for its partner."""
    pairs = np.array([(0, 0), (1, 1), (2, 2)])
    family = paired(np.array([(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]), 3, 3)
    scorer = by_cosine(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    found = task_ranks(3, 3, {"model": scorer}, paired(pairs, 3, 3), family, {})
    assert found["within_family"].queries.tolist() == [0, 1]
    assert found["within_family"].left_out == {"alone": 1, "unlabelled": 0}


def test_tasks_in_several_blocks_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block's queries keep their places and their ranks."""
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(9, 4)).astype(np.float32) for _ in range(2)]
    own, family = np.stack([np.arange(9)] * 2, axis=1), np.argwhere(rng.random((9, 9)) < 0.4)

    def found() -> dict[str, TaskRanks]:
        return task_ranks(
            9, 9, {"model": by_cosine(*vectors)}, paired(own, 9, 9), paired(family, 9, 9), {}
        )

    whole = found()
    monkeypatch.setattr("protalign.evaluation.tasks.SCORES_AT_ONCE", 20)
    for task, part in found().items():
        assert part.queries.tolist() == whole[task].queries.tolist()
        ranks = (each.counts["model"].ranks().tolist() for each in (part, whole[task]))
        assert next(ranks) == next(ranks)
        assert part.left_out == whole[task].left_out
