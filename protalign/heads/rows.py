"""Rows of training pairs: held on their device if they fit, else read a batch ahead of use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain

import numpy as np
import torch

from protalign.core.arrays import Int64
from protalign.core.machine import usable_memory
from protalign.core.protein import MODALITIES
from protalign.heads.distributed import current
from protalign.heads.kernels.batch import ProteinBatch, batch_of
from protalign.heads.kernels.fused import RangeBatch, fused_pooling_on
from protalign.heads.kernels.packed import PackedBatch, moved
from protalign.heads.pairs import Pairs

#: A batch of pairs: of their sequences and of their structures.
Batch = tuple[ProteinBatch, ProteinBatch]

#: Training and validation rows are each held in memory while they take less than this part of it.
MEMORY_PART = 0.25
#: The same part of a GPU's memory that is free at that moment.
GPU_MEMORY_PART = 0.4


class Rows:
    """Rows of some pairs on a device, in batches.

    Parameters
    ----------
    pairs : Pairs
        The pairs.
    device : torch.device
        The device of the batches and of the rows that are held.
    memory : float, optional
        Bytes that may be held there; default: a part of what this process may use.

    Attributes
    ----------
    device : torch.device
        As given.
    held : bool
        Whether all rows are in the device's memory, in their own dtype, each unique item once.
    """

    def __init__(self, pairs: Pairs, device: torch.device, memory: float | None = None) -> None:
        self._pairs = pairs
        self.device = device
        self._items: list[_Held] = []
        if self._bytes() <= (memory_for_rows(device) if memory is None else memory):
            self._items = [_Held(pairs, column, device) for column in range(len(MODALITIES))]

    @property
    def held(self) -> bool:
        """Whether all rows are in the device's memory."""
        return bool(self._items)

    def batches(self, indices: Sequence[Int64]) -> Iterator[Batch]:
        """Yield one batch for each array of pairs; rows that are not held are read one batch ahead.

        Held or not, the batches are the same.
        """
        if self.held:
            sequences, structures = (
                held.batches([column[each] for each in indices])
                for held, column in zip(self._items, self._pairs.items.T, strict=True)
            )
            yield from zip(sequences, structures, strict=True)
            return
        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(self._from_inputs, each) for each in indices[:1]]
            for following in chain(indices[1:], [None]):
                batch = coming.pop().result()
                if following is not None:
                    coming.append(reader.submit(self._from_inputs, following))
                yield batch

    def unique_items(self, wanted: Sequence[Int64]) -> Batch | None:
        """Return some unique sequences and some unique structures, by number; None if not held."""
        if not self.held:
            return None
        [sequence], [structure] = (
            held.batches([own]) for held, own in zip(self._items, wanted, strict=True)
        )
        return sequence, structure

    def _from_inputs(self, indices: Int64) -> Batch:
        positions = self._pairs.positions[indices]
        sequence, structure = (
            batch_of(self._pairs.inputs.rows(modality, positions), self.device)
            for modality in MODALITIES
        )
        return sequence, structure

    def _bytes(self) -> float:
        """Return the bytes of all rows."""
        inputs = self._pairs.inputs
        total = 0.0
        for column, modality in enumerate(MODALITIES):
            rows = inputs.lengths(modality)[self._pairs.positions_of_items(column)].sum()
            total += float(rows) * inputs.dims[modality] * inputs.dtype(modality).itemsize
        return total


class _Held:
    """Rows of the pairs' unique items of one modality, one item after another on a device."""

    def __init__(self, pairs: Pairs, column: int, device: torch.device) -> None:
        inputs, modality = pairs.inputs, MODALITIES[column]
        positions = pairs.positions_of_items(column)
        self._lengths = inputs.lengths(modality)[positions]
        self._starts = np.cumsum(self._lengths) - self._lengths
        dtype = torch.from_numpy(np.empty(0, inputs.dtype(modality))).dtype
        self._values = torch.empty(
            int(self._lengths.sum()), inputs.dims[modality], dtype=dtype, device=device
        )
        unfilled = self._values
        for rows in inputs.blocks(modality, positions):
            unfilled[: len(rows.values)] = moved(rows.values, device)
            unfilled = unfilled[len(rows.values) :]

    def batches(self, items: Sequence[Int64]) -> Iterator[ProteinBatch]:
        """Yield a batch for each array of items, in order; items may repeat. No row is copied."""
        lengths = [self._lengths[own] for own in items]
        if fused_pooling_on(self._values.device):
            yield from RangeBatch.several(
                self._values, [self._starts[own] for own in items], lengths
            )
            return
        for own, own_lengths in zip(items, lengths, strict=True):
            yield PackedBatch.of([self._proteins[item] for item in own.tolist()], own_lengths)

    @cached_property
    def _proteins(self) -> tuple[torch.Tensor, ...]:
        return self._values.split_with_sizes(self._lengths.tolist())


def memory_for_rows(device: torch.device) -> float:
    """Return the bytes of rows that may be held on a device; a machine's ranks share its own."""
    if device.type == "cuda":
        return GPU_MEMORY_PART * torch.cuda.mem_get_info(device)[0]
    return MEMORY_PART * usable_memory() / current().place.local_size
