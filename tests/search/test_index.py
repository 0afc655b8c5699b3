"""An index finds the nearest entries: exact search all of them, faiss nearly all."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from protalign.core.errors import InputError
from protalign.search.index import KINDS, Index
from protalign.stores import AlignedVectors

pytest.importorskip("faiss", reason="faiss is not installed")


@pytest.fixture(scope="module")
def vectors() -> AlignedVectors:
    """3,000 entries about 60 centres, as families are; every seventh has no structure."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(60, 32))
    values = (centres[np.arange(3000) % 60] + 0.5 * generator.normal(size=(3000, 32))).astype("f4")
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    there = np.arange(3000) % 7 > 0
    ids = np.array([f"p{row}" for row in range(3000)], dtype=object)
    structure = np.where(there[:, None], values, np.float32(np.nan))
    return AlignedVectors(ids, values, structure, np.ones(3000, dtype=bool), there)


@pytest.mark.parametrize("kind", KINDS)
def test_recall_against_exact_search(vectors: AlignedVectors, kind: str) -> None:
    """At least 97 % of the 10 nearest (all, for "exact") with their cosines, no missing one."""
    queries = vectors.sequence[:200]
    exact, cosine = Index(vectors).search(queries, 10)
    found, similarity = Index(vectors, kind).search(queries, 10)
    hits = (found[:, :, None] == exact[:, None]).any(axis=1)
    assert hits.mean() >= (1 if kind == "exact" else 0.97)
    assert vectors.has_structure[found].all()
    expected = np.einsum("qd,qkd->qk", queries, vectors.structure[found])
    np.testing.assert_allclose(similarity, expected, atol=1e-5)
    if kind == "exact":
        np.testing.assert_allclose(similarity, cosine, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_small_and_wrong_input(vectors: AlignedVectors, kind: str) -> None:
    """Three vectors have three neighbours; queries of another width and no vectors are told."""
    few = vectors.select(["p1", "p2", "p7"])
    rows, cosine = Index(few, kind).search(few.sequence[:1], 5)
    assert rows.tolist() == [[0, 1]] or rows.tolist() == [[0, -1]]
    assert cosine[0, 0] == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match="queries of shape"):
        Index(few, kind).search(np.zeros((1, 5), np.float32))
    if kind != "exact":
        with pytest.raises(InputError, match="vectors of the modality are missing"):
            Index(vectors.select(["p7"]), kind).search(few.sequence[:1])
    with pytest.raises(InputError, match="kind='tree'"):
        Index(few, "tree")


def test_without_faiss(vectors: AlignedVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is one line."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install \"protalign\[faiss\]\""):
        Index(vectors, "hnsw").search(vectors.sequence[:1])
