"""Bootstrap intervals of means over queries, resampled alone or by family.

Members of one family succeed and fail together: an interval that resamples queries as if they were
independent is too narrow. If families are known, they are the units that are drawn, with all their
queries (the cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997,
section 3.8). The candidates are those of the whole set in every resample, so an interval shows how
much the figure depends on the choice of queries, not on the number of candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float64

#: Confidence level of the intervals.
LEVEL = 0.95
#: Numbers held at once while medians are resampled.
_COUNTS_AT_ONCE = 1 << 23


class Bootstrap:
    """Percentile intervals of figures over n queries.

    Parameters
    ----------
    units : (n,) array
        The unit of each query, such as its family. Each resample draws as many units, with
        replacement, as the set has.
    n_resamples : int
        The number of resamples; 0 gives no intervals.
    seed : int
        The random seed. All figures of the same units share their draws, so that they can be
        compared.

    Examples
    --------
    >>> figure = Bootstrap(["a", "a", "b", "c"], n_resamples=100, seed=0).mean(np.ones(4))
    >>> figure
    {'value': 1.0, 'low': 1.0, 'high': 1.0}
    """

    def __init__(self, units: npt.ArrayLike, n_resamples: int, seed: int) -> None:
        names, self._unit = np.unique(np.asarray(units), return_inverse=True)
        self.n_units = len(names)
        rng = np.random.default_rng(seed)
        even = np.full(self.n_units, 1 / max(1, self.n_units))
        self._draws = rng.multinomial(self.n_units, even, size=n_resamples)

    def mean(self, values: Float64) -> dict[str, Any]:
        """Return the mean of (n,) values and its interval: value, low, high."""
        sums = self._draws @ np.bincount(self._unit, values, minlength=self.n_units)
        counts = self._draws @ np.bincount(self._unit, minlength=self.n_units)
        return self._figure(float(np.mean(values)), sums / counts)

    def median(self, values: npt.NDArray[Any]) -> dict[str, Any]:
        """Return the median of (n,) values and its interval: value, low, high."""
        value = float(np.median(values))
        if len(self._draws) == 0:
            return self._figure(value, np.empty(0))
        order = np.argsort(values, kind="stable")
        ordered, unit = np.asarray(values, dtype=float)[order], self._unit[order]
        step = max(1, _COUNTS_AT_ONCE // len(values))
        medians = []
        for start in range(0, len(self._draws), step):
            drawn = np.cumsum(self._draws[start : start + step, unit], axis=1)
            doubled, total = 2 * drawn, drawn[:, -1:]
            lower, upper = (doubled >= total).argmax(axis=1), (doubled > total).argmax(axis=1)
            medians.append((ordered[lower] + ordered[upper]) / 2)
        return self._figure(value, np.concatenate(medians))

    def _figure(self, value: float, resampled: Float64) -> dict[str, Any]:
        if self.n_units < 2 or len(resampled) == 0:  # nothing varies
            return {"value": value, "low": None, "high": None}
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(resampled, [tail, 1 - tail])
        return {"value": value, "low": float(low), "high": float(high)}
