"""Expected ranks against an enumeration of every order of ties; bootstrap intervals that cover."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.evaluation.bootstrap import Bootstrap
from protalign.evaluation.ranking import expected_recall, expected_reciprocal_rank, median_rank
from protalign.heads.ranks import RankCounts

Bool = npt.NDArray[np.bool_]


def every_rank(scores: npt.NDArray[np.int64], hits: Bool, candidates: Bool) -> list[int]:
    """The first hit's rank in each order of the candidates that the scores allow, one by one."""
    found = []
    for order in permutations(range(len(scores))):
        ranked = sorted((c for c in order if candidates[c]), key=lambda c: -scores[c])
        found.append(1 + next(place for place, c in enumerate(ranked) if hits[c]))
    return found


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_expectations_are_those_of_all_orders(n: int, m: int, levels: int, seed: int) -> None:
    """Recall@k, 1 / rank and the median, of few and many ties, one hit or several."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(n, m))
    candidates = rng.random((n, m)) < 0.7
    hits = rng.random((n, m)) < 0.4
    some = rng.integers(m, size=n)
    hits[range(n), some] = candidates[range(n), some] = True
    counts = RankCounts.of(scores, hits, candidates)
    each = zip(scores, hits & candidates, candidates, strict=True)
    enumerated = [every_rank(*rows) for rows in each]
    for k in (1, 2, 5):
        expected = [np.mean(np.array(own) <= k) for own in enumerated]
        np.testing.assert_allclose(expected_recall(counts, k), expected, atol=1e-12)
    expected = [np.mean(1 / np.array(own)) for own in enumerated]
    np.testing.assert_allclose(expected_reciprocal_rank(counts), expected, atol=1e-12)
    assert median_rank(counts) == np.median(enumerated)


def correlated(rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(units, values): 40 families of 5 whose members mostly share their family's luck."""
    units = np.repeat(np.arange(40), 5)
    luck = rng.random(40) < 0.4
    return units, np.where(rng.random(200) < 0.8, luck[units], rng.random(200) < 0.4).astype(float)


def test_intervals_cover_where_siblings_correlate() -> None:
    """Resampled by family, about 95 % hold the truth; as if independent, far fewer do."""
    rng = np.random.default_rng(0)
    covered = {"families": 0, "queries": 0}
    for _ in range(300):
        units, values = correlated(rng)
        for name, own in (("families", units), ("queries", np.arange(200))):
            figure = Bootstrap(own, 300, 0).mean(values)
            covered[name] += figure["low"] <= 0.4 <= figure["high"]
    assert 0.9 * 300 <= covered["families"] <= 0.99 * 300
    assert covered["queries"] < 0.8 * 300


def test_resampled_figures_are_those_of_the_repeated_queries() -> None:
    """Means and medians of the drawn families' queries, each as often as its family was drawn."""
    rng = np.random.default_rng(1)
    units = rng.integers(6, size=31)
    values = rng.integers(1, 9, size=31).astype(float)
    bootstrap = Bootstrap(units, 50, 2)
    repeats = bootstrap._draws[:, np.unique(units, return_inverse=True)[1]]
    for function, found in ((np.mean, bootstrap.mean), (np.median, bootstrap.median)):
        drawn = [function(np.repeat(values, row)) for row in repeats]
        figure = found(values)
        assert figure["value"] == pytest.approx(function(values))
        assert [figure["low"], figure["high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))


def test_where_nothing_varies_there_is_no_interval() -> None:
    """A single family, or no resamples: the value alone."""
    alone = {"value": 1.5, "low": None, "high": None}
    assert Bootstrap(["a"] * 4, 100, 0).mean(np.arange(4.0)) == alone
    assert Bootstrap(["a", "b", "c", "c"], 0, 0).mean(np.arange(4.0)) == alone
    assert Bootstrap(["a", "b", "c", "c"], 0, 0).median(np.arange(4)) == alone
