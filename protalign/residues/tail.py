"""The exponential tail of what chance gives, by two quantiles."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Floating = TypeVar("Floating", bound=np.floating[Any])

#: The shares of the values above the two quantiles: lower ones are not of the tail, and the highest
#: are of relatives, if there are any.
SHARES = (0.2, 0.02)


def tail_of(values: npt.NDArray[Floating], least_scale: float) -> tuple[float, float]:
    """Return (start, scale): a share ``exp(-(x - start) / scale)`` of the values is x or more.

    Parameters
    ----------
    values : (n,) float
        Most of them by chance.
    least_scale : float
        The least scale to return.

    Examples
    --------
    >>> start, scale = tail_of(np.random.default_rng(0).exponential(2.0, 100_000), 1e-3)
    >>> round(start, 1), round(scale, 1)
    (0.0, 2.0)
    """
    first, last = np.quantile(values, [1 - share for share in SHARES])
    scale = max(float(last - first) / float(np.log(SHARES[0] / SHARES[1])), least_scale)
    return float(first) + scale * float(np.log(SHARES[0])), scale
