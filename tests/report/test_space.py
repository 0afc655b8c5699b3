"""The test proteins in the aligned space: neighbours, ranks, what the pictures show."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign import ProtAlignEstimator
from protalign.core.protein import MODALITIES
from protalign.heads.ranks import RetrievalSet, ranks
from protalign.report.space import Space
from protalign.stores import EmbeddingStore


@pytest.fixture(scope="module")
def space(store: EmbeddingStore, fitted: ProtAlignEstimator) -> Space:
    """The store's proteins: "copy" is the first again, "shaken" the second in another structure."""
    encoders = {m: store.encoder_for(m) for m in MODALITIES}
    families = {str(i): str(i) for i in store.ids}
    return Space.of(fitted.model_, store, encoders, families)


def of_retrieval(space: Space, retrieval: RetrievalSet) -> Space:
    """Return a space with other vectors; only they matter to neighbours and ranks."""
    shown = np.arange(len(retrieval.pairs))
    ids = [str(i) for i in shown]
    return Space(space.view, space.pairs, retrieval, shown, ids, ids)


def unit(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    rows = np.asarray(values, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_each_pair_is_shown_once(space: Space, store: EmbeddingStore) -> None:
    """A copy is not a protein more; one sequence in two structures is two."""
    assert set(space.ids) == set(store.ids.tolist()) - {"copy", "fasta"}


def test_ranks_are_those_of_the_tables(
    space: Space, store: EmbeddingStore, fitted: ProtAlignEstimator
) -> None:
    """Two structures of one sequence are both its own; neither competes with the other."""
    retrieval = fitted.model_.retrieval_set(store)
    found = space.neighbours("sequence").ranks
    assert np.array_equal(found, retrieval.ranks()[retrieval.pairs[:, 0]])
    shaken = space.ids.index("shaken")
    twin = space.view.items("sequence").tolist().index(space.view.items("sequence")[shaken])
    assert twin != shaken
    assert found[twin] == found[shaken]


def test_a_structure_of_two_proteins_is_one_neighbour(space: Space) -> None:
    """It is listed once, as the point's own if it is, and does not compete with itself."""
    retrieval = RetrievalSet(
        sequence=unit([[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        structure=unit([[1, 1, 0], [0, 0, 1]]),
        pairs=np.array([[0, 0], [1, 0], [2, 1]]),
    )
    shared = of_retrieval(space, retrieval)
    near = shared.neighbours("sequence")
    assert near.positions.tolist() == [[0, 2], [1, 2], [2, 0]]
    assert near.own.tolist() == [[True, False]] * 3
    assert near.ranks.tolist() == [1, 1, 1]
    back = shared.neighbours("structure")
    assert [row[:2] for row in back.own.tolist()] == [[True, True], [True, True], [True, False]]
    assert back.ranks.tolist() == [1, 1, 1]


def test_a_tied_neighbour_stands_before_the_own_partner(space: Space) -> None:
    """Constant vectors: every partner ranks last, in the list as in the tables."""
    same = unit(np.ones((4, 3)))
    pairs = np.repeat(np.arange(4)[:, None], 2, axis=1)
    near = of_retrieval(space, RetrievalSet(same, same, pairs)).neighbours("sequence")
    assert near.ranks.tolist() == [4, 4, 4, 4]
    assert near.own.tolist() == [[False, False, False, True]] * 4
    assert near.positions[:, -1].tolist() == [0, 1, 2, 3]


@given(st.data())
def test_lists_and_ranks_agree(space: Space, data: st.DataObject) -> None:
    """The first own neighbour stands behind rank - 1 others, with ties and shared items."""
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    pair = st.tuples(st.integers(0, n - 1), st.integers(0, m - 1))
    covering = [(i % n, i % m) for i in range(max(n, m))]
    pairs = np.array(sorted({*covering, *data.draw(st.lists(pair, max_size=8))}))
    coordinate = st.integers(-1, 1)  # few values: many ties
    rows = st.lists(st.tuples(coordinate, coordinate, st.just(1)), min_size=6, max_size=6)
    retrieval = RetrievalSet(unit(data.draw(rows)[:n]), unit(data.draw(rows)[:m]), pairs)
    drawn = of_retrieval(space, retrieval)
    for modality, directed in zip(MODALITIES, (retrieval, retrieval.reverse()), strict=True):
        near = drawn.neighbours(modality, k=6)
        expected = ranks(directed.sequence, directed.structure, directed.pairs)
        assert near.ranks.tolist() == expected[directed.pairs[:, 0]].tolist()
        for position, (points, own) in enumerate(zip(near.positions, near.own, strict=True)):
            assert 1 + own.tolist().index(True) == near.ranks[position]
            partners = directed.pairs[directed.pairs[:, 0] == directed.pairs[position, 0], 1]
            assert own.tolist() == np.isin(directed.pairs[points, 1], partners).tolist()
            assert len(set(directed.pairs[points, 1].tolist())) == len(points)
