"""What first hits say for candidates that are like them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.protein import Modality
from protalign.core.ragged import Ragged
from protalign.residues import align
from protalign.residues.background import Background, CompactRows
from protalign.residues.backing import FIRST_HITS, SPOKEN_FOR, aligned_part, backing
from protalign.residues.similarity import Compared, Similarity

#: Numbers of a residue, and residues of a protein.
K, LENGTH = 12, 40
Rows = npt.NDArray[np.float32]
#: A scale on which similarities of unrelated proteins are about 0, and from 0.09 to 0.13 rare.
SCALE = Similarity(0.0, 0.01)


class Known(Background):
    """A background whose scale is known."""

    def __init__(self, *modalities: Modality) -> None:
        super().__init__({})
        self._similarities.update(dict.fromkeys(modalities, SCALE))


def fold(seed: int) -> npt.NDArray[np.float64]:
    """Coordinates of a fold's residues."""
    return np.random.default_rng(seed).normal(size=(LENGTH, K))


def structure(of: npt.NDArray[np.float64], seed: int, noise: float = 0.3) -> Rows:
    """Rows of a structure: a fold with other residues here and there."""
    coordinates = of + noise * np.random.default_rng(seed).normal(size=of.shape)
    alone = -np.square(coordinates).sum(axis=1, keepdims=True) / 4
    return np.hstack([coordinates, np.ones_like(alone), alone]).astype(np.float32)


def sequence(of: npt.NDArray[np.float64]) -> Rows:
    """Rows of a sequence of a fold."""
    alone = -np.square(of).sum(axis=1, keepdims=True) / 4
    return np.hstack([of, alone, np.ones_like(alone)]).astype(np.float32)


def of_other_modality(rows: Rows) -> Rows:
    return np.concatenate([rows[:, :-2], rows[:, [-1, -2]]], axis=1)


def said(
    query: Rows, excess: list[float], targets: list[Rows], **options: object
) -> npt.NDArray[np.float64]:
    """The backing of some structures."""
    packed = Ragged.pack(targets)
    n_targets = options.pop("n_targets", len(targets))
    return backing(
        query,
        np.array(excess),
        packed.lengths,
        packed.take,
        Known("structure"),
        n_targets,
        **options,  # type: ignore[arg-type]
    )


def test_a_hit_speaks_for_those_that_are_like_it() -> None:
    """For another structure of its fold, with half of its excess, not for another fold."""
    targets = [structure(fold(0), 1), structure(fold(0), 2), structure(fold(1), 3)]
    np.testing.assert_allclose(said(sequence(fold(0)), [8.0, -0.5, -0.5], targets), [0, 8 / 2, 0])
    # For the hit the other two speak: one and a half of 0.5 and one of nothing. It gets a third of
    # that, since it has 8 of the 12 nats that need no backing.
    found = said(sequence(fold(0)), [8.0, 0.5, 0.5], targets)
    assert found[0] == pytest.approx((1 - 8 / 12) * 1.5 * 0.5 / 2.5)
    assert found[2] == 0


def test_several_hits_agree_or_do_not() -> None:
    """What is said is a mean with nothing as one more voice: two of 8 and 4 say 12 / 3."""
    targets = [structure(fold(0), seed) for seed in (1, 2, 3)]
    found = said(sequence(fold(0)), [8.0, 4.0, -1.0], targets)
    np.testing.assert_allclose(found, [(1 - 8 / 12) * 2 * 4 / 3, (1 - 4 / 12) * 2 * 8 / 3, 12 / 3])


def test_hits_with_12_nats_get_nothing_and_say_no_more() -> None:
    """Else near-identical proteins would be in the order of what they say for each other."""
    targets = [structure(fold(0), seed) for seed in range(8)]
    found = said(sequence(fold(0)), [500.0, 300.0, 200.0, 150.0, 50.0, 49.9, 12.0, 1.0], targets)
    np.testing.assert_allclose(found, [0] * 7 + [(1 - 1 / 12) * 5 * 12 / 6])


@given(excess=st.lists(st.floats(-20, 40, width=16), min_size=2, max_size=12))
def test_look_alikes_keep_their_order(excess: list[float]) -> None:
    """None passes a better one, nor 12 nats."""
    targets = [structure(fold(0), 1)] * len(excess)
    in_order = sorted(excess, reverse=True)
    raised = np.array(in_order) + said(sequence(fold(0)), in_order, targets)
    assert (np.diff(raised) <= 1e-9).all()
    assert (raised <= np.maximum(in_order, 12)).all()


def test_only_first_hits_speak_and_only_for_the_best() -> None:
    """The sixth says nothing, and the 201st candidate gets nothing."""
    n = SPOKEN_FOR + 1
    others = [structure(fold(9), seed, 0.0) for seed in range(n - 2)]
    excess = np.linspace(5, 1, n)
    lone = structure(fold(0), 1)
    place = FIRST_HITS  # the sixth and one of its fold behind it
    targets = [*others[:place], lone, structure(fold(0), 2), *others[place:]]
    query = sequence(np.concatenate([fold(9), fold(0)]))
    found = said(query, excess.tolist(), targets)
    assert found[place] == found[place + 1] == 0
    assert (found[:place] > 0).all()
    assert found[SPOKEN_FOR - 1] > 0
    assert found[SPOKEN_FOR] == 0


def test_a_silent_candidate_says_nothing_and_gets_something() -> None:
    """The query's own structure, where it is to be left out."""
    targets = [structure(fold(0), seed) for seed in (1, 2, 3)]
    silent = np.array([True, False, False])
    found = said(sequence(fold(0)), [8.0, 4.0, -1.0], targets, silent=silent)
    np.testing.assert_allclose(found, [(1 - 8 / 12) * 4 / 2, 0, 4 / 2])


def test_another_domain_of_a_hit_says_nothing() -> None:
    """The first hit has the query's fold and another one; an entry with that one is not backed."""
    both = np.concatenate([structure(fold(0), 1), structure(fold(1), 2)])
    alone, same = structure(fold(1), 3), structure(fold(0), 4)
    assert Similarity.between(Ragged.pack([both]), Compared.of(Ragged.pack([alone])))[0, 0] > 0.5
    for first in (both, np.concatenate([structure(fold(1), 2), structure(fold(0), 1)])):
        found = said(sequence(fold(0)), [9.0, 0.0, 0.0], [first, alone, same])
        assert found[1] == 0
        assert found[2] > 1


def test_structures_as_queries_and_models_of_before() -> None:
    """Sequences speak for sequences; a model without the scale of a modality says nothing."""
    query = structure(fold(0), 1)
    targets = Ragged.pack([sequence(fold(0) + 0.1), sequence(fold(0) - 0.1), sequence(fold(1))])
    excess = np.array([8.0, 1.0, 1.0])
    found = backing(query, excess, targets.lengths, targets.take, Known("sequence"), 3)
    assert found[1] == pytest.approx((1 - 1 / 12) * 1.5 * 8 / 2.5)
    assert found[1] > found[0] > 0
    assert found[2] == 0
    for known in (Background({}), Known("structure")):
        np.testing.assert_array_equal(
            backing(query, excess, targets.lengths, targets.take, known, 3), 0
        )
    none = np.empty((0, K + 2), np.float32)
    assert backing(
        none, np.empty(0), targets.lengths[:0], targets.take, Known("structure"), 3
    ).shape == (0,)
    assert backing(
        query, excess[:1], targets.lengths[:1], targets.take, Known("sequence"), 3
    ).tolist() == [0]


def test_nothing_is_read_if_nothing_is_said() -> None:
    """Rows are asked for of the hits that speak, then of the best; not at all if none speaks."""
    asked: list[int] = []
    packed = Ragged.pack([structure(fold(0), seed) for seed in range(3)])

    def rows(places: npt.NDArray[np.int64]) -> Ragged:
        asked.append(len(places))
        return packed.take(places)

    background = Known("structure")
    query = sequence(fold(0))
    assert backing(
        query, np.array([-1.0, -2.0, 0.0]), packed.lengths, rows, background, 3
    ).tolist() == [0, 0, 0]
    assert asked == []
    backing(query, np.array([1.0, -2.0, 0.0]), packed.lengths, rows, background, 3)
    assert asked == [1, 3]


@given(seed=st.integers(0, 100), cut=st.integers(0, LENGTH - 10))
def test_similarities_are_those_of_alignments(seed: int, cut: int) -> None:
    """The score of ``align`` over both proteins' own scores; either may be the query."""
    one, two = structure(fold(seed), seed), structure(fold(seed)[cut:], seed + 1)
    rows = Ragged.pack([one, two])
    found = Similarity.between(rows, Compared.of(rows))
    own = [align(of_other_modality(each), each).score for each in (one, two)]
    both = align(of_other_modality(one), two).score
    assert found[0, 1] == pytest.approx(both / np.sqrt(own[0] * own[1]), rel=1e-3, abs=1e-4)
    np.testing.assert_allclose(np.diag(found), 1, rtol=1e-3)
    np.testing.assert_allclose(found, found.T, rtol=1e-3)


def test_the_scale_is_that_of_unrelated_proteins() -> None:
    """Chance exceeds it as often as it says; relatives among them do not decide it."""
    unrelated = [structure(fold(seed), seed) for seed in range(80)]
    rows = Ragged.pack(unrelated)
    scale = Similarity.fit(rows)
    found = Similarity.between(rows, Compared.of(rows))[~np.eye(80, dtype=np.bool_)]
    for share in (0.1, 0.03):
        limit = scale.start - scale.scale * np.log(share)
        assert (found >= limit).mean() == pytest.approx(share, rel=0.35)
    with_family = Ragged.pack([*unrelated, *(structure(fold(0), 100 + i) for i in range(4))])
    assert Similarity.fit(with_family).scale == pytest.approx(scale.scale, rel=0.25)
    assert Similarity.fit(Ragged.pack([unrelated[0]] * 5)).scale == 1e-3


def test_the_background_shows_it() -> None:
    """By its rounded rows, once for each modality; of fewer than two proteins nothing is known."""
    rows = Ragged.pack([structure(fold(seed), seed) for seed in range(70)])
    background = Background({"structure": CompactRows.of("structure", rows)})
    found, exact = background.similarity("structure"), Similarity.fit(rows)
    assert found is not None
    assert background.similarity("structure") is found
    assert (found.start, found.scale) == pytest.approx((exact.start, exact.scale), rel=0.1)
    assert background.similarity("sequence") is None
    one = CompactRows.of("structure", rows.take(np.array([0])))
    assert Background({"structure": one}).similarity("structure") is None


def test_more_entries_do_not_have_more_to_say() -> None:
    """A hit speaks by how far its E-value is below 500; in a small search, by its excess."""
    targets = [structure(fold(0), 1), structure(fold(0), 2)]
    query = sequence(fold(0))
    for n_targets, heard in ((40, 8.0), (500, 8.0), (500 * 10, 8 - np.log(10)), (10**7, 0.0)):
        found = said(query, [8.0, -1.0], targets, n_targets=n_targets)
        np.testing.assert_allclose(found, [0, heard / 2], atol=1e-9)


def test_short_parts_say_nothing() -> None:
    """29 aligned residues are like much, or none at all; 30 speak for what is like them."""
    targets = [structure(fold(0), 1, 0.0), structure(fold(0), 2, 0.0)]
    for length, heard in ((29, False), (30, True)):
        found = said(sequence(fold(0)[:length]), [8.0, 0.0], targets)
        assert (found[1] > 0) == heard
    nothing = sequence(np.zeros((LENGTH, K)))
    nothing[:, -2] = -1  # every pair counts below 0
    assert aligned_part(nothing, structure(fold(0), 1)).shape == (0, K + 2)
    assert said(nothing, [8.0, 0.0], targets).tolist() == [0, 0]


@given(seed=st.integers(0, 100), first=st.integers(0, 15), last=st.integers(25, LENGTH))
def test_the_aligned_part_is_that_of_the_alignment(seed: int, first: int, last: int) -> None:
    """From its first pair to its last, also if the query has only a part of the fold."""
    query = sequence(fold(seed)[first:last])
    target = np.concatenate([structure(fold(seed + 1), 1), structure(fold(seed), 2, 0.8)])
    found = align(query, target)
    expected = target[found.target_rows[0] : found.target_rows[-1] + 1]
    np.testing.assert_array_equal(aligned_part(query, target), expected)


def test_candidates_are_compared_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same outcome, however few."""
    targets = [structure(fold(seed % 3), seed) for seed in range(30)]
    excess = np.linspace(6, -1, 30).tolist()
    whole = said(sequence(fold(0)), excess, targets)
    monkeypatch.setattr("protalign.residues.backing.RESIDUES_AT_ONCE", 3 * LENGTH)
    asked: list[int] = []
    packed = Ragged.pack(targets)

    def rows(places: npt.NDArray[np.int64]) -> Ragged:
        asked.append(len(places))
        return packed.take(places)

    query = sequence(fold(0))
    found = backing(query, np.array(excess), packed.lengths, rows, Known("structure"), 30)
    np.testing.assert_allclose(found, whole, atol=1e-5)
    assert (whole > 0).sum() > 5
    assert max(asked[1:]) == 3
    assert sum(asked) == 30 + FIRST_HITS
