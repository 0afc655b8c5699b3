"""The batch plan: the batch and task of each item, the place of its rows, the tasks done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from protalign.core.arrays import Bool, Int64
from protalign.stores.format.arrays import Arrays
from protalign.stores.items import items_of


@dataclass(frozen=True, slots=True, eq=False)
class TaskPlan:
    """Tasks over n items, in the items' order; each task fills whole chunks of rows.

    Attributes
    ----------
    batch : (batches,) int64
        First item of each batch.
    task : (tasks,) int64
        First batch of each task.
    row : (tasks,) int64
        First row of each task, a multiple of the chunk's rows.
    start : (n,) int64
        First row of each item.
    end : int
        Row after the last task's last chunk.
    """

    batch: Int64
    task: Int64
    row: Int64
    start: Int64
    end: int


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The tasks of one encoder in a store, and how many of them are still to do.

    Attributes
    ----------
    encoder : str
        The encoder's name in the store.
    tasks, pending_tasks : int
        Tasks in all, and tasks that are not done.
    items, pending_items : int
        Items in all, and items of tasks that are not done.
    pending_rows : int
        Residues (rows) of the pending items.
    longest : int
        Residues of the longest single chain (sequences) or complex (structures) in the store.
    largest : int
        Residues of the largest item, which may have several chains.
    value_bytes : int
        Bytes on disk of all the encoder's values once every task is done.

    Examples
    --------
    >>> plan = BatchPlan("esm2", tasks=4, pending_tasks=1, items=120, pending_items=30,
    ...                  pending_rows=6_000, longest=512, largest=900, value_bytes=15_360_000)
    >>> f"{plan.pending_items} of {plan.items} items are still to embed"
    '30 of 120 items are still to embed'
    """

    encoder: str
    tasks: int
    pending_tasks: int
    items: int
    pending_items: int
    pending_rows: int
    longest: int
    largest: int
    value_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One task of a plan.

    Attributes
    ----------
    index : int
        Its number.
    row : int
        The first row that it writes, the first of a chunk.
    end : int
        Row after the last of its chunks.
    batches : list of list of int
        Items of each batch, in order.
    """

    index: int
    row: int
    end: int
    batches: list[list[int]]

    @property
    def items(self) -> range:
        """The items of all its batches; a plan takes items in the order of their numbers."""
        return range(self.batches[0][0], self.batches[-1][-1] + 1)


def plan_tasks(
    rows: Int64, cost: Int64, *, batch_rows: int, chunk_rows: int, first_row: int = 0
) -> TaskPlan:
    """Cut items into tasks that fill one chunk, and into batches of at most ``batch_rows``.

    Parameters
    ----------
    rows : (n,) int64
        Rows of each item's embedding.
    cost : (n,) int64
        Residues that encoding each item takes.
    batch_rows : int
        The largest sum of costs in a batch; a batch holds at least one item.
    chunk_rows : int
        Rows of a chunk. A longer item takes as many chunks as it needs, alone.
    first_row : int
        Where the first task begins, a multiple of ``chunk_rows``.

    Examples
    --------
    >>> rows = np.array([60, 30, 50])
    >>> plan = plan_tasks(rows, rows, batch_rows=80, chunk_rows=100)
    >>> plan.batch.tolist(), plan.task.tolist(), plan.start.tolist(), plan.end
    ([0, 1, 2], [0, 2], [0, 60, 100], 200)
    """
    batch: list[int] = []
    task: list[int] = []
    row: list[int] = []
    start = np.empty(len(rows), dtype=np.int64)
    end = first_row  # of the chunks taken so far
    room = in_batch = 0
    next_row = first_row
    for item, (n_rows, n_cost) in enumerate(zip(rows.tolist(), cost.tolist(), strict=True)):
        new_task = item == 0 or n_rows > room
        if new_task:
            next_row = end
            room = max(1, -(-n_rows // chunk_rows)) * chunk_rows
            end += room
            task.append(len(batch))
            row.append(next_row)
        if new_task or in_batch + n_cost > batch_rows:
            batch.append(item)
            in_batch = 0
        start[item] = next_row
        next_row += n_rows
        room -= n_rows
        in_batch += n_cost
        if n_rows > chunk_rows:
            room = -1  # alone: not even an item without rows joins it
    return TaskPlan(
        np.array(batch, np.int64), np.array(task, np.int64), np.array(row, np.int64), start, end
    )


class PlanReader:
    """An encoder's recorded plan.

    Parameters
    ----------
    arrays : Arrays
        The store's arrays.
    encoder : str
        The encoder's name in the store.

    Attributes
    ----------
    item : (items,) int64
        Items in the order of encoding.
    batch, task, row : int64
        As ``docs/store-format.md`` says of ``plan/``.
    done : (tasks,) bool
        Tasks with all their rows written.
    task_items, task_rows : (tasks,) int64
        Items and rows of each task.
    """

    def __init__(self, arrays: Arrays, encoder: str) -> None:
        group = f"encoders/{encoder}"
        self.item: Int64 = arrays.read(f"{group}/plan/item")
        self.batch: Int64 = arrays.read(f"{group}/plan/batch")
        self.task: Int64 = arrays.read(f"{group}/plan/task")
        self.row: Int64 = arrays.read(f"{group}/plan/row")
        self.done = arrays.done_tasks(encoder)
        self._end = arrays.rows(f"{group}/values")
        self._check(arrays, group)
        self._refused = [item for item, _, _ in arrays.state.encoders[encoder].failed]
        lengths = arrays.read(f"{group}/length").astype(np.int64)[self.item]
        first_items = self.batch[self.task]
        self.task_items = np.diff(first_items, append=len(self.item))
        self.task_rows = np.add.reduceat(lengths, first_items) if len(first_items) else first_items

    def _check(self, arrays: Arrays, group: str) -> None:
        """Raise StoreError if the parts of the plan do not lead into each other."""
        chunk_rows = arrays.spec(f"{group}/values").chunk_rows
        if not (
            _begins(self.batch, len(self.item))
            and _begins(self.task, len(self.batch))
            and _ascending(self.item, arrays.rows(f"{group}/start"))
            and _ascending(self.row, self._end)
            and not (self.row % chunk_rows).any()
            and len(self.row) == len(self.task) == len(self.done)
        ):
            raise arrays.inconsistent(f"the parts of {group}/plan do not fit each other")

    def __len__(self) -> int:
        return len(self.task)

    @property
    def pending(self) -> Bool:
        """(tasks,) bool: the tasks to run.

        A refused item is tried again with its whole task: its reason, too little memory on the
        device for example, may be gone.
        """
        pending = ~self.done
        pending[list(self.tasks_of(self._refused))] = True
        return pending

    def tasks_of(self, items: Sequence[int]) -> set[int]:
        """Return the tasks that some items are in."""
        places = np.flatnonzero(np.isin(self.item, items))
        tasks = np.searchsorted(self.batch[self.task], places, side="right") - 1
        return set(tasks.tolist())

    def read(self, index: int) -> Task:
        """Return task number ``index``."""
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


def _ascending(values: Int64, stop: int) -> bool:
    """Return whether numbers ascend, from 0 or more to less than ``stop``."""
    ascending = bool((values[1:] > values[:-1]).all())
    return ascending and (len(values) == 0 or bool(values[0] >= 0 and values[-1] < stop))


def _begins(first: Int64, stop: int) -> bool:
    """Return whether ranges that begin at these numbers cut 0 to ``stop``."""
    return _ascending(first, stop) and (int(first[0]) == 0 if len(first) else stop == 0)


def read_plan(arrays: Arrays, encoder: str) -> BatchPlan:
    """Return an encoder's plan in numbers: the tasks in all, and those still to do."""
    state = arrays.state.encoders[encoder]
    plan = PlanReader(arrays, encoder)
    pending = plan.pending
    values = f"encoders/{encoder}/values"
    items = items_of(arrays, state.record.modality)
    return BatchPlan(
        encoder=encoder,
        tasks=len(plan),
        pending_tasks=int(pending.sum()),
        items=len(plan.item),
        pending_items=int(plan.task_items[pending].sum()),
        pending_rows=int(plan.task_rows[pending].sum()),
        longest=items.longest(),
        largest=int(items.cost().max(initial=0)),
        value_bytes=arrays.rows(values) * arrays.spec(values).row_bytes,
    )
