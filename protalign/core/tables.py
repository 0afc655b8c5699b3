"""Delimited text files that users bring: a header, rows, line numbers for what is wrong."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from protalign.core.errors import InputError

#: Usual names of a column of ids, the likeliest first.
ID_COLUMNS = ("id", "entry", "name", "pdbid", "pdb_id", "pdb")


@dataclass(frozen=True, slots=True)
class Table:
    """A delimited text file with a header, after comment lines."""

    path: str
    comment: str
    first_line: int
    lines: list[str]
    delimiter: str
    header: list[str]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Table:
        try:
            text = Path(path).read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({error})", "give a CSV file") from None
        lines = list(io.StringIO(text, newline=""))  # ends stay: a quoted cell may hold some
        begin = next(
            (n for n, line in enumerate(lines) if line.strip() and line[0] != "#"), len(lines)
        )
        if begin == len(lines):
            raise InputError(f"{path} is empty", "give a CSV file with a header")
        comment = " ".join(line.lstrip("# ").rstrip() for line in lines[:begin] if line.strip())
        head = lines[begin]
        delimiter = max(",\t;", key=head.count)
        header = [name.strip() for name in next(csv.reader([head], delimiter=delimiter))]
        return cls(str(path), comment, begin + 2, lines[begin + 1 :], delimiter, header)

    def column(self, name: str | None, usual: Iterable[str], what: str) -> str:
        """The column asked for, or the first of the usual names."""
        if name is not None:
            if name in self.header:
                return name
            close = get_close_matches(name, self.header, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {some(self.header)}"
            raise InputError(f"{self.path} has no column {name!r}", hint)
        lowered = {column.lower(): column for column in reversed(self.header)}
        for candidate in usual:
            if candidate in lowered:
                return lowered[candidate]
        raise InputError(
            f"{self.path} has no column of {what} that goes by a usual name ({some(list(usual))})",
            f"name it: the columns are {', '.join(self.header)}",
        )

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(line number, column -> text) of each row; raises InputError for a row cut short."""
        reader = csv.reader(self.lines, delimiter=self.delimiter)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                line = self.first_line + reader.line_num - 1
                raise InputError(
                    f"{self.path}, line {line}: {error}", "close the quotes that are open"
                ) from None
            if cells is None:
                return
            if not any(map(str.strip, cells)):
                continue
            line = self.first_line + reader.line_num - 1
            if len(cells) != len(self.header):
                raise InputError(
                    f"{self.path}, line {line}: {len(cells)} cells under {len(self.header)} names",
                    "quote cells that hold the delimiter",
                )
            stripped = (cell.strip() for cell in cells)
            yield line, dict(zip(self.header, stripped, strict=True))


def some(names: Sequence[str]) -> str:
    """The first three names, and how many more, for a message."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
