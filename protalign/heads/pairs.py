"""Pairs of sequence and structure to train on, and the part of them kept for validation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from protalign.core.arrays import Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES
from protalign.heads.inputs import Inputs, MeanInputs

#: Fewer validation pairs than this say nothing about when to stop. More than the most say no more,
#: and each is compared with all others after every epoch.
MIN_VALIDATION_PAIRS, MAX_VALIDATION_PAIRS = 10, 10_000
#: Fewer pairs than this leave nothing to train on: a pair has no negatives.
_MIN_TRAINING_PAIRS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The unique (sequence item, structure item) pairs of X's entries that have both.

    Attributes
    ----------
    inputs : Inputs
        The entries' rows.
    positions : (k,) int64
        First entry of each pair, ascending.
    items : (k, 2) int64
        Each pair's sequence and structure, numbered from 0 within these pairs.
    n_skipped : int
        Entries with a missing modality.
    """

    inputs: Inputs
    positions: Int64
    items: Int64
    n_skipped: int

    @classmethod
    def of(cls, inputs: Inputs) -> Pairs:
        """Return the pairs of X; raise InputError if X has none."""
        if len(inputs) == 0:
            raise InputError("X: it holds no entries", "choose ids that the store has")
        both = np.stack([inputs.items(modality) for modality in MODALITIES], axis=1)
        complete = np.flatnonzero((both >= 0).all(axis=1))
        if len(complete) == 0:
            missing = [m for m, items in zip(MODALITIES, both.T, strict=True) if (items < 0).all()]
            reason = f"every {missing[0]} is missing" if missing else "each has one of the two"
            raise InputError(
                f"X: no entry has both sequence and structure embeddings ({reason})",
                "embed structures (PDB or mmCIF files) with both encoders",
            )
        _, first = np.unique(both[complete], axis=0, return_index=True)
        positions = complete[np.sort(first)]
        items = np.stack(
            [np.unique(both[positions, column], return_inverse=True)[1] for column in (0, 1)],
            axis=1,
        )
        return cls(inputs, positions, items, len(inputs) - len(complete))

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, indices: Int64) -> Pairs:
        """Return some of the pairs."""
        items = np.stack(
            [np.unique(column, return_inverse=True)[1] for column in self.items[indices].T], axis=1
        )
        return Pairs(self.inputs, self.positions[indices], items, self.n_skipped)

    def of_residues(self) -> Pairs:
        """Return the same pairs with the residues' rows, if these have their means."""
        inputs = self.inputs
        return replace(self, inputs=inputs.inputs) if isinstance(inputs, MeanInputs) else self

    def positions_of_items(self, column: int) -> Int64:
        """Return the first entry of each unique sequence (column 0) or structure (column 1)."""
        return self.positions[np.unique(self.items[:, column], return_index=True)[1]]


def split_validation(
    pairs: Pairs, fraction: float, generator: np.random.Generator
) -> tuple[Pairs, Pairs | None]:
    """Return (training, validation): a random part of whole sequences with all their structures.

    The validation has ``MAX_VALIDATION_PAIRS`` at most, and is None if it would be smaller than
    ``MIN_VALIDATION_PAIRS``.
    """
    room = min(MAX_VALIDATION_PAIRS, len(pairs) - _MIN_TRAINING_PAIRS)
    count = min(int(fraction * len(pairs)), room)
    if count < MIN_VALIDATION_PAIRS:
        return pairs, None
    sequences = pairs.items[:, 0]
    rank = generator.permutation(sequences.max() + 1)[sequences]  # of each pair's sequence
    sizes = np.cumsum(np.bincount(rank))
    held_out = rank < np.searchsorted(sizes, count, side="right")
    if np.count_nonzero(held_out) < MIN_VALIDATION_PAIRS:
        return pairs, None  # nearly all pairs are of a few sequences
    return pairs.select(np.flatnonzero(~held_out)), pairs.select(np.flatnonzero(held_out))
