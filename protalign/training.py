"""Training of the two pooling heads: rows of the pairs, batches, epochs, early stopping."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from protalign.errors import ModelError
from protalign.inputs import MODALITIES, Pairs
from protalign.metrics import mean_reciprocal_rank
from protalign.model import Heads, not_finite, retrieval_set
from protalign.pooling import PackedBatch
from protalign.protein import Modality
from protalign.ragged import Ragged

Int64 = npt.NDArray[np.int64]

#: The training rows are held in memory while they take less than this part of it.
MEMORY_PART = 0.25


class Rows:
    """Rows of the training pairs, a batch at a time: out of memory, else out of X."""

    def __init__(self, pairs: Pairs, memory: float | None = None) -> None:
        self._pairs = pairs
        self._held: list[Ragged] | None = None
        if self._bytes() <= (MEMORY_PART * _physical_memory() if memory is None else memory):
            self._held = [
                pairs.inputs.rows(modality, pairs.positions_of_items(column))
                for column, modality in enumerate(MODALITIES)
            ]

    @property
    def held(self) -> bool:
        """Whether all rows are in memory."""
        return self._held is not None

    def batch(self, indices: Int64) -> tuple[Ragged, Ragged]:
        """(sequence rows, structure rows) of some pairs, in order."""
        if self._held is None:
            positions = self._pairs.positions[indices]
            sequence, structure = (self._pairs.inputs.rows(m, positions) for m in MODALITIES)
        else:
            items = self._pairs.items[indices].T
            sequence, structure = (take(*each) for each in zip(self._held, items, strict=True))
        return sequence, structure

    def _bytes(self) -> float:
        """Of all rows, taken as float16 from a store, which is its default, else as float32."""
        inputs = self._pairs.inputs
        total = 0.0
        for column, modality in enumerate(MODALITIES):
            rows = inputs.lengths(modality)[self._pairs.positions_of_items(column)].sum()
            info = inputs.encoders.get(modality)
            itemsize = np.dtype(info.dtype).itemsize if info else 4
            total += float(rows) * inputs.dims[modality] * itemsize
        return total


def take(rows: Ragged, indices: Int64) -> Ragged:
    """Items ``indices`` of packed rows, in that order, repeated where an index is."""
    return Ragged.pack([rows[int(index)] for index in indices])


def _physical_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no such figure on this system
        return 8e9


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to train; the names are the estimator's."""

    batch_size: int
    learning_rate: float
    max_epochs: int
    n_iter_no_change: int
    tol: float


@dataclass(slots=True)
class History:
    """What a training run recorded.

    Attributes
    ----------
    loss : mean training loss of each epoch.
    validation : mean reciprocal rank on the validation pairs after each epoch; empty without any.
    best_epoch : 1-based epoch whose parameters were kept.
    """

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0


def train(
    heads: Heads,
    pairs: Pairs,
    validation: Pairs | None,
    options: TrainingOptions,
    generator: np.random.Generator,
    report: Callable[[str], None],
) -> History:
    """Train the heads in place, with Adam; they end as they were after the best epoch.

    With validation pairs, the best epoch is the one of the highest mean reciprocal rank (sequence
    -> structure) among them, and training stops after ``n_iter_no_change`` epochs without a gain
    of more than ``tol``. Without, it is the last. Ctrl-C stops training and keeps the best so far.
    """
    rows = Rows(pairs)
    optimiser = torch.optim.Adam(
        [parameter for parameter in heads.parameters() if parameter.requires_grad],
        lr=options.learning_rate,
    )
    history = History()
    best_state, best_score, waited = copy.deepcopy(heads.state_dict()), -math.inf, 0
    try:
        for epoch in range(1, options.max_epochs + 1):
            loss = _epoch(heads, rows, pairs, optimiser, options.batch_size, generator)
            history.loss.append(loss)
            line = f"epoch {epoch}: loss {loss:.4f}"
            if validation is None:
                history.best_epoch = epoch
                report(line)
                continue
            score = mean_reciprocal_rank(retrieval_set(heads, validation).ranks())
            history.validation.append(score)
            report(f"{line}, validation MRR {score:.4f}")
            waited = waited + 1 if score < best_score + options.tol else 0
            if score > best_score:
                best_score, history.best_epoch = score, epoch
                best_state = copy.deepcopy(heads.state_dict())
            if waited >= options.n_iter_no_change:
                report(f"stopped: no gain in {waited} epochs; best was epoch {history.best_epoch}")
                break
    except KeyboardInterrupt:
        if history.best_epoch == 0:
            raise
        warnings.warn("Training interrupted by user: the best so far is kept.", stacklevel=3)
    if history.validation:
        heads.load_state_dict(best_state)
    return history


def _epoch(
    heads: Heads,
    rows: Rows,
    pairs: Pairs,
    optimiser: torch.optim.Optimizer,
    batch_size: int,
    generator: np.random.Generator,
) -> float:
    """One pass over the pairs in a random order; returns the mean loss."""
    order = generator.permutation(len(pairs))
    device = heads.device
    total, count = 0.0, 0
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        if len(indices) < 2:
            continue  # one pair has no negatives: nothing to learn from
        sequence, structure = rows.batch(indices)
        optimiser.zero_grad()
        loss = heads(
            PackedBatch.from_ragged(sequence, device), PackedBatch.from_ragged(structure, device)
        )
        if not torch.isfinite(loss):
            raise _diverged(pairs, indices, {"sequence": sequence, "structure": structure})
        loss.backward()
        optimiser.step()
        total += loss.item() * len(indices)
        count += len(indices)
    return total / count


def _diverged(pairs: Pairs, indices: Int64, batch: dict[Modality, Ragged]) -> ValueError:
    """Why a loss is not finite: the first modality with broken rows, else the training itself."""
    for modality, rows in batch.items():
        broken = [i for i, values in enumerate(rows) if not np.isfinite(values).all()]
        if broken:
            return not_finite(pairs.inputs, modality, pairs.positions[indices[broken]])
    return ModelError("training diverged: the loss is no number; use a lower learning_rate")
