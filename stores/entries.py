"""The entries log: which ids there are, and which items they point at."""

from __future__ import annotations

from collections.abc import Container, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.errors import Failure, InputError, StoreError
from protalign.core.protein import Modality
from protalign.stores.format.arrays import Arrays
from protalign.stores.items import StructureItems


def live_sources(paths: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """(n,) bool: rows of the sources log that no later version of the same file replaces."""
    live = np.zeros(len(paths), dtype=np.bool_)
    live[list({path: row for row, path in enumerate(paths.tolist())}.values())] = True
    return live


class EntryLog:
    """All rows ever appended; ``live`` are those that count today.

    An entry is live if it is the last of its id and its file has no later version in the store.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.ids = arrays.texts("entries/id")
        self.sequence_item = arrays.read("entries/sequence_item")
        self.structure_item = arrays.read("entries/structure_item")
        self.source = arrays.read("entries/source")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def source_paths(self) -> npt.NDArray[np.object_]:
        """Paths of the sources log."""
        return self._arrays.texts("sources/path")

    @cached_property
    def live(self) -> npt.NDArray[np.int64]:
        """Rows that count, ascending."""
        if len(self) == 0:
            return np.empty(0, dtype=np.int64)
        current = live_sources(self.source_paths)[self.source]
        rows = np.flatnonzero(current)
        if len(self._row) < len(self):
            last = np.fromiter(self._row.values(), dtype=np.int64, count=len(self._row))
            rows = np.intersect1d(rows, last)
        return rows

    @cached_property
    def _row(self) -> dict[str, int]:
        """Last row of each id."""
        return {entry_id: row for row, entry_id in enumerate(self.ids.tolist())}

    @cached_property
    def _is_live(self) -> npt.NDArray[np.bool_]:
        flags = np.zeros(len(self), dtype=np.bool_)
        flags[self.live] = True
        return flags

    def find(self, entry_id: str) -> int:
        """Live row of an id, -1 if there is none."""
        row = self._row.get(entry_id, -1)
        return row if row >= 0 and self._is_live[row] else -1

    def rows_of(self, ids: Sequence[Any]) -> npt.NDArray[np.int64]:
        """Live rows of ids; raises InputError naming those that are not there."""
        rows = np.fromiter((self.find(str(i)) for i in ids), dtype=np.int64, count=len(ids))
        if (rows < 0).any():
            self._refuse([str(ids[place]) for place in np.flatnonzero(rows < 0).tolist()])
        return rows

    def _refuse(self, unknown: list[str]) -> None:
        named = ", ".join(repr(entry_id) for entry_id in unknown[:3])
        more = f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
        close = get_close_matches(unknown[0], self.ids[self.live].tolist(), n=3)
        hint = f"close to it: {', '.join(close)}" if close else "`store.ids` has those it holds"
        raise InputError(f"the store has no {named}{more}", hint)

    @cached_property
    def _structure_offset(self) -> npt.NDArray[np.int64]:
        offset: npt.NDArray[np.int64] = self._arrays.read("entries/structure_offset")
        return offset

    @cached_property
    def _structure_length(self) -> npt.NDArray[np.int32]:
        length: npt.NDArray[np.int32] = self._arrays.read("entries/structure_length")
        return length

    @cached_property
    def _sequence_length(self) -> npt.NDArray[np.int32]:
        length: npt.NDArray[np.int32] = self._arrays.read("sequences/letters/length")
        return length

    @cached_property
    def _structure_begin(self) -> npt.NDArray[np.int64]:
        rows = StructureItems(self._arrays).rows()
        begin: npt.NDArray[np.int64] = np.cumsum(rows) - rows
        return begin

    def item(self, modality: Modality, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(n,) int64 item of each entry, -1 for none."""
        column = self.sequence_item if modality == "sequence" else self.structure_item
        return column[rows]

    def span(
        self, modality: Modality, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(offset, length), (n,) int64 each: an entry's rows within its item's rows."""
        if modality == "structure":
            return self._structure_offset[rows], self._structure_length[rows].astype(np.int64)
        item = self.sequence_item[rows]
        length = np.where(item >= 0, self._sequence_length[item], 0).astype(np.int64)
        return np.zeros(len(rows), dtype=np.int64), length

    def code(self, modality: Modality, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(n,) int64: the same number for entries that have the same rows; -1 for none.

        For sequences the item; for structures, where entries may be parts of one item, the number
        of the part's first row when all items' rows are counted through.
        """
        item = self.item(modality, rows)
        if modality == "sequence" or len(self._structure_begin) == 0:
            return item
        first = self._structure_begin[item] + self._structure_offset[rows]
        return np.where(item >= 0, first, -1)

    def chains(self, row: int) -> tuple[int, int]:
        """An entry's chains within its structure's kept chains: (first, count)."""
        first = self._arrays.read("entries/structure_chain", row, row + 1)
        count = self._arrays.read("entries/structure_chains", row, row + 1)
        return int(first[0]), int(count[0])

    def notes(self, row: int) -> tuple[str, ...]:
        """What reading the entry's file remarked."""
        text = self._arrays.ragged("entries/notes", row).tobytes().decode("utf-8")
        return tuple(text.split("\n")) if text else ()

    def source_path(self, row: int) -> str:
        """Path of the entry's file."""
        return str(self.source_paths[self.source[row]])

    def source_sha256(self, row: int) -> bytes:
        """SHA-256 of the entry's file, as it was read."""
        source = int(self.source[row])
        sha256: bytes = self._arrays.read("sources/sha256", source, source + 1).tobytes()
        return sha256


class FailureLog:
    """The failures log, and what encoders could not embed."""

    def __init__(self, arrays: Arrays, entries: EntryLog) -> None:
        self._arrays = arrays
        self._entries = entries

    @cached_property
    def live(self) -> list[Failure]:
        """Failures that stand: logged ones by their first appearance, then the encoders'."""
        found = {(failure.id, failure.file): failure for failure in read_failures(self._arrays)}
        for failure in self._of_encoders():
            found.setdefault((failure.id, failure.file), failure)
        return list(found.values())

    def _of_encoders(self) -> list[Failure]:
        names = self._arrays.state.encoders
        return [f for name in names for f in encoder_failures(self._arrays, self._entries, name)]


def encoder_failures(
    arrays: Arrays, entries: EntryLog, encoder: str, only: Container[int] | None = None
) -> list[Failure]:
    """A failure for each live entry whose item the encoder refused (one of ``only``)."""
    state = arrays.state.encoders[encoder]
    live = entries.live
    items = entries.item(state.record.modality, live)
    return [
        Failure(str(entries.ids[row]), entries.source_path(row), reason, advice)
        for item, reason, advice in state.failed
        if only is None or item in only
        for row in live[items == item].tolist()
    ]


def read_failures(arrays: Arrays) -> list[Failure]:
    """Logged failures that a later row of the same id and file does not replace or resolve."""
    columns = [arrays.texts(f"failures/{name}") for name in ("id", "file", "reason", "advice")]
    latest: dict[tuple[str, str], Failure] = {}
    for entry_id, file, reason, advice in zip(*columns, strict=True):
        key = (entry_id, file)
        if reason:
            latest[key] = Failure(entry_id, file, reason, advice)
        else:
            latest.pop(key, None)
    return list(latest.values())


def check_modality(modality: str) -> Modality:
    """Raises StoreError unless it is "sequence" or "structure"."""
    if modality == "sequence":
        return "sequence"
    if modality == "structure":
        return "structure"
    raise StoreError(f"there is no modality {modality!r}; there are sequence and structure")
