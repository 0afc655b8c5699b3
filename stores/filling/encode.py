"""Embed what an encoder's plan has not done yet, through Dask: in this process, or on others."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from protalign.core.errors import Failure, ProtAlignError, StoreError
from protalign.core.words import counted
from protalign.stores.entries import EntryLog, encoder_failures
from protalign.stores.filling.attempts import attempts
from protalign.stores.filling.plan import PlanReader
from protalign.stores.filling.record import TaskChecksums
from protalign.stores.filling.task import (
    ENDED,
    DamagedError,
    Encode,
    TaskResult,
    TaskRunner,
    mark_done,
    stopped,
)
from protalign.stores.format.append import change_state
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.disk import clear_unfinished
from protalign.stores.format.lock import StoreLock, held_by_this_process
from protalign.stores.format.state import EncoderState, StoreState

_logger = logging.getLogger("protalign")


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run: its tasks and residues, without those done before it."""

    tasks_done: int
    tasks_total: int
    rows_done: int
    rows_total: int


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """The outcome of a run.

    Attributes
    ----------
    tasks, items, rows : int
        Done by this run.
    seconds : float
        How long it took.
    failures : list of Failure
        Entries with an item that the encoder refused; the store has them on record.
    """

    tasks: int
    items: int
    rows: int
    seconds: float
    failures: list[Failure]


def encode_pending(
    path: str | os.PathLike[str],
    encoder: str,
    load: Callable[[str], Encode],
    *,
    devices: Sequence[str] = ("cpu",),
    scheduler: str | None = None,
    pool: ThreadPoolExecutor | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> EncodeReport:
    """Encode the pending tasks of an encoder's plan.

    Parameters
    ----------
    path : str or path
        A local store, planned with ``StoreWriter.plan``.
    encoder : str
        The encoder's name in the store.
    load : callable
        Returns the encode function for a device; called once per process, and picklable if there
        are several. The encode function takes a list of ``tuple[str, ...]`` or ``Structure``,
        returns one (L, D) float32 array each, and raises InputError for an item that it cannot
        embed. Any other exception is a failure of that item too, and so is the end of the process:
        in a worker at once; in this process, which cannot catch it, after two runs.
    devices : sequence of str
        Devices of this machine. With one, encoding runs in this process; with several, in a
        process for each.
    scheduler : str, optional
        Address of a Dask scheduler to use instead. Its workers must see the store under the same
        path; start one per GPU. They load on ``devices[0]``.
    pool : ThreadPoolExecutor, optional
        Threads to encode batches in, several at once. Only used for one device of this machine.
    on_progress : callable, optional
        Called with a Progress at the start and after each task.

    Raises
    ------
    StoreError
        The store or the encoder's plan is missing, another process writes to the store, or no
        scheduler answers.
    ProtAlignError
        The encoder fails with every protein, or workers do not start. As after Ctrl-C, finished
        tasks are kept, and the next run continues from them.
    """
    started = perf_counter()
    folder = Path(path).absolute()
    encoders = LocalArrays(folder).state.encoders
    if encoder not in encoders:
        known = ", ".join(encoders) or "none yet"
        raise StoreError(f"{folder}: it has no plan for encoder {encoder!r}; it has: {known}")
    with _writing(folder):
        arrays = LocalArrays(folder)
        plan = PlanReader(arrays, encoder)
        pending = np.flatnonzero(plan.pending).tolist()
        checksums = TaskChecksums(folder, arrays, encoder, plan)
        checksums.forget(pending)
        tally = _Tally(len(pending), int(plan.task_rows[pending].sum()), on_progress)

        def record(result: TaskResult) -> None:
            if len(devices) > 1:
                checksums.adopt(result.index)
            checksums.record(result.index)
            _record_refused(folder, encoder, result)
            tally.add(result)

        if pending and scheduler is None and len(devices) == 1:
            _run_here(folder, encoder, load, pending, record, devices[0], pool)
        elif pending:
            from protalign.stores.filling.cluster import run_on_workers

            run_on_workers(folder, encoder, load, pending, record, devices, scheduler)
            if scheduler is None:  # no process of ours is left that writes
                clear_unfinished(folder / "encoders" / encoder)
        checksums.record_missing(arrays.state.encoders[encoder].tasks_done)
        change_state(folder, lambda state: _all_done(state, encoder, len(plan)))
    return EncodeReport(
        tasks=tally.tasks,
        items=tally.items,
        rows=tally.rows,
        seconds=perf_counter() - started,
        failures=_failures(folder, encoder, tally.failed),
    )


def _run_here(
    folder: Path,
    encoder: str,
    load: Callable[[str], Encode],
    pending: Sequence[int],
    record: Callable[[TaskResult], None],
    device: str,
    pool: ThreadPoolExecutor | None,
) -> None:
    """Run tasks in this process; in a child those that have ended a process, or damaged this one.

    These are the last ones: the rest is done when they begin.
    """
    from protalign.stores.filling.dask import run_here

    waiting = set(pending)

    def after(result: TaskResult) -> None:
        record(result)
        waiting.discard(result.index)

    try:
        with attempts(folder, encoder, pending) as marks:
            alone = marks.suspects | _ended_a_process(folder, encoder)
            here = [index for index in pending if index not in alone]
            with suppress(DamagedError):
                if here:
                    run_here(TaskRunner(folder, encoder, load(device), marks), here, after, pool)
            if not waiting:
                return
            _logger.warning(
                "%s: the encoder's process ended or was damaged in %s; trying again in a child "
                "process, which may end without harm",
                encoder,
                counted(len(waiting), "task"),
            )
            from protalign.stores.filling.alone import IsolatedRunner

            cores = 0 if pool is None else pool.submit(_cores).result()
            with IsolatedRunner(folder, encoder, load, device, cores) as runner:
                for index in sorted(waiting):
                    run_here(runner, [index], after)
                    marks.end(index)
    except ProtAlignError:
        raise
    except Exception as error:
        raise stopped(encoder, error) from error


def _cores() -> int:
    from protalign.core.threads import cores_here

    return cores_here()


def _ended_a_process(folder: Path, encoder: str) -> set[int]:
    """Return the tasks with an item that is known to have ended the encoder's process."""
    arrays = LocalArrays(folder)
    failed = arrays.state.encoders[encoder].failed
    items = [item for item, reason, _ in failed if reason.startswith(ENDED)]
    return PlanReader(arrays, encoder).tasks_of(items) if items else set()


class _Tally:
    """Adds up results, and reports the progress."""

    def __init__(
        self, tasks: int, rows: int, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self._total = (tasks, rows)
        self._on_progress = on_progress
        self.tasks = self.items = self.rows = 0
        self.failed: set[int] = set()
        self._report()

    def add(self, result: TaskResult) -> None:
        self.tasks += 1
        self.items += result.items
        self.rows += result.rows
        self.failed.update(item for item, _, _ in result.failed)
        self._report()

    def _report(self) -> None:
        if self._on_progress is not None:
            tasks, rows = self._total
            self._on_progress(Progress(self.tasks, tasks, self.rows, rows))


def _writing(folder: Path) -> AbstractContextManager[object]:
    """Take the store's lock, unless this process has it already."""
    return nullcontext() if held_by_this_process(folder) else StoreLock(folder)


def _record_refused(folder: Path, encoder: str, result: TaskResult) -> None:
    """Keep the items that the encoder refused, or embeds now; then let the task count as done."""
    if not result.failed and not result.mended:
        return

    def update(known: EncoderState) -> EncoderState:
        failed = {row[0]: row for row in (*known.failed, *result.failed)}
        for item in result.mended:
            del failed[item]
        return replace(known, failed=tuple(failed[item] for item in sorted(failed)))

    change_state(folder, lambda state: _with_encoder(state, encoder, update))
    mark_done(folder, encoder, result.index)


def _with_encoder(
    state: StoreState, name: str, change: Callable[[EncoderState], EncoderState]
) -> StoreState:
    return replace(state, encoders={**state.encoders, name: change(state.encoders[name])})


def _all_done(state: StoreState, encoder: str, tasks: int) -> StoreState:
    return _with_encoder(state, encoder, lambda known: replace(known, tasks_done=tasks))


def _failures(folder: Path, encoder: str, failed: set[int]) -> list[Failure]:
    if not failed:
        return []
    arrays = LocalArrays(folder)
    return encoder_failures(arrays, EntryLog(arrays), encoder, failed)
