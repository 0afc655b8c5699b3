"""Items of several stores: which are equal, and their rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.stores.encoded import EncodedItems, EncoderInfo
from protalign.stores.format.arrays import Arrays
from protalign.stores.id_hashes import in_runs
from protalign.stores.union.numbering import Numbering


def first_of_equal(members: Sequence[Arrays], numbering: Numbering, modality: str) -> Int64:
    """Return (items,) int64: for each item of several stores the first one of equal content.

    Equal are those of equal digests, which the stores record. Eight bytes of each digest are in
    memory at a time, and the whole of those that are equal so far.
    """
    name = f"{modality}s/hash"
    begins = [_first_bytes(arrays.read(name)) for arrays in members]
    first = np.arange(len(numbering), dtype=np.int64)
    _, alike = in_runs(np.concatenate(begins))
    if len(alike):
        digests = np.empty((len(alike), *members[0].spec(name).row_shape), dtype=np.uint8)
        for store, positions, items in numbering.parts(alike):
            digests[positions] = members[store].gather(name, items, np.ones_like(items))
        _, index, inverse = np.unique(digests, axis=0, return_index=True, return_inverse=True)
        first[alike] = alike[index][inverse.reshape(-1)]
    return first


def _first_bytes(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).reshape(-1)


class UnionItems(EncodedItems):
    """An encoder's rows of each item of several stores.

    Parameters
    ----------
    members : sequence of EncodedItems
        The encoder in each store.
    items : Numbering
        Items of its modality.
    rows : Numbering
        Rows of its values.
    """

    def __init__(self, members: Sequence[EncodedItems], items: Numbering, rows: Numbering) -> None:
        self.record = members[0].record
        self._members, self._items, self._rows = members, items, rows

    def starts(self, items: Int64) -> Int64:
        """Return (n,) int64: the first row of some items, -1 if it is not embedded."""
        starts = np.empty(len(items), dtype=np.int64)
        for store, positions, numbers in self._items.parts(items):
            start = self._members[store].starts(numbers)
            starts[positions] = np.where(start >= 0, start + self._rows.begins[store], -1)
        return starts

    def gather(self, start: Int64, length: Int64) -> npt.NDArray[Any]:
        """Return (R, D): the rows of n ranges, one after another, in the stored dtype."""
        start, length = np.asarray(start, dtype=np.int64), np.asarray(length, dtype=np.int64)
        filled = np.flatnonzero(length)
        parts = list(self._rows.parts(start[filled]))
        if len(parts) == 1:
            store, _, starts = parts[0]
            return self._members[store].gather(starts, length[filled])
        out = np.empty((int(length.sum()), self.record.dim), dtype=self.record.dtype)
        ends = np.cumsum(length)
        for store, positions, starts in parts:
            chosen = filled[positions]
            values = self._members[store].gather(starts, length[chosen])
            done = 0
            for end, count in zip(ends[chosen].tolist(), length[chosen].tolist(), strict=True):
                out[end - count : end] = values[done : done + count]
                done += count
        return out

    def chunks(self, rows: Int64) -> Int64:
        """Return (n,) int64: equal for rows of one chunk, and ascending as the rows do."""
        chunks = np.empty(len(rows), dtype=np.int64)
        for store, positions, own_rows in self._rows.parts(rows):
            # A store has no more chunks than rows: those of two stores cannot have one number.
            chunks[positions] = self._rows.begins[store] + self._members[store].chunks(own_rows)
        return chunks

    @cached_property
    def info(self) -> EncoderInfo:
        """The encoder's record and its counts, summed over the stores."""
        each = [member.info for member in self._members]
        return EncoderInfo(
            **vars(self.record),
            name=each[0].name,
            n_items=sum(info.n_items for info in each),
            n_items_total=sum(info.n_items_total for info in each),
        )
