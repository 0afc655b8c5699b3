"""EmbeddingStore and StoreView: entries to slice, and the embeddings behind them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from protalign.core.errors import Failure, InputError, StoreError
from protalign.core.protein import Modality, Structure
from protalign.core.ragged import Ragged
from protalign.stores.encoded import EncoderInfo, EncoderMap
from protalign.stores.entries import EntryLog, FailureLog, check_modality
from protalign.stores.format.arrays import Arrays
from protalign.stores.format.layout import FORMAT_VERSION
from protalign.stores.format.open import open_arrays
from protalign.stores.format.state import Option
from protalign.stores.items import ResidueMap, SequenceItems, StructureItems


class Entries(ABC):
    """Entries in an order: what a store and a view of one have in common.

    A 1-d collection as scikit-learn slices them: ``len``, ``shape == (n,)``, and ``X[index]`` with
    an id, a list of ids, a slice, a bool mask or an array of positions; also ``X[index, ...]``.
    """

    @property
    @abstractmethod
    def store(self) -> EmbeddingStore:
        """The store that the entries are in."""

    @property
    @abstractmethod
    def entry_rows(self) -> npt.NDArray[np.int64]:
        """(n,) int64 rows of the store's log of entries. They stay the same for ever."""

    @property
    def ids(self) -> npt.NDArray[np.object_]:
        """(n,) object array of str."""
        ids: npt.NDArray[np.object_] = self.store.log.ids[self.entry_rows]
        return ids

    @property
    def shape(self) -> tuple[int]:
        """(n,)."""
        return (len(self.entry_rows),)

    def __len__(self) -> int:
        return len(self.entry_rows)

    def __iter__(self) -> Iterator[StoreView]:
        return (self[position] for position in range(len(self)))

    def __contains__(self, entry_id: object) -> bool:
        if not isinstance(entry_id, str):
            return False
        row = self.store.log.find(entry_id)
        return row >= 0 and bool((self.entry_rows == row).any())

    def __getitem__(self, index: Any) -> StoreView:
        """A view of some of the entries; raises InputError for ids that are not there."""
        if isinstance(index, tuple):
            if len(index) != 2 or index[1] is not Ellipsis:
                raise IndexError("entries have one axis; write store[index]")
            index = index[0]
        return StoreView(self.store, self.entry_rows[self._positions(index)])

    def _positions(self, index: Any) -> npt.NDArray[np.int64] | slice:
        if isinstance(index, slice):
            return index
        if isinstance(index, str):
            return self._positions_of_ids([index])
        array = np.asarray(index)
        if array.ndim > 1:
            raise IndexError(f"entries have one axis, the index has {array.ndim}")
        if array.dtype.kind in "UOT" and array.size:
            return self._positions_of_ids(np.atleast_1d(array))
        if array.dtype.kind == "b" and array.shape != self.shape:
            raise IndexError(f"a mask of shape {array.shape} does not fit {len(self)} entries")
        if array.dtype.kind not in "biu" and array.size:
            raise IndexError(f"entries cannot be looked up by {array.dtype}")
        if array.dtype.kind == "b":
            return np.flatnonzero(array)
        positions = np.atleast_1d(array).astype(np.int64)
        if positions.size and not -len(self) <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"there are {len(self)} entries")
        return positions

    def _positions_of_ids(self, ids: Any) -> npt.NDArray[np.int64]:
        rows = self.store.log.rows_of(ids)
        order = np.argsort(self.entry_rows, kind="stable")
        place = np.searchsorted(self.entry_rows, rows, sorter=order)
        place = order[np.minimum(place, len(order) - 1)] if len(order) else place
        found = self.entry_rows[place] == rows if len(order) else np.zeros(len(rows), np.bool_)
        if not found.all():
            missing = [str(ids[i]) for i in np.flatnonzero(~found)[:3]]
            raise InputError(f"this view has no {', '.join(map(repr, missing))}", "the store does")
        return place

    @property
    def has_sequence(self) -> npt.NDArray[np.bool_]:
        """(n,) bool."""
        return self.store.log.item("sequence", self.entry_rows) >= 0

    @property
    def has_structure(self) -> npt.NDArray[np.bool_]:
        """(n,) bool; False for FASTA records."""
        return self.store.log.item("structure", self.entry_rows) >= 0

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(n,) int64 residues of each entry's sequence, all chains together."""
        return self.store.log.span("sequence", self.entry_rows)[1]

    def items(self, modality: Modality) -> npt.NDArray[np.int64]:
        """(n,) int64, equal for entries that share one embedding, -1 where there is none."""
        return self.store.log.code(check_modality(modality), self.entry_rows)

    def encoder_for(self, modality: Modality, name: str | None = None) -> EncoderInfo:
        """The named encoder, or the only one of the modality.

        Raises StoreError, listing the names, if there is none, if there are several, or if the
        named one is of the other modality.
        """
        return self.store.encoders.choose(check_modality(modality), name)

    def rows(self, encoder: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(start, length), (n,) int64 each: where the rows are in the encoder's ``values``.

        Start is -1 and length 0 for an entry without the modality, or not embedded.
        """
        encoded = self.store.encoders.rows(encoder)
        modality = encoded.record.modality
        item = self.store.log.item(modality, self.entry_rows)
        start = np.full(len(item), -1, dtype=np.int64)
        start[item >= 0] = encoded.start[item[item >= 0]]
        offset, length = self.store.log.span(modality, self.entry_rows)
        there = start >= 0
        return np.where(there, start + offset, -1), np.where(there, length, 0)

    def embeddings(
        self, encoder: str, positions: npt.NDArray[np.integer[Any]] | None = None
    ) -> Ragged:
        """Residue embeddings of all entries, or of those at ``positions``, packed.

        In the stored dtype, (R, D), in the entries' order. Raises InputError for an entry without
        the modality or not embedded, StoreError where the store is damaged.
        """
        chosen: Entries = self if positions is None else self[positions]
        start, length = chosen.rows(encoder)
        if (start < 0).any():
            chosen._refuse_missing(encoder, start < 0)
        offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        return Ragged(self.store.encoders.rows(encoder).gather(start, length), offsets)

    def embeddings_at(
        self, encoder: str, residues: Sequence[int] | npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[Any]:
        """One residue's embedding of every entry: (n, D), in the stored dtype.

        What a point mutation changes most is at its place: ``store[mutants].embeddings_at(encoder,
        places) - store[wild_types].embeddings_at(encoder, places)``. Only these rows are read.

        Parameters
        ----------
        encoder : its name in the store.
        residues : (n,) rows of each entry, counted from 0: residues of its sequence for a sequence
            encoder, and for a structure encoder those of ``store.residue_map``.

        Raises
        ------
        InputError : an entry without the modality or not embedded, or a row that it does not have.
        """
        rows = np.asarray(residues, dtype=np.int64)
        start, length = self.rows(encoder)
        if (start < 0).any():
            self._refuse_missing(encoder, start < 0)
        if rows.shape != self.shape:
            raise InputError(f"residues of shape {rows.shape}", f"give one for each of {len(self)}")
        outside = np.flatnonzero((rows < 0) | (rows >= length))
        if len(outside):
            first = outside[0]
            raise InputError(
                f"{self.ids[first]} has no residue {rows[first]}",
                f"it has {length[first]}, counted from 0",
            )
        return self.store.encoders.rows(encoder).gather(start + rows, np.ones_like(rows))

    def _refuse_missing(self, encoder: str, missing: npt.NDArray[np.bool_]) -> None:
        named = ", ".join(self.ids[missing][:3].tolist())
        count = int(missing.sum())
        more = f" and {count - 3:,} more" if count > 3 else ""
        raise InputError(
            f"no {encoder} embedding of {named}{more}",
            "leave entries without it out (has_sequence, has_structure), or run `protalign embed` "
            "to the end",
        )


class StoreView(Entries):
    """Some entries of a store, in some order. Pickles as the store's path and row numbers."""

    def __init__(self, store: EmbeddingStore, entry_rows: npt.NDArray[np.int64]) -> None:
        self._store = store
        self._entry_rows = entry_rows

    @property
    def store(self) -> EmbeddingStore:
        return self._store

    @property
    def entry_rows(self) -> npt.NDArray[np.int64]:
        return self._entry_rows

    def __repr__(self) -> str:
        return f"<StoreView of {len(self):,} entries of {self._store.path}>"

    def __deepcopy__(self, memo: object) -> StoreView:
        return self  # nothing in it changes

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_view, (self._store.path, self._entry_rows, self._fingerprint())

    def _fingerprint(self) -> bytes:
        return hashlib.blake2b("\n".join(self.ids.tolist()).encode(), digest_size=16).digest()


def _restore_view(path: str, entry_rows: npt.NDArray[np.int64], fingerprint: bytes) -> StoreView:
    """Unpickle; one process opens a store once however many of its views arrive."""
    view = StoreView(EmbeddingStore._shared(path), entry_rows)
    if len(entry_rows) and (
        entry_rows.max() >= len(view.store.log) or view._fingerprint() != fingerprint
    ):
        raise StoreError(f"{path} is no longer the store that the pickled view was of")
    return view


class EmbeddingStore(Entries):
    """A store opened for reading: the view of all its live entries, and what they share.

    What is committed when it is opened is what it shows; open it again to see more.

    Attributes
    ----------
    path : absolute folder, or URL.
    encoders : name -> EncoderInfo.
    options : how its files were read.
    """

    _open_stores: ClassVar[WeakValueDictionary[str, EmbeddingStore]] = WeakValueDictionary()

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.path = arrays.path
        self.log = EntryLog(arrays)
        self.encoders = EncoderMap(arrays)
        self.options: Mapping[str, Option] = arrays.state.options

    @classmethod
    def open(cls, path: str | Path) -> EmbeddingStore:
        """Open a local folder, or a URL that fsspec knows ("s3://…").

        Raises StoreError if there is none, if it is of another format, or damaged.
        """
        return cls(open_arrays(_absolute(path)))

    @classmethod
    def _shared(cls, path: str) -> EmbeddingStore:
        store = cls._open_stores.get(path)
        if store is None or store._arrays.state != open_arrays(path).state:
            store = cls._open_stores[path] = cls.open(path)
        return store

    @property
    def store(self) -> EmbeddingStore:
        return self

    @property
    def entry_rows(self) -> npt.NDArray[np.int64]:
        return self.log.live

    def __repr__(self) -> str:
        return f"<EmbeddingStore {self.path}: {len(self):,} entries>"

    def __deepcopy__(self, memo: object) -> EmbeddingStore:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return EmbeddingStore._shared, (self.path,)

    @cached_property
    def failures(self) -> list[Failure]:
        """What could not be read or embedded, and was not mended since."""
        return FailureLog(self._arrays, self.log).live

    def sequence(self, entry_id: str) -> tuple[str, ...]:
        """The entry's chain sequences."""
        row = self.log.rows_of([entry_id])
        return SequenceItems(self._arrays)[int(self.log.item("sequence", row)[0])]

    def structure(self, entry_id: str) -> Structure:
        """The complex that the entry's rows come from; InputError if it has none."""
        row = self.log.rows_of([entry_id])
        item = int(self.log.item("structure", row)[0])
        if item < 0:
            raise InputError(f"{entry_id} has no structure", "it was read from a sequence file")
        return StructureItems(self._arrays)[item]

    def residue_map(self, entry_id: str) -> ResidueMap:
        """Which residue each row of the entry's structure embedding is."""
        kept = self.structure(entry_id).kept_chains
        first, count = self.log.chains(int(self.log.rows_of([entry_id])[0]))
        return ResidueMap.of(kept[first : first + count])

    def notes(self, entry_id: str) -> tuple[str, ...]:
        """What reading the entry's file remarked."""
        return self.log.notes(int(self.log.rows_of([entry_id])[0]))

    def source(self, entry_id: str) -> str:
        """Path of the file that the entry was read from."""
        return self.log.source_path(int(self.log.rows_of([entry_id])[0]))

    def source_sha256(self, entry_id: str) -> bytes:
        """SHA-256 (32 bytes) of that file's bytes, as they were when it was read."""
        return self.log.source_sha256(int(self.log.rows_of([entry_id])[0]))

    def info(self) -> dict[str, Any]:
        """Counts, encoders and size, for JSON; bytes is None for a remote store."""
        sequences, structures = SequenceItems(self._arrays), StructureItems(self._arrays)
        encoders = {}
        for name, encoder in self.encoders.items():
            facts = asdict(encoder)
            facts["items"], facts["items_total"] = facts.pop("n_items"), facts.pop("n_items_total")
            encoders[name] = facts
        return {
            "path": self.path,
            "format": FORMAT_VERSION,
            "entries": len(self),
            "unique_sequences": len(sequences),
            "unique_structures": len(structures),
            "sequence_residues": int(sequences.rows().sum()),
            "structure_residues": int(structures.rows().sum()),
            "options": dict(self.options),
            "encoders": encoders,
            "bytes": None if "://" in self.path else _size(Path(self.path)),
            "failures": [asdict(failure) for failure in self.failures],
        }


def _absolute(path: str | Path) -> str:
    return str(path) if "://" in str(path) else str(Path(path).absolute())


def _size(folder: Path) -> int:
    """Bytes of the files below a folder, as their lengths say."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
