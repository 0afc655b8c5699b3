"""The global score of proteins of several chains, by the fast path and by plain steps."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.errors import InputError
from protalign.core.ragged import Ragged
from protalign.residues import align
from protalign.residues.alignment import Alignment
from protalign.residues.chains import ProteinTargets, align_rows, ascending, joined
from protalign.residues.kernels.scores import both_scores, diagonal_scores, joined_scores
from protalign.residues.proteins import PackedRows, ProteinRows

#: Residues of each chain of a protein.
cuts = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def protein(lengths: list[int], seed: int, with_head: bool = False) -> ProteinRows:
    """A protein of small whole numbers: their products are exact."""
    rng = np.random.default_rng(seed)
    local, other = rng.integers(-3, 4, size=(2, sum(lengths), 4)).astype(np.float32)
    return ProteinRows(local, other if with_head else local, np.array(lengths))


def with_gaps(protein: ProteinRows, seed: int) -> ProteinRows:
    """The protein if some of its rows have residues before them that have none."""
    steps = np.random.default_rng(seed).choice([1, 1, 1, 2, 5], len(protein.local))
    return protein.placed(np.cumsum(steps))


def of_plain_steps(query: ProteinRows, target: ProteinRows, floor: float | None) -> float:
    """Every choice of at least one pair of chains, that rise in both, is tried."""
    scores = [
        [align(one, other, "global", floor=floor).score for other in target.by_chain]
        for one in query.by_chain
    ]
    n, m = len(query.chains), len(target.chains)
    return max(
        sum(scores[i][j] for i, j in zip(of_query, of_target, strict=True))
        for count in range(1, min(n, m) + 1)
        for of_query in combinations(range(n), count)
        for of_target in combinations(range(m), count)
    )


@given(
    st.lists(cuts, min_size=1, max_size=3),
    st.lists(cuts, min_size=1, max_size=10),
    st.integers(0, 10_000),
    st.booleans(),
    st.sampled_from([None, -2.0]),
    st.booleans(),
)
def test_the_score_is_that_of_plain_steps(
    of_queries: list[list[int]],
    of_targets: list[list[int]],
    seed: int,
    with_head: bool,
    floor: float | None,
    gaps: bool,
) -> None:
    """Proteins of one chain and of several, in one call; local scores know no chains and gaps."""
    queries = [protein(each, seed + i, with_head) for i, each in enumerate(of_queries)]
    targets = [protein(each, seed + 50 + i, with_head) for i, each in enumerate(of_targets)]
    if gaps:
        queries[0] = with_gaps(queries[0], seed)
        targets[1:] = [with_gaps(each, seed + i) for i, each in enumerate(targets[1:])]
    packed = PackedRows.of(targets)
    assert (packed.local is packed.diagonal) != with_head
    best, local = ProteinTargets(packed).scores(PackedRows.of(queries), floor=floor)
    for q, query in enumerate(queries):
        for t, target in enumerate(targets):
            assert best[q, t] == of_plain_steps(query, target, floor)
            assert local[q, t] == align(query.local, target.local).score
            if floor is None:
                found = align_rows(query, target, "global")
                assert found.score == best[q, t]
                assert_is_of_chains(found, query, target)


def assert_is_of_chains(found: Alignment, query: ProteinRows, target: ProteinRows) -> None:
    """An alignment's rows are those of its score, and rise; no chain is on two chains."""
    pairs = np.einsum(
        "ij,ij->i", query.diagonal[found.query_rows], target.diagonal[found.target_rows]
    )
    np.testing.assert_array_equal(found.residue_scores, pairs)
    assert pairs.sum() == found.score
    assert (found.query_length, found.target_length) == (len(query.local), len(target.local))
    assert (np.diff(found.query_rows) > 0).all()
    assert (np.diff(found.target_rows) > 0).all()
    sides = (query, found.query_rows), (target, found.target_rows)
    of_query, of_target = (
        np.repeat(np.arange(len(rows.chains)), rows.chains)[some].tolist() for rows, some in sides
    )
    on = set(zip(of_query, of_target, strict=True))
    assert len(on) == len(set(of_query)) == len(set(of_target))


def real_rows(lengths: list[int], seed: int) -> ProteinRows:
    """Rows whose sums are rounded."""
    values = np.random.default_rng(seed).normal(size=(sum(lengths), 50)).astype(np.float32)
    return ProteinRows(values, values, np.array(lengths))


def test_one_chain_has_the_same_bits_beside_complexes() -> None:
    """Two proteins of one chain score as they always did, to the last bit."""
    lengths = [[40], [25, 30], [61], [12, 12, 12], [33], [80], [7], [9], [10, 70], [55]]
    targets = PackedRows.of([real_rows(each, i) for i, each in enumerate(lengths)])
    query = PackedRows.of([real_rows([45], 99)])
    best, local = ProteinTargets(targets).scores(query)
    (diagonals, _), (expected, _, _) = both_scores(query.local, targets.local)
    one = np.array([len(each) == 1 for each in lengths])
    np.testing.assert_array_equal(best[:, one], diagonals[:, one])
    assert (best[:, ~one] != diagonals[:, ~one]).any()
    np.testing.assert_array_equal(local, expected)


def test_a_residue_that_is_missing_moves_no_other_chain() -> None:
    """Each chain keeps its diagonal; a second copy of a chain has no partner in a monomer."""
    whole = real_rows([30, 20, 25], 3)
    lacking = ProteinRows(whole.local[1:], whole.local[1:], np.array([29, 20, 25]))
    monomer = ProteinRows(whole.local[:30], whole.local[:30], np.array([30]))
    twice = np.concatenate([monomer.local, monomer.local])
    dimer = ProteinRows(twice, twice, np.array([30, 30]))
    turned = np.concatenate([whole.local[30:50], whole.local[:30]])
    swapped = ProteinRows(turned, turned, np.array([20, 30]))
    targets = ProteinTargets(PackedRows.of([lacking, monomer, dimer, swapped]))
    best, _ = targets.scores(PackedRows.of([whole, monomer, dimer]))
    own = np.square(whole.local).sum(axis=1)
    assert best[0, 0] == pytest.approx(own[1:].sum(), rel=1e-6)
    for pair in (best[0, 1], best[1, 1], best[1, 2], best[2, 1]):  # one chain has a partner
        assert pair == pytest.approx(own[:30].sum(), rel=1e-6)
    assert best[2, 2] == pytest.approx(2 * own[:30].sum(), rel=1e-6)
    assert best[1, 3] == pytest.approx(own[:30].sum(), rel=1e-6)
    assert best[0, 3] == pytest.approx(own[:30].sum(), rel=1e-6)  # the chains are turned round


def test_a_diagonal_goes_on_behind_residues_that_have_no_row() -> None:
    """Of either side, in any chain; the residues at a chain's ends move nothing either."""
    whole = real_rows([30, 20], 3)
    kept = np.delete(np.arange(50), [0, 10, 11, 12, 29, 30, 40])
    rows = whole.local[kept]
    lacking = ProteinRows(rows, rows, np.array([25, 18])).placed(kept)
    other = ProteinRows(rows[:25], rows[:25], np.array([25])).placed(kept[:25])
    own = np.square(rows).sum(axis=1)
    for chain, expected in ((lacking, kept), (other, kept[:25])):
        for query, target in ((whole, chain), (chain, whole)):
            best, _ = ProteinTargets(PackedRows.of([target])).scores(PackedRows.of([query]))
            assert best[0, 0] == pytest.approx(own[: len(expected)].sum(), rel=1e-6)
            found = align_rows(query, target, "global")
            assert found.score == pytest.approx(own[: len(expected)].sum(), rel=1e-6)
            pairs = found.query_rows.tolist(), found.target_rows.tolist()
            assert sorted(pairs, key=max) == [list(range(len(expected))), expected.tolist()]
    assert len(align_rows(lacking, lacking, "global")) == len(kept)


@pytest.mark.parametrize("positions", [[0, 1, 1, 2], [0, 2, 1, 3]])
def test_rows_that_do_not_ascend_are_refused(positions: list[int]) -> None:
    """Two rows are not of one residue."""
    with pytest.raises(ValueError, match="ascend"):
        real_rows([4], 0).placed(np.array(positions))


@given(st.integers(0, 4), st.integers(1, 5), st.integers(0, 10_000))
def test_the_pairs_have_the_sum(n: int, m: int, seed: int) -> None:
    """The pairs that are shown, and the sum that is ranked by."""
    scores = np.random.default_rng(seed).integers(-3, 6, size=(n, m)).astype(np.float32)
    pairs = ascending(scores.astype(np.float64))
    if scores.max(initial=0) > 0:
        assert all(scores[pair] > 0 for pair in pairs)
    else:
        assert [scores[pair] for pair in pairs] == ([scores.max()] if n else [])
    assert all(before[0] < after[0] and before[1] < after[1] for before, after in pairwise(pairs))
    [[best]] = joined_scores(scores, np.array([0, n]), np.array([0, m]))
    assert best == (sum(scores[pair] for pair in pairs) if n else -np.inf)


def test_what_fits_nothing_is_on_one_scale() -> None:
    """The best diagonal, below 0, whether a protein is one chain or cut into two."""
    rows = np.ones((6, 3), np.float32)
    target = ProteinRows(-rows[:4], -rows[:4], np.array([4]))
    for chains in ([2, 4], [6]):
        query = ProteinRows(rows, rows, np.array(chains))
        found = align_rows(query, target, "global")
        assert (len(found), found.score, found.query_length, found.target_length) == (1, -3, 6, 4)
        best, _ = ProteinTargets(PackedRows.of([target])).scores(PackedRows.of([query]))
        assert best.tolist() == [[-3.0]]


@pytest.mark.parametrize("chains", [[2, 4], [6]])
def test_a_protein_without_rows_has_no_diagonal(chains: list[int]) -> None:
    """One line, however many chains the other has."""
    rows = np.ones((6, 3), np.float32)
    other = ProteinRows(rows, rows, np.array(chains))
    nothing = ProteinRows(rows[:0], rows[:0], np.empty(0, np.int64))
    with pytest.raises(InputError, match=r"^target: it has no residue rows; "):
        align_rows(other, nothing, "global")
    with pytest.raises(InputError, match=r"^query: it has no residue rows; "):
        align_rows(nothing, other, "global")


def of_all_pairs(query: ProteinRows, target: ProteinRows) -> Alignment:
    """The alignment of which every pair of chains is aligned first."""
    every = [[align(one, each, "global") for each in target.by_chain] for one in query.by_chain]
    pairs = ascending(np.array([[each.score for each in row] for row in every]))
    return joined({(i, j): every[i][j] for i, j in pairs}, query.chains, target.chains)


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=12),
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.integers(0, 10_000),
)
def test_chains_are_put_where_aligning_all_pairs_puts_them(
    of_query: list[int], of_target: list[int], seed: int
) -> None:
    """To the last bit, also among copies of a chain: the sums are rounded, and copies are equal."""
    rng = np.random.default_rng(seed)
    kinds = [rng.normal(size=(n, 50)).astype(np.float32) for n in rng.integers(5, 60, size=5)]
    sides = []
    for chains in (of_query, of_target):
        rows = np.concatenate([kinds[kind] for kind in chains])
        sides.append(ProteinRows(rows, rows, np.array([len(kinds[kind]) for kind in chains])))
    found, expected = align_rows(*sides, "global"), of_all_pairs(*sides)
    assert found.score == expected.score
    for name in ("query_rows", "target_rows", "residue_scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert (found.query_length, found.target_length) == tuple(len(each.local) for each in sides)


def test_no_rounding_chooses_among_copies_of_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal chains the first is taken, also if a matrix library rounds them differently."""

    def rounded(*given: Any, **floor: Any) -> Any:
        scores, offsets = diagonal_scores(*given, **floor)
        return scores * (1 + 1e-6 * np.arange(scores.size).reshape(scores.shape)), offsets

    monkeypatch.setattr("protalign.residues.chains.diagonal_scores", rounded)
    one = real_rows([30], 0)
    twice = np.concatenate([one.local, one.local])
    dimer = ProteinRows(twice, twice, np.array([30, 30]))
    assert align_rows(dimer, one, "global").query_rows.tolist() == list(range(30))
    assert align_rows(one, dimer, "global").target_rows.tolist() == list(range(30))


def test_only_chains_that_are_put_on_others_are_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve chains on eleven are at most eleven alignments, not 132."""
    query, target = real_rows([20] * 12, 0), real_rows([20] * 11, 1)
    aligned: list[int] = []

    def counted(*given: Any, **floor: Any) -> Alignment:
        aligned.append(1)
        return align(*given, **floor)

    monkeypatch.setattr("protalign.residues.chains.align", counted)
    assert len(align_rows(query, target, "global"))
    assert len(aligned) <= 11


def test_a_target_without_rows_is_last() -> None:
    """As for ``diagonal_scores``, also if the query has several chains."""
    rows = np.ones((4, 3), np.float32)
    nothing = ProteinRows(rows[:0], rows[:0], np.empty(0, np.int64))
    targets = ProteinTargets(PackedRows.of([nothing, ProteinRows(rows, rows, np.array([1, 3]))]))
    for chains in ([4], [2, 2]):
        best, local = targets.scores(PackedRows.of([ProteinRows(rows, rows, np.array(chains))]))
        assert best[0, 0] == -np.inf
        assert best[0, 1] > 0
        assert local[0, 0] == 0


@pytest.mark.parametrize("lengths", [([6], [9]), ([6, 4], [5, 7]), ([5], [4, 3, 8])])
@pytest.mark.parametrize("gaps", [False, True])
def test_a_floor_counts_in_what_is_shown(lengths: tuple[list[int], list[int]], gaps: bool) -> None:
    """The diagonals that are aligned have the score that is ranked by, with a floor as without."""
    gained = []
    for seed in range(20):
        query, target = (protein(each, seed + 40 * i) for i, each in enumerate(lengths))
        if gaps:
            query, target = with_gaps(query, seed), with_gaps(target, seed + 1)
        scores = []
        for floor in (None, -0.3):
            found = align_rows(query, target, "global", floor=floor)
            packed = ProteinTargets(PackedRows.of([target]))
            best, _ = packed.scores(PackedRows.of([query]), floor=floor)
            assert found.score == pytest.approx(float(best[0, 0]), rel=1e-5, abs=1e-5)
            scores.append(found.score)
        gained.append(scores[1] - scores[0])
    assert min(gained) >= 0 < max(gained)


def test_proteins_are_placed_together_as_one_by_one() -> None:
    """Positions begin anew in each protein; none is skipped before a chain's first row."""
    proteins = [protein([3, 2], 0), protein([4], 1), protein([2, 1], 2)]
    positions = [np.array(each) for each in ([2, 3, 6, 9, 10], [1, 2, 3, 4], [0, 5, 7])]
    together = PackedRows.of(proteins).placed(positions)
    placed = [each.placed(at) for each, at in zip(proteins, positions, strict=True)]
    assert together.skipped is not None
    assert together.skipped.tolist() == [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0]
    assert [each.skipped is None for each in placed] == [False, True, False]
    assert together.lacking.tolist() == [True, False, True]
    for one, packed in zip(placed, together, strict=True):
        assert np.array_equal(one.skipped, packed.skipped)
        assert [len(each) for each in one.by_chain] == [len(each) for each in packed.by_chain]
    assert [len(chain) for chain in together.by_chain] == [5, 2, 4, 6, 1]
    complete = [np.arange(5), np.arange(4), np.array([7, 8, 30])]
    assert PackedRows.of(proteins).placed(complete).skipped is None
    with pytest.raises(ValueError, match="skipped residues are not those of the rows"):
        replace(together, skipped=np.zeros(11, dtype=np.int64))
    with pytest.raises(ValueError, match="not as many as the rows"):
        PackedRows.of(proteins).placed([np.arange(5), np.array([0, 2, 3]), np.arange(3)])


def test_packed_proteins_are_those_that_were_packed() -> None:
    """One by one, and some of them in another order."""
    proteins = [protein([3, 2], 0, True), protein([4], 1, True), protein([1, 1, 6], 2, True)]
    proteins[2] = proteins[2].placed(np.array([0, 1, 2, 3, 6, 7, 8, 10]))
    packed = PackedRows.of(proteins)
    assert packed.lacking.tolist() == [False, False, True]
    for found, expected in (
        (list(packed), proteins),
        (packed.take(np.array([2, 0])), proteins[::-2]),
    ):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.local, other.local)
            np.testing.assert_array_equal(one.diagonal, other.diagonal)
            assert one.chains.tolist() == other.chains.tolist()
            assert np.array_equal(one.skipped, other.skipped)
            for chain, same in zip(one.by_chain, other.by_chain, strict=True):
                np.testing.assert_array_equal(chain, same)
    (alone,) = PackedRows.of([protein([3, 2], 0)])
    assert alone.local is alone.diagonal


@pytest.mark.parametrize("chains", [[4], [6], [2, 4], [5, 1], [3, 0, 2], [3, 3, -1], []])
def test_chains_that_do_not_fit_the_rows_are_refused(chains: list[int]) -> None:
    """No score is made of them; (5) is one chain of two proteins."""
    rows = Ragged(np.zeros((5, 2), np.float32), np.array([0, 3, 5]))
    PackedRows(rows, rows, np.array([3, 1, 1]))
    with pytest.raises(ValueError, match="chains"):
        PackedRows(rows, rows, np.array(chains, dtype=np.int64))
    with pytest.raises(ValueError, match="two modes"):
        PackedRows(rows, Ragged(rows.values, np.array([0, 2, 5])), np.array([3, 2]))


def test_the_rows_of_the_head_are_those_of_diagonals() -> None:
    """Of a complex too: chains are scored by them, and local alignments by the others."""
    query, target = protein([5, 4], 0, True), protein([6, 3], 1, True)
    best, _ = ProteinTargets(PackedRows.of([target])).scores(PackedRows.of([query]))
    by_chain = diagonal_scores(query.by_chain, target.by_chain)[0]
    assert best[0, 0] == sum(by_chain[pair] for pair in ascending(by_chain.astype(np.float64)))
