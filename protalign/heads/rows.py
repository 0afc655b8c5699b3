"""Rows of training pairs: held where they are used if they fit, else read a batch ahead of use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from protalign.core.arrays import Int64
from protalign.core.protein import MODALITIES
from protalign.heads.inputs import Pairs
from protalign.heads.kernels.batch import ProteinBatch, batch_of
from protalign.heads.kernels.fused import RangeBatch, fused_pooling_on
from protalign.heads.kernels.packed import PackedBatch, moved

#: A batch of pairs: of their sequences and of their structures.
Batch = tuple[ProteinBatch, ProteinBatch]

#: Training and validation rows are each held in memory while they take less than this part of it.
MEMORY_PART = 0.25
#: The same of a GPU's memory, as far as it is free at that moment.
GPU_MEMORY_PART = 0.4


class Rows:
    """Rows of some pairs on a device, in batches.

    Parameters
    ----------
    pairs : whose rows.
    device : where batches are wanted, and rows are held.
    memory : bytes that may be held there; by default a part of what this process may use.

    Attributes
    ----------
    device : as given.
    held : whether all rows are in the device's memory, in their own dtype, where each unique item
        is there once.
    """

    def __init__(self, pairs: Pairs, device: torch.device, memory: float | None = None) -> None:
        self._pairs = pairs
        self.device = device
        self._items: list[_Held] = []
        if self._bytes() <= (_memory_for_rows(device) if memory is None else memory):
            self._items = [_Held(pairs, column, device) for column in range(len(MODALITIES))]

    @property
    def held(self) -> bool:
        return bool(self._items)

    def batches(self, indices: Sequence[Int64]) -> Iterator[Batch]:
        """One batch for each array of pairs; what is not held is read while the last one is used.

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

    def unique_items(self) -> Batch | None:
        """All unique sequences and all unique structures, in order; None where not held."""
        if not self.held:
            return None
        [sequence], [structure] = (held.batches([held.everything]) for held in self._items)
        return sequence, structure

    def _from_inputs(self, indices: Int64) -> Batch:
        positions = self._pairs.positions[indices]
        sequence, structure = (
            batch_of(self._pairs.inputs.rows(modality, positions), self.device)
            for modality in MODALITIES
        )
        return sequence, structure

    def _bytes(self) -> float:
        """Of all rows."""
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

    @property
    def everything(self) -> Int64:
        return np.arange(len(self._lengths))

    def batches(self, items: Sequence[Int64]) -> Iterator[ProteinBatch]:
        """A batch for each array of items, in order, repeated where one is; no row is copied."""
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


def _memory_for_rows(device: torch.device) -> float:
    """Bytes of rows that may be held on a device."""
    if device.type == "cuda":
        return GPU_MEMORY_PART * torch.cuda.mem_get_info(device)[0]
    return MEMORY_PART * usable_memory()


def usable_memory() -> float:
    """Bytes that this process may use: the machine's, or less where a limit is set.

    Heeds the limits of Linux's control groups (both versions), which containers and batch systems
    set, and of ``ulimit -v`` and ``ulimit -d``.
    """
    try:
        limits = [float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # no such figure on this system
        limits = [8e9]
    return min([*limits, *_cgroup_limits(), *_resource_limits()])


def _cgroup_limits(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[float]:
    """Memory limits of this process's control group and of those that it is in."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, file = (
            (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        )
        inner = folder / path.lstrip("/")  # in a container this is often not there: its root is
        for group in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # no such group; "max"
                yield float((group / file).read_text())
            if group == folder:
                break


def _resource_limits() -> Iterator[float]:
    try:
        import resource
    except ImportError:  # not a Unix
        return
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield float(soft)
