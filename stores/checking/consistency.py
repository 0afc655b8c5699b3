"""Check a store's index: counts, ranges and references must agree with each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.layout import ARRAYS

#: Columns that refer to rows of another table: (column, that table's column, least value).
_REFERENCES = (
    ("entries/source", "sources/sha256", 0),
    ("entries/sequence_item", "sequences/hash", -1),
    ("entries/structure_item", "structures/hash", -1),
)
#: Columns that cut another table into ranges, one after another: (first, count, the table's rows).
_RANGES = (
    ("structures/chain", "structures/chains", "chains/kept"),
    ("chains/residue", "chains/residues", "residues/letter"),
)


def check_index(arrays: LocalArrays) -> Iterator[tuple[str, str]]:
    """Yield (array, fault) for everything in the index that contradicts something else."""
    yield from _uneven_tables(arrays)
    for column in _ragged_columns():
        yield from _bad_ranges(
            arrays, f"{column}/start", f"{column}/length", arrays.rows(f"{column}/values")
        )
    for first, count, target in _RANGES:
        yield from _bad_ranges(arrays, first, count, arrays.rows(target))
    for column, target, least in _REFERENCES:
        values = arrays.read(column)
        if len(values) and not least <= values.min() <= values.max() < arrays.rows(target):
            yield column, f"points outside {target}"
    for encoder in arrays.state.encoders:
        yield from _encoder_faults(arrays, encoder)


def _ragged_columns() -> list[str]:
    return [name.removesuffix("/values") for name in ARRAYS if name.endswith("/values")]


def _uneven_tables(arrays: LocalArrays) -> Iterator[tuple[str, str]]:
    """Yield columns of one table that have different numbers of rows."""
    counts: dict[str, dict[int, str]] = {}
    for name in ARRAYS:
        if not name.endswith("/values"):
            counts.setdefault(name.partition("/")[0], {}).setdefault(arrays.rows(name), name)
    for rows in counts.values():
        if len(rows) > 1:
            first, second = list(rows)[:2]
            yield rows[second], f"has {second} rows, {rows[first]} has {first}"


def _bad_ranges(
    arrays: LocalArrays, first: str, count: str, total: int
) -> Iterator[tuple[str, str]]:
    """Yield a fault unless the ranges follow one another from 0 to the total."""
    start, length = arrays.read(first), arrays.read(count).astype(np.int64)
    if len(start) != len(length):
        yield first, f"and {count} have different numbers of rows"
    elif (length < 0).any() or not _consecutive(start, length, total):
        yield first, f"and {count} do not cut {total} rows into consecutive ranges"


def _consecutive(start: npt.NDArray[Any], length: Int64, total: int) -> bool:
    ends = np.cumsum(length)
    return bool(np.array_equal(start, ends - length)) and (ends[-1] if len(ends) else 0) == total


def _encoder_faults(arrays: LocalArrays, encoder: str) -> Iterator[tuple[str, str]]:
    group = f"encoders/{encoder}"
    start = arrays.read(f"{group}/start")
    length = arrays.read(f"{group}/length").astype(np.int64)
    item = arrays.read(f"{group}/plan/item")
    if not np.array_equal(np.sort(item), np.arange(len(start))):
        yield f"{group}/plan/item", "does not name every planned item once"
        return
    order = np.argsort(start, kind="stable")
    ends = (start + length)[order]
    if len(start) and ((start < 0).any() or ends.max() > arrays.rows(f"{group}/values")):
        yield f"{group}/start", "points outside values"
    elif (ends[:-1] > start[order][1:]).any():
        yield f"{group}/start", "and length overlap"
    row = arrays.read(f"{group}/plan/row")
    chunk_rows = arrays.spec(f"{group}/values").chunk_rows
    if (row % chunk_rows != 0).any() or (np.diff(row) <= 0).any():
        yield f"{group}/plan/row", "has a task that does not begin at the start of a chunk"
    if len(row) != arrays.rows(f"{group}/done"):
        yield f"{group}/plan/row", "and done have different numbers of tasks"
