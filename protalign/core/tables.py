"""Delimited text files that users bring: a header, rows, and line numbers for errors."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from protalign.core.checks import did_you_mean, first_few
from protalign.core.errors import InputError
from protalign.core.files import read_text
from protalign.core.printing import cell_text

_A_HEADER = "give a CSV file with a header"
#: Usual names of a column of ids, the likeliest first.
ID_COLUMNS = ("id", "entry", "name", "pdbid", "pdb_id", "pdb")


@dataclass(frozen=True, slots=True)
class DelimitedTable:
    r"""A delimited text file with a header, after comment lines that begin with #.

    Attributes
    ----------
    path : str
        The file, for errors.
    comment : str
        The comment lines in one.
    first_line : int
        The 1-based number of the first line below the header.
    lines : list of str
        The lines below the header, with their ends.
    delimiter : str
        Comma, tab or semicolon: the most frequent one in the header.
    header : list of str
        Names of the columns.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = path.write_text("# by hand\nID,family\n1a30,protease\n")
    >>> table = DelimitedTable.read(path)
    >>> table.column(None, ID_COLUMNS, "ids")
    'ID'
    >>> list(table.rows())
    [(3, {'ID': '1a30', 'family': 'protease'})]
    """

    path: str
    comment: str
    first_line: int
    lines: list[str]
    delimiter: str
    header: list[str]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> DelimitedTable:
        """Read a file; raise InputError if it cannot be read or is empty."""
        text = read_text(path, "give a CSV file")
        lines = list(io.StringIO(text, newline=""))  # ends stay: a quoted cell may hold some
        begin = next(
            (n for n, line in enumerate(lines) if line.strip() and line[0] != "#"), len(lines)
        )
        if begin == len(lines):
            raise InputError(f"{path}: is empty", _A_HEADER)
        comment = " ".join(line.lstrip("# ").rstrip() for line in lines[:begin] if line.strip())
        head = lines[begin]
        delimiter = max(",\t;", key=head.count)
        try:
            header = [name.strip() for name in next(csv.reader([head], delimiter=delimiter))]
        except csv.Error as error:
            raise InputError(f"{path}: its header cannot be read ({error})", _A_HEADER) from None
        return cls(str(path), comment, begin + 2, lines[begin + 1 :], delimiter, header)

    def column(self, name: str | None, usual: Iterable[str], content: str) -> str:
        """Return the named column, or the first that has a usual name.

        Parameters
        ----------
        name : str or None
            The column; None for a usual name.
        usual : iterable of str
            Usual names in lower case, the likeliest first.
        content : str
            The content of the column in words, for the error.

        Raises
        ------
        InputError
            The column is missing.
        """
        if name is not None:
            if name in self.header:
                return name
            raise InputError(
                f"{self.path}: has no column {name!r}",
                did_you_mean(name, self.header) or f"it has {first_few(self.header)}",
            )
        lowered = {column.lower(): column for column in reversed(self.header)}
        usual = list(usual)
        for candidate in usual:
            if candidate in lowered:
                return lowered[candidate]
        raise InputError(
            f"{self.path}: has no column of {content} (tried {first_few(usual, len(usual))})",
            f"name it: the columns are {first_few(self.header, 50)}",
        )

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield (line number, column -> text) of each row; raise InputError for a broken row."""
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
            stripped = (cell_text(cell.strip()) for cell in cells)
            yield line, dict(zip(self.header, stripped, strict=True))
