"""Rows of training pairs: held on their device if they fit, else read ahead of use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch

from protalign.core.arrays import Int64
from protalign.core.devices import runs_triton
from protalign.core.machine import usable_memory
from protalign.core.protein import MODALITIES
from protalign.core.ragged import Ragged
from protalign.heads.distributed import current
from protalign.heads.kernels.batch import ProteinBatch, batch_of
from protalign.heads.kernels.fused import RangeBatch
from protalign.heads.kernels.packed import PackedBatch, moved, tensor
from protalign.heads.order import LEAST_WINDOW, Blocks, Order
from protalign.heads.pairs import Pairs

#: A batch of pairs: of their sequences and of their structures.
Batch = tuple[ProteinBatch, ProteinBatch]

#: Training and validation rows are each held in memory while they take less than this part of it.
MEMORY_PART = 0.25
#: The same part of a GPU's memory that is free at that moment.
GPU_MEMORY_PART = 0.4
#: Windows in memory at once: one is in use, the next one is read, and the one before is let go when
#: its last batch is trained on.
WINDOWS = 3

T = TypeVar("T")


class Rows:
    """Rows of some pairs on a device, in batches.

    Parameters
    ----------
    pairs : Pairs
        The pairs.
    device : torch.device
        The device of the batches and of the rows that are held.
    memory : float, optional
        Bytes that may be held there; default: a part of what this process may use. Windows of rows
        that are not held take as much of the machine's memory, or 3 times ``order.LEAST_WINDOW``.

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
        ranks = current()
        if memory is None:  # ranks that train together take pairs in one order
            held = ranks.all_agree(self._bytes() <= memory_for_rows(device))
            in_windows = ranks.number_of_first(lambda: memory_for_rows(torch.device("cpu")))
        else:
            held, in_windows = self._bytes() <= memory, memory
        if held:
            self._items = [_Held(pairs, column, device) for column in range(len(MODALITIES))]
        self._window_bytes = max(in_windows / WINDOWS, LEAST_WINDOW)
        # The same threads in all epochs: the allocator gives what a thread let go to that one only.
        self._batch_maker, self._reader = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    @property
    def held(self) -> bool:
        """Whether all rows are in the device's memory."""
        return bool(self._items)

    def order(self, batch_size: int, generator: np.random.Generator) -> Order:
        """Draw the order of an epoch: a full shuffle, unless rows are read from a disk for it."""
        if self._blocks is None:
            return Order.cut(generator.permutation(len(self._pairs)), batch_size)
        return self._blocks.order(batch_size, generator)

    def batches(self, indices: Sequence[Int64], windows: Sequence[Int64] = ()) -> Iterator[Batch]:
        """Yield one batch for each array of pairs; rows that are not held are read ahead of use.

        Held or not, the batches of the same pairs are the same.

        Parameters
        ----------
        indices : sequence of (b,) int64
            The pairs of each batch.
        windows : sequence of (w,) int64, optional
            As of ``Order``: each is read at once. The batches may leave out some of their pairs,
            which are then not read. Without any, each batch is read by itself.
        """
        if self.held:
            sequences, structures = (
                held.batches([column[each] for each in indices])
                for held, column in zip(self._items, self._pairs.items.T, strict=True)
            )
            yield from zip(sequences, structures, strict=True)
        elif windows:
            yield from _ahead(self._from_windows(indices, windows), self._batch_maker)
        else:
            yield from _ahead(map(self._from_inputs, indices), self._batch_maker)

    def unique_items(self, wanted: Sequence[Int64]) -> Batch | None:
        """Return some unique sequences and some unique structures, by number; None if not held."""
        if not self.held:
            return None
        [sequence], [structure] = (
            held.batches([own]) for held, own in zip(self._items, wanted, strict=True)
        )
        return sequence, structure

    @cached_property
    def _blocks(self) -> Blocks | None:
        return None if self.held else Blocks.of(self._pairs, self._window_bytes)

    def _from_windows(self, indices: Sequence[Int64], windows: Sequence[Int64]) -> Iterator[Batch]:
        wanted = np.zeros(len(self._pairs), dtype=np.bool_)
        for pairs in indices:
            wanted[pairs] = True
        parts = [own for pairs in windows if len(own := pairs[wanted[pairs]])]
        window_of, place = np.empty((2, len(self._pairs)), dtype=np.int64)
        for number, pairs in enumerate(parts):
            window_of[pairs], place[pairs] = number, np.arange(len(pairs))
        read = _ahead((_Window(self._pairs, pairs) for pairs in parts), self._reader)
        at = -1
        for pairs in indices:
            rows: tuple[list[torch.Tensor], ...] = ([], [])
            lengths: tuple[list[Int64], ...] = ([], [])
            for own in np.split(pairs, np.flatnonzero(np.diff(window_of[pairs])) + 1):
                if window_of[own[0]] != at:
                    window, at = next(read), at + 1
                for column in range(len(MODALITIES)):
                    own_rows, own_lengths = window.rows(column, place[own])
                    rows[column].extend(own_rows)
                    lengths[column].append(own_lengths)
            sequence, structure = (
                self._batch(own_rows, np.concatenate(own_lengths))
                for own_rows, own_lengths in zip(rows, lengths, strict=True)
            )
            yield sequence, structure

    def _batch(self, rows: Sequence[torch.Tensor], lengths: Int64) -> ProteinBatch:
        if self.device.type == "cpu" and not runs_triton(self.device):
            return PackedBatch.of(rows, lengths)  # none is copied
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return batch_of(Ragged(torch.cat(list(rows)).numpy(), offsets), self.device)

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
        if runs_triton(self._values.device):
            yield from RangeBatch.several(
                self._values, [self._starts[own] for own in items], lengths
            )
            return
        for own, own_lengths in zip(items, lengths, strict=True):
            yield PackedBatch.of([self._proteins[item] for item in own.tolist()], own_lengths)

    @cached_property
    def _proteins(self) -> tuple[torch.Tensor, ...]:
        return self._values.split_with_sizes(self._lengths.tolist())


class _Window:
    """Rows of a window's pairs in the machine's memory, each unique item's once."""

    def __init__(self, pairs: Pairs, indices: Int64) -> None:
        self._rows: list[list[torch.Tensor]] = []
        self._lengths: list[Int64] = []
        self._item: list[Int64] = []
        for column, modality in enumerate(MODALITIES):
            _, first, item = np.unique(
                pairs.items[indices, column], return_index=True, return_inverse=True
            )
            positions = pairs.positions[indices[first]]
            rows: list[torch.Tensor] = []
            # Items are numbered in the order of their rows in a store.
            for block in pairs.inputs.blocks(modality, positions):
                rows += tensor(block.values).split_with_sizes(block.lengths.tolist())
            self._rows.append(rows)
            self._lengths.append(pairs.inputs.lengths(modality)[positions])
            self._item.append(item)

    def rows(self, column: int, places: Int64) -> tuple[list[torch.Tensor], Int64]:
        """Return the rows of some pairs by their places in the window, and how many; no copies."""
        rows, items = self._rows[column], self._item[column][places]
        return [rows[item] for item in items.tolist()], self._lengths[column][items]


def _ahead(items: Iterator[T], maker: ThreadPoolExecutor) -> Iterator[T]:
    """Yield what an iterator yields; the next is made in the maker's thread while one is used."""
    coming = maker.submit(next, items, None)
    try:
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item
    finally:  # what runs already, runs to its end before the maker's next work
        coming.cancel()


def memory_for_rows(device: torch.device) -> float:
    """Return the bytes of rows that may be held on a device; a machine's ranks share its own."""
    if device.type == "cuda":
        return GPU_MEMORY_PART * torch.cuda.mem_get_info(device)[0]
    return MEMORY_PART * usable_memory() / current().place.local_size
