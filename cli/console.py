"""What the commands print: progress on standard error, results on standard output."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from protalign.core.errors import Failure, InputError

if TYPE_CHECKING:
    import typer
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from protalign.stores.filling.dask import Progress

#: Failures shown at the end of a run; all of them are in the store.
FAILURES_SHOWN = 50


@contextmanager
def quick_imports() -> Iterator[None]:
    """Where heavy libraries are imported.

    They make hundreds of thousands of objects that stay. Looking for garbage among them, while
    they are made and when the program ends, would take a third of a short command's time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def refuse_unused(context: typer.Context, names: Sequence[str], wants: str) -> None:
    """Raise InputError for an option that was given, but does nothing without what it wants."""
    for name in names:
        source = context.get_parameter_source(name)
        assert source is not None, f"no option is called {name}"
        if source.name == "COMMANDLINE":
            raise InputError(
                f"--{name.replace('_', '-')} goes with {wants}", "give both, or neither"
            )


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return value.tolist()
    return str(value)


def human_bytes(size: float) -> str:
    """A size in bytes as people read it: "3.2 GB" is 3.2e9 bytes."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def shown_path(path: str) -> str:
    """A path as short as it can be said from here."""
    relative = os.path.relpath(path) if path else path
    return relative if not relative.startswith("..") else path


def print_failures(failures: Sequence[Failure], *, file: Any = None) -> None:
    """A line each: file, id, what is wrong, what to do."""
    out = file or sys.stderr
    for failure in failures[:FAILURES_SHOWN]:
        where = shown_path(failure.file)
        if failure.id:
            where = f"{where} ({failure.id})" if where else failure.id
        advice = f"; {failure.advice}" if failure.advice else ""
        print(f"  {where}: {failure.reason}{advice}", file=out)
    if len(failures) > FAILURES_SHOWN:
        print(f"  … and {len(failures) - FAILURES_SHOWN:,} more", file=out)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns wide enough for their longest cell; numbers to the right; one cell is a heading."""
    table = [list(header), *[list(row) for row in rows]]
    whole = [row for row in table if len(row) == len(header)]
    widths = [max(len(row[column]) for row in whole) for column in range(len(header))]
    for row in table:
        if len(row) < len(header):
            print(row[0])
            continue
        cells = [
            cell.rjust(width) if _is_number(cell) else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _is_number(cell: str) -> bool:
    """Figures, perhaps with a unit behind a space; 1a30, an id, is none."""
    return re.match(r"-?\d[\d.,/]*(\s|$)", cell) is not None


class ConsoleReporter:
    """Draws a run: lines, and a bar with residues per second and time left.

    Without a terminal the bar is a line per phase; with ``quiet`` nothing is written.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Bar | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ConsoleReporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """One line on standard error."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def scanned(self, done: int, total: int) -> None:
        """Files read so far."""
        self._update("reading", done, total, "files")

    def encoded(self, encoder: str, progress: Progress) -> None:
        """Residues embedded so far."""
        self._update(encoder, progress.rows_done, progress.rows_total, "residues")

    def trained(self, done: int, total: int, under_way: Sequence[str]) -> None:
        """Training runs that are complete, and those that are under way."""
        self._update("training", done, total, "runs", "; ".join(under_way))

    def _update(self, name: str, done: int, total: int, unit: str, note: str = "") -> None:
        if self._quiet or not sys.stderr.isatty():
            return
        bar = self._started_bar()
        if name not in self._tasks:
            self._tasks[name] = bar.add_task(name, total=total, unit=unit, note=note)
        bar.update(self._tasks[name], completed=done, total=total, note=note)

    def _started_bar(self) -> Bar:
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.start()
        return self._bar


def _new_bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed, unit = task.finished_speed or task.speed, task.fields["unit"]
            if not speed:
                return Text("")
            return Text(f"{speed:,.0f} {unit}/s" if speed >= 1 else f"{60 * speed:.1f} {unit}/min")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
