"""Metrics and their intervals: clusters drawn with replacement, and with them a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

Metric = Callable[[int, Int64], float]
DRAWS = 200
#: A prediction that varies by less than this part of the target is a constant and rounding.
CONSTANT = 1e-3


class Intervals:
    """95 % intervals of metrics over one test set.

    A draw takes as many clusters as there are, with replacement, with all their rows, and one of
    the seeds: an interval holds what comes of the choice of proteins, of folds, and of the fitting.
    All feature sets share the draws, so that their differences have intervals too.

    Parameters
    ----------
    clusters : (n,) which cluster each row is in.
    seeds : how many there are.
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
        """The mean over the seeds, low, high."""
        draws = np.array([metric(seed, rows) for seed, rows in self._draws])
        return {"value": self._value(metric), **_ends(draws)}

    def _value(self, metric: Metric) -> float:
        return float(np.mean([metric(seed, self._everything) for seed in range(self._seeds)]))

    def compare(self, metrics: Mapping[str, Metric], reference: str) -> dict[str, dict[str, Any]]:
        """Of each feature set: value, low, high, and the same of its difference to one of them."""
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
    """Whether a prediction varies so little that it is a constant and rounding."""
    return bool(np.std(predicted) <= CONSTANT * np.std(target))


def pearson(target: Float64, predicted: Float64) -> float:
    """Pearson's correlation; 0 where a prediction does not vary at all."""
    if is_constant(target, predicted):
        return 0.0
    return float(np.corrcoef(target, predicted)[0, 1])


def spearman(target: Float64, predicted: Float64) -> float:
    """Spearman's rank correlation; 0 where a prediction does not vary at all."""
    if is_constant(target, predicted):
        return 0.0
    return pearson(rankdata(target), rankdata(predicted))


def rmse(target: Float64, predicted: Float64) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean((target - predicted) ** 2)))


def classified(
    truth: Int64, predicted: Int64, weights: Float64, classes: int
) -> tuple[float, float]:
    """(macro-F1, accuracy) with weighted rows; classes without a row do not count."""
    table = np.bincount(truth * classes + predicted, weights, minlength=classes * classes)
    table = table.reshape(classes, classes)
    right, there = np.diag(table), table.sum(axis=1)
    f1 = 2 * right / np.maximum(there + table.sum(axis=0), 1e-12)
    return float(f1[there > 0].mean()), float(right.sum() / table.sum())
