"""The parts of the downstream benchmark: its metrics, its ridge regression, its labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import StandardScaler

from tests.helpers.programs import program

program("benchmarks/quality")

from benchmarks.quality.downstream_parts.figures import Intervals, classified, pearson, spearman
from benchmarks.quality.downstream_parts.labels import scope_labels
from benchmarks.quality.downstream_parts.mutations import Mutations
from benchmarks.quality.downstream_parts.stability import Ridge


def test_ridge_is_scikit_learns() -> None:
    """For each strength, on standardised features; the chosen strength is the best one."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 12)).astype(np.float32) * rng.uniform(0.1, 9, 12).astype(np.float32)
    y = X[:, 0] - X[:, 3] + rng.normal(size=300) + 3
    ridge = Ridge(seed=0)
    ridge._solve(X, y, [10.0, 1000.0])
    Z = StandardScaler().fit_transform(X)
    for column, alpha in enumerate([10.0, 1000.0]):
        expected = SklearnRidge(alpha=alpha).fit(Z, y).predict(Z)
        np.testing.assert_allclose(ridge._predict_all(X)[:, column], expected, atol=1e-4)
    assert pearson(y, ridge.fit(X, y, np.arange(300) // 10).predict(X)) > 0.9


def test_macro_f1_and_accuracy_are_scikit_learns() -> None:
    """With weighted rows."""
    rng = np.random.default_rng(1)
    truth, found = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    weights = rng.uniform(0.1, 1, 200)
    f1, accuracy = classified(truth, found, weights, 4)
    assert f1 == pytest.approx(f1_score(truth, found, average="macro", sample_weight=weights))
    assert accuracy == pytest.approx(accuracy_score(truth, found, sample_weight=weights))


def test_correlations_are_scipys_and_a_constant_has_none() -> None:
    """Rounding around a constant is no ranking."""
    rng = np.random.default_rng(2)
    target, found = rng.normal(size=(2, 50))
    assert pearson(target, found) == pytest.approx(stats.pearsonr(target, found).statistic)
    assert spearman(target, found) == pytest.approx(stats.spearmanr(target, found).statistic)
    assert spearman(target, 1 + 1e-9 * found) == 0


def test_an_interval_holds_its_value_and_a_set_differs_from_itself_by_nothing() -> None:
    """Clusters are drawn whole: one cluster's rows alone give an interval of no width."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(2, 60))

    def metric(seed: int, rows: np.ndarray) -> float:
        return float(values[seed][rows].mean())

    found = Intervals(np.arange(60) // 3, 2).compare({"a": metric, "b": metric}, "a")
    assert found["b"]["low"] < found["b"]["value"] < found["b"]["high"]
    assert found["b"]["difference"] == {"to": "a", "value": 0, "low": 0, "high": 0}
    alone = Intervals(np.zeros(60), 1).compare({"a": metric}, "a")["a"]
    assert alone["low"] == pytest.approx(alone["high"])


def test_a_mutation_reversed_twice_is_itself() -> None:
    """And once, it leads from the mutant back, with the sign turned."""
    names = Mutations.__dataclass_fields__
    columns = {name: np.arange(3) + 10 * place for place, name in enumerate(names)}
    mutations = Mutations(**columns)
    back = mutations.reversed()
    np.testing.assert_array_equal(back.wild, mutations.mutant)
    np.testing.assert_array_equal(back.to_letter, mutations.from_letter)
    np.testing.assert_array_equal(back.wild_row, mutations.mutant_row)
    np.testing.assert_array_equal(back.target, -mutations.target)
    for name, values in vars(back.reversed()).items():
        np.testing.assert_array_equal(values, columns[name])


def test_classes_found_in_few_clusters_are_dropped() -> None:
    """By clusters, not by proteins."""
    table = pd.DataFrame(
        {"scop40_hit": ["a.1.1.1"] * 4 + ["a.2.1.1", "b.1.1.1"], "c30": [1, 1, 1, 1, 2, 3]}
    )
    labels, kept, dropped = scope_labels(table, 1, 2)
    assert labels.tolist() == ["a"] * 5 + ["b"]
    assert kept.tolist() == [True] * 5 + [False]
    assert dropped == 1
    _, kept, dropped = scope_labels(table, 2, 2)
    assert not kept.any()
    assert dropped == 3
