"""The entries log (ids, and the items that they point at) and the failures log."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.errors import Failure, StoreError
from protalign.core.protein import MODALITIES, Modality, Structure
from protalign.stores.format.arrays import Arrays
from protalign.stores.format.layout import ANNOTATIONS
from protalign.stores.id_hashes import Hashes, column_hashes, in_runs
from protalign.stores.items import SequenceItems, StructureItems
from protalign.stores.log import Log
from protalign.stores.vectors.annotations import Annotations

#: Texts of notes that are in memory at once.
_NOTES_AT_ONCE = 65536


def live_sources(paths: npt.NDArray[np.object_]) -> Bool:
    """Return (n,) bool: rows of the sources log that no later version of the same file replaces."""
    live = np.zeros(len(paths), dtype=np.bool_)
    live[list({path: row for row, path in enumerate(paths.tolist())}.values())] = True
    return live


class EntryLog(Log):
    """One store's log: all rows ever appended to the log; ``live`` are the rows that count today.

    An entry is live if it is the last of its id and its file has no later version in the store.

    Attributes
    ----------
    sequence_item, structure_item : (rows,) int64
        The entry's items, -1 if it has none.
    source : (rows,) int64
        Rows of the sources log.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.sequence_item = arrays.read("entries/sequence_item")
        self.structure_item = arrays.read("entries/structure_item")
        self.source = arrays.read("entries/source")
        for name, rows, least, target in (
            ("sequence_item", self.sequence_item, -1, "sequences/hash"),
            ("structure_item", self.structure_item, -1, "structures/hash"),
            ("source", self.source, 0, "sources/sha256"),
        ):
            if len(rows) and not least <= rows.min() <= rows.max() < arrays.rows(target):
                raise arrays.inconsistent(f"entries/{name} points outside {target}")

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def ids(self) -> npt.NDArray[np.object_]:
        """The ids of all rows, as an object array of str."""
        return self._arrays.texts("entries/id")

    def ids_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the ids of some rows."""
        ids: npt.NDArray[np.object_] = self.ids[rows]
        return ids

    @cached_property
    def id_hashes(self) -> Hashes:
        """(rows,) uint64: hashes of the ids, which are not kept in memory for it."""
        return column_hashes(self._arrays, "entries/id")

    @property
    def source_paths(self) -> npt.NDArray[np.object_]:
        """Paths of the sources log, as an object array of str; read each time, not kept."""
        return self._arrays.texts("sources/path")

    def source_paths_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the paths of some entries' files."""
        # Many entries may be of one file: its path is read once.
        sources, of_row = np.unique(self.source[rows], return_inverse=True)
        paths: npt.NDArray[np.object_] = self._arrays.texts_at("sources/path", sources)[of_row]
        return paths

    @cached_property
    def live(self) -> Int64:
        """Rows that count, ascending."""
        if len(self) == 0:
            return np.empty(0, dtype=np.int64)
        sources = np.ones(self._arrays.rows("sources/sha256"), dtype=np.bool_)
        sources[self._replaced("sources/path", self._source_hashes())] = False
        if len(self.id_hashes) != len(self):
            raise self._arrays.inconsistent("entries/id has not as many rows as entries/source")
        current = sources[self.source]
        current[self._replaced("entries/id", self.id_hashes)] = False
        return np.flatnonzero(current)

    def _source_hashes(self) -> Hashes:
        hashes = column_hashes(self._arrays, "sources/path")
        if len(hashes) != self._arrays.rows("sources/sha256"):
            raise self._arrays.inconsistent("sources/path has not as many rows as sources/sha256")
        return hashes

    def _replaced(self, column: str, hashes: Hashes) -> Int64:
        """Return the rows of a column whose text is also that of a later row."""
        _, repeated = in_runs(hashes)
        texts = self._arrays.texts_at(column, repeated).tolist()
        last = {text: row for row, text in zip(repeated.tolist(), texts, strict=True)}
        return np.setdiff1d(repeated, list(last.values()))

    def texts_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the ids of some rows; only theirs are read."""
        return self._arrays.texts_at("entries/id", rows)

    @cached_property
    def _row(self) -> dict[str, int]:
        """Last row of each id."""
        return {entry_id: row for row, entry_id in enumerate(self.ids.tolist())}

    @cached_property
    def _is_live(self) -> Bool:
        flags = np.zeros(len(self), dtype=np.bool_)
        flags[self.live] = True
        return flags

    def find_all(self, ids: Sequence[str]) -> Int64:
        """Return the live rows of ids, -1 for unknown ones."""
        rows = np.fromiter((self._row.get(i, -1) for i in ids), dtype=np.int64, count=len(ids))
        known = np.flatnonzero(rows >= 0)
        rows[known[~self._is_live[rows[known]]]] = -1
        return rows

    @cached_property
    def _structure_offset(self) -> Int64:
        offset: Int64 = self._arrays.read("entries/structure_offset")
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
    def _structure_begin(self) -> Int64:
        rows = StructureItems(self._arrays).rows()
        begin: Int64 = np.cumsum(rows) - rows
        return begin

    def item(self, modality: Modality, rows: Int64) -> Int64:
        """Return (n,) int64: the item of each entry, -1 for none."""
        column = self.sequence_item if modality == "sequence" else self.structure_item
        return column[rows]

    def span(self, modality: Modality, rows: Int64) -> tuple[Int64, Int64]:
        """Return (offset, length), (n,) int64 each: an entry's rows within its item's rows."""
        if modality == "structure":
            return self._structure_offset[rows], self._structure_length[rows].astype(np.int64)
        item = self.sequence_item[rows]
        length = np.where(item >= 0, self._sequence_length[item], 0).astype(np.int64)
        return np.zeros(len(rows), dtype=np.int64), length

    def item_hashes(self, modality: Modality, rows: Int64) -> npt.NDArray[np.uint8]:
        """Return (n, 32) uint8: the hash of each entry's item; of an entry without one zeros."""
        items = self.item(modality, rows)
        hashes = np.zeros((len(rows), 32), dtype=np.uint8)
        present = items >= 0
        some = items[present]
        hashes[present] = self._arrays.gather(f"{modality}s/hash", some, np.ones_like(some))
        return hashes

    def code(self, modality: Modality, rows: Int64) -> Int64:
        """Return (n,) int64: the same number for entries with the same rows, -1 for none.

        For sequences it is the item. Entries may be parts of one structure: there it is the part's
        first row, if the rows of all items are numbered through.
        """
        item = self.item(modality, rows)
        if modality == "sequence" or len(self._structure_begin) == 0:
            return item
        first = self._structure_begin[item] + self._structure_offset[rows]
        return np.where(item >= 0, first, -1)

    def first_rows(self, items: Int64) -> Int64:
        """Return the first row of each structure, if the rows of all are numbered through."""
        return self._structure_begin[items]

    def sequence(self, row: int) -> tuple[str, ...]:
        """Return the chain sequences of an entry."""
        return SequenceItems(self._arrays)[int(self.sequence_item[row])]

    def structure(self, row: int) -> Structure | None:
        """Return the complex that an entry belongs to, None if it has no structure."""
        item = int(self.structure_item[row])
        return None if item < 0 else StructureItems(self._arrays)[item]

    def sequence_rows(self, rows: Int64) -> list[Int64]:
        """Return, for each structure row of entries with a structure, its sequence row."""
        if len(rows) == 0:
            return []
        complete, residues, count = self._complete_residues(rows)
        length = np.add.reduceat(residues, np.cumsum(count) - count)
        begin = np.cumsum(length) - length
        index = np.flatnonzero(complete)
        cuts = np.searchsorted(index, begin)
        self._check_structure_rows(rows, np.diff(cuts, append=len(index)))
        return np.split(index - np.repeat(begin, length)[index], cuts[1:])

    def chain_rows(self, modality: Modality, rows: Int64) -> list[Int64]:
        """Return, for entries with the modality, the rows of each chain that has any."""
        if len(rows) == 0:
            return []
        if modality == "sequence":
            return SequenceItems(self._arrays).chain_rows(self.sequence_item[rows])
        found = np.split(self._structure_length[rows].astype(np.int64), len(rows))
        # Of a single chain it is the whole: only complexes need their residues.
        several = np.flatnonzero(self._chain_counts(rows) != 1)
        if len(several):
            complete, residues, count = self._complete_residues(rows[several])
            ends = np.cumsum(residues)
            rows_before = np.concatenate([[0], np.cumsum(complete)])
            of_chains = np.diff(rows_before[ends], prepend=0)
            each = np.split(of_chains, np.cumsum(count)[:-1])
            self._check_structure_rows(rows[several], np.array([chains.sum() for chains in each]))
            for place, chains in zip(several.tolist(), each, strict=True):
                found[place] = chains[chains > 0]
        return found

    def _chain_counts(self, rows: Int64) -> Int64:
        count = self._arrays.gather("entries/structure_chains", rows, np.ones_like(rows))
        return count.astype(np.int64)

    def _complete_residues(self, rows: Int64) -> tuple[Bool, Int64, Int64]:
        """Return whether each residue has a backbone, residues of chains, chains of entries."""
        first = self._arrays.gather("entries/structure_chain", rows, np.ones_like(rows))
        count, items = self._chain_counts(rows), self.structure_item[rows]
        structures = StructureItems(self._arrays)
        complete, residues = structures.complete_residues(items, first.astype(np.int64), count)
        return complete, residues, count

    def _check_structure_rows(self, rows: Int64, found: Int64) -> None:
        if not np.array_equal(found, self._structure_length[rows]):
            raise self._arrays.inconsistent("entries have more or fewer rows than residues")

    def chains(self, row: int) -> tuple[int, int]:
        """Return (first, count): an entry's chains among its structure's kept chains."""
        first = self._arrays.read("entries/structure_chain", row, row + 1)
        count = self._arrays.read("entries/structure_chains", row, row + 1)
        return int(first[0]), int(count[0])

    def notes(self, row: int) -> tuple[str, ...]:
        """Return the notes that were made when the entry's file was read."""
        text = self._arrays.text("entries/notes", row)
        return tuple(text.split("\n")) if text else ()

    def noted(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield the row and the notes of each live entry that has notes."""
        length = self._arrays.read("entries/notes/length")
        rows = self.live[length[self.live] != 0]
        for begin in range(0, len(rows), _NOTES_AT_ONCE):
            block = rows[begin : begin + _NOTES_AT_ONCE]
            texts = self._arrays.texts_at("entries/notes", block)
            for row, text in zip(block.tolist(), texts.tolist(), strict=True):
                yield row, tuple(text.split("\n"))

    @cached_property
    def _annotated(self) -> Int64:
        """(m,) int64: the entries' rows with an annotation, ascending."""
        if not self._arrays.rows(f"{ANNOTATIONS}/entry"):
            return np.empty(0, dtype=np.int64)
        rows: Int64 = self._arrays.read(f"{ANNOTATIONS}/entry")
        if (np.diff(rows) <= 0).any():
            raise self._arrays.inconsistent(f"{ANNOTATIONS}/entry is not ascending")
        return rows

    def annotations(self, rows: Int64) -> Annotations:
        """Return the annotations of some entries; only theirs are read."""
        place = np.searchsorted(self._annotated, rows)
        known = np.flatnonzero(self.has_annotation(rows))
        if len(known) == 0:
            return Annotations.unknown(len(rows))
        place = place[known]
        values: dict[str, npt.NDArray[Any]] = {
            name: self._arrays.texts_at(f"{ANNOTATIONS}/{name}", place)
            for name in ("description", "organism", "accession")
        }
        taxids = self._arrays.gather(f"{ANNOTATIONS}/taxid", place, np.ones_like(place))
        values["taxid"] = np.maximum(taxids, 0)
        return Annotations.placed(values, known, len(rows))

    def has_annotation(self, rows: Int64) -> Bool:
        """Return (n,) bool: whether anything is known of each entry."""
        place = np.searchsorted(self._annotated, rows)
        has_it: Bool = np.append(self._annotated, -1)[place] == rows
        return has_it

    def source_sha256(self, row: int) -> bytes:
        """Return the SHA-256 of the entry's file, as it was read."""
        source = int(self.source[row])
        sha256: bytes = self._arrays.read("sources/sha256", source, source + 1).tobytes()
        return sha256


class FailureLog:
    """The failures log, and the items that encoders could not embed."""

    def __init__(self, arrays: Arrays, entries: EntryLog) -> None:
        self._arrays = arrays
        self._entries = entries

    @cached_property
    def live(self) -> list[Failure]:
        """Failures that still hold: logged ones by their first appearance, then the encoders'."""
        failures = {(failure.id, failure.file): failure for failure in read_failures(self._arrays)}
        for failure in self._of_encoders():
            failures.setdefault((failure.id, failure.file), failure)
        return list(failures.values())

    def _of_encoders(self) -> list[Failure]:
        names = self._arrays.state.encoders
        return [f for name in names for f in encoder_failures(self._arrays, self._entries, name)]


def encoder_failures(
    arrays: Arrays, entries: EntryLog, encoder: str, only: Container[int] | None = None
) -> list[Failure]:
    """Return a failure for each live entry with an item (of ``only``) that the encoder refused."""
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
    """Return the logged failures that no later row of the same id and file replaces or resolves."""
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
    """Return the modality; raise StoreError unless it is "sequence" or "structure"."""
    for known in MODALITIES:
        if modality == known:
            return known
    raise StoreError(f"modality {modality!r}: not one of sequence, structure; choose one")
