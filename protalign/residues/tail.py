"""The exponential tail of what chance gives, by two quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def tail_of(
    values: npt.NDArray[np.floating[Any]], shares: tuple[float, float], least_scale: float
) -> tuple[float, float]:
    """Return (start, scale): a share ``exp(-(x - start) / scale)`` of the values is x or more.

    Parameters
    ----------
    values : (n,) float
        Most of them by chance.
    shares : (float, float)
        The shares of the values above the two quantiles: lower ones are not of the tail, and the
        highest are of relatives, if there are any.
    least_scale : float
        The least scale to return.

    Examples
    --------
    >>> values = 5 + np.random.default_rng(0).exponential(2.0, 100_000)
    >>> start, scale = tail_of(values, (0.2, 0.02), 1e-3)
    >>> round(start, 1), round(scale, 1)
    (5.0, 2.0)
    """
    first, last = np.quantile(values, [1 - share for share in shares])
    scale = max(float(last - first) / float(np.log(shares[0] / shares[1])), least_scale)
    return float(first) + scale * float(np.log(shares[0])), scale
