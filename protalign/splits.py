"""Splits: which entries train, which stop training early, and which are tested on."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from protalign.errors import InputError
from protalign.stores import Entries, StoreView

PARTS = ("train", "validation", "test")
#: What a user's file may call a part.
_SPELLINGS = {
    **{part: part for part in PARTS},
    "training": "train",
    "val": "validation",
    "valid": "validation",
}
_ID_COLUMNS = ("id", "entry", "name", "pdbid", "pdb_id", "pdb")
_PART_COLUMNS = ("part", "split", "set", "subset", "partition")


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint parts, by id.

    Attributes
    ----------
    train, validation, test : ids, each in no other part; a part may be empty.
    how : one line that says how the split was made.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    how: str = ""

    def __post_init__(self) -> None:
        part_of: dict[str, str] = {}
        for part in PARTS:
            for entry_id in self.ids(part):
                if entry_id in part_of:
                    where = part_of[entry_id]
                    both = f"twice in {part}" if where == part else f"in {where} and in {part}"
                    raise InputError(f"{entry_id!r} is {both}", "an id is in one part, once")
                part_of[entry_id] = part

    @classmethod
    def from_parts(cls, part_of: Mapping[str, str], how: str) -> Split:
        """A split from id -> part, ids in the mapping's order."""
        chosen = {part: tuple(i for i, own in part_of.items() if own == part) for part in PARTS}
        return cls(**chosen, how=" ".join(how.split()))

    def ids(self, part: str) -> tuple[str, ...]:
        """The ids of a part; raises InputError unless it is one of ``PARTS``."""
        if part not in PARTS:
            raise InputError(f"there is no part {part!r}", f"the parts are {', '.join(PARTS)}")
        ids: tuple[str, ...] = getattr(self, part)
        return ids

    @property
    def counts(self) -> dict[str, int]:
        """Number of ids of each part."""
        return {part: len(self.ids(part)) for part in PARTS}

    def of(self, entries: Entries) -> dict[str, StoreView]:
        """A view of each part; raises InputError, naming them, for ids that are not there."""
        known = set(entries.ids.tolist())
        missing = [i for part in PARTS for i in self.ids(part) if i not in known]
        if missing:
            raise InputError(
                f"the store lacks {len(missing):,} of the split's ids: {_some(missing)}",
                "embed them, or make the split from this store",
            )
        return {part: entries[list(self.ids(part))] for part in PARTS}


def write_split(split: Split, path: str | os.PathLike[str]) -> None:
    """Write a CSV file: ``how`` behind a #, then the columns id and part.

    Raises InputError where the file cannot be written.
    """
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            if split.how:
                file.write(f"# {' '.join(split.how.split())}\n")
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["id", "part"])
            rows.writerows([i, part] for part in PARTS for i in split.ids(part))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})", "name another") from None


def read_split(path: str | os.PathLike[str]) -> Split:
    """Read a file that ``write_split`` wrote, or one written by hand in the same form.

    Raises InputError, naming file and line, if it is missing or says something else.
    """
    table = _Table.read(path)
    if not {"id", "part"} <= set(table.header):
        raise InputError(
            f"{path} has no columns id and part", "make one with `protalign split --by column`"
        )
    part_of: dict[str, str] = {}
    for line, row in table.rows():
        entry_id, part = row["id"], row["part"]
        if part not in PARTS:
            raise InputError(
                f"{path}, line {line}: {part!r} is no part", f"the parts are {', '.join(PARTS)}"
            )
        if entry_id in part_of:
            raise InputError(f"{path}, line {line}: {entry_id!r} was there before", "drop one")
        part_of[entry_id] = part
    if not part_of:
        raise InputError(f"{path} names no id", "give a row id,part for each")
    return Split.from_parts(part_of, table.comment)


def by_column(
    entries: Entries,
    path: str | os.PathLike[str],
    id_column: str | None = None,
    part_column: str | None = None,
) -> Split:
    """The split that a column of the user's table says.

    A part is train or training, val, valid or validation, or test, in any case. Rows of another
    value, ids that are not in ``entries``, and entries that the table does not name are in no
    part; ``how`` counts them.

    Parameters
    ----------
    entries : a store or a view.
    path : a CSV (or tab- or semicolon-separated) table with a header; leading lines after # are
        passed over.
    id_column, part_column : their names; by default id (or entry, name, pdbid) and part (or split,
        set).

    Raises
    ------
    InputError : no such file or column, an id in two parts, or no id in common with ``entries``.
    """
    table = _Table.read(path)
    id_column = table.column(id_column, _ID_COLUMNS, "ids")
    part_column = table.column(part_column, _PART_COLUMNS, "parts")
    known = set(entries.ids.tolist())
    other: Counter[str] = Counter()
    absent = 0
    part_of: dict[str, str] = {}
    for line, row in table.rows():
        entry_id = row[id_column]
        part = _SPELLINGS.get(row[part_column].lower())
        if part is None:
            other[row[part_column]] += 1
        elif part_of.setdefault(entry_id, part) != part:
            raise InputError(
                f"{path}, line {line}: {entry_id!r} is in {part_of[entry_id]} and in {part}",
                "an id is in one part",
            )
    absent = sum(entry_id not in known for entry_id in part_of)
    part_of = {entry_id: part for entry_id, part in part_of.items() if entry_id in known}
    if not part_of:
        raise InputError(
            f"{path} puts no entry of the store into a part ({absent:,} ids that it lacks)",
            f"the store's ids are like {_some(entries.ids.tolist())}",
        )
    left_out = [
        (sum(other.values()), f"rows of other values ({_some(list(other))})"),
        (absent, "ids that the store lacks"),
        (len(known) - len(part_of), "entries of the store in no part"),
    ]
    counted = "; ".join(f"{count:,} {what}" for count, what in left_out if count)
    how = f"by column {part_column} of {Path(path).name}"
    return Split.from_parts(part_of, f"{how}; left out: {counted}" if counted else how)


@dataclass(frozen=True, slots=True)
class _Table:
    """A delimited text file with a header, after comment lines."""

    path: str
    comment: str
    first_line: int
    lines: list[str]
    delimiter: str
    header: list[str]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> _Table:
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({error})", "give a CSV file") from None
        begin = next((n for n, line in enumerate(lines) if line[:1] not in ("#", "")), len(lines))
        if begin == len(lines):
            raise InputError(f"{path} is empty", "give a CSV file with a header")
        comment = " ".join(line.lstrip("# ").rstrip() for line in lines[:begin] if line)
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
            hint = f"did you mean {close[0]!r}?" if close else f"it has {_some(self.header)}"
            raise InputError(f"{self.path} has no column {name!r}", hint)
        lowered = {column.lower(): column for column in reversed(self.header)}
        for candidate in usual:
            if candidate in lowered:
                return lowered[candidate]
        raise InputError(
            f"{self.path} has no column of {what} that goes by a usual name ({_some(list(usual))})",
            f"name it: the columns are {', '.join(self.header)}",
        )

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(line number, column -> text) of each row; raises InputError for a row cut short."""
        reader = csv.reader(self.lines, delimiter=self.delimiter)
        for cells in reader:
            if not cells:
                continue
            line = self.first_line + reader.line_num - 1
            if len(cells) != len(self.header):
                raise InputError(
                    f"{self.path}, line {line}: {len(cells)} cells under {len(self.header)} names",
                    "quote cells that hold the delimiter",
                )
            stripped = (cell.strip() for cell in cells)
            yield line, dict(zip(self.header, stripped, strict=True))


def _some(names: list[str]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
