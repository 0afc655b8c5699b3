"""Each baseline against its definition written out."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.evaluation.baselines import (
    by_chance,
    by_family,
    by_family_and_length,
    by_kmers,
    by_length,
)
from protalign.evaluation.cca import CCA
from protalign.evaluation.labels import families_of
from protalign.evaluation.ranking import expected_recall
from protalign.heads.ranks import RankCounts, chance_recall, ranks, recall_at_k

EVERYTHING = slice(0, 40)


def family_scorer(families: list[str]) -> object:
    """Of one set on both sides."""
    ids = [str(i) for i in range(len(families))]
    labels = families_of([[i] for i in ids], dict(zip(ids, families, strict=True)))
    return by_family(*labels.matrices(labels))


@settings(max_examples=30)
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40))
def test_family_is_a_guess_within_it(families: list[str]) -> None:
    """Recall@k is k of the family's size, at most 1; chance is k of all."""
    n = len(families)
    own, everyone = np.eye(n, dtype=bool), np.ones((n, n), dtype=bool)
    part = slice(0, n)
    known = RankCounts.of(family_scorer(families)(part), own, everyone)
    chance = RankCounts.of(by_chance(n)(part), own, everyone)
    sizes = np.array([families.count(name) for name in families])
    for k in (1, 5):
        np.testing.assert_allclose(expected_recall(known, k), np.minimum(k / sizes, 1), atol=1e-12)
        assert expected_recall(chance, k).mean() == pytest.approx(chance_recall(n, np.ones(n), k))


def test_an_unknown_family_is_its_own() -> None:
    """A missing or an empty label says nothing about who belongs together."""
    labels = families_of([["a"], ["b"], ["c"]], {"a": "", "b": "x"})
    assert len(set(labels.of)) == 3
    assert by_family(*labels.matrices(labels))(slice(0, 3)).tolist() == np.eye(3).tolist()


def test_a_label_of_one_entry_counts_for_the_item() -> None:
    """A structure of two entries belongs with each one's sequence, whichever has the label."""
    sequences = families_of([["a"], ["b"]], {"b": "x"})
    structures = families_of([["a", "b"]], {"b": "x"})
    assert by_family(*sequences.matrices(structures))(slice(0, 2)).tolist() == [[0], [1]]
    sequences, structures = (families_of(items, {}) for items in ([["a"], ["b"]], [["a", "b"]]))
    assert by_family(*sequences.matrices(structures))(slice(0, 2)).tolist() == [[1], [1]]


def test_length_takes_the_nearest() -> None:
    """Equal lengths first, then those that differ by 1; within the family if that is known."""
    lengths = np.array([10, 10, 12, 50])
    scores = by_length(np.array([11]), lengths)(slice(0, 1))
    assert scores.tolist() == [[-1, -1, -1, -39]]
    own, everyone = np.array([[True, False, False, False]]), np.ones((1, 4), dtype=bool)
    assert expected_recall(RankCounts.of(scores, own, everyone), 1) == pytest.approx(1 / 3)
    family = family_scorer(["a", "b", "b", "a"])
    both = by_family_and_length(family, by_length(lengths, lengths))(slice(0, 4))
    assert np.argsort(-both[0]).tolist() == [0, 3, 1, 2]


def cosine_of_words(left: tuple[str, ...], right: tuple[str, ...]) -> float:
    """Return the cosine of 3-mer counts within chains; letters beyond the 20 count as one."""
    counts = [
        Counter(
            "".join(c if c in "ACDEFGHIKLMNPQRSTVWY" else "?" for c in chain)[i : i + 3]
            for chain in chains
            for i in range(len(chain) - 2)
        )
        for chains in (left, right)
    ]
    lengths = [sqrt(sum(n * n for n in own.values())) for own in counts]
    if 0 in lengths:
        return 0.0
    return sum(counts[0][word] * counts[1][word] for word in counts[0]) / (lengths[0] * lengths[1])


@settings(max_examples=30)
@given(
    st.lists(
        st.lists(st.text("ACDX", max_size=9), min_size=1, max_size=3).map(tuple),
        min_size=1,
        max_size=5,
    )
)
def test_kmers_are_counted_within_chains(proteins: list[tuple[str, ...]]) -> None:
    """Cosines are those of counting by hand, also of chains too short for a word."""
    scores = by_kmers(proteins, proteins[::-1])(slice(0, len(proteins)))
    expected = [[cosine_of_words(a, b) for b in proteins[::-1]] for a in proteins]
    np.testing.assert_allclose(scores, expected, atol=1e-9)


def test_cca_finds_the_shared_directions() -> None:
    """Two noisy linear pictures of one thing are matched, whatever their scales and offsets."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(600, 8))
    pictures = [
        np.hstack([shared, 0.5 * rng.normal(size=(600, noise))])
        @ rng.normal(size=(8 + noise, 8 + noise))
        * scale
        + 100
        for noise, scale in ((12, 1.0), (6, 30.0))
    ]
    left, right = (picture.astype(np.float32) for picture in pictures)
    fitted = CCA.fit(left[:500], right[:500])
    found = fitted.project(left[500:], 0), fitted.project(right[500:], 1)
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=1), 1, atol=1e-5)
    assert recall_at_k(ranks(*found), 1) > 0.9
    others = CCA.fit(left[:500], rng.permutation(right[:500]))
    assert (
        recall_at_k(ranks(others.project(left[500:], 0), others.project(right[500:], 1)), 1) < 0.2
    )
