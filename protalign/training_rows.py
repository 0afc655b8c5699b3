"""Rows of training pairs: held in memory where they fit, else read a batch ahead of their use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from protalign.inputs import MODALITIES, Pairs
from protalign.packed import PackedBatch, tensor
from protalign.protein import Modality

Int64 = npt.NDArray[np.int64]
#: A batch of pairs: of their sequences and of their structures.
Batch = tuple[PackedBatch, PackedBatch]

#: Training and validation rows are each held in memory while they take less than this part of it.
MEMORY_PART = 0.25


class Rows:
    """Rows of some pairs on a device, in batches.

    Parameters
    ----------
    pairs : whose rows.
    device : where batches are wanted.
    memory : bytes that may be held; by default a part of what this process may use.

    Attributes
    ----------
    held : whether all rows are in memory, where each unique item is there once.
    """

    def __init__(self, pairs: Pairs, device: torch.device, memory: float | None = None) -> None:
        self._pairs = pairs
        self._device = device
        self._items: list[_Held] = []
        if self._bytes() <= (MEMORY_PART * usable_memory() if memory is None else memory):
            self._items = [_Held(pairs, column) for column in range(len(MODALITIES))]

    @property
    def held(self) -> bool:
        return bool(self._items)

    def batches(self, indices: Sequence[Int64]) -> Iterator[Batch]:
        """One batch for each array of pairs; what is not held is read while the last one is used.

        Held or not, the batches are the same.
        """
        if self.held:
            yield from map(self._from_memory, indices)
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
        sequence, structure = (held.batch(held.everything, self._device) for held in self._items)
        return sequence, structure

    def _from_memory(self, indices: Int64) -> Batch:
        sequence, structure = (
            held.batch(items, self._device)
            for held, items in zip(self._items, self._pairs.items[indices].T, strict=True)
        )
        return sequence, structure

    def _from_inputs(self, indices: Int64) -> Batch:
        positions = self._pairs.positions[indices]
        sequence, structure = (
            PackedBatch.from_ragged(self._pairs.inputs.rows(modality, positions), self._device)
            for modality in MODALITIES
        )
        return sequence, structure

    def _bytes(self) -> float:
        """Of all rows: in the stored dtype from a store, else taken as float32."""
        inputs = self._pairs.inputs
        total = 0.0
        for column, modality in enumerate(MODALITIES):
            rows = inputs.lengths(modality)[self._pairs.positions_of_items(column)].sum()
            info = inputs.encoders.get(modality)
            itemsize = np.dtype(info.dtype).itemsize if info else 4
            total += float(rows) * inputs.dims[modality] * itemsize
        return total


class _Held:
    """Rows of the pairs' unique items of one modality."""

    def __init__(self, pairs: Pairs, column: int) -> None:
        modality: Modality = MODALITIES[column]
        rows = pairs.inputs.rows(modality, pairs.positions_of_items(column))
        self._lengths = rows.lengths
        self._proteins = tensor(rows.values).split_with_sizes(rows.lengths.tolist())

    @property
    def everything(self) -> Int64:
        return np.arange(len(self._lengths))

    def batch(self, items: Int64, device: torch.device) -> PackedBatch:
        """Some items, in order, repeated where one is; on a CPU without a copy."""
        lengths = self._lengths[items]
        proteins = [self._proteins[item] for item in items.tolist()]
        if device.type == "cpu":
            return PackedBatch.of(proteins, lengths)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return PackedBatch.from_tensor(torch.cat(proteins).to(device), offsets)


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
