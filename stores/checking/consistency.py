"""Check a store's index: counts, ranges and references must agree with each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from protalign.core.errors import StoreError
from protalign.stores.filling.plan import PlanReader
from protalign.stores.format.arrays import Arrays, consecutive
from protalign.stores.format.layout import ANNOTATIONS, ARRAYS

#: Columns that refer to rows of another table: (column, that table's column, least value).
_REFERENCES = (
    ("entries/source", "sources/sha256", 0),
    ("entries/sequence_item", "sequences/hash", -1),
    ("entries/structure_item", "structures/hash", -1),
    (f"{ANNOTATIONS}/entry", "entries/source", 0),
)
#: Columns that cut another table into ranges, one after another: (first, count, the table's rows).
_RANGES = (
    ("structures/chain", "structures/chains", "chains/kept"),
    ("chains/residue", "chains/residues", "residues/letter"),
)
#: Ragged columns of texts.
_TEXTS = (
    *("sources/path", "entries/id", "entries/notes", "chains/id"),
    *("failures/id", "failures/file", "failures/reason", "failures/advice"),
    *(f"{ANNOTATIONS}/{name}" for name in ("description", "organism", "accession")),
)


def check_index(arrays: Arrays) -> Iterator[tuple[str, str]]:
    """Yield (array, fault) for everything in the index that contradicts something else."""
    faults = [*_bad_ranges(arrays), *_bad_references(arrays)]
    yield from faults
    if faults:
        return  # what follows reads through them
    for column in _TEXTS:
        if not arrays.rows(f"{column}/start"):
            continue
        try:
            arrays.check_texts(column)
        except StoreError:
            yield f"{column}/values", "is not UTF-8"
    yield from _bad_items(arrays)
    for encoder in arrays.state.encoders:
        yield from _encoder_faults(arrays, encoder)


def _bad_ranges(arrays: Arrays) -> Iterator[tuple[str, str]]:
    """Yield columns that do not cut others into ranges, one after another."""
    ragged = [
        name.removesuffix("/values")
        for name in ARRAYS
        if name.endswith("/values") and name in arrays.state.arrays()
    ]
    columns = [(f"{name}/start", f"{name}/length", f"{name}/values") for name in ragged]
    for first, count, target in (*columns, *_RANGES):
        rows = arrays.rows(target)
        if not consecutive(arrays.read(first), arrays.read(count), rows):
            yield first, f"and {count} do not cut {rows} rows into consecutive ranges"


def _bad_references(arrays: Arrays) -> Iterator[tuple[str, str]]:
    for column, target, least in _REFERENCES:
        values = arrays.read(column) if arrays.rows(column) else np.empty(0, np.int64)
        if len(values) and not least <= values.min() <= values.max() < arrays.rows(target):
            yield column, f"points outside {target}"
        if column == f"{ANNOTATIONS}/entry" and (np.diff(values) <= 0).any():
            yield column, "is not ascending"


def _bad_items(arrays: Arrays) -> Iterator[tuple[str, str]]:
    """Yield columns that contradict the lengths of sequences and structures."""
    lengths = arrays.read("sequences/letters/length").astype(np.int64)
    of_chains = arrays.read("sequences/chain_length/values").astype(np.int64)
    begin = arrays.read("sequences/chain_length/start")
    totals = np.concatenate([[0], np.cumsum(of_chains)])
    ends = begin + arrays.read("sequences/chain_length/length")
    if (of_chains < 0).any() or not np.array_equal(totals[ends] - totals[begin], lengths):
        yield "sequences/chain_length/values", "does not add up to the sequences' letters"
    item = arrays.read("entries/structure_item")
    rows = np.append(arrays.read("structures/rows").astype(np.int64), 0)[item]
    offset = arrays.read("entries/structure_offset")
    length = arrays.read("entries/structure_length").astype(np.int64)
    if ((offset < 0) | (length < 0) | (length > rows - offset)).any():
        yield "entries/structure_offset", "and structure_length point outside their structures"
    kept = np.concatenate([[0], np.cumsum(arrays.read("chains/kept"))])
    chain = np.append(arrays.read("structures/chain"), 0)
    chains = np.append(arrays.read("structures/chains").astype(np.int64), 0)
    available = (kept[chain + chains] - kept[chain])[item]
    first = arrays.read("entries/structure_chain").astype(np.int64)
    count = arrays.read("entries/structure_chains").astype(np.int64)
    least = item >= 0  # an entry with a structure has one chain of it at least
    if ((first < 0) | (count < least) | (count > available - first)).any():
        yield "entries/structure_chain", "and structure_chains point outside their structures"


def _encoder_faults(arrays: Arrays, encoder: str) -> Iterator[tuple[str, str]]:
    group = f"encoders/{encoder}"
    start = arrays.read(f"{group}/start")
    length = arrays.read(f"{group}/length").astype(np.int64)
    modality = arrays.state.encoders[encoder].record.modality
    rows = "sequences/letters/length" if modality == "sequence" else "structures/rows"
    if not np.array_equal(length, arrays.read(rows)[: len(length)]):
        yield f"{group}/length", f"differs from {rows}"
    try:
        PlanReader(arrays, encoder)
    except StoreError:
        yield f"{group}/plan", "has parts that do not fit each other"
        return
    item = arrays.read(f"{group}/plan/item")
    if not np.array_equal(item, np.arange(len(start))):
        yield f"{group}/plan/item", "does not name every planned item once"
        return
    order = np.argsort(start, kind="stable")
    ends = (start + length)[order]
    if len(start) and ((start < 0).any() or ends.max() > arrays.rows(f"{group}/values")):
        yield f"{group}/start", "points outside values"
    elif (ends[:-1] > start[order][1:]).any():
        yield f"{group}/start", "and length overlap"
