"""Metrics and their intervals, from clusters drawn with replacement, each draw with a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from protalign.core.arrays import Float64, Int64

Metric = Callable[[int, Int64], float]
DRAWS = 200
#: A prediction that varies less than this share of the target's variation is a constant.
CONSTANT = 1e-3


class Intervals:
    """95 % intervals of metrics over one test set.

    A draw takes n of the n clusters, with replacement, with all their rows, and one of the seeds.
    So an interval covers the choice of proteins, of folds, and of the fit. All feature sets share
    the draws, so that their differences have intervals too.

    Parameters
    ----------
    clusters : (n,) the cluster of each row.
    seeds : the number of seeds.
    """

    def __init__(self, clusters: npt.NDArray[Any], seeds: int) -> None:
        _, inverse = np.unique(clusters, return_inverse=True)
        members = [np.flatnonzero(inverse == c) for c in range(inverse.max() + 1)]
        rng = np.random.default_rng(0)
        self._everything = np.arange(len(inverse))
        self._seeds = seeds
        self._draws = [
            (
                int(rng.integers(seeds)),
                np.concatenate([members[c] for c in rng.integers(len(members), size=len(members))]),
            )
            for _ in range(DRAWS)
        ]

    def of(self, metric: Metric) -> dict[str, float]:
        """Return the mean over the seeds, and the interval: value, low, high."""
        draws = np.array([metric(seed, rows) for seed, rows in self._draws])
        return {"value": self._value(metric), **_ends(draws)}

    def _value(self, metric: Metric) -> float:
        return float(np.mean([metric(seed, self._everything) for seed in range(self._seeds)]))

    def compare(self, metrics: Mapping[str, Metric], reference: str) -> dict[str, dict[str, Any]]:
        """Return value, low, high of each feature set, and of its difference to the reference."""
        draws = {
            name: np.array([metric(seed, rows) for seed, rows in self._draws])
            for name, metric in metrics.items()
        }
        values = {name: self._value(metric) for name, metric in metrics.items()}
        return {
            name: {
                "value": values[name],
                **_ends(draws[name]),
                "difference": {
                    "to": reference,
                    "value": values[name] - values[reference],
                    **_ends(draws[name] - draws[reference]),
                },
            }
            for name in metrics
        }


def _ends(draws: Float64) -> dict[str, float]:
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def is_constant(target: Float64, predicted: Float64) -> bool:
    """Tell whether a prediction varies so little that it is a constant with rounding errors."""
    return bool(np.std(predicted) <= CONSTANT * np.std(target))


def pearson(target: Float64, predicted: Float64) -> float:
    """Return Pearson's correlation; 0 if the prediction is constant."""
    if is_constant(target, predicted):
        return 0.0
    return float(np.corrcoef(target, predicted)[0, 1])


def spearman(target: Float64, predicted: Float64) -> float:
    """Return Spearman's rank correlation; 0 if the prediction is constant."""
    if is_constant(target, predicted):
        return 0.0
    return pearson(rankdata(target), rankdata(predicted))


def rmse(target: Float64, predicted: Float64) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(np.mean((target - predicted) ** 2)))


def classified(
    truth: Int64, predicted: Int64, weights: Float64, classes: int
) -> tuple[float, float]:
    """Return macro-F1 and accuracy of weighted rows; classes without a row do not count."""
    table = np.bincount(truth * classes + predicted, weights, minlength=classes * classes)
    table = table.reshape(classes, classes)
    right, counts = np.diag(table), table.sum(axis=1)
    f1 = 2 * right / np.maximum(counts + table.sum(axis=0), 1e-12)
    return float(f1[counts > 0].mean()), float(right.sum() / table.sum())
