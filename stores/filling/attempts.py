"""Marks of tasks under way: a process that ends without a word leaves them for the next one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Folder in the store; a mark is an empty file in it: encoder, task, and earlier ends.
FOLDER = ".running"
#: Ends of a process in the middle of a task, after which the task runs in a process of its own.
ENDS = 2


class Attempts:
    """The tasks of an encoder's plan that this process has begun and not finished.

    A mark costs two calls of the system for each task and is never flushed: it outlives the
    process, and need not outlive the machine. A mark that cannot be written is left out.

    Parameters
    ----------
    path : Path
        The store's folder.
    encoder : str
        The encoder's name in the store.
    pending : collection of int
        The tasks to do. Marks of others are taken away.
    """

    def __init__(self, path: Path, encoder: str, pending: Collection[int]) -> None:
        self._folder = path / FOLDER
        self._encoder = encoder
        self._under_way: set[int] = set()
        self._ends: dict[int, int] = {}
        with suppress(OSError):
            if self._folder.is_symlink() or not self._folder.is_dir():
                self._folder.unlink()
        with suppress(OSError):
            self._read(set(pending))

    def _read(self, pending: Collection[int]) -> None:
        pattern = re.compile(rf"{re.escape(self._encoder)}\.(\d{{1,18}})\.(\d{{1,9}})")
        for file in [*self._folder.iterdir()]:
            mark = pattern.fullmatch(file.name)
            if mark is None:
                continue
            if int(mark[1]) in pending:
                self._ends[int(mark[1])] = int(mark[2]) + 1
            else:  # the process ended just after the task
                file.unlink()

    @property
    def suspects(self) -> set[int]:
        """Tasks in the middle of which a process ended twice, or more often."""
        return {index for index, ends in self._ends.items() if ends >= ENDS}

    def begin(self, index: int) -> None:
        """Mark a task as under way."""
        ends = self._ends.get(index, 0)
        with suppress(OSError):
            if ends:
                self._mark(index, ends - 1).replace(self._mark(index, ends))
            else:
                if not self._under_way:
                    self._folder.mkdir(exist_ok=True)
                self._mark(index, 0).touch()
        self._under_way.add(index)

    def end(self, index: int) -> None:
        """Take the mark of a finished task away, whoever made it."""
        ends = self._ends.pop(index, 0)
        last = ends if index in self._under_way else ends - 1
        self._under_way.discard(index)
        with suppress(OSError):
            self._mark(index, last).unlink()

    def close(self) -> None:
        """Take this process's marks away: it ended in the middle of no task."""
        for index in self._under_way:
            ends = self._ends.get(index, 0)
            with suppress(OSError):
                if ends:
                    self._mark(index, ends).replace(self._mark(index, ends - 1))
                else:
                    self._mark(index, 0).unlink()
        with suppress(OSError):  # missing, or other encoders' marks are in it
            self._folder.rmdir()

    def _mark(self, index: int, ends: int) -> Path:
        return self._folder / f"{self._encoder}.{index}.{ends}"


@contextmanager
def attempts(path: Path, encoder: str, pending: Collection[int]) -> Iterator[Attempts]:
    """Yield the marks of this process; take them away also after an exception."""
    marks = Attempts(path, encoder, pending)
    try:
        yield marks
    finally:
        marks.close()
