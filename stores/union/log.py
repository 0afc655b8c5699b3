"""The logs of several stores, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.protein import MODALITIES, Modality, Structure
from protalign.stores.contents import StoreContents
from protalign.stores.entries import EntryLog
from protalign.stores.format.text import encode_texts
from protalign.stores.id_hashes import Hashes, in_runs, text_hashes
from protalign.stores.log import Log
from protalign.stores.union.items import first_of_equal
from protalign.stores.union.numbering import Numbering
from protalign.stores.vectors.annotations import Annotations


class UnionLog(Log):
    """The rows of several stores, numbered through, and so are their items.

    Ids are looked up by hashes; their texts are read where they are asked for. That no two stores
    have the same id is checked when the first id, or which entries are equal, is asked for.

    Parameters
    ----------
    members : sequence of StoreContents
        The stores.
    """

    def __init__(self, members: Sequence[StoreContents]) -> None:
        self._members = members
        self._rows = self._numbering("entries/source")
        self.items = {m: self._numbering(f"{m}s/hash") for m in MODALITIES}
        self._firsts: dict[Modality, Int64] = {}

    def _numbering(self, array: str) -> Numbering:
        return Numbering([member.arrays.rows(array) for member in self._members])

    def __len__(self) -> int:
        return len(self._rows)

    def _of(self, row: int) -> tuple[EntryLog, int]:
        store, own_row = self._rows.store_of(row)
        return self._members[store].log, own_row

    def _filled(
        self, out: npt.NDArray[Any], rows: Int64, call: Callable[[EntryLog, Int64], Any]
    ) -> npt.NDArray[Any]:
        """Return ``out``, filled with what each store's log says of its rows."""
        for store, positions, own_rows in self._rows.parts(rows):
            out[positions] = call(self._members[store].log, own_rows)
        return out

    @cached_property
    def live(self) -> Int64:
        """Rows that count today, ascending."""
        begins = self._rows.begins.tolist()
        return np.concatenate(
            [begin + each.log.live for begin, each in zip(begins, self._members, strict=True)]
        )

    @cached_property
    def _by_hash(self) -> tuple[Hashes, Int64]:
        """Hashes of the live ids, ascending, and their rows; InputError for an id in two stores."""
        repeated = self.repeated
        if repeated:
            (entry_id, rows), more = next(iter(repeated.items())), len(repeated) - 1
            one, two = (path_text(self._members[self._rows.store_of(r)[0]].path) for r in rows[:2])
            others = f", and {more:,} more ids are in two stores" if more else ""
            raise InputError(
                f"{printable(entry_id)}: both {one} and {two} have an entry of this id{others}",
                "leave one of the stores out, or embed its files again under other names",
            )
        return self._sorted

    @cached_property
    def _sorted(self) -> tuple[Hashes, Int64]:
        hashes = [member.log.id_hashes[member.log.live] for member in self._members]
        joined: Hashes = np.concatenate(hashes)
        order = np.argsort(joined, kind="stable")
        return joined[order], self.live[order]

    @cached_property
    def repeated(self) -> dict[str, list[int]]:
        """The ids that several stores have, with their rows."""
        hashes, rows = self._sorted
        _, alike = in_runs(hashes)
        by_id: dict[str, list[int]] = {}
        for row, entry_id in zip(rows[alike].tolist(), self._texts(rows[alike]), strict=True):
            by_id.setdefault(entry_id, []).append(row)
        twice = {entry_id: sorted(both) for entry_id, both in by_id.items() if len(both) > 1}
        return dict(sorted(twice.items(), key=lambda each: each[1]))  # hashes mean no order

    def member_of(self, row: int) -> int:
        """Return the place of the store that a row is of."""
        return self._rows.store_of(row)[0]

    def _texts(self, rows: Int64) -> list[str]:
        names: list[str] = self.texts_at(rows).tolist()
        return names

    def ids_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the ids of some rows."""
        self._by_hash  # noqa: B018  # checks that they are unique
        return self.texts_at(rows)

    def texts_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the ids of some rows; only theirs are read."""
        return self._filled(np.empty(len(rows), dtype=object), rows, EntryLog.texts_at)

    def find_all(self, ids: Sequence[str]) -> Int64:
        """Return the live rows of ids, -1 for unknown ones."""
        hashes, rows = self._by_hash
        wanted = text_hashes(*encode_texts(ids))
        first = np.searchsorted(hashes, wanted, side="left")
        last = np.searchsorted(hashes, wanted, side="right")
        found = np.full(len(ids), -1, dtype=np.int64)
        while (open_ := np.flatnonzero((first < last) & (found < 0))).size:
            candidates = rows[first[open_]]
            same = np.array(
                [ids[o] == t for o, t in zip(open_.tolist(), self._texts(candidates), strict=True)]
            )
            found[open_[same]] = candidates[same]
            first[open_] += 1
        return found

    def item(self, modality: Modality, rows: Int64) -> Int64:
        """Return (n,) int64: the item of each entry, -1 for none."""
        begins = self.items[modality].begins
        out = np.empty(len(rows), dtype=np.int64)
        for store, positions, own_rows in self._rows.parts(rows):
            item = self._members[store].log.item(modality, own_rows)
            out[positions] = np.where(item >= 0, item + begins[store], -1)
        return out

    def span(self, modality: Modality, rows: Int64) -> tuple[Int64, Int64]:
        """Return (offset, length), (n,) int64 each: an entry's rows within its item's rows."""
        both = np.empty((len(rows), 2), dtype=np.int64)
        self._filled(both, rows, lambda log, own: np.stack(log.span(modality, own), axis=1))
        return both[:, 0].copy(), both[:, 1].copy()

    def item_hashes(self, modality: Modality, rows: Int64) -> npt.NDArray[np.uint8]:
        """Return (n, 32) uint8: the hash of each entry's item; of an entry without one zeros."""
        hashes = np.empty((len(rows), 32), dtype=np.uint8)
        return self._filled(hashes, rows, lambda log, own: log.item_hashes(modality, own))

    def firsts(self, modality: Modality) -> Int64:
        """Return (items,) int64: for each item of all stores the first one of equal content."""
        if modality not in self._firsts:
            arrays = [member.arrays for member in self._members]
            self._firsts[modality] = first_of_equal(arrays, self.items[modality], modality)
        return self._firsts[modality]

    def code(self, modality: Modality, rows: Int64) -> Int64:
        """Return (n,) int64: the same number for entries with the same rows, -1 for none."""
        self._by_hash  # noqa: B018  # ids are unique: training and scores ask for no id
        item = self.item(modality, rows)
        present = np.flatnonzero(item >= 0)
        first = self.firsts(modality)[item[present]]
        if modality == "structure":
            first = self._first_rows(first) + self.span(modality, rows[present])[0]
        item[present] = first
        return item

    @cached_property
    def _residues(self) -> Numbering:
        """Residues of all chains: at least as many as structures have rows."""
        return self._numbering("residues/letter")

    def _first_rows(self, items: Int64) -> Int64:
        """Return the first row of each structure, if the rows of all are numbered through."""
        out = np.empty(len(items), dtype=np.int64)
        for store, positions, numbers in self.items["structure"].parts(items):
            first = self._members[store].log.first_rows(numbers)
            out[positions] = first + self._residues.begins[store]
        return out

    def chains(self, row: int) -> tuple[int, int]:
        """Return (first, count): an entry's chains among its structure's kept chains."""
        log, own_row = self._of(row)
        return log.chains(own_row)

    def sequence(self, row: int) -> tuple[str, ...]:
        """Return the chain sequences of an entry."""
        log, own_row = self._of(row)
        return log.sequence(own_row)

    def structure(self, row: int) -> Structure | None:
        """Return the complex that an entry belongs to, None if it has no structure."""
        log, own_row = self._of(row)
        return log.structure(own_row)

    def sequence_rows(self, rows: Int64) -> list[Int64]:
        """Return, for each structure row of entries with a structure, its sequence row."""
        return self._listed(rows, EntryLog.sequence_rows)

    def chain_rows(self, modality: Modality, rows: Int64) -> list[Int64]:
        """Return, for entries with the modality, the rows of each chain that has any."""
        return self._listed(rows, lambda log, own: log.chain_rows(modality, own))

    def _listed(self, rows: Int64, call: Callable[[EntryLog, Int64], list[Int64]]) -> list[Int64]:
        """Return what each store's log says of its rows, in their order."""
        found: list[Int64] = [np.empty(0, dtype=np.int64)] * len(rows)
        for store, positions, own_rows in self._rows.parts(rows):
            each = call(self._members[store].log, own_rows)
            for position, of_row in zip(positions.tolist(), each, strict=True):
                found[position] = of_row
        return found

    def notes(self, row: int) -> tuple[str, ...]:
        """Return the notes that were made when the entry's file was read."""
        log, own_row = self._of(row)
        return log.notes(own_row)

    def noted(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield the row and the notes of each live entry that has notes."""
        for begin, member in zip(self._rows.begins.tolist(), self._members, strict=True):
            yield from ((begin + row, notes) for row, notes in member.log.noted())

    def annotations(self, rows: Int64) -> Annotations:
        """Return the annotations of some entries; only theirs are read."""
        order, parts = [np.empty(0, dtype=np.int64)], []
        for store, positions, own_rows in self._rows.parts(rows):
            order.append(positions)
            parts.append(self._members[store].log.annotations(own_rows))
        return Annotations.joined(parts)[np.argsort(np.concatenate(order))]

    def has_annotation(self, rows: Int64) -> Bool:
        """Return (n,) bool: whether anything is known of each entry."""
        return self._filled(np.empty(len(rows), dtype=np.bool_), rows, EntryLog.has_annotation)

    @property
    def source_paths(self) -> npt.NDArray[np.object_]:
        """Paths of all files that were read, as an object array of str."""
        return np.concatenate([member.log.source_paths for member in self._members])

    def source_paths_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the paths of some entries' files."""
        return self._filled(np.empty(len(rows), dtype=object), rows, EntryLog.source_paths_at)

    def source_sha256(self, row: int) -> bytes:
        """Return the SHA-256 of the entry's file, as it was read."""
        log, own_row = self._of(row)
        return log.source_sha256(own_row)
