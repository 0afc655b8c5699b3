"""A split: disjoint parts of ids, and the CSV file that holds it."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from protalign.core.checks import check_choice, first_few
from protalign.core.errors import InputError
from protalign.core.files import new_file
from protalign.core.printing import table_cell
from protalign.core.tables import DelimitedTable
from protalign.core.words import Part
from protalign.stores import Entries, StoreView

PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint parts, by id.

    Attributes
    ----------
    train, validation, test : tuple of str
        Ids, each in no other part; a part may be empty.
    how : str
        One line that describes how the split was made.

    Raises
    ------
    InputError
        An id is in two parts, or twice in one.

    Examples
    --------
    >>> Split(train=("1a30", "3ebp"), validation=(), test=("1bcu",)).counts
    {'train': 2, 'validation': 0, 'test': 1}
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    how: str = ""

    def __post_init__(self) -> None:
        """Check that the parts are disjoint."""
        part_of: dict[str, str] = {}
        for part in PARTS:
            for entry_id in self.ids(part):
                if entry_id in part_of:
                    other = part_of[entry_id]
                    both = f"twice in {part}" if other == part else f"in {other} and in {part}"
                    raise InputError(f"{entry_id!r} is {both}", "put each id into one part, once")
                part_of[entry_id] = part

    @classmethod
    def from_parts(cls, part_of: Mapping[str, str], how: str) -> Split:
        """Make a split from id -> part; the parts keep the mapping's order."""
        parts = {
            part: tuple(entry_id for entry_id, name in part_of.items() if name == part)
            for part in PARTS
        }
        return cls(**parts, how=" ".join(how.split()))

    def ids(self, part: str) -> tuple[str, ...]:
        """Return the ids of a part; raise InputError unless it is one of ``PARTS``."""
        check_choice("part", part, PARTS)
        ids: tuple[str, ...] = getattr(self, part)
        return ids

    @property
    def counts(self) -> dict[str, int]:
        """The number of ids in each part."""
        return {part: len(self.ids(part)) for part in PARTS}

    def of(self, entries: Entries) -> dict[str, StoreView]:
        """Return a view of each part.

        Parameters
        ----------
        entries : EmbeddingStore or StoreView
            The entries to divide.

        Returns
        -------
        dict
            Part -> StoreView, in the order of the split.

        Raises
        ------
        InputError
            Ids of the split are not in ``entries``.
        """
        known = set(entries.ids.tolist())
        missing = [i for part in PARTS for i in self.ids(part) if i not in known]
        if missing:
            raise InputError(
                f"the split: {len(missing):,} of its ids are missing in the store "
                f"({first_few(missing)})",
                "embed them, or make the split from this store",
            )
        return {part: entries[list(self.ids(part))] for part in PARTS}


def write_split(split: Split, path: str | os.PathLike[str]) -> None:
    """Write a CSV file with the columns id, part and how, which is in the first row alone.

    Parameters
    ----------
    split : Split
        The split.
    path : str or path
        The file, which is replaced.

    Raises
    ------
    WriteError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "split.csv"
    >>> write_split(Split(("1a30",), ("3ebp",), ("1bcu",), how="by hand"), path)
    >>> print(path.read_text(), end="")
    id,part,how
    1a30,train,by hand
    3ebp,validation,
    1bcu,test,
    """
    with (
        new_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "part", "how"])
        how = table_cell(" ".join(split.how.split()))
        for part in PARTS:
            for entry_id in split.ids(part):
                rows.writerow([table_cell(entry_id), part, how])
                how = ""


def read_split(path: str | os.PathLike[str]) -> Split:
    """Read a file that ``write_split`` wrote, or one written by hand in the same form.

    Parameters
    ----------
    path : str or path
        The CSV file.

    Raises
    ------
    InputError
        The file is missing or not a split; the error names file and line.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "split.csv"
    >>> write_split(Split(("1a30",), (), ("1bcu",), how="by hand"), path)
    >>> read_split(path)
    Split(train=('1a30',), validation=(), test=('1bcu',), how='by hand')
    """
    table = DelimitedTable.read(path)
    if not {"id", "part"} <= set(table.header):
        raise InputError(
            f"{path}: has no columns id and part", "make one with `protalign split --by column`"
        )
    part_of: dict[str, str] = {}
    how = table.comment  # as version 0.1.0 wrote it
    for line, row in table.rows():
        entry_id, part = row["id"], row["part"]
        how = how or row.get("how", "")
        if part not in PARTS:
            raise InputError(
                f"{path}, line {line}: {part!r} is not a part", f"the parts are {', '.join(PARTS)}"
            )
        if entry_id in part_of:
            raise InputError(f"{path}, line {line}: {entry_id!r} is named twice", "drop one")
        part_of[entry_id] = part
    if not part_of:
        raise InputError(f"{path}: contains no ids", "give a row id,part for each")
    return Split.from_parts(part_of, how)
