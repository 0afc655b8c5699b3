"""Remote homology: figures of matrices against plain loops, and the classes of SCOPe and CATH."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.errors import InputError
from protalign.evaluation.labels import scheme_of
from protalign.evaluation.register import NEAR, register_accuracy
from protalign.evaluation.remote import remote_homology, sensitivity

LEVELS = {
    "scop": {"family": 4, "superfamily": 3, "fold": 2},
    "cath": {"superfamily": 4, "topology": 3},
}


def by_loops(
    scores: np.ndarray, queries: list[str], candidates: list[str], own: np.ndarray, scheme: str
) -> dict[str, dict[str, list[float]]]:
    """Return level -> measure -> one number a query, by ranking candidates one by one.

    Scores have no ties here, and a candidate of minus infinity is not reported.
    """
    depths = list(LEVELS[scheme].items())
    found: dict[str, dict[str, list[float]]] = {}

    def named(code: str, depth: int) -> str:
        parts = code.split(".")
        return ".".join(parts[:depth]) if len(parts) >= depth and parts[depth - 1] != "0" else ""

    for place, (level, depth) in enumerate(depths):
        nearer, widest = depths[place - 1][1] if place else None, depths[-1][1]
        measures: dict[str, list[float]] = {"recall_at_1": [], "recall_at_5": [], "sensitivity": []}
        for q, query in enumerate(queries):
            order, relatives = [], 0
            for c in np.argsort(-scores[q], kind="stable"):
                code = candidates[c]
                if own[q, c] or not named(code, widest) or not named(query, widest):
                    continue
                same = named(code, depth) == named(query, depth) != ""
                if not same and any(
                    named(code, wider) == named(query, wider)
                    and not (named(code, next_nearer) and named(query, next_nearer))
                    for (_, next_nearer), (_, wider) in pairwise(depths[place:])
                ):
                    continue  # it may be a relative
                if nearer is not None:
                    if named(code, nearer) == named(query, nearer) != "":
                        continue
                    if same and not (named(code, nearer) and named(query, nearer)):
                        continue  # nobody knows how near it is
                relatives += same
                fold = named(code, widest) == named(query, widest)
                if scores[q, c] > -np.inf:
                    order.append("relative" if same else "fold" if fold else "other")
            if not relatives:
                continue
            first = order.index("other") if "other" in order else len(order)
            measures["sensitivity"].append(order[:first].count("relative") / relatives)
            for k in (1, 5):
                measures[f"recall_at_{k}"].append(float("relative" in order[:k]))
        found[level] = measures
    return found


def test_figures_are_those_of_plain_loops() -> None:
    """Of both classifications, with unclassified levels, missing labels and unreported hits."""

    @settings(max_examples=80, deadline=None)
    @given(
        st.sampled_from(["scop", "cath"]),
        st.integers(1, 9),
        st.integers(1, 14),
        st.integers(0, 10**6),
    )
    def check(scheme: str, n: int, m: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        first = "ab" if scheme == "scop" else "12"

        def code() -> str:
            numbers = [*rng.integers(1, 3, size=2), rng.integers(0, 3)]
            parts = [rng.choice(list(first)), *map(str, numbers)]
            return "" if rng.random() < 0.1 else ".".join(parts[: rng.choice([2, 3, 4, 4, 4])])

        queries, candidates = [code() for _ in range(n)], [code() for _ in range(m)]
        queries[0] = candidates[0] = "a.1.1.1" if scheme == "scop" else "1.1.1.1"
        scores = rng.permutation(n * m).reshape(n, m).astype(float)
        scores[rng.random((n, m)) < 0.2] = -np.inf
        own = rng.random((n, m)) < 0.1
        report = remote_homology({"it": scores}, queries, candidates, own=own, n_bootstrap=0)
        expected = by_loops(scores, queries, candidates, own, scheme)
        assert list(report) == list(expected)
        for level, measures in expected.items():
            figures = report[level]
            assert figures["n_queries"] == len(measures["sensitivity"])
            assert sum(figures["left_out"].values()) + figures["n_queries"] == n
            for measure, values in measures.items():
                if values:
                    assert figures["it"][measure]["value"] == pytest.approx(np.mean(values))

    check()


def test_every_name_of_scores_has_its_figures() -> None:
    """That of another argument too; one of a count of the report is refused."""
    labels = ["b.1.1.1", "b.1.1.2", "b.1.2.1"]
    right, wrong = np.array([[9, 5, 1], [5, 9, 1], [1, 2, 9]]), np.array([[9, 1, 5]] * 3)
    own = np.eye(3, dtype=np.bool_)
    both = remote_homology({"own": right, "it": wrong}, labels, labels, own=own, n_bootstrap=0)
    for name, scores in (("own", right), ("it", wrong)):
        alone = remote_homology({"one": scores}, labels, labels, own=own, n_bootstrap=0)
        for level, figures in both.items():
            assert figures.get(name) == alone[level].get("one")
    assert "own" in both["superfamily"]
    with pytest.raises(InputError, match=r"^own: its shape is \(2, 2\), not \(3, 3\); "):
        remote_homology({"own": right}, labels, labels, own=own[:2, :2])
    for name in ("n_queries", "left_out"):
        with pytest.raises(InputError, match=f"^{name}: the figures have an entry of this name; "):
            remote_homology({name: right}, labels, labels)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 10**6))
def test_ties_with_the_first_false_positive_are_an_expectation(
    m: int, levels: int, seed: int
) -> None:
    """Sensitivity is the mean over all orders of the candidates that the scores allow."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=m).astype(float)
    kind = rng.integers(3, size=m)  # 0: relative, 1: false positive, 2: neither
    kind[rng.integers(m)] = 0
    shares = []
    for order in permutations(range(m)):
        ranked = sorted(order, key=lambda c: -scores[c])
        first = next((place for place, c in enumerate(ranked) if kind[c] == 1), m)
        shares.append(sum(kind[c] == 0 for c in ranked[:first]) / np.count_nonzero(kind == 0))
    found = sensitivity(scores[None], (kind == 0)[None], (kind == 1)[None])
    assert found[0] == pytest.approx(np.mean(shares))


@pytest.mark.parametrize(
    ("scores", "relative", "expected"),
    [
        ([0.5 + 6e-7, 0.5], [True, False], 1 / 2),
        ([0.5 - 6e-7, 0.5], [True, False], 1 / 2),
        ([0.5, 0.5, 0.5 - 6e-7], [True, False, False], 1 / 3),
        ([0.5 + 3e-6, 0.5], [True, False], 1),
        ([0.5 - 3e-6, 0.5], [True, False], 0),
        ([0.5, 0.5, 0.5 - 3e-6], [True, False, False], 1 / 2),
    ],
)
def test_scores_that_rounding_tells_apart_are_ties(
    scores: list[float], relative: list[bool], expected: float
) -> None:
    """Closer than 1e-6, on either side of the first false positive; further ones are not."""
    relatives = np.array([relative])
    assert sensitivity(np.array([scores]), relatives, ~relatives) == pytest.approx(expected)


def test_scores_may_be_functions_and_their_order_is_all_that_counts() -> None:
    """A function of a slice gives what its matrix does; a monotone change changes nothing."""
    rng = np.random.default_rng(1)
    labels = [
        f"a.{rng.integers(1, 3)}.{rng.integers(1, 3)}.{rng.integers(1, 3)}" for _ in range(30)
    ]
    scores, own = rng.normal(size=(30, 30)), np.eye(30) > 0
    report = remote_homology(
        {"matrix": scores, "function": lambda part: scores[part], "changed": np.exp(scores)},
        labels,
        labels,
        own=own,
        n_bootstrap=50,
    )
    for figures in report.values():
        assert figures["matrix"] == figures["function"] == figures["changed"]
        interval = figures["matrix"]["sensitivity"]
        assert interval["low"] <= interval["value"] <= interval["high"]


@pytest.mark.parametrize(
    ("ends", "level"), [("b.1", "superfamily"), ("b.1.1", "family"), ("b.1", "family")]
)
def test_what_may_be_a_relative_is_not_ranked(ends: str, level: str) -> None:
    """A code that ends above the level is neither right nor wrong, whatever else is known."""
    relative = {"superfamily": "b.1.1.2", "family": "b.1.1.1"}[level]
    candidates = [f"{ends}, c.1.1.1", relative, "d.1.1.1"]
    report = remote_homology(
        {"it": np.array([[3.0, 2.0, 1.0]])}, ["b.1.1.1"], candidates, n_bootstrap=0
    )
    assert report[level]["it"]["recall_at_1"]["value"] == 1
    ends_above = remote_homology(
        {"it": np.array([[3.0, 2.0, 1.0]])}, ["b.1.1.1"], ["b.2", *candidates[1:]], n_bootstrap=0
    )
    assert ends_above[level]["it"]["recall_at_1"]["value"] == 0  # of another fold


def test_another_domain_may_make_a_relative_a_nearer_one() -> None:
    """A superfamily's other family is not ranked if other domains may be of one family."""
    query = "a.1.1.1, b.1.1.1"
    for other, n_queries in (("a.1.1.2, b.1", 0), ("a.1.1.2, b.2", 1)):
        report = remote_homology({"it": np.array([[1.0]])}, [query], [other], n_bootstrap=0)
        assert report["superfamily"]["n_queries"] == n_queries
    report = remote_homology(
        {"it": np.array([[1.0, 2.0]])}, [query], ["a.1.1.1, b.1", "c.1.1.1, b.1"], n_bootstrap=0
    )
    assert report["family"]["n_queries"] == 1  # of one family, whatever the other domains are
    assert report["family"]["it"]["recall_at_1"]["value"] == 1


@pytest.mark.parametrize("at_once", [1, 7])
def test_queries_in_several_blocks_have_the_figures_of_one(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Each block's figures are of its own queries, units and labels."""
    rng = np.random.default_rng(0)
    labels = [f"a.{rng.integers(1, 3)}.{rng.integers(1, 3)}.{rng.integers(1, 4)}" for _ in range(9)]
    scores = rng.normal(size=(9, 9))
    whole = remote_homology({"it": scores}, labels, labels, n_bootstrap=20)
    monkeypatch.setattr("protalign.evaluation.remote.SCORES_AT_ONCE", at_once)
    assert remote_homology({"it": scores}, labels, labels, n_bootstrap=20) == whole
    assert whole["superfamily"]["n_queries"] > 2


def test_perfect_and_useless_scores() -> None:
    """Scores that know the classes find all relatives first; their opposite finds none."""
    labels = [f"{c}.{f}.{s}.{a}" for c in "ab" for f in "12" for s in "12" for a in "12"]
    depth = np.array(
        [
            [next((k for k in range(4) if a.split(".")[k] != b.split(".")[k]), 4) for b in labels]
            for a in labels
        ],
        dtype=float,
    )
    report: dict[str, Any] = remote_homology(
        {"perfect": depth, "opposite": -depth}, labels, labels, own=np.eye(16) > 0, n_bootstrap=0
    )
    assert report["family"]["n_queries"] == 0  # each is alone in its family
    for level in ("superfamily", "fold"):
        assert report[level]["n_queries"] == 16
        assert report[level]["perfect"]["sensitivity"]["value"] == 1
        assert report[level]["perfect"]["recall_at_1"]["value"] == 1
        assert report[level]["opposite"]["sensitivity"]["value"] == 0


def test_what_cannot_be_measured_is_refused() -> None:
    """Labels without a code and matrices of another shape end in one line."""
    assert scheme_of(["", "nothing", "1.10.8.10, 3.40.50.1"]) == "cath"
    with pytest.raises(InputError, match=r"none is a code of SCOPe or CATH \('Ig-like'\)"):
        remote_homology({}, ["Ig-like"], [""])
    with pytest.raises(InputError, match=r"it: its shape is \(1, 2\), not \(1, 1\)"):
        remote_homology({"it": np.zeros((1, 2))}, ["a.1.1.1"], ["a.1.1.1"])


def test_register_accuracy_counts_pairs_one_by_one() -> None:
    """Exact and near pairs of random alignments, against loops; nothing aligned is no error."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        alignments = []
        for _ in range(2):
            n = int(rng.integers(0, 12))
            rows = [np.sort(rng.choice(20, n, replace=False)) for _ in range(2)]
            alignments.append(rows)
        (query, target), (true_query, true_target) = alignments
        true = dict(zip(true_query.tolist(), true_target.tolist(), strict=True))
        offs = [
            abs(t - true[q])
            for q, t in zip(query.tolist(), target.tolist(), strict=True)
            if q in true
        ]
        found = register_accuracy(query, target, true_query, true_target)
        assert found["exact"] * len(true_query) == pytest.approx(offs.count(0))
        assert found["near_of_aligned"] * len(query) == pytest.approx(
            sum(off <= NEAR for off in offs)
        )
