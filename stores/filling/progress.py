"""What of a plan is done, and what a task is made of."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from protalign.stores.filling.plan import Plan
from protalign.stores.format.arrays import Arrays
from protalign.stores.items import items_of


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One task of a plan.

    Attributes
    ----------
    index : its number.
    row : first row that it writes, the first of a chunk.
    end : row after the last of its chunks.
    batches : items of each batch, in order.
    """

    index: int
    row: int
    end: int
    batches: list[list[int]]


class PlanReader:
    """An encoder's recorded plan."""

    def __init__(self, arrays: Arrays, encoder: str) -> None:
        group = f"encoders/{encoder}"
        self.item: npt.NDArray[np.int64] = arrays.read(f"{group}/plan/item")
        self.batch: npt.NDArray[np.int64] = arrays.read(f"{group}/plan/batch")
        self.task: npt.NDArray[np.int64] = arrays.read(f"{group}/plan/task")
        self.row: npt.NDArray[np.int64] = arrays.read(f"{group}/plan/row")
        self.done = arrays.done_tasks(encoder)
        self._end = arrays.rows(f"{group}/values")
        self._refused = [item for item, _, _ in arrays.state.encoders[encoder].failed]
        lengths = arrays.read(f"{group}/length").astype(np.int64)[self.item]
        first_items = self.batch[self.task]
        self.task_items = np.diff(first_items, append=len(self.item))
        self.task_rows = np.add.reduceat(lengths, first_items) if len(first_items) else first_items

    def __len__(self) -> int:
        return len(self.task)

    @property
    def pending(self) -> npt.NDArray[np.bool_]:
        """(tasks,) bool: those to run.

        A refused item is tried again with its whole task: what refused it, a device's memory say,
        may be other this time.
        """
        pending = ~self.done
        refused = np.flatnonzero(np.isin(self.item, self._refused))
        pending[np.searchsorted(self.batch[self.task], refused, side="right") - 1] = True
        return pending

    def read(self, index: int) -> Task:
        """Task number ``index``."""
        last = index + 1 == len(self)
        stop = len(self.batch) if last else int(self.task[index + 1])
        bounds = self.batch[int(self.task[index]) : stop + 1].tolist()
        if last:
            bounds.append(len(self.item))
        return Task(
            index=index,
            row=int(self.row[index]),
            end=self._end if last else int(self.row[index + 1]),
            batches=[self.item[begin:end].tolist() for begin, end in pairwise(bounds)],
        )


def pending_work(arrays: Arrays, encoder: str) -> Plan:
    """What of an encoder's plan is still to be done."""
    state = arrays.state.encoders[encoder]
    plan = PlanReader(arrays, encoder)
    pending = plan.pending
    values = f"encoders/{encoder}/values"
    return Plan(
        encoder=encoder,
        tasks=len(plan),
        pending_tasks=int(pending.sum()),
        items=len(plan.item),
        pending_items=int(plan.task_items[pending].sum()),
        pending_rows=int(plan.task_rows[pending].sum()),
        longest=items_of(arrays, state.record.modality).longest(),
        value_bytes=arrays.rows(values) * arrays.spec(values).row_bytes,
    )
