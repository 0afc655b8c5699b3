"""Ranks and the figures made of them, against definitions written out as loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.evaluation.summary import retrieval_figures
from protalign.heads.ranks import (
    TIE,
    RankCounts,
    RetrievalSet,
    chance_recall,
    mean_reciprocal_rank,
    rank_counts,
    ranks,
    recall_at_k,
)

Float32 = npt.NDArray[np.float32]


def unit(n: int, seed: int, dim: int = 8) -> Float32:
    """N random unit-length vectors."""
    vectors = np.random.default_rng(seed).normal(size=(n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def ranks_by_loops(queries: Float32, candidates: Float32, pairs: set[tuple[int, int]]) -> list[int]:
    """The definition: how many strangers are at least as near as the nearest partner, plus 1."""
    found = []
    for q, query in enumerate(queries):
        partners = {c for p, c in pairs if p == q}
        similar = candidates @ query
        best = max(similar[c] for c in partners)
        strangers = set(range(len(candidates))) - partners
        found.append(1 + sum(similar[c] >= best - TIE for c in strangers))
    return found


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6), st.integers(1, 40))
def test_ranks(n: int, m: int, seed: int, block: int) -> None:
    """Ranks are the definition's, with one or several partners each, whatever the block size."""
    rng = np.random.default_rng(seed)
    pairs = {(q, int(rng.integers(m))) for q in range(n)}
    pairs |= {(int(rng.integers(n)), int(rng.integers(m))) for _ in range(5)}
    queries, candidates = unit(n, seed), unit(m, seed + 1)
    counts = rank_counts(queries, candidates, sorted(pairs), at_once=block)
    assert counts.ranks().tolist() == ranks_by_loops(queries, candidates, pairs)
    assert ranks(queries, candidates, sorted(pairs)).tolist() == counts.ranks().tolist()


def test_perfect_and_hopeless() -> None:
    """Equal vectors rank first; opposite ones last."""
    vectors = np.eye(5, dtype=np.float32)
    assert ranks(vectors, vectors).tolist() == [1] * 5
    assert ranks(vectors, -vectors).tolist() == [5] * 5


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_ties_do_not_count_as_hits(noise: float) -> None:
    """A model that gives everything one vector scores nothing, rounding noise or not."""
    vectors = np.repeat(unit(1, 0), 20, axis=0)
    other = vectors + np.random.default_rng(0).normal(scale=noise, size=vectors.shape)
    assert ranks(vectors, other.astype(np.float32)).tolist() == [20] * 20


def test_figures() -> None:
    """Recall, MRR and the median of known ranks."""
    found = np.array([1, 2, 5, 11])
    assert recall_at_k(found, 1) == 0.25
    assert recall_at_k(found, 5) == 0.75
    assert mean_reciprocal_rank(found) == pytest.approx((1 + 1 / 2 + 1 / 5 + 1 / 11) / 4)


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("partners", [1, 3])
def test_chance_is_what_random_vectors_get(k: int, partners: int) -> None:
    """The level of chance agrees with random vectors' recall."""
    n, m = 400, 30
    pairs = np.array([(q, (q + p) % m) for q in range(n) for p in range(partners)])
    recalls = [recall_at_k(ranks(unit(n, s), unit(m, 99 + s), pairs), k) for s in range(20)]
    assert chance_recall(m, np.full(n, partners), k) == pytest.approx(np.mean(recalls), abs=0.02)
    assert chance_recall(m, [1], k) == pytest.approx(k / m)


def test_both_directions() -> None:
    """Reversing a set makes structures the queries: the figures are those of the transpose."""
    pairs = np.array([(0, 0), (1, 1), (2, 2), (2, 3)])
    forward = RetrievalSet(unit(3, 1), unit(4, 2), pairs)
    backward = retrieval_figures(forward.reverse())
    assert (backward["n_queries"], backward["n_candidates"]) == (4, 3)
    expected = ranks(forward.structure, forward.sequence, pairs[:, ::-1])
    assert backward["recall_at_1"] == recall_at_k(expected, 1)


def test_a_query_without_a_partner_is_refused() -> None:
    """Such a query has no rank: an error, not a wrong number."""
    with pytest.raises(ValueError, match="belongs to it"):
        ranks(unit(2, 0), unit(2, 1), [(0, 0)])


def test_a_query_without_a_relevant_candidate_is_refused() -> None:
    """A relevant candidate that is not ranked does not count."""
    with pytest.raises(ValueError, match="belongs to it"):
        RankCounts.of(np.zeros((1, 2)), np.array([[True, False]]), np.array([[False, True]]))
