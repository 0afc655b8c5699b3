"""Remarks about entries, counted by kind: a run of many files shows one of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: What differs between two notes of one kind: names of chains, numbers, and all after a colon.
_CHAIN = re.compile(r"\bchain \S+?(?=:|\s|$)(: )?")
_NUMBER = re.compile(r"\d[\d,]*")


@dataclass(frozen=True, slots=True)
class NoteCount:
    """A note, and the number of notes of its kind.

    Attributes
    ----------
    id, note : str
        The first entry that has such a note, and its note.
    count : int
        Notes of this kind, this one included.
    """

    id: str
    note: str
    count: int


@dataclass(frozen=True, slots=True)
class Remark:
    """A note or a failure, as a row of a table.

    Attributes
    ----------
    kind : "note" or "failure"
        A note is about an entry that was read all the same.
    id : str
        The entry; empty if the whole file failed.
    file : str
        The path of its file.
    text : str
        The note, or the reason of the failure.
    advice : str
        What to do about a failure; empty for a note.

    Examples
    --------
    >>> Remark("note", "1abc", "1abc.pdb", "chain A: one residue, left out", "").kind
    'note'
    """

    kind: Literal["note", "failure"]
    id: str
    file: str
    text: str
    advice: str


class NoteCounter:
    """Counts notes by kind.

    Examples
    --------
    >>> counter = NoteCounter()
    >>> counter.add("1abc", ["chain A: one residue, left out"])
    >>> counter.add("2abc", ["chain B: one residue, left out"])
    >>> counter.counts()
    [NoteCount(id='1abc', note='chain A: one residue, left out', count=2)]
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, id: str, notes: Iterable[str]) -> None:
        """Count an entry's notes."""
        for note in notes:
            kind = _NUMBER.sub("#", _CHAIN.sub("", note)).partition(": ")[0]
            self._first.setdefault(kind, (id, note))
            self._counts[kind] = self._counts.get(kind, 0) + 1

    def counts(self) -> list[NoteCount]:
        """Return one note of each kind, in the order in which the kinds came."""
        return [NoteCount(*first, self._counts[kind]) for kind, first in self._first.items()]
