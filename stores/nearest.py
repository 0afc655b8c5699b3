"""Exact nearest neighbours by inner product, block by block: bounded memory at any size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Similarities held at once, as float32: 64 MB.
BLOCK_ELEMENTS = 1 << 24

Float32 = npt.NDArray[np.float32]


def nearest(queries: Float32, candidates: Float32, k: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """The k candidates with the largest inner product for each query.

    Parameters
    ----------
    queries : (q, dim) float32.
    candidates : (n, dim) float32; rows with NaN are never found.
    k : how many; all of them where there are fewer.

    Returns
    -------
    rows : (q, k) int64 indices into ``candidates``, best first.
    similarity : (q, k) float32, the inner products (cosines, for vectors of unit length).
    """
    usable = np.flatnonzero(np.isfinite(candidates[:, 0]))
    k = min(k, len(usable))
    step = max(k, 1, BLOCK_ELEMENTS // max(1, len(queries)))
    best_rows = np.empty((len(queries), 0), dtype=np.int64)
    best = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, len(usable), step):
        rows = usable[start : start + step]
        block = candidates[rows] if len(usable) < len(candidates) else candidates[start:][:step]
        similarity = queries @ block.T
        top = _top(similarity, k)
        best = np.hstack([best, np.take_along_axis(similarity, top, axis=1)])
        best_rows = np.hstack([best_rows, rows[top]])
        order = np.lexsort((best_rows, -best), axis=1)[:, :k]
        best = np.take_along_axis(best, order, axis=1)
        best_rows = np.take_along_axis(best_rows, order, axis=1)
    return best_rows, best


def _top(similarity: Float32, k: int) -> npt.NDArray[np.int64]:
    """(q, ≤ k) columns of the largest values, in no order."""
    if similarity.shape[1] <= k:
        return np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape).copy()
    return np.argpartition(similarity, -k, axis=1)[:, -k:]
