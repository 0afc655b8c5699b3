"""Stability: ridge and gradient boosting on features of mutations, clusters kept whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.quality.downstream_parts.figures import (
    Intervals,
    Metric,
    is_constant,
    pearson,
    rmse,
    spearman,
)
from benchmarks.quality.downstream_parts.mutations import Features, Mutations
from protalign.core.arrays import Bool, Float32, Float64, Int64

FOLDS = 5
ALPHAS = [1e1, 1e2, 1e3, 1e4, 1e5, 1e6]
#: Gradient boosting sees at most this many principal components.
COMPONENTS = 32


@dataclass(frozen=True, eq=False)
class Task:
    """Mutations to predict: by a model of ``train``, or cross-validated if it is None."""

    name: str
    test: Mutations
    train: Mutations | None = None


class Ridge:
    """Ridge regression on standardised features, equal to scikit-learn's with the same alpha.

    The strength is the one that best predicts a quarter of the training clusters. One
    eigendecomposition serves all strengths; a grid search would solve for each.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, X: Float32, y: Float64, groups: Int64) -> Ridge:
        split = GroupShuffleSplit(1, test_size=0.25, random_state=self.seed)
        inner, held_out = next(split.split(X, groups=groups))
        self._solve(X[inner], y[inner], ALPHAS)
        errors = np.square(self._predict_all(X[held_out]) - y[held_out, None]).mean(axis=0)
        self._solve(X, y, [ALPHAS[int(np.argmin(errors))]])
        return self

    def predict(self, X: Float32) -> Float64:
        return self._predict_all(X)[:, 0]

    def _solve(self, X: Float32, y: Float64, alphas: list[float]) -> None:
        self._scaler = StandardScaler().fit(X)
        Z = self._scaler.transform(X)
        self._mean = y.mean()
        values, axes = np.linalg.eigh(np.asarray(Z.T @ Z, dtype=np.float64))
        along = axes.T @ np.asarray(Z.T @ (y - self._mean).astype(Z.dtype), dtype=np.float64)
        shrunk = along[:, None] / (np.maximum(values, 0)[:, None] + np.array(alphas))
        self._coefficients = axes @ shrunk

    def _predict_all(self, X: Float32) -> Float64:
        """Return (n, strengths)."""
        predicted: Float64 = self._scaler.transform(X) @ self._coefficients + self._mean
        return predicted


def boosting(seed: int) -> Pipeline:
    """Return histogram gradient boosting, on principal components if there are many features."""
    trees = HistGradientBoostingRegressor(
        max_iter=100, learning_rate=0.1, max_leaf_nodes=15, random_state=seed
    )
    return make_pipeline(StandardScaler(), _Components(COMPONENTS, random_state=seed), trees)


class _Components(PCA):  # type: ignore[misc]
    """PCA that does not change features if they are few."""

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        self.passed_ = X.shape[1] <= self.n_components
        return X if self.passed_ else super().fit_transform(X, y)

    def transform(self, X: Any) -> Any:
        return X if self.passed_ else super().transform(X)


def predict(
    task: Task, features: Callable[[Mutations], Float32], model: str, seed: int
) -> tuple[Float64, Float64]:
    """Return (n,), (n,): predictions of the mutations, and of the reversed mutations.

    Each mutation is trained on in both directions; the reverse has the target's sign changed.
    """
    test = [features(task.test), features(task.test.reversed())]
    if task.train is not None:
        both = [features(task.train), features(task.train.reversed())]
        fitted = _fit(both, task.train.target, task.train.cluster, model, seed)
        return fitted.predict(test[0]), fitted.predict(test[1])
    predicted = np.zeros((2, len(task.test)))
    for train, held_out in _folds(task.test.cluster, seed):
        both = [side[train] for side in test]
        fitted = _fit(both, task.test.target[train], task.test.cluster[train], model, seed)
        for side in (0, 1):
            predicted[side, held_out] = fitted.predict(test[side][held_out])
    return predicted[0], predicted[1]


def _folds(clusters: Int64, seed: int) -> Iterator[tuple[Int64, Int64]]:
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    yield from folds.split(clusters, groups=clusters)


def _fit(
    both: list[Float32], target: Float64, clusters: Int64, model: str, seed: int
) -> Pipeline | Ridge:
    X, y = np.vstack(both), np.concatenate([target, -target])
    if model == "ridge":
        return Ridge(seed).fit(X, y, np.tile(clusters, 2))
    return boosting(seed).fit(X, y)


def evaluate(
    task: Task, features: list[Features], model: str, names: list[str], reference: str
) -> dict[str, Any]:
    """Return each feature set's figures; ``features`` has an item for each seed."""
    intervals = Intervals(task.test.cluster, len(features))
    predictions = {
        name: [predict(task, f.sets[name], model, seed) for seed, f in enumerate(features)]
        for name in names
    }
    target, present = task.test.target, task.test.wild_structure >= 0
    rank = intervals.compare(
        {name: _forward(spearman, target, predictions[name]) for name in names}, reference
    )
    return {
        name: {
            "spearman": rank[name],
            "spearman_with_structure": intervals.of(_with_structure(target, present, predicted)),
            "pearson": intervals.of(_forward(pearson, target, predicted)),
            "rmse": intervals.of(_forward(rmse, target, predicted)),
            "reversed_spearman": intervals.of(_backward(spearman, target, predicted)),
            "reversed_rmse": intervals.of(_backward(rmse, target, predicted)),
            "antisymmetry_pearson": intervals.of(_antisymmetry(target, predicted)),
            "antisymmetry_mean_sum": intervals.of(_mean_sum(predicted)),
        }
        for name, predicted in predictions.items()
    }


def _with_structure(target: Float64, present: Bool, predicted: list[Any]) -> Metric:
    """Return the metric on the rows with a structure of the wild type."""

    def metric(seed: int, rows: Int64) -> float:
        subset = rows[present[rows]]
        return spearman(target[subset], predicted[seed][0][subset]) if len(subset) > 1 else np.nan

    return metric


def _antisymmetry(target: Float64, predicted: list[Any]) -> Metric:
    def metric(seed: int, rows: Int64) -> float:
        forward, backward = (side[rows] for side in predicted[seed])
        if is_constant(target[rows], forward):
            return 0.0  # the rounding of a constant would look like variation
        return pearson(forward, backward)

    return metric


def _mean_sum(predicted: list[Any]) -> Metric:
    return lambda seed, rows: float(np.mean(predicted[seed][0][rows] + predicted[seed][1][rows]))


def _forward(metric: Callable[..., float], target: Float64, predicted: list[Any]) -> Metric:
    return lambda seed, rows: metric(target[rows], predicted[seed][0][rows])


def _backward(metric: Callable[..., float], target: Float64, predicted: list[Any]) -> Metric:
    return lambda seed, rows: metric(-target[rows], predicted[seed][1][rows])
