"""Which pairs are kept back from training to choose the best epoch by."""

from __future__ import annotations

import numpy as np

from protalign.heads.inputs import Pairs

#: Fewer validation pairs than this say nothing about when to stop.
MIN_VALIDATION_PAIRS = 10
#: Fewer pairs than this cannot be told apart: there is nothing to train on.
_MIN_TRAINING_PAIRS = 2


def hold_out(
    pairs: Pairs, fraction: float, generator: np.random.Generator
) -> tuple[Pairs, Pairs | None]:
    """(training, validation): a random part, whole sequences with all their structures.

    None for the validation where it would be smaller than ``MIN_VALIDATION_PAIRS``.
    """
    count = min(int(fraction * len(pairs)), len(pairs) - _MIN_TRAINING_PAIRS)
    if count < MIN_VALIDATION_PAIRS:
        return pairs, None
    sequences = pairs.items[:, 0]
    place = generator.permutation(sequences.max() + 1)[sequences]  # of each pair's sequence
    sizes = np.cumsum(np.bincount(place))
    held_out = place < np.searchsorted(sizes, count, side="right")
    if np.count_nonzero(held_out) < MIN_VALIDATION_PAIRS:
        return pairs, None  # nearly all pairs are of a few sequences
    return pairs.select(np.flatnonzero(~held_out)), pairs.select(np.flatnonzero(held_out))
