"""Check chunks of a store's arrays against what was recorded of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np

from protalign.core.arrays import Bool, Int64
from protalign.core.errors import StoreError
from protalign.stores.filling.plan import PlanReader
from protalign.stores.format.arrays import LocalArrays, check_chunk, check_place, open_chunk
from protalign.stores.format.checksums import ChunkChecksums, DamagedEntryError
from protalign.stores.format.layout import ArraySpec
from protalign.stores.format.state import StoreState, is_filled_by_tasks, load_state

#: The one fault that an upgrade mends.
NOT_RECORDED = (
    "has no recorded checksum, so it cannot be told from another chunk; if nothing was copied into "
    "the store, record it with `protalign verify --upgrade`"
)


#: Brings a file of a store's folder here, for as long as it is read.
Fetched = Callable[[str], AbstractContextManager[None]]


class ChunkRange(NamedTuple):
    """Some chunks of an array, by number."""

    array: str
    chunks: Int64


class ChunkFaults(NamedTuple):
    """What was found in some chunks: (number, fault) of those with one, and the bytes read."""

    faults: list[tuple[int, str]]
    bytes: int


class ChunkCheck:
    """Checks chunks of a store as it was at one state; a worker opens it by path.

    Parameters
    ----------
    folder : Path
        The store.
    state : StoreState
        What is committed.
    fetched : callable, optional
        Brings a file of the folder here for as long as it is read, if it is not. Workers get none.
    """

    def __init__(self, folder: Path, state: StoreState, fetched: Fetched | None = None) -> None:
        self._folder = folder
        self._fetched = fetched or (lambda key: nullcontext())
        self._state = state
        #: Read whatever the descriptions of arrays say, so that ids are found in spite of them.
        self.arrays = LocalArrays(folder, state, described=False)
        self._plans: dict[str, PlanReader | None] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return _in_worker, (self._folder, self._state)

    def __call__(self, some: ChunkRange) -> ChunkFaults:
        """Look at some chunks."""
        spec = self.arrays.spec(some.array)
        faults, read = [], 0
        for index in some.chunks.tolist():
            reason, size = self._fault(some.array, spec, index)
            if reason and reason != NOT_RECORDED:
                reason, size = self._fault(some.array, spec, index)  # it may just be written anew
            if reason:
                faults.append((index, reason))
            read += size
        return ChunkFaults(faults, read)

    def plan(self, encoder: str) -> PlanReader | None:
        """Return an encoder's plan, None if it cannot be read."""
        if encoder not in self._plans:
            try:
                self._plans[encoder] = PlanReader(self.arrays, encoder)
            except StoreError:
                self._plans[encoder] = None
        return self._plans[encoder]

    def _fault(self, name: str, spec: ArraySpec, index: int) -> tuple[str, int]:
        with self._fetched(f"{name}/{spec.chunk_key(index)}"):
            return self._fault_here(name, spec, index)

    def _fault_here(self, name: str, spec: ArraySpec, index: int) -> tuple[str, int]:
        data, reason = open_chunk(self._folder / name / spec.chunk_key(index), spec)
        reason = reason or check_chunk(data, spec)
        if not reason and name.endswith("/done"):
            marked = index >= self._state.encoders[name.split("/")[1]].tasks_done
            reason = "" if data[0] == 1 or (marked and data[0] == 0) else "does not say done"
        elif not reason and self._state.bound:
            try:
                recorded = ChunkChecksums(self._folder, name).get(index)
                reason = check_place(data, name, index, spec, self._state, recorded)
                full = self._state.rows(name) - index * spec.chunk_rows >= spec.chunk_rows
                if not reason and full and recorded is None and self._must_be_recorded(name, index):
                    reason = NOT_RECORDED
            except DamagedEntryError as error:
                reason = f"cannot be told from another chunk, since {error}"
        return reason, len(data)

    def _must_be_recorded(self, name: str, index: int) -> bool:
        """Return whether a full chunk's checksum is recorded unless that was lost.

        Those of tasks are recorded when the encoder is finished, and taken back while a task with
        refused items is tried again.
        """
        if not is_filled_by_tasks(name):
            return True
        encoder = name.split("/")[1]
        state, plan = self._state.encoders[encoder], self.plan(encoder)
        if plan is None:
            return False
        chunk_rows = self.arrays.spec(name).chunk_rows
        task = int(np.searchsorted(plan.row // chunk_rows, index, side="right")) - 1
        refused: Bool = plan.pending & plan.done
        return task < state.tasks_done and not refused[task]


def _in_worker(folder: Path, state: StoreState) -> ChunkCheck:
    """Unpickle a check; raise StoreError where the store is missing, which is no damage of it."""
    there = load_state(folder)
    if any(there.rows(name) < state.rows(name) for name in state.arrays()):
        raise StoreError(
            f"{folder}: it is another store here, or an older state of it; give every worker the "
            "same folder under this path"
        )
    return ChunkCheck(folder, state)
