"""Calibration: E-values that hold on pairs it was not fitted on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.arrays import Float64, Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.residues.alignment import align
from protalign.residues.background import Background, CompactRows
from protalign.residues.calibration import Calibration, Chance


def unrelated(n: int, seed: int) -> tuple[Float64, Float64, Int64, Int64]:
    """Gumbel scores that grow with lengths and with what the reversed score shows.

    Their spread grows as the square root of the lengths' geometric mean.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(50, 400, size=(2, n))
    bias = rng.normal(30, 10, size=n)
    expected = 4 * np.log(lengths.prod(axis=0)) + bias
    scores = expected + lengths.prod(axis=0) ** 0.25 * rng.gumbel(size=n)
    return scores, bias + rng.normal(0, 3, n), lengths[0], lengths[1]


def test_an_e_value_is_a_number_of_hits() -> None:
    """Among 1,000 targets, E = 10, 1 and 0.1 give as many false hits a query, within a half."""
    calibration = Calibration.fit(*unrelated(20_000, 0))
    evalues = calibration.evalue(calibration.excess(*unrelated(400_000, 1)), 1000)
    for evalue in (10, 1, 0.1):
        hits = np.count_nonzero(evalues <= evalue) / 400
        assert evalue / 1.5 < hits < evalue * 1.5


def test_long_proteins_have_as_many_false_hits_as_short_ones() -> None:
    """At E = 1 each third of the pairs, by length, has about a third of the hits."""
    calibration = Calibration.fit(*unrelated(20_000, 0))
    pairs = unrelated(400_000, 1)
    hits = calibration.evalue(calibration.excess(*pairs), 1000) <= 1
    lengths = pairs[2] * pairs[3]
    for third in np.array_split(np.argsort(lengths), 3):
        assert 0.7 < hits[third].mean() / hits.mean() < 1.4


def test_models_of_before_keep_their_e_values() -> None:
    """Without the numbers that came later an excess is in units of one scale for all lengths."""
    old = {"intercept": -10.0, "reversed_weight": 0.5, "length_weight": 5.0, "scale": 25.0}
    old |= {"query_start": 0.5, "query_scale": 2.0}
    calibration = Calibration.of_dict({**old, "n_pairs": 10_000})
    expected = -10 + 0.5 * 60 + 5 * np.log(150 * 180)
    plain = calibration.excess(400.0, 60.0, 150, 180)
    assert plain == pytest.approx((400 - expected) / 25)
    chance = calibration.query_tail(Chance(np.array(1.0), np.array(0.4)), 150)
    assert calibration.by_query(plain, chance) == pytest.approx(((plain - 1) / 0.4 - 0.5) / 2)


def test_a_query_counts_by_its_own_and_the_usual_tail() -> None:
    """Few proteins may show a tail that is too narrow: the usual scale is added to each query's.

    The longer the query, the wider the tail.
    """
    calibration = Calibration(
        -10.0, 0.5, 5.0, scale=25.0, n_pairs=10_000, query_start=0.5, query_scale=2.0,
        added_scale=1.1, query_power=0.1,
    )  # fmt: skip
    shown = Chance(np.array([1.0, 1.0, 1.0]), np.array([0.4, 0.9, 0.9]))
    scales = [(0.4 + 1.1) * 150**0.1, (0.9 + 1.1) * 150**0.1, (0.9 + 1.1) * 30**0.1]
    expected = [((7 - 1) / scale - 0.5) / 2 for scale in scales]
    chance = calibration.query_tail(shown, [150, 150, 3])
    assert calibration.by_query([7.0] * 3, chance) == pytest.approx(expected)
    assert Calibration.of_dict(calibration.as_dict()) == calibration


def test_what_chance_gives_counts_once() -> None:
    """Scores that grow twice as fast as those with reversed targets give the weight 1, not 2.

    E-values hold all the same.
    """

    def steep(n: int, seed: int) -> tuple[Float64, Float64, Int64, Int64]:
        scores, by_chance, *lengths = unrelated(n, seed)
        return scores + by_chance, by_chance, lengths[0], lengths[1]

    calibration = Calibration.fit(*steep(20_000, 0))
    assert calibration.reversed_weight == 1
    evalues = calibration.evalue(calibration.excess(*steep(400_000, 1)), 1000)
    for evalue in (10, 1, 0.1):
        assert evalue / 2 < np.count_nonzero(evalues <= evalue) / 400 < evalue * 2
    assert 0.8 < Calibration.fit(*unrelated(20_000, 0)).reversed_weight < 1


def test_relatives_among_the_pairs_change_little() -> None:
    """One pair of 50 is of near-identical proteins."""
    scores, *others = unrelated(20_000, 0)
    clean = Calibration.fit(scores, *others)
    with_relatives = scores.copy()
    with_relatives[::50] += np.random.default_rng(2).uniform(300, 3000, 400)
    fitted = Calibration.fit(with_relatives, *others)
    assert fitted.scale == pytest.approx(clean.scale, rel=0.1)
    excess = fitted.excess(scores, *others) - clean.excess(scores, *others)
    assert abs(excess).max() < 1
    assert (fitted.evalue(fitted.excess(with_relatives, *others)[::50], 1000) < 1e-3).all()


def test_more_excess_is_rarer_and_likelier_related() -> None:
    """E-values fall and probabilities rise; both stay in their ranges."""
    calibration = Calibration.fit(*unrelated(2000, 0))
    excess = np.linspace(-50, 800, 500)
    evalues, probabilities = calibration.evalue(excess, 7), calibration.probability(excess)
    assert (np.diff(evalues) <= 0).all()
    assert (np.diff(probabilities) >= 0).all()
    assert (evalues <= 7).all()
    assert evalues.min() >= 0
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_the_least_excess_warns_of_nothing() -> None:
    """Far below chance all targets are hits by chance, and none shares the fold."""
    calibration = Calibration(0.0, 0.0, 0.0, scale=1.0, n_pairs=1000)
    excess = [-np.inf, -1e308, -2000.0, -800.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert calibration.evalue(excess, 7).tolist() == [7.0] * 4
        assert calibration.probability(excess)[:3].tolist() == [0.0] * 3
        assert calibration.bits(excess).tolist() == [0.0] * 4


def test_few_pairs_are_refused() -> None:
    """Their tail is unknown."""
    with pytest.raises(InputError, match="unrelated pairs are too few"):
        Calibration.fit(*unrelated(499, 0))
    with pytest.raises(InputError, match="too few"):
        Calibration.fit([], [], [], [])


def test_it_comes_back_from_json() -> None:
    """Damaged numbers are refused."""
    calibration = Calibration.fit(*unrelated(1000, 0))
    values = json.loads(json.dumps(calibration.as_dict()))
    assert Calibration.of_dict(values) == calibration
    damages = [{"scale": 0.0}, {"intercept": float("nan")}, {"scale": float("inf")}]
    damages += [
        {"added_scale": -1.0},
        {"length_power": 2.0},
        {"query_power": -1.0},
        {"start": float("nan")},
    ]
    for damage in damages:
        with pytest.raises(ValueError, match="calibration"):
            Calibration.of_dict(values | damage)


def test_every_query_has_its_own_tail() -> None:
    """Queries with far larger scores than others have no more false hits, nor others fewer."""
    rng = np.random.default_rng(0)
    spread = np.repeat(rng.uniform(0.4, 2.5, 300), 150)

    def scores(seed: int) -> tuple[Float64, Float64, Int64, Int64]:
        y, *others = unrelated(300 * 150, seed)
        return y + (spread - 1) * np.random.default_rng(seed).gumbel(20, 15, len(y)), *others

    one_tail = Calibration.fit(*scores(1))
    chance = Chance.of(one_tail.excess(*scores(2)).reshape(300, 150)[:, :100])
    of_pairs = Chance(np.repeat(chance.location, 150), np.repeat(chance.scale, 150))
    background = Background({})
    own_tails = one_tail.with_background(
        background, one_tail.excess(*scores(1)), of_pairs, scores(1)[2]
    )
    assert own_tails.added_scale == pytest.approx(0.35 * np.median(chance.scale))
    assert own_tails.background is background
    hits = []
    tails = own_tails.query_tail(of_pairs, scores(3)[2])
    for calibration, of_queries in ((one_tail, None), (own_tails, tails)):
        evalues = calibration.evalue(calibration.excess(*scores(3), of_queries), 150)
        per_query = (evalues <= 1).reshape(300, 150).sum(axis=1)
        order = np.argsort(spread[::150])
        hits.append((per_query[order[:100]].mean(), per_query[order[-100:]].mean()))
    assert hits[0][0] < 0.1
    assert hits[0][1] > 2
    assert all(0.4 < rate < 2 for rate in hits[1])


def test_relatives_in_the_background_change_little() -> None:
    """Two of 100 that score far above all others."""
    excess = np.random.default_rng(0).gumbel(size=100)
    clean = Chance.of(excess)
    excess[np.argsort(excess)[-2:]] += 50
    with_relatives = Chance.of(excess)
    assert with_relatives.location == clean.location
    assert with_relatives.scale == pytest.approx(clean.scale, rel=0.01)
    assert Chance.of(np.zeros(70)).scale > 0


def rows_of_proteins(
    rng: np.random.Generator, modality: Modality, lengths: Sequence[int]
) -> Ragged:
    """Rows of 6 numbers; of a sequence's the last is 1, of a structure's the one before."""
    rows = [rng.normal(size=(length, 6)).astype(np.float32) for length in lengths]
    for each in rows:
        each[:, -1 if modality == "sequence" else -2] = 1
    return Ragged.pack(rows)


@settings(max_examples=20)
@given(
    st.integers(0, 10**6),
    st.sampled_from(MODALITIES),
    st.sampled_from([0, 1e-44, 1e-38, 1e-3, 1, 1e3, 1e6, 1e18, 1e37]),
)
def test_compact_rows_are_nearly_the_rows(seed: int, modality: Modality, size: float) -> None:
    """Half a step of a coordinate is lost at most; what is kept comes back the same again.

    So it is for numbers of any size: those of large embeddings are finite too.
    """
    rows = rows_of_proteins(np.random.default_rng(seed), modality, [3, 1, 20])
    rows.values[:, :3] *= np.float32(size)
    alone = -2 if modality == "sequence" else -1
    rows.values[:, alone] *= np.float32(size)
    compact = CompactRows.of(modality, rows)
    again = compact.rows()
    largest = np.maximum(np.abs(rows.values[:, :-2]).max(axis=0), np.float32(1.5e-36))
    assert (np.abs(again.values - rows.values)[:, :-2] <= 0.501 * largest / 127).all()
    assert (again.values[:, -2:] == rows.values[:, -2:]).all()
    assert again.offsets.tolist() == rows.offsets.tolist()
    kept = CompactRows.of_tensors(modality, compact.tensors(), 6).rows()
    assert (kept.values == again.values).all()


def test_a_query_is_aligned_with_the_other_modality() -> None:
    """Forwards and backwards. Its rows show which it is; no background, no tail of its own."""
    rng = np.random.default_rng(0)
    proteins = {
        modality: CompactRows.of(modality, rows_of_proteins(rng, modality, lengths))
        for modality, lengths in (("sequence", (4, 5)), ("structure", (6, 7, 8)))
    }
    background = Background(proteins)
    query = rng.normal(size=(3, 6)).astype(np.float32)
    query[:, -1] = 1
    assert background.scores(query)[2].tolist() == [6, 7, 8]
    assert background.scores(query[:, ::-1])[2].tolist() == [4, 5]
    scores, reversed_scores, _ = background.scores(query)
    for place, rows in enumerate(proteins["structure"].rows()):
        assert scores[place] == pytest.approx(align(query, rows).score, rel=1e-5)
        assert reversed_scores[place] == pytest.approx(align(query, rows[::-1]).score, rel=1e-5)
    assert not np.allclose(scores, reversed_scores)
    calibration = Calibration.fit(*unrelated(1000, 0))
    assert calibration.chance(query) is None
    again = Background.of_tensors(background.tensors(), 6)
    for one, other in zip(background.scores(query), again.scores(query), strict=True):
        assert (one == other).all()
    for damage in (
        {"lengths.sequence": np.array([4, 6])},
        {"lengths.structure": np.array([], np.int64)},
        {"coordinates.structure": np.zeros((21, 5))},
        {"alone.sequence": np.zeros(8)},
        {"steps.structure": np.full(4, np.nan)},
    ):
        with pytest.raises(ValueError, match="rows are damaged"):
            Background.of_tensors({**background.tensors(), **damage}, 6)


def test_peptides_are_no_relatives_by_their_length() -> None:
    """A score of 0 of two residues is no rarer than that of two of 30."""
    calibration = Calibration.fit(*unrelated(20_000, 0))
    few, more = (calibration.excess(0.0, 0.0, n, n) for n in (1, 30))
    assert few == more
    assert calibration.evalue(few, 1) > 0.5
