"""Find the entries that damaged rows of an array belong to."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from protalign.core.arrays import Int64
from protalign.core.errors import StoreError
from protalign.core.protein import Modality
from protalign.stores.entries import EntryLog
from protalign.stores.filling.plan import PlanReader
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.layout import ANNOTATIONS

#: Ids that one damage names, at most; and numbers, if the ids themselves are damaged.
MOST_IDS, MOST_NUMBERS = 1_000_000, 1_000


class EntryTrace:
    """Finds the live entries that rows of an array belong to, as far as the index is readable."""

    def __init__(self, arrays: LocalArrays) -> None:
        self._arrays = arrays

    def affected_ids(self, array: str, begin: int, end: int) -> tuple[str, ...]:
        """Return the ids of the entries that rows ``begin`` to ``end`` of an array belong to.

        If the index itself is damaged the answer is empty. If only the texts of the ids are
        damaged, entries are called "entry 17".
        """
        try:
            rows = self._entry_rows(array, begin, end)
            return tuple(self._names(rows))
        except (StoreError, ValueError, IndexError):  # an index that contradicts itself
            return ()

    def _entry_rows(self, array: str, begin: int, end: int) -> Int64:
        """Return rows of the entries log."""
        group, _, column = array.partition("/")
        if group == "entries":
            first, last = self._owners("entries", column, begin, end)
            return np.arange(first, min(last, first + MOST_IDS))
        if group == ANNOTATIONS:
            first, last = self._owners(ANNOTATIONS, column, begin, end)
            return self._arrays.read(f"{ANNOTATIONS}/entry")[first : min(last, first + MOST_IDS)]
        if group == "sources":
            first, last = self._owners("sources", column, begin, end)
            source = self._arrays.read("entries/source")
            return np.flatnonzero((source >= first) & (source < last))
        if group == "sequences":
            return self._entries_with("sequence", *self._owners("sequences", column, begin, end))
        if group in ("structures", "chains", "residues"):
            return self._entries_with("structure", *self._structures(group, column, begin, end))
        if group == "encoders":
            return self._entries_encoded(column, begin, end)
        return np.empty(0, dtype=np.int64)

    def _owners(self, group: str, column: str, begin: int, end: int) -> tuple[int, int]:
        """Return (first, stop) of the table's rows with values of the column in begin to end."""
        if not column.endswith("/values"):
            return begin, end
        ragged = f"{group}/{column.removesuffix('/values')}"
        start = self._arrays.read(f"{ragged}/start")
        stop = start + self._arrays.read(f"{ragged}/length")
        return _overlapping(start, stop, begin, end)

    def _structures(self, group: str, column: str, begin: int, end: int) -> tuple[int, int]:
        if group == "residues":
            start = self._arrays.read("chains/residue")
            stop = start + self._arrays.read("chains/residues")
            begin, end = _overlapping(start, stop, begin, end)
        elif group == "chains":
            begin, end = self._owners("chains", column, begin, end)
        if group == "structures":
            return begin, end
        start = self._arrays.read("structures/chain")
        stop = start + self._arrays.read("structures/chains")
        return _overlapping(start, stop, begin, end)

    def _entries_with(self, modality: Modality, first: int, last: int) -> Int64:
        items = self._arrays.read(f"entries/{modality}_item")
        return np.flatnonzero((items >= first) & (items < last))

    def _entries_encoded(self, column: str, begin: int, end: int) -> Int64:
        encoder, _, array = column.partition("/")
        modality = self._arrays.state.encoders[encoder].record.modality
        if array in ("start", "length", "plan/item"):
            return self._entries_with(modality, begin, end)
        if array == "done":
            plan = PlanReader(self._arrays, encoder)
            first, last = plan.read(begin).items.start, plan.read(end - 1).items.stop
            return self._entries_with(modality, first, last)
        if array.startswith("plan/"):  # it decides about all items
            items = self._arrays.rows(f"encoders/{encoder}/start")
            return self._entries_with(modality, 0, items)
        item = self._arrays.read(f"entries/{modality}_item")
        start = self._arrays.read(f"encoders/{encoder}/start")
        length = self._arrays.read(f"encoders/{encoder}/length").astype(np.int64)
        planned = (item >= 0) & (item < len(start))
        rows = np.flatnonzero(planned)
        entry_start, entry_length = start[item[rows]], length[item[rows]]
        if modality == "structure":
            entry_start = entry_start + self._arrays.read("entries/structure_offset")[rows]
            entry_length = self._arrays.read("entries/structure_length")[rows]
        affected: Int64 = rows[(entry_start < end) & (entry_start + entry_length > begin)]
        return affected

    @cached_property
    def _log(self) -> EntryLog | None:
        try:
            log = EntryLog(self._arrays)
            log.live  # noqa: B018  reads the sources
        except StoreError:
            return None
        return log

    def _names(self, rows: Int64) -> list[str]:
        if self._log is None:
            return [f"entry {row}" for row in rows[:MOST_NUMBERS].tolist()]
        live = rows[np.isin(rows, self._log.live)]
        names: list[str] = self._log.ids[live].tolist()
        return names


def _overlapping(start: Any, stop: Any, begin: int, end: int) -> tuple[int, int]:
    """Return (first, stop) of the ascending ranges that share a row with begin to end."""
    shared = np.flatnonzero((start < end) & (stop > begin))
    return (int(shared[0]), int(shared[-1]) + 1) if len(shared) else (0, 0)
