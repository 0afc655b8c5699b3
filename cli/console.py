"""Printing: progress on standard error, results on standard output."""

from __future__ import annotations

import csv
import gc
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from protalign.core.collector import collector_off
from protalign.core.errors import Failure, InputError
from protalign.core.files import json_text
from protalign.core.launch import launch
from protalign.core.notes import NoteCount
from protalign.core.printing import printable, table_cell
from protalign.core.urls import is_url
from protalign.core.words import counted

if TYPE_CHECKING:
    import typer
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from protalign.stores.filling.encode import Progress

#: Exit codes: wrong usage or something missing; some inputs failed; Ctrl-C; the reader of a pipe
#: has ended. The last two are what shells say of programs that SIGINT and SIGPIPE end.
USAGE, SOME_FAILED, INTERRUPTED, NO_READER = 2, 3, 130, 141
#: Failures shown at the end of a run; the store keeps all of them.
FAILURES_SHOWN = 50


class Interrupted(BaseException):
    """Ctrl-C, with words about what is left; not an Exception, so that only the app catches it."""


@contextmanager
def on_ctrl_c(words: str) -> Iterator[None]:
    """Say what to do, or what is lost, if Ctrl-C ends this block."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(words) from None


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import heavy libraries in this block with the garbage collector off.

    They make hundreds of thousands of objects that stay. To look for garbage among those, during
    the imports and when the program ends, would take a fifth of a short command's time.
    """
    with collector_off():
        try:
            yield
        finally:
            gc.freeze()


def refuse_unused(context: typer.Context, names: Sequence[str], wants: str) -> None:
    """Raise InputError if an option was given that has no effect without ``wants``."""
    advice = "give one of these, or leave it out" if " or " in wants else "give both or neither"
    _refuse(context, names, f"has no effect without {wants}", advice)


def refuse_beside(context: typer.Context, names: Sequence[str], other: str) -> None:
    """Raise InputError if an option was given that has no effect beside ``other``."""
    _refuse(context, names, f"has no effect with {other}", "leave one of the two out")


def _refuse(context: typer.Context, names: Sequence[str], problem: str, advice: str) -> None:
    for name in names:
        if is_given(context, name):
            raise InputError(f"--{name.replace('_', '-')}: {problem}", advice)


def refuse_torchrun(command: str) -> None:
    """Raise InputError if torchrun started this process among others: each would write the same."""
    if launch().size > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError(f"{command}: every process would do all of it", "run it without torchrun")


def is_given(context: typer.Context, name: str) -> bool:
    """Return whether an option is on the command line, by the name of its parameter."""
    source = context.get_parameter_source(name)
    assert source is not None, f"no option is called {name}"
    return source.name == "COMMANDLINE"


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    print(json_text(value), end="")


def human_bytes(size: float) -> str:
    """Return a size for people to read: "3.2 GB" is 3.2e9 bytes."""
    from rich.filesize import decimal

    return decimal(int(size))


def shown_path(path: str) -> str:
    """Return the path relative to the current folder if it lies below it, on one line."""
    if is_url(path):
        return printable(path)
    relative = os.path.relpath(path) if path else path
    return printable(relative if not relative.startswith("..") else path)


def print_failures(failures: Sequence[Failure], *, file: Any = None) -> None:
    """Print how many inputs failed, and a line for each: file, id, problem, advice."""
    out = file or sys.stderr
    if failures:
        print(f"{len(failures):,} failed:", file=out)
    for failure in failures[:FAILURES_SHOWN]:
        name = shown_path(failure.file)
        if failure.id:
            name = f"{name} ({failure.id})" if name else failure.id
        advice = f"; {failure.advice}" if failure.advice else ""
        print(printable(f"  {name}: {failure.reason}{advice}"), file=out)
    if len(failures) > FAILURES_SHOWN:
        print(f"  … and {len(failures) - FAILURES_SHOWN:,} more", file=out)


def print_notes(notes: Sequence[NoteCount]) -> None:
    """Print one remark of each kind about entries, and how many more there are."""
    if notes:
        print(f"{counted(sum(note.count for note in notes), 'note')}:", file=sys.stderr)
    for note in notes[:FAILURES_SHOWN]:
        more = f" (and {note.count - 1:,} more like this)" if note.count > 1 else ""
        print(printable(f"  {note.id}: {note.note}{more}"), file=sys.stderr)


def print_note(line: str) -> None:
    """Print a line about what was done to standard error."""
    print(printable(line), file=sys.stderr)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns, numbers to the right; a row of one cell is a heading."""
    table = [list(header), *[[printable(cell) for cell in row] for row in rows]]
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


def print_rows(header: Sequence[str], rows: Iterable[Sequence[str]], delimiter: str) -> None:
    """Print texts as TSV or CSV: one line a row, and nothing that a spreadsheet would run."""
    writer = csv.writer(sys.stdout, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([table_cell(cell) for cell in row] for row in rows)


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number, perhaps with a unit after a space; the id 1a30 is not."""
    return re.match(r"-?\d[\d.,/]*(\s|$)", cell) is not None


class ConsoleReporter:
    """Show a run on standard error: lines, and a bar with the rate and the time left.

    If standard error is not a terminal there is no bar; if ``quiet``, nothing is written.
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
        """Print a line; on a terminal it is broken between words."""
        if self._quiet:
            return
        line = printable(line)
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns
            line = textwrap.fill(
                line,
                width,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def scanned(self, done: int, total: int) -> None:
        """Show how many files have been read."""
        self._update("reading", done, total, "files")

    def encoded(self, encoder: str, progress: Progress) -> None:
        """Show how many residues have been embedded."""
        self._update(encoder, progress.rows_done, progress.rows_total, "residues")

    def indexed(self, done: int, total: int) -> None:
        """Show how many residues have been made words."""
        self._update("indexing", done, total, "residues")

    def indexed_vectors(self, name: str, done: int, total: int) -> None:
        """Show how many vectors have gone through a step of building their index."""
        self._update(name, done, total, "vectors")

    def trained(self, done: int, total: int, under_way: Sequence[str]) -> None:
        """Show how many training runs are complete, and the names of those under way."""
        self._update("training", done, total, "runs", "; ".join(under_way))

    def _update(self, name: str, done: int, total: int, unit: str, note: str = "") -> None:
        if self._quiet or not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.start()
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, unit=unit, note=note)
        self._bar.update(self._tasks[name], completed=done, total=total, note=note)


def _new_bar() -> Bar:
    """Return a bar that stays on one line: the bar itself and the note shrink first."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    def whole() -> Column:
        return Column(no_wrap=True)

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            if not speed:
                return Text("")
            return Text(f"{speed:,.0f}/s" if speed >= 1 else f"{60 * speed:.1f}/min")

    return Progress(
        TextColumn("{task.description}", table_column=whole()),
        BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)),
        TextColumn(
            "{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}", table_column=whole()
        ),
        Rate(table_column=whole()),
        TimeRemainingColumn(table_column=whole()),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=Console(stderr=True),
        expand=True,
    )
