"""Record the checksums of the chunks that tasks have written, each at its place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from protalign.stores.filling.plan import PlanReader
from protalign.stores.format.arrays import Arrays
from protalign.stores.format.checksums import ChunkChecksums, stored_checksum
from protalign.stores.format.disk import adopt


class TaskChecksums:
    """The recorded checksums of an encoder's values; nothing is recorded before format 1.1.

    One process records, the one that writes to the store. A task's checksums are taken back before
    it runs again, and recorded when its chunks are written.

    Parameters
    ----------
    path : Path
        The store's folder.
    arrays : Arrays
        Its arrays.
    encoder : str
        The encoder's name in the store.
    plan : PlanReader
        Its plan.
    """

    def __init__(self, path: Path, arrays: Arrays, encoder: str, plan: PlanReader) -> None:
        self._path = path
        self._name = f"encoders/{encoder}/values"
        self._spec = arrays.spec(self._name)
        self._bound = arrays.state.bound
        self._plan = plan
        self._recorded = ChunkChecksums(path, self._name)
        first = plan.row // self._spec.chunk_rows
        self._first = np.append(first, arrays.rows(self._name) // self._spec.chunk_rows)

    def _chunks(self, task: int) -> range:
        return range(int(self._first[task]), int(self._first[task + 1]))

    def forget(self, tasks: Iterable[int]) -> None:
        """Take back the checksums of tasks that are about to run."""
        if self._bound and self._recorded.count():
            self._recorded.forget(chunk for task in tasks for chunk in self._chunks(task))

    def adopt(self, task: int) -> None:
        """Bring a task's chunks, which another process wrote, to where the folder stands for."""
        group = self._name.rpartition("/")[0]
        chunks = [
            self._path / self._name / self._spec.chunk_key(chunk) for chunk in self._chunks(task)
        ]
        adopt(chunks, self._path / group / "done" / f"c.{task}")

    def record(self, task: int) -> None:
        """Record the checksums of a task whose chunks are written."""
        if self._bound:
            chunks = self._chunks(task)
            checksums = [
                stored_checksum(self._path, self._name, self._spec, chunk) for chunk in chunks
            ]
            self._recorded.record(chunks.start, checksums)

    def record_missing(self, first: int = 0) -> None:
        """Record those of tasks from ``first`` on that are done and not recorded yet."""
        if not self._bound:
            return
        for task in (np.flatnonzero(self._plan.done[first:]) + first).tolist():
            if not all(self._recorded.is_recorded(chunk) for chunk in self._chunks(task)):
                self.record(task)
