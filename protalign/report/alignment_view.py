"""Table 1's alignment cut into lines that fit a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

#: Columns of the alignment on a line.
_LINE = 70


@dataclass(frozen=True, slots=True)
class Line:
    """One protein's part of a block: runs of (letters, whether they differ)."""

    id: str
    pieces: list[tuple[str, bool]]
    last: int


def alignment_blocks(cluster: Mapping[str, Any] | None) -> list[list[Line]]:
    """Blocks of ``_LINE`` columns, a line for each protein; ``last`` is its last residue's number.

    ``cluster``: results.json's; no block where there is none.
    """
    if cluster is None:
        return []
    members = cluster["members"]
    width = len(members[0]["aligned"])
    return [
        [_line(member, start, min(start + _LINE, width)) for member in members]
        for start in range(0, width, _LINE)
    ]


def _line(member: Mapping[str, Any], start: int, stop: int) -> Line:
    different = set(member["different"])
    row = member["aligned"]
    pieces = [
        ("".join(row[column] for column in group), marked)
        for marked, group in groupby(range(start, stop), key=different.__contains__)
    ]
    return Line(member["id"], pieces, sum(letter != "-" for letter in row[:stop]))
