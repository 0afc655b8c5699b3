"""Batches of masked windows, each a function of only the seed and the step.

No random state is kept between steps, so a run that resumes at a step sees the same batches as an
uninterrupted run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from language_model.sequences import ALPHABET, STANDARD_TOKENS, Tokens

# ESM-2 (Lin et al. 2023): 15 % of the residues are predicted. Of these 80 % are masked, 10 % are
# replaced by a random residue and 10 % stay unchanged.
PREDICTED, MASKED, EXCHANGED = 0.15, 0.8, 0.1
# Window lengths are multiples of this, so that a batch of one length needs no padding.
LENGTH_STEP = 32
# A window may be drawn up to this many tokens beyond an end and is then moved to the end: without
# this the ends of long proteins would be seen less often than their middle.
_END_SLACK = 32

_STANDARD = np.zeros(len(ALPHABET), dtype=bool)
_STANDARD[STANDARD_TOKENS] = True


class Windows(NamedTuple):
    """Rows of equal length: their proteins, the positions of their first tokens, their tokens."""

    proteins: NDArray[np.int64]  # (rows,)
    starts: NDArray[np.int64]  # (rows,)
    tokens: NDArray[np.int64]  # (rows, length)


class MaskedBatch(NamedTuple):
    """The input of the network, and the tokens that it must predict."""

    tokens: NDArray[np.int64]  # (rows, length), after masking
    positions: NDArray[np.int64]  # (predicted,), into the flattened tokens
    targets: NDArray[np.int64]  # (predicted,), the original tokens there


def mask(tokens: NDArray[np.int64], random: np.random.Generator) -> MaskedBatch:
    """Choose the residues to predict and hide them; never marks and unknown residues."""
    hidden = (random.random(tokens.shape) < PREDICTED) & _STANDARD[tokens]
    kind = random.random(tokens.shape)
    exchange = STANDARD_TOKENS[random.integers(len(STANDARD_TOKENS), size=tokens.shape)]
    seen = np.where(hidden & (kind < MASKED), ALPHABET.mask_idx, tokens)
    seen = np.where(hidden & (kind >= 1 - EXCHANGED), exchange, seen)
    positions = np.flatnonzero(hidden)
    return MaskedBatch(seen, positions, tokens.reshape(-1)[positions])


class WindowSampler:
    """Random windows of proteins, in batches; an epoch covers all proteins.

    A protein of n tokens gives ceil(n / window) windows an epoch, each of the largest multiple of
    `LENGTH_STEP` that fits; shorter proteins than one step are left out.
    """

    def __init__(
        self, proteins: Sequence[Tokens], window: int, batch_tokens: int, seed: int
    ) -> None:
        self._proteins = proteins
        self._seed = seed
        lengths = np.array([len(tokens) for tokens in proteins], dtype=np.int64)
        self._lengths = lengths
        size = np.minimum(window, lengths // LENGTH_STEP * LENGTH_STEP)
        windows = np.where(size > 0, -(-lengths // window), 0)
        protein = np.repeat(np.arange(len(proteins)), windows)
        self._groups = [
            (int(length), protein[size[protein] == length], max(1, batch_tokens // int(length)))
            for length in np.unique(size[protein])
        ]
        # The proteins of a last batch that is not full would count more. It is left out, unless it
        # is the only one of its length.
        self.batches_per_epoch = sum(
            max(1, len(members) // rows) for _, members, rows in self._groups
        )
        if not self._groups:
            raise ValueError(f"no sequence has {LENGTH_STEP - 2} residues or more")
        self._epoch, self._plan = -1, list[tuple[int, NDArray[np.int64]]]()

    def _plan_epoch(self, epoch: int) -> list[tuple[int, NDArray[np.int64]]]:
        random = np.random.default_rng([self._seed, 1, epoch])
        plan = list[tuple[int, NDArray[np.int64]]]()
        for length, members, rows in self._groups:
            shuffled = random.permutation(members)
            for batch in range(max(1, len(members) // rows)):
                plan.append((length, shuffled[batch * rows : (batch + 1) * rows]))
        return [plan[i] for i in random.permutation(len(plan))]

    def windows(self, step: int) -> Windows:
        """Return the step's rows, before masking."""
        epoch, index = divmod(step, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._plan_epoch(epoch)
        length, proteins = self._plan[index]
        random = np.random.default_rng([self._seed, 2, step])
        room = self._lengths[proteins] - length
        starts = random.integers(-_END_SLACK, room + _END_SLACK, endpoint=True).clip(0, room)
        rows = [
            self._proteins[protein][start : start + length]
            for protein, start in zip(proteins, starts, strict=True)
        ]
        return Windows(proteins, starts, np.stack(rows).astype(np.int64))

    def mask_of(self, windows: Windows, step: int) -> MaskedBatch:
        """Return the step's rows, masked."""
        return mask(windows.tokens, np.random.default_rng([self._seed, 3, step]))
