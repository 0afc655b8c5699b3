"""Bootstrap intervals of means over queries, resampled alone or by family.

Siblings of one family succeed and fail together: an interval that resamples queries as if they were
independent is too narrow. Where families are known they are the units that are drawn, with all
their queries (the cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application,
1997, section 3.8). The candidates are those of the whole set in every resample, so an interval says
how much the figure depends on which queries were asked, not on how many candidates there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float64

#: Of the intervals.
LEVEL = 0.95
#: Numbers held at once while medians are resampled.
_BLOCK = 1 << 23


class Bootstrap:
    """Percentile intervals of figures over n queries.

    Parameters
    ----------
    units : (n,) what each query belongs to; units are drawn, with replacement, as many as there
        are.
    n_resamples, seed : how often, and from which random state: the same draws for all figures of
        the same units, so that they can be compared.
    """

    def __init__(self, units: npt.ArrayLike, n_resamples: int, seed: int) -> None:
        names, self._unit = np.unique(np.asarray(units), return_inverse=True)
        self.n_units = len(names)
        rng = np.random.default_rng(seed)
        even = np.full(self.n_units, 1 / max(1, self.n_units))
        self._draws = rng.multinomial(self.n_units, even, size=n_resamples)

    def mean(self, values: Float64) -> dict[str, Any]:
        """The mean of (n,) values and its interval: value, low, high."""
        sums = self._draws @ np.bincount(self._unit, values, minlength=self.n_units)
        counts = self._draws @ np.bincount(self._unit, minlength=self.n_units)
        return self._figure(float(np.mean(values)), sums / counts)

    def median(self, values: npt.NDArray[Any]) -> dict[str, Any]:
        """The median of (n,) values and its interval."""
        value = float(np.median(values))
        if len(self._draws) == 0:
            return self._figure(value, np.empty(0))
        order = np.argsort(values, kind="stable")
        ordered, unit = np.asarray(values, dtype=float)[order], self._unit[order]
        step = max(1, _BLOCK // len(values))
        medians = []
        for start in range(0, len(self._draws), step):
            reached = np.cumsum(self._draws[start : start + step, unit], axis=1)
            doubled, total = 2 * reached, reached[:, -1:]
            lower, upper = (doubled >= total).argmax(axis=1), (doubled > total).argmax(axis=1)
            medians.append((ordered[lower] + ordered[upper]) / 2)
        return self._figure(value, np.concatenate(medians))

    def _figure(self, value: float, resampled: Float64) -> dict[str, Any]:
        if self.n_units < 2 or len(resampled) == 0:  # nothing varies: no interval to be had
            return {"value": value, "low": None, "high": None}
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(resampled, [tail, 1 - tail])
        return {"value": value, "low": float(low), "high": float(high)}
