"""Run tasks of a plan in this process, as a Dask graph.

Each task is a node for its items, one for each batch, and one that writes its chunks. Dask runs
them depth first: threads that a task's last batches leave idle begin the next task, and encode
while the finished task is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import Any

import dask
from dask import delayed
from dask.callbacks import Callback

from protalign.stores.filling.plan import Task
from protalign.stores.filling.task import TaskResult, TaskRunner

#: Tasks in one graph: a plan may have hundreds of thousands, whose nodes need not be in memory.
TASKS_PER_GRAPH = 64


def run_here(
    runner: TaskRunner,
    indices: Iterable[int],
    on_done: Callable[[TaskResult], None],
    pool: ThreadPoolExecutor | None = None,
) -> None:
    """Run tasks, and call ``on_done`` after each.

    Parameters
    ----------
    runner : TaskRunner
        The encoder's tasks.
    indices : iterable of int
        The tasks' numbers.
    on_done : callable
        Takes each task's result, in this thread, in the order in which they end.
    pool : ThreadPoolExecutor, optional
        Threads to encode batches in, several at once; default: this thread. A task of a single
        batch, a giant protein for example, runs alone in this thread, which has all cores
        meanwhile.
    """
    tasks = map(runner.read, indices)
    for alone, group in groupby(tasks, key=lambda task: pool is None or len(task.batches) == 1):
        size = 1 if alone else TASKS_PER_GRAPH
        waiting: list[Task] = []
        for task in group:
            waiting.append(task)
            if len(waiting) == size:
                _run_graph(runner, waiting, on_done, None if alone else pool)
                waiting = []
        if waiting:  # of tasks that run alone none is left over
            _run_graph(runner, waiting, on_done, pool)


def _run_graph(
    runner: TaskRunner,
    tasks: Iterable[Task],
    on_done: Callable[[TaskResult], None],
    pool: ThreadPoolExecutor | None,
) -> None:
    written: dict[str, Any] = {}
    for task in tasks:
        inputs = delayed(partial(runner.inputs, task), pure=False)()
        batches = [
            delayed(partial(runner.encode_batch, batch), pure=False)(inputs)
            for batch in task.batches
        ]
        chunks = delayed(partial(runner.finish, task), pure=False)(batches)
        written[chunks.key] = chunks

    def after_node(key: str, result: Any, *_: Any) -> None:
        if key in written:
            on_done(result)

    options = {"scheduler": "sync"} if pool is None else {"scheduler": "threads", "pool": pool}
    # The callback is this run's alone: one that Dask knows of would hear of every graph.
    callbacks = [Callback(posttask=after_node)._callback]
    dask.compute(*written.values(), optimize_graph=False, callbacks=callbacks, **options)
