"""Scores of residue rows as plain Python computes them: slow, and easy to read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def best_diagonal(scores: Matrix, floor: float = -np.inf) -> tuple[float, int]:
    """Return the largest sum of a diagonal of (Lq, Lt) scores, and its offset."""
    n_query, n_target = scores.shape
    if n_target == 0:
        return -np.inf, 0
    by_offset = {
        d: float(np.maximum(np.diagonal(scores, d), floor).sum())
        for d in range(1 - n_query, n_target)
    }
    highest = max(by_offset.values())
    equal = [d for d, value in by_offset.items() if value == highest]
    return highest, min(equal, key=lambda d: (abs(d), d < 0))


def best_local(scores: Matrix, gap_open: float, gap_extend: float) -> tuple[float, int, int]:
    """Return the best local alignment's score and the cell where it ends.

    A gap of every length is tried at every cell, so there is no recursion for gaps.
    """
    n_query, n_target = scores.shape
    match = np.zeros((n_query, n_target))
    best = (0.0, -1, -1)
    for i in range(n_query):
        for j in range(n_target):
            before = [0.0]
            if i and j:
                before.append(match[i - 1, j - 1])
                before += [
                    match[i - 1 - g, j - 1] - gap_open - (g - 1) * gap_extend for g in range(1, i)
                ]
                before += [
                    match[i - 1, j - 1 - g] - gap_open - (g - 1) * gap_extend for g in range(1, j)
                ]
            match[i, j] = max(0.0, scores[i, j] + max(before))
            if match[i, j] > best[0]:
                best = (match[i, j], i, j)
    return best
