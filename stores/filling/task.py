"""Run tasks of a plan: encode their batches, check the rows, write them as whole chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32
from protalign.core.errors import InputError, ProtAlignError, show_traceback
from protalign.core.printing import one_line
from protalign.core.protein import Structure
from protalign.core.words import counted
from protalign.stores.filling.attempts import Attempts
from protalign.stores.filling.plan import PlanReader, Task
from protalign.stores.filling.probe import SEQUENCE, probe
from protalign.stores.format.append import open_for_writing
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.disk import flush_written
from protalign.stores.items import items_of

Item = tuple[str, ...] | Structure
#: Embeds a batch of items: one (L, D) array each.
Encode = Callable[[list[Any]], list[Float32]]
#: The items of a task, by number.
Inputs = dict[int, Item]
#: An item's embedding in the stored dtype, or the reason against it.
Encoded = npt.NDArray[Any] | InputError

#: Begins the reason against an item that ended the process: the next run takes a child at once.
ENDED = "it ended the encoder's process"
#: Letters of an exception's text that are kept.
_LONGEST_REASON = 300


class DamagedError(ProtAlignError):
    """After an item the encoder fails with items that it embedded before.

    On a GPU one failure may spoil all that follow. A new process does not have the damage.

    Parameters
    ----------
    refusal : InputError
        The reason against the item.
    """

    def __init__(self, refusal: InputError) -> None:
        self.refusal = refusal
        super().__init__(str(refusal))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.refusal,)


class FaultyResultError(InputError):
    """The encoder returned something that cannot be stored."""


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
        Items that could not be embedded. The task is then not marked as done yet: that waits until
        they are recorded.
    mended : tuple of int
        Items that failed in an earlier run and are embedded in this one.
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
    attempts : Attempts, optional
        Marks of the tasks under way.
    """

    def __init__(
        self, path: Path, encoder: str, encode: Encode, attempts: Attempts | None = None
    ) -> None:
        self._path = path
        self._encoder = encoder
        self._encode = encode
        self._attempts = attempts
        arrays = LocalArrays(path)
        state = arrays.state.encoders[encoder]
        self._record, self._chunk_rows = state.record, state.chunk_rows
        self._refused = {item for item, _, _ in state.failed}
        self._items = items_of(arrays, self._record.modality)
        self._plan = PlanReader(arrays, encoder)
        self._start = arrays.read(f"encoders/{encoder}/start")
        self._length = arrays.read(f"encoders/{encoder}/length").astype(np.int64)
        #: An item that the encoder has embedded in this process, and the rows of its embedding.
        self.embedded: tuple[Item, int] | None = None

    def run(self, index: int) -> TaskResult:
        """Encode a task's batches one after another, and write its chunks.

        The task's mark in ``done`` is the last thing written. Raises as ``encode_batch`` does.
        """
        task = self._plan.read(index)
        inputs = self.inputs(task)
        return self.finish(task, (self.encode_batch(batch, inputs) for batch in task.batches))

    def read(self, index: int) -> Task:
        """Return a task by its number."""
        return self._plan.read(index)

    def inputs(self, task: Task) -> Inputs:
        """Read a task's items from the store."""
        if self._attempts is not None:
            self._attempts.begin(task.index)
        return self.items(task.items)

    def items(self, numbers: Sequence[int]) -> Inputs:
        """Read items from the store; their numbers follow one another."""
        items = self._items.several(numbers[0], numbers[-1] + 1)
        return dict(zip(numbers, items, strict=True))

    def encode_batch(self, batch: list[int], inputs: Inputs) -> list[Encoded]:
        """Encode a batch of a task's items, and check the embeddings.

        If that fails, each item is tried by itself: one that fails alone gets its reason, the
        others their embeddings.

        Raises
        ------
        ProtAlignError
            The fault is the encoder's: it fails with a small known protein as well.
        DamagedError
            The encoder has embedded items before, and no longer does.
        """
        results = self._try(batch, inputs)
        if isinstance(results, list):
            self.embedded = inputs[batch[0]], len(results[0])
            return [*results]
        alone: list[list[npt.NDArray[Any]] | BaseException]
        alone = [results] if len(batch) == 1 else [self._try([item], inputs) for item in batch]
        for item, result in zip(batch, alone, strict=True):
            if isinstance(result, list):
                self.embedded = inputs[item], len(result[0])
        faults = [error for error in alone if not isinstance(error, list) and not refuses(error)]
        if faults and not isinstance(alone[-1], list):
            self._embed_known(faults[0])
        return [r[0] if isinstance(r, list) else refusal(r) for r in alone]

    def _try(self, batch: list[int], inputs: Inputs) -> list[npt.NDArray[Any]] | BaseException:
        """Return a batch's embeddings in the stored dtype, or any exception but Ctrl-C."""
        try:
            results = self._encode([inputs[item] for item in batch])
            if len(results) != len(batch):
                raise FaultyResultError(
                    f"the encoder returned {counted(len(results), 'array')} for "
                    f"{counted(len(batch), 'item')}",
                    "this is a fault of the encoder",
                )
            rows = self._length[batch].tolist()
            return [self._stored(*pair) for pair in zip(results, rows, strict=True)]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # libraries in Rust panic with one
            if not refuses(error):
                show_traceback(error)
            error.__cause__ = error.__context__ = None  # their frames hold the batch's tensors
            return error.with_traceback(None)

    def _stored(self, array: Float32, rows: int) -> npt.NDArray[Any]:
        """Check an item's embedding, and convert it to the stored dtype."""
        array = np.asarray(array)
        if array.shape != (rows, self._record.dim):
            raise FaultyResultError(
                f"the encoder returned an array of shape {array.shape} instead of "
                f"{(rows, self._record.dim)}",
                "this is a fault of the encoder",
            )
        if not np.isfinite(array).all():
            raise FaultyResultError(
                "the encoder returned NaN or infinite values", "compute in float32 (--dtype)"
            )
        largest = float(np.abs(array).max(initial=0))
        if largest > float(np.finfo(self._record.dtype).max):
            raise FaultyResultError(
                f"a value of {largest:.3g} does not fit into {self._record.dtype}",
                "store float32 under another name",
            )
        return array.astype(self._record.dtype)

    def check(self) -> None:
        """Embed a small known protein; if that works, it is what the encoder must embed later."""
        with suppress(ProtAlignError):
            self._embed_known(ProtAlignError())
            self.embedded = probe(self._record.modality), len(SEQUENCE)

    def _embed_known(self, fault: BaseException) -> None:
        """Raise unless the encoder still embeds what it did, or else a small known protein."""
        item, rows = self.embedded or (probe(self._record.modality), len(SEQUENCE))
        try:
            (array,) = self._encode([item])
            self._stored(array, rows)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if refuses(error):  # it works, and does not take this protein
                return
            show_traceback(error)
        else:
            return
        if self.embedded is not None:
            raise DamagedError(refusal(fault))
        raise stopped(self._encoder, fault)

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
        flush_written()
        if not failed:
            mark_done(self._path, self._encoder, task.index)
        if self._attempts is not None:
            self._attempts.end(task.index)
        mended = self._refused & set(task.items) - {item for item, _, _ in failed}
        return TaskResult(task.index, items, rows, tuple(failed), tuple(sorted(mended)))


def mark_done(path: Path, encoder: str, index: int) -> None:
    """Let a task count as done."""
    open_for_writing(path, f"encoders/{encoder}/done")[index : index + 1] = np.uint8(1)


def refuses(error: BaseException) -> bool:
    """Return whether an exception speaks of an item alone, and not of the encoder."""
    if isinstance(error, InputError):
        return not isinstance(error, FaultyResultError)
    return _is_out_of_memory(error)


def refusal(error: BaseException) -> InputError:
    """Return the reason against an item that made the encoder raise ``error``."""
    if isinstance(error, InputError):
        return InputError(one_line(error.reason, _LONGEST_REASON), one_line(error.advice))
    if _is_out_of_memory(error):
        return InputError(
            f"it does not fit in memory ({_in_one_line(error)})",
            "use a machine with more memory or a smaller model, or leave it out",
        )
    return InputError(
        f"the encoder failed with {_in_one_line(error)}",
        "leave it out, and report this to the encoder's author",
    )


def stopped(encoder: str, error: BaseException) -> ProtAlignError:
    """Return the error for an exception of the encoder's, or of the system's."""
    return ProtAlignError(
        f"encoding with {encoder} stopped: {_in_one_line(error)}; what is finished is kept, the "
        "next run continues from there"
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; ``core.devices`` knows more kinds, but imports torch."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in one_line(error).lower()
    )


def _in_one_line(error: BaseException) -> str:
    text = one_line(error, _LONGEST_REASON)
    name = "" if isinstance(error, ProtAlignError) else type(error).__name__
    return ": ".join(filter(None, (name, text)))
