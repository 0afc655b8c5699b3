"""The log of entries as readers see it: of one store, or of several stores one after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.checks import did_you_mean, first_few
from protalign.core.errors import InputError
from protalign.core.protein import Modality, Structure
from protalign.stores.vectors.annotations import Annotations

#: Ids among which a similar one is looked for, at most: the search for one is slow.
MOST_SUGGESTED = 100_000
#: Ids that ``each_id`` reads at once: few enough for memory, and so many that ids in any order take
#: few passes through the store.
_IDS_AT_ONCE = 1 << 20


class Log(ABC):
    """Entries by their rows, which never change, and the items that they point at.

    Items are numbered from 0 for each modality.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return all rows, also those that do not count today."""

    @property
    @abstractmethod
    def live(self) -> Int64:
        """Rows that count today, ascending."""

    @abstractmethod
    def ids_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the ids of some rows."""

    def each_id(self, rows: Int64, at_once: int = _IDS_AT_ONCE) -> Iterator[str]:
        """Yield the ids of some rows, of which ``at_once`` are read at a time."""
        for begin in range(0, len(rows), at_once):
            yield from self.ids_at(rows[begin : begin + at_once]).tolist()

    @abstractmethod
    def texts_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the ids of some rows; only theirs are read."""

    @abstractmethod
    def find_all(self, ids: Sequence[str]) -> Int64:
        """Return the live rows of ids, -1 for unknown ones."""

    @abstractmethod
    def item(self, modality: Modality, rows: Int64) -> Int64:
        """Return (n,) int64: the item of each entry, -1 for none."""

    @abstractmethod
    def span(self, modality: Modality, rows: Int64) -> tuple[Int64, Int64]:
        """Return (offset, length), (n,) int64 each: an entry's rows within its item's rows."""

    @abstractmethod
    def item_hashes(self, modality: Modality, rows: Int64) -> npt.NDArray[np.uint8]:
        """Return (n, 32) uint8: the hash of each entry's item; of an entry without one zeros."""

    def each_content(
        self, modality: Modality, rows: Int64, at_once: int = _IDS_AT_ONCE
    ) -> Iterator[bytes]:
        """Yield what tells the contents of some entries apart, of ``at_once`` entries together.

        Of each entry: the hash of its item, and its span there as two little-endian int64.
        """
        for begin in range(0, len(rows), at_once):
            some = rows[begin : begin + at_once]
            span = np.stack(self.span(modality, some), axis=1).astype("<i8")
            hashes = self.item_hashes(modality, some)
            yield np.concatenate([hashes, span.view(np.uint8)], axis=1).tobytes()

    @abstractmethod
    def code(self, modality: Modality, rows: Int64) -> Int64:
        """Return (n,) int64: the same number for entries with the same rows, -1 for none."""

    @abstractmethod
    def chains(self, row: int) -> tuple[int, int]:
        """Return (first, count): an entry's chains among its structure's kept chains."""

    @abstractmethod
    def sequence(self, row: int) -> tuple[str, ...]:
        """Return the chain sequences of an entry."""

    @abstractmethod
    def structure(self, row: int) -> Structure | None:
        """Return the complex that an entry belongs to, None if it has no structure."""

    @abstractmethod
    def sequence_rows(self, rows: Int64) -> list[Int64]:
        """Return, for each structure row of entries with a structure, its sequence row."""

    @abstractmethod
    def chain_rows(self, modality: Modality, rows: Int64) -> list[Int64]:
        """Return, for entries with the modality, the rows of each chain that has any."""

    @abstractmethod
    def notes(self, row: int) -> tuple[str, ...]:
        """Return the notes that were made when the entry's file was read."""

    @abstractmethod
    def noted(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield the row and the notes of each live entry that has notes."""

    @abstractmethod
    def annotations(self, rows: Int64) -> Annotations:
        """Return the annotations of some entries; only theirs are read."""

    @abstractmethod
    def has_annotation(self, rows: Int64) -> Bool:
        """Return (n,) bool: whether anything is known of each entry."""

    @property
    @abstractmethod
    def source_paths(self) -> npt.NDArray[np.object_]:
        """Paths of all files that were read, as an object array of str."""

    @abstractmethod
    def source_paths_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the paths of some entries' files."""

    @abstractmethod
    def source_sha256(self, row: int) -> bytes:
        """Return the SHA-256 of the entry's file, as it was read."""

    def source_path(self, row: int) -> str:
        """Return the path of the entry's file."""
        return str(self.source_paths_at(np.array([row], dtype=np.int64))[0])

    def find(self, entry_id: str) -> int:
        """Return the live row of an id, -1 if there is none."""
        return int(self.find_all([entry_id])[0])

    def rows_of(self, ids: Sequence[Any]) -> Int64:
        """Return the live rows of ids; raise InputError that names the unknown ones."""
        names = [str(each) for each in ids]
        rows = self.find_all(names)
        if (rows < 0).any():
            unknown = [names[index] for index in np.flatnonzero(rows < 0).tolist()]
            known = self.live if len(self.live) <= MOST_SUGGESTED else self.live[:0]
            raise InputError(
                f"the store has no entry {first_few([repr(entry_id) for entry_id in unknown])}",
                did_you_mean(unknown[0], self.ids_at(known).tolist())
                or "`store.ids` lists its entries",
            )
        return rows
