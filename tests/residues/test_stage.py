"""The residue stage: its sums, and its log-likelihood ratios."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.arrays import Float64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES
from protalign.residues import PairSums, ResidueStage
from protalign.residues.cca import LARGEST


def correlated(n: int, seed: int = 0) -> tuple[Float64, Float64]:
    """Paired rows of widths 7 and 5 that share three hidden numbers."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 3))
    x = hidden @ rng.normal(size=(3, 7)) + 0.5 * rng.normal(size=(n, 7)) + 3
    y = hidden @ rng.normal(size=(3, 5)) + 0.5 * rng.normal(size=(n, 5)) - 40
    return x, y


def stage_of(
    x: Float64, y: Float64, components: int = 4, largest: float | None = LARGEST
) -> ResidueStage:
    """The stage of some pairs, all added at once."""
    sums = PairSums(x.shape[1], y.shape[1])
    sums.add(x, y)
    return sums.stage(components, largest)


def log_density(values: Float64, covariance: Float64) -> Float64:
    """Log density of centred Gaussian rows."""
    inverse = np.linalg.inv(covariance)
    quadratic = np.einsum("ij,jk,ik->i", values, inverse, values)
    constant: Float64 = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return -0.5 * (quadratic + constant)


def test_a_product_is_the_log_ratio_of_two_gaussians() -> None:
    """Of "correlated" to "independent", each pair of coordinates by itself, summed."""
    x, y = correlated(400)
    stage = stage_of(x, y, largest=None)
    rows = stage.rows("sequence", x[:30]), stage.rows("structure", y[30:60])
    coordinates = [
        (values - stage.means[m]) @ stage.projections[m]
        for values, m in zip((x[:30], y[30:60]), MODALITIES, strict=True)
    ]
    expected = np.zeros(30)
    for k, r in enumerate(stage.correlations.astype(float)):
        both = np.stack([c[:, k] for c in coordinates], axis=1)
        expected += log_density(both, np.array([[1, r], [r, 1]])) - log_density(both, np.eye(2))
    np.testing.assert_allclose((rows[0] * rows[1]).sum(axis=1), expected, atol=1e-3)
    assert rows[0].shape == (30, stage.width)
    assert rows[0].dtype == np.float32


def test_a_residue_far_from_all_others_counts_as_one_at_the_limit() -> None:
    """In its direction; a residue within the limit counts as without one."""
    x, y = correlated(400)
    plain, limited = stage_of(x, y, largest=None), stage_of(x, y, largest=0.8)
    middle = plain.means["sequence"].astype(np.float64)
    away = x[:40] - middle
    size = np.sqrt(np.square(away @ plain.projections["sequence"]).mean(axis=1, keepdims=True))
    within = middle + away * (0.79 / size)
    np.testing.assert_allclose(
        limited.rows("sequence", within), plain.rows("sequence", within), rtol=1e-5
    )
    for factor in (1, 30):
        np.testing.assert_allclose(
            limited.rows("sequence", middle + factor * away / size),
            plain.rows("sequence", middle + 0.8 * away / size),
            atol=1e-4,
        )


def test_coordinates_are_canonical() -> None:
    """Projected pairs have unit variances but for the ridge, and the stage's correlations."""
    x, y = correlated(5000)
    stage = stage_of(x, y)
    a, b = (
        (values - stage.means[m]) @ stage.projections[m]
        for values, m in zip((x, y), MODALITIES, strict=True)
    )
    cross = a.T @ b / len(a)
    np.testing.assert_allclose(np.diag(cross), stage.correlations, atol=1e-4)
    np.testing.assert_allclose(cross - np.diag(np.diag(cross)), 0, atol=1e-4)
    assert (np.diff(stage.correlations) <= 0).all()
    assert stage.correlations[0] > 0.8
    assert ((a**2).mean(axis=0) <= 1.001).all()


def test_pairs_fit_and_others_do_not() -> None:
    """On pairs that the stage has not seen."""
    x, y = correlated(3000)
    stage = stage_of(x[:2000], y[:2000])
    scores = stage.rows("sequence", x[2000:]) @ stage.rows("structure", y[2000:]).T
    own = np.diag(scores)
    assert own.mean() > 1
    assert scores.mean() < 0
    assert np.median((scores >= own[:, None]).sum(axis=1)) < 60


@given(cuts=st.lists(st.integers(0, 600), max_size=4))
def test_sums_do_not_depend_on_the_blocks(cuts: list[int]) -> None:
    """Pairs may come in any blocks, empty ones as well."""
    x, y = correlated(600)
    sums = PairSums(7, 5)
    edges = [0, *sorted(cuts), 600]
    for begin, end in itertools.pairwise(edges):
        sums.add(x[begin:end], y[begin:end])
    whole = stage_of(x, y)
    stage = sums.stage(4)
    np.testing.assert_allclose(stage.correlations, whole.correlations, atol=1e-4)
    scores = [
        each.rows("sequence", x[:5]) @ each.rows("structure", y[:5]).T for each in (stage, whole)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-2)


@pytest.mark.parametrize("n", [0, 1, 23])
def test_too_few_pairs_are_refused(n: int) -> None:
    """Fewer than twice the numbers of both embeddings."""
    x, y = correlated(n)
    with pytest.raises(InputError, match=f"{n} paired residues are too few"):
        stage_of(x, y)


def test_embeddings_that_never_change_are_refused() -> None:
    """They have no covariance."""
    x, _ = correlated(100)
    with pytest.raises(InputError, match="all embeddings are equal"):
        stage_of(x, np.ones((100, 5)))


def test_it_comes_back_from_its_tensors() -> None:
    """The same rows, to the last bit."""
    x, y = correlated(100)
    stage = stage_of(x, y)
    again = ResidueStage.of_tensors(stage.tensors(), stage.facts())
    assert (again.rows("structure", y) == stage.rows("structure", y)).all()
    assert again.n_residues == 100


def test_a_stage_of_before_has_no_limit() -> None:
    """Its facts do not name one, and its rows are as they were; a forged one is refused."""
    x, y = correlated(100)
    stage = stage_of(x, y, largest=None)
    facts = {name: fact for name, fact in stage.facts().items() if name != "largest"}
    again = ResidueStage.of_tensors(stage.tensors(), facts)
    assert (again.rows("structure", y) == stage.rows("structure", y)).all()
    limited = ResidueStage.of_tensors(stage.tensors(), {**facts, "largest": "0.5"})
    assert limited.rows("structure", y).shape == stage.rows("structure", y).shape
    for largest in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="limit of coordinates is not above 0"):
            ResidueStage.of_tensors(stage.tensors(), {**facts, "largest": largest})


@pytest.mark.parametrize(
    "damage",
    [
        {"correlations": np.ones(4, np.float32)},
        {"correlations": np.zeros(3, np.float32)},
        {"mean.sequence": np.zeros(3, np.float32)},
        {"projection.structure": np.full((5, 4), np.nan, np.float32)},
    ],
    ids=["correlation of 1", "other length", "other width", "NaN"],
)
def test_damaged_tensors_are_refused(damage: dict[str, np.ndarray]) -> None:
    """Shapes that do not fit, and numbers that cannot be."""
    stage = stage_of(*correlated(100))
    with pytest.raises(ValueError, match="the residue stage"):
        ResidueStage.of_tensors(stage.tensors() | damage, stage.facts())


def test_pairs_in_parts_give_the_sums_of_all_at_once() -> None:
    """To the bit, whatever the parts are; the mean that is taken off is that of all of them."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(5, 1, (40_000, 6)).astype(np.float16), rng.normal(size=(40_000, 5))
    cuts = np.sort(rng.integers(0, len(x), 9))
    whole, parts = PairSums(6, 5), PairSums(6, 5)
    both = np.hstack([x.astype(np.float32), y.astype(np.float32)])
    for sums in (whole, parts):
        sums.add(np.empty((0, 6)), np.empty((0, 5)))
    whole.add(x, y)
    parts.add_parts(list(zip(np.split(x, cuts), np.split(y, cuts), strict=True)))
    np.testing.assert_array_equal(parts._centre, both.mean(axis=0))
    one, other = whole.stage(4), parts.stage(4)
    assert one.n_residues == other.n_residues == len(x)
    for name, array in one.tensors().items():
        np.testing.assert_array_equal(array, other.tensors()[name])
    with pytest.raises(ValueError, match="3 rows cannot be paired with 2"):
        parts.add(x[:3], y[:2])


def test_pairs_that_would_be_lost_or_stretched_are_refused() -> None:
    """An iterator is empty the second time; a row of one number would fit any width."""
    x, y = correlated(30)
    sums = PairSums(7, 5)
    with pytest.raises(TypeError, match="iterated over twice"):
        sums.add_parts(iter([(x, y)]))
    for one, other in ((x[:, :1], y), (x, y[:, :1]), (x[:, 0], y)):
        with pytest.raises(ValueError, match="have not 7 and 5 numbers"):
            sums.add(one, other)
    assert sums.n == 0
