"""One task of a plan: encode its batches, check the rows, write them as whole chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Semaphore
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.errors import InputError, ProtAlignError, StoreError
from protalign.core.protein import Structure
from protalign.stores.filling.progress import PlanReader, Task
from protalign.stores.format.append import open_for_writing
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.items import items_of

Item = tuple[str, ...] | Structure
#: Embeds a batch of items: one (L, D) array each.
Encode = Callable[[list[Any]], list[npt.NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Threads:
    """In how many threads of a process ``encode`` is called at once.

    Attributes
    ----------
    count : of threads.
    begin : picklable; what each calls first.
    alone : picklable; called first in the thread that encodes a batch that is all of its task,
        while no other is encoded.
    """

    count: int = 1
    begin: Callable[[], None] | None = None
    alone: Callable[[], None] | None = None

    @property
    def tasks_at_once(self) -> int:
        """With several threads two: those that a task's last batches leave idle begin the next."""
        return 2 if self.count > 1 else 1


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task did.

    Attributes
    ----------
    index : the task's number.
    items, rows : embedded by it.
    failed : items that the encoder refused: (item, reason, advice). The task is then not marked
        as done yet: that waits until they are recorded.
    mended : items that an earlier run's encoder refused and this one's took.
    """

    index: int
    items: int
    rows: int
    failed: tuple[tuple[int, str, str], ...]
    mended: tuple[int, ...] = ()


ONE_THREAD = Threads()


class InterruptedRunError(ProtAlignError):
    """The run was asked to stop before this task was finished."""


class TaskRunner:
    """Runs tasks of one encoder's plan in this process; opened once for many tasks.

    ``threads.tasks_at_once`` may run at once; together they encode ``threads.count`` batches.
    """

    def __init__(self, path: str, encoder: str, encode: Encode, threads: Threads) -> None:
        self._path = Path(path)
        self._encoder = encoder
        self._encode = encode
        self._pool, self._alone = None, threads.alone
        # A batch alone takes the turns of all tasks that may run, one such batch after another.
        self._turns, self._taking = Semaphore(threads.tasks_at_once), Lock()
        self._tasks_at_once = threads.tasks_at_once
        if threads.count > 1:
            self._pool = ThreadPoolExecutor(threads.count, initializer=threads.begin)
        self._arrays = LocalArrays(self._path)
        state = self._arrays.state.encoders[encoder]
        self._record, self._chunk_rows = state.record, state.chunk_rows
        self._refused = {item for item, _, _ in state.failed}
        self._items = items_of(self._arrays, self._record.modality)
        self._plan = PlanReader(self._arrays, encoder)
        self._start = self._arrays.read(f"encoders/{encoder}/start")
        self._length = self._arrays.read(f"encoders/{encoder}/length").astype(np.int64)

    def run(self, index: int, stopped: Callable[[], bool]) -> TaskResult:
        """Encode a task and write its chunks; its mark in ``done`` is the last thing written.

        Raises ProtAlignError if the encoder returns what cannot be stored, InterruptedRunError
        if ``stopped()`` is true between two batches.
        """
        task = self._plan.read(index)
        with self._turn(self._tasks_at_once if len(task.batches) == 1 else 1):
            return self._run(task, index, stopped)

    @contextmanager
    def _turn(self, count: int) -> Iterator[None]:
        with self._taking:  # two that each wait for the other's would wait forever
            for _ in range(count):
                self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release(count)

    def _run(self, task: Task, index: int, stopped: Callable[[], bool]) -> TaskResult:
        values = np.zeros((task.end - task.row, self._record.dim), dtype=self._record.dtype)
        items = rows = 0
        failed: list[tuple[int, str, str]] = []
        results = self._encode_batches(task.batches, stopped)
        for batch, encoded in zip(task.batches, results, strict=True):
            for item, result in zip(batch, encoded, strict=True):
                if isinstance(result, InputError):
                    failed.append((item, result.reason, result.advice))
                    continue
                begin = int(self._start[item]) - task.row
                values[begin : begin + len(result)] = result
                items, rows = items + 1, rows + len(result)
        self._write(task, values)
        if not failed:
            mark_done(self._path, self._encoder, index)
        still = {item for item, _, _ in failed}
        here = {item for batch in task.batches for item in batch}
        mended = tuple(sorted((self._refused & here) - still))
        return TaskResult(index, items, rows, tuple(failed), mended)

    def _encode_batches(
        self, batches: list[list[int]], stopped: Callable[[], bool]
    ) -> Iterator[list[npt.NDArray[Any] | InputError]]:
        """Of each batch, in order; several at once where there are threads for it."""

        first, last = batches[0][0], batches[-1][-1]  # a plan takes items as they are numbered
        inputs: dict[int, Item] = dict(enumerate(self._items.several(first, last + 1), start=first))

        def encode(batch: list[int]) -> list[npt.NDArray[Any] | InputError]:
            if stopped():
                raise InterruptedRunError("the run was interrupted")
            return self._encode_batch(batch, inputs)

        if self._pool is not None and len(batches) > 1:
            return self._pool.map(encode, batches)
        if self._pool is not None and self._alone is not None:
            # One batch alone has all cores: the encoder's own operations are shared out then.
            self._alone()
        return map(encode, batches)

    def _encode_batch(
        self, batch: list[int], inputs: dict[int, Item]
    ) -> list[npt.NDArray[Any] | InputError]:
        """An array in the stored dtype for each item, or why there is none."""
        try:
            results = self._encode([inputs[item] for item in batch])
        except InputError as error:
            if len(batch) == 1:
                return [error]
            # One item spoils the batch: each by itself tells which, and keeps the others.
            return [result for item in batch for result in self._encode_batch([item], inputs)]
        if len(results) != len(batch):
            raise ProtAlignError(
                f"encoder {self._encoder} returned {len(results)} arrays for {len(batch)} items; "
                "this is a fault of the encoder"
            )
        return [self._stored(item, array) for item, array in zip(batch, results, strict=True)]

    def _stored(self, item: int, array: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """An item's embedding, checked, in the stored dtype."""
        array = np.asarray(array)
        expected = (int(self._length[item]), self._record.dim)
        what = f"encoder {self._encoder}, {self._record.modality} item {item}"
        if array.shape != expected:
            raise ProtAlignError(
                f"{what}: it returned an array of shape {array.shape} instead of {expected}; "
                "this is a fault of the encoder"
            )
        if not np.isfinite(array).all():
            raise ProtAlignError(
                f"{what}: it returned values that are not finite; compute in float32 (--dtype)"
            )
        largest = float(np.abs(array).max(initial=0))
        if largest > float(np.finfo(self._record.dtype).max):
            raise StoreError(
                f"{what}: a value of {largest:.3g} does not fit into {self._record.dtype}; store "
                "float32 under another name"
            )
        return array.astype(self._record.dtype)

    def _write(self, task: Task, values: npt.NDArray[Any]) -> None:
        target = open_for_writing(self._path, f"encoders/{self._encoder}/values")
        for begin in range(0, len(values), self._chunk_rows):
            block = values[begin : begin + self._chunk_rows]
            target[task.row + begin : task.row + begin + len(block)] = block


def mark_done(path: Path, encoder: str, index: int) -> None:
    """Let a task count as done."""
    open_for_writing(path, f"encoders/{encoder}/done")[index : index + 1] = np.uint8(1)
