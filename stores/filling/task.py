"""Run tasks of a plan: encode their batches, check the rows, write them as whole chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32
from protalign.core.errors import InputError, ProtAlignError, StoreError
from protalign.core.protein import Structure
from protalign.stores.filling.plan import PlanReader, Task
from protalign.stores.format.append import open_for_writing
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.items import items_of

Item = tuple[str, ...] | Structure
#: Embeds a batch of items: one (L, D) array each.
Encode = Callable[[list[Any]], list[Float32]]
#: The items of a task, by number.
Inputs = dict[int, Item]
#: An item's embedding in the stored dtype, or the reason against it.
Encoded = npt.NDArray[Any] | InputError


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The outcome of one task.

    Attributes
    ----------
    index : int
        The task's number.
    items, rows : int
        Items and rows that it embedded.
    failed : tuple of (item, reason, advice)
        Items that the encoder refused. The task is then not marked as done yet: that waits until
        they are recorded.
    mended : tuple of int
        Items that the encoder refused in an earlier run and embedded in this one.
    """

    index: int
    items: int
    rows: int
    failed: tuple[tuple[int, str, str], ...]
    mended: tuple[int, ...] = ()


class TaskRunner:
    """Runs tasks of one encoder's plan in this process; opened once for many tasks.

    Parameters
    ----------
    path : Path
        The store's folder.
    encoder : str
        The encoder's name in the store.
    encode : callable
        Takes a batch of items and returns one (L, D) float32 array each.
    """

    def __init__(self, path: Path, encoder: str, encode: Encode) -> None:
        self._path = path
        self._encoder = encoder
        self._encode = encode
        arrays = LocalArrays(path)
        state = arrays.state.encoders[encoder]
        self._record, self._chunk_rows = state.record, state.chunk_rows
        self._refused = {item for item, _, _ in state.failed}
        self._items = items_of(arrays, self._record.modality)
        self._plan = PlanReader(arrays, encoder)
        self._start = arrays.read(f"encoders/{encoder}/start")
        self._length = arrays.read(f"encoders/{encoder}/length").astype(np.int64)

    def run(self, index: int) -> TaskResult:
        """Encode a task's batches one after another, and write its chunks.

        The task's mark in ``done`` is the last thing written. Raises ProtAlignError if the encoder
        returns something that cannot be stored.
        """
        task = self._plan.read(index)
        inputs = self.inputs(task)
        return self.finish(task, (self.encode_batch(batch, inputs) for batch in task.batches))

    def read(self, index: int) -> Task:
        """Return a task by its number."""
        return self._plan.read(index)

    def inputs(self, task: Task) -> Inputs:
        """Read a task's items from the store."""
        items = self._items.several(task.items.start, task.items.stop)
        return dict(zip(task.items, items, strict=True))

    def encode_batch(self, batch: list[int], inputs: Inputs) -> list[Encoded]:
        """Encode a batch of a task's items, and check the embeddings.

        Raise ProtAlignError if the encoder returns something that cannot be stored.
        """
        try:
            results = self._encode([inputs[item] for item in batch])
        except InputError as error:
            if len(batch) == 1:
                return [error]
            # One item spoils the batch: each by itself tells which, and keeps the others.
            return [result for item in batch for result in self.encode_batch([item], inputs)]
        if len(results) != len(batch):
            raise ProtAlignError(
                f"encoder {self._encoder}: it returned {len(results)} arrays for {len(batch)} "
                "items; this is a fault of the encoder"
            )
        return [self._stored(item, array) for item, array in zip(batch, results, strict=True)]

    def _stored(self, item: int, array: Float32) -> npt.NDArray[Any]:
        """Check an item's embedding, and convert it to the stored dtype."""
        array = np.asarray(array)
        expected = (int(self._length[item]), self._record.dim)
        subject = f"encoder {self._encoder}, {self._record.modality} item {item}"
        if array.shape != expected:
            raise ProtAlignError(
                f"{subject}: it returned an array of shape {array.shape} instead of {expected}; "
                "this is a fault of the encoder"
            )
        if not np.isfinite(array).all():
            raise ProtAlignError(
                f"{subject}: it returned NaN or infinite values; compute in float32 (--dtype)"
            )
        largest = float(np.abs(array).max(initial=0))
        if largest > float(np.finfo(self._record.dtype).max):
            raise StoreError(
                f"{subject}: a value of {largest:.3g} does not fit into {self._record.dtype}; "
                "store float32 under another name"
            )
        return array.astype(self._record.dtype)

    def finish(self, task: Task, batches: Iterable[list[Encoded]]) -> TaskResult:
        """Write a task's chunks from its batches' results, in order.

        The task's mark in ``done`` is the last thing written.
        """
        values = np.zeros((task.end - task.row, self._record.dim), dtype=self._record.dtype)
        items = rows = 0
        failed: list[tuple[int, str, str]] = []
        results = (result for batch in batches for result in batch)
        for item, result in zip(task.items, results, strict=True):
            if isinstance(result, InputError):
                failed.append((item, result.reason, result.advice))
                continue
            begin = int(self._start[item]) - task.row
            values[begin : begin + len(result)] = result
            items, rows = items + 1, rows + len(result)
        target = open_for_writing(self._path, f"encoders/{self._encoder}/values")
        for begin in range(0, len(values), self._chunk_rows):
            block = values[begin : begin + self._chunk_rows]
            target[task.row + begin : task.row + begin + len(block)] = block
        if not failed:
            mark_done(self._path, self._encoder, task.index)
        mended = self._refused & set(task.items) - {item for item, _, _ in failed}
        return TaskResult(task.index, items, rows, tuple(failed), tuple(sorted(mended)))


def mark_done(path: Path, encoder: str, index: int) -> None:
    """Let a task count as done."""
    open_for_writing(path, f"encoders/{encoder}/done")[index : index + 1] = np.uint8(1)


def stopped(encoder: str, error: Exception) -> ProtAlignError:
    """Return the error for an exception of the encoder's, or of the system's."""
    return ProtAlignError(
        f"encoding with {encoder} stopped: {type(error).__name__}: {error}; what is finished is "
        "kept, the next run continues from there"
    )
