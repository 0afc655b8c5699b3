"""The batch plan: which items go into which batch and task, and where their rows will be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protalign.core.arrays import Int64


@dataclass(frozen=True, slots=True, eq=False)
class TaskPlan:
    """Tasks over n items, in the items' order; each task owns whole chunks of rows.

    Attributes
    ----------
    batch : (batches,) int64, first item of each batch.
    task : (tasks,) int64, first batch of each task.
    row : (tasks,) int64, first row of each task, a multiple of the chunk's rows.
    start : (n,) int64, first row of each item.
    end : row after the last task's last chunk.
    """

    batch: Int64
    task: Int64
    row: Int64
    start: Int64
    end: int


def plan_tasks(
    rows: Int64, cost: Int64, *, batch_rows: int, chunk_rows: int, first_row: int = 0
) -> TaskPlan:
    """Cut items into tasks that fill one chunk, and into batches of at most ``batch_rows``.

    Parameters
    ----------
    rows : (n,) rows of each item's embedding.
    cost : (n,) residues that encoding it takes; a batch holds at most ``batch_rows`` of them, but
        always one item.
    chunk_rows : rows of a chunk; an item of more takes as many chunks as it needs, alone.
    first_row : a multiple of ``chunk_rows``: where the first task begins.
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


@dataclass(frozen=True, slots=True)
class Plan:
    """What is still to be encoded.

    Attributes
    ----------
    encoder : its name in the store.
    tasks : tasks in all; ``pending_tasks`` of them are not done.
    items : items in all; ``pending_items`` of them are in tasks not done.
    pending_rows : residues (rows) of the pending items.
    longest : residues of the longest single chain (sequences) or complex (structures) in the store.
    value_bytes : bytes that all of the encoder's values take on disk when done.
    """

    encoder: str
    tasks: int
    pending_tasks: int
    items: int
    pending_items: int
    pending_rows: int
    longest: int
    value_bytes: int
