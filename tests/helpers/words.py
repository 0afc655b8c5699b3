"""Targets that are sequences of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Words


def random_words(
    rng: np.random.Generator, lengths: Sequence[int], count: int
) -> tuple[Words, npt.NDArray[np.int64]]:
    """Return words of targets of some lengths, drawn from ``count``, and where each begins."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return rng.integers(0, count, offsets[-1]).astype(np.uint16), offsets
