"""Unit length: the one thing that every aligned vector must have."""

from __future__ import annotations

import numpy as np

from protalign.core.arrays import Bool, Float32

#: The square of a vector's length may differ from 1 by so much after another program has had it.
UNIT = 1e-2


def odd_rows(vectors: Float32, present: Bool) -> Bool:
    """Return (n,) bool: the present rows of (n, dim) that have not unit length, or are not finite.

    Examples
    --------
    >>> rows = np.array([[0.6, 0.8], [np.inf, 0], [1e-40, 0], [np.nan, 0]], dtype=np.float32)
    >>> odd_rows(rows, np.array([True, True, True, False])).tolist()
    [False, True, True, False]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        return np.asarray(present & ~(np.abs(squares - 1) < UNIT))  # NaN is odd too
