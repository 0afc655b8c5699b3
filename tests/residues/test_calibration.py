"""Calibration: E-values that hold on pairs it was not fitted on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from protalign.core.arrays import Float64, Int64
from protalign.core.errors import InputError
from protalign.residues.calibration import Calibration


def unrelated(n: int, seed: int) -> tuple[Float64, Float64, Int64, Int64]:
    """Gumbel scores that grow with lengths and with what the reversed score shows."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(50, 400, size=(2, n))
    bias = rng.normal(30, 10, size=n)
    expected = 4 * np.log(lengths.prod(axis=0)) + bias
    scores = expected + rng.gumbel(scale=12, size=n)
    return scores, bias + rng.normal(0, 3, n), lengths[0], lengths[1]


def test_an_e_value_is_a_number_of_hits() -> None:
    """Among 1,000 targets, E = 10, 1 and 0.1 give as many false hits a query, within a half."""
    calibration = Calibration.fit(*unrelated(20_000, 0))
    evalues = calibration.evalue(calibration.excess(*unrelated(400_000, 1)), 1000)
    for evalue in (10, 1, 0.1):
        hits = np.count_nonzero(evalues <= evalue) / 400
        assert evalue / 1.5 < hits < evalue * 1.5


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
    for damage in ({"scale": 0.0}, {"intercept": float("nan")}, {"scale": float("inf")}):
        with pytest.raises(ValueError, match="calibration"):
            Calibration.of_dict(values | damage)
