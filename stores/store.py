"""EmbeddingStore and StoreView: entries to slice, and their embeddings."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.checks import first_few, plain_index
from protalign.core.errors import Failure, InputError, StoreError
from protalign.core.notes import Remark
from protalign.core.paths import path_text
from protalign.core.protein import Modality, Structure
from protalign.core.ragged import Ragged
from protalign.stores.encoded import EncoderInfo, EncoderMap
from protalign.stores.entries import EntryLog, FailureLog, check_modality
from protalign.stores.format.arrays import Arrays
from protalign.stores.format.disk import walk
from protalign.stores.format.open import open_arrays
from protalign.stores.format.state import Option
from protalign.stores.items import ResidueMap, SequenceItems, StructureItems
from protalign.stores.vectors.annotations import Annotations


class Entries(ABC):
    """Entries in an order: the part that a store and a view of it have in common.

    A collection of one axis that scikit-learn can slice: ``len``, ``shape == (n,)``, and
    ``X[index]`` with an id, a list of ids, a slice, a bool mask or an array of positions; also
    ``X[index, ...]``.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import EmbeddingStore, embed
    >>> store = tempfile.mkdtemp() + "/store.zarr"
    >>> files = ["examples/sample/1a2p_A.pdb.gz", "examples/sample/1bpi_A.cif"]
    >>> report = embed(files, store, ["protalign_t6_2M", "proteinmpnn_v_48_020"])
    >>> entries = EmbeddingStore.open(store)
    >>> entries.ids.tolist(), entries.lengths.tolist()
    (['1a2p_A', '1bpi_A'], [108, 58])
    >>> entries["1bpi_A"].embeddings("proteinmpnn_v_48_020").values.shape
    (58, 128)
    >>> entries[entries.lengths > 100].ids.tolist()
    ['1a2p_A']
    """

    @property
    @abstractmethod
    def store(self) -> EmbeddingStore:
        """The store of the entries."""

    @property
    @abstractmethod
    def entry_rows(self) -> Int64:
        """(n,) int64: their rows in the store's log of entries, which never change."""

    @property
    def ids(self) -> npt.NDArray[np.object_]:
        """(n,) object array of str: the ids."""
        ids: npt.NDArray[np.object_] = self.store.log.ids[self.entry_rows]
        return ids

    @property
    def shape(self) -> tuple[int]:
        """``(n,)``, as scikit-learn expects."""
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
        """Return a view of some of the entries; raise InputError for unknown ids."""
        if isinstance(index, tuple):
            if len(index) != 2 or index[1] is not Ellipsis:
                raise IndexError("entries have one axis; write store[index]")
            index = index[0]
        return StoreView(self.store, self.entry_rows[self._positions(index)])

    def _positions(self, index: Any) -> Int64 | slice:
        if isinstance(index, slice):
            return index
        if isinstance(index, str):
            return self._positions_of_ids([index])
        array = np.asarray(index)
        if array.ndim > 1:
            raise IndexError(f"entries have one axis, the index has {array.ndim}")
        array = plain_index(array)
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
            raise IndexError(f"position out of range: the store or view has {len(self)} entries")
        return positions

    def _positions_of_ids(self, ids: Any) -> Int64:
        rows = self.store.log.rows_of(ids)
        order = np.argsort(self.entry_rows, kind="stable")
        position = np.searchsorted(self.entry_rows, rows, sorter=order)
        present = np.zeros(len(rows), dtype=np.bool_)
        if len(order):
            position = order[np.minimum(position, len(order) - 1)]
            present = self.entry_rows[position] == rows
        if not present.all():
            missing = [repr(str(ids[index])) for index in np.flatnonzero(~present).tolist()]
            raise InputError(
                f"this view has no entry {first_few(missing)}", "the store does: look it up there"
            )
        return position

    @property
    def has_sequence(self) -> Bool:
        """(n,) bool: whether each entry has a sequence."""
        return self.store.log.item("sequence", self.entry_rows) >= 0

    @property
    def has_structure(self) -> Bool:
        """(n,) bool: whether each entry has a structure; False for FASTA records."""
        return self.store.log.item("structure", self.entry_rows) >= 0

    @property
    def lengths(self) -> Int64:
        """(n,) int64: residues of each entry's sequence, all chains together."""
        return self.store.log.span("sequence", self.entry_rows)[1]

    @property
    def annotations(self) -> Annotations:
        r"""Names, organisms, taxids and accessions of the entries, as their files have them.

        Only those of these entries are read. Unknown ones are None; all of an entry that was
        embedded before the store's format had them.

        Examples
        --------
        >>> import tempfile
        >>> from protalign import EmbeddingStore, embed
        >>> folder = tempfile.mkdtemp()
        >>> with open(f"{folder}/one.fasta", "w") as fasta:
        ...     _ = fasta.write(">P01308 Insulin OS=Homo sapiens OX=9606\nGIVEQCC\n")
        >>> _ = embed(f"{folder}/one.fasta", f"{folder}/store.zarr", ["protalign_t6_2M"])
        >>> EmbeddingStore.open(f"{folder}/store.zarr")["P01308"].annotations[0]
        Annotation(description='Insulin', organism='Homo sapiens', taxid=9606, accession='P01308')
        """
        return self.store.log.annotations(self.entry_rows)

    def items(self, modality: Modality) -> Int64:
        """Return (n,) int64, equal for entries that share one embedding, -1 for none.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The items to compare.
        """
        return self.store.log.code(check_modality(modality), self.entry_rows)

    def encoder_for(self, modality: Modality, name: str | None = None) -> EncoderInfo:
        """Return the named encoder, or the only one of the modality.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The items that it embeds.
        name : str, optional
            Its name in the store.

        Raises
        ------
        StoreError
            The store has no such encoder, has several and no name was given, or the named one
            embeds the other modality. The message lists the names.
        """
        return self.store.encoders.choose(check_modality(modality), name)

    def rows(self, encoder: str) -> tuple[Int64, Int64]:
        """Return (start, length), (n,) int64 each: each entry's rows of the encoder's ``values``.

        Start is -1 and length 0 for an entry without the modality, or not embedded.
        """
        encoded = self.store.encoders.rows(encoder)
        modality = encoded.record.modality
        item = self.store.log.item(modality, self.entry_rows)
        start = np.full(len(item), -1, dtype=np.int64)
        start[item >= 0] = encoded.start[item[item >= 0]]
        offset, length = self.store.log.span(modality, self.entry_rows)
        embedded = start >= 0
        return np.where(embedded, start + offset, -1), np.where(embedded, length, 0)

    def embeddings(
        self, encoder: str, positions: npt.NDArray[np.integer[Any]] | None = None
    ) -> Ragged:
        """Return the residue embeddings of all entries, or of those at ``positions``, packed.

        Parameters
        ----------
        encoder : str
            Its name in the store.
        positions : (m,) int, optional
            Positions of entries, in any order, also repeated. Default: all.

        Returns
        -------
        Ragged
            Its ``values`` are (R, D) in the stored dtype; item i is the (L_i, D) array of entry i.
            A sequence encoder gives a row per residue of the sequence; for a structure encoder
            ``store.residue_map`` names the residues.

        Raises
        ------
        InputError
            An entry does not have the modality, or is not embedded.
        StoreError
            The store has no such encoder, or is damaged.
        """
        entries: Entries = self if positions is None else self[positions]
        start, length = entries.rows(encoder)
        if (start < 0).any():
            entries._refuse_missing(encoder, start < 0)
        offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        return Ragged(self.store.encoders.rows(encoder).gather(start, length), offsets)

    def embeddings_at(
        self, encoder: str, residues: Sequence[int] | npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[Any]:
        """Return the embedding of one residue of every entry; only these rows are read.

        A point mutation changes the embedding most at the mutated residue:
        ``store[mutants].embeddings_at(encoder, residues) -
        store[wild_types].embeddings_at(encoder, residues)``.

        Parameters
        ----------
        encoder : str
            Its name in the store.
        residues : (n,) int
            A row of each entry, counted from 0: a residue of its sequence for a sequence encoder,
            a row of ``store.residue_map`` for a structure encoder.

        Returns
        -------
        (n, D) array
            In the stored dtype.

        Raises
        ------
        InputError
            An entry does not have the modality, is not embedded, or has no such row.

        Examples
        --------
        >>> import tempfile
        >>> from protalign import EmbeddingStore, embed
        >>> path = tempfile.mkdtemp() + "/store.zarr"
        >>> report = embed("examples/sample/1bpi_A.cif", path, ["protalign_t6_2M"])
        >>> EmbeddingStore.open(path)["1bpi_A"].embeddings_at("protalign_t6_2M", [14]).shape
        (1, 160)
        """
        rows = np.asarray(residues, dtype=np.int64)
        start, length = self.rows(encoder)
        if (start < 0).any():
            self._refuse_missing(encoder, start < 0)
        if rows.shape != self.shape:
            raise InputError(
                f"residues: their shape is {rows.shape}",
                f"give one for each of {len(self)} entries",
            )
        outside = np.flatnonzero((rows < 0) | (rows >= length))
        if len(outside):
            first = outside[0]
            raise InputError(
                f"{self.ids[first]}: it has no residue {rows[first]}",
                f"give one from 0 to {length[first] - 1}",
            )
        return self.store.encoders.rows(encoder).gather(start + rows, np.ones_like(rows))

    def _refuse_missing(self, encoder: str, missing: Bool) -> None:
        raise InputError(
            f"no {encoder} embedding of {first_few(self.ids[missing].tolist())}",
            "leave entries without it out (has_sequence, has_structure), or run `protalign embed` "
            "to the end",
        )


class StoreView(Entries):
    r"""Some entries of a store, in some order; pickled as the store's path and row numbers.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import EmbeddingStore, embed
    >>> folder = tempfile.mkdtemp()
    >>> with open(f"{folder}/two.fasta", "w") as fasta:
    ...     _ = fasta.write(">a\nMKVLAGIV\n>b\nGIVEQCC\n")
    >>> _ = embed(f"{folder}/two.fasta", f"{folder}/store.zarr", ["protalign_t6_2M"])
    >>> view = EmbeddingStore.open(f"{folder}/store.zarr")[["b", "a"]]
    >>> view.ids.tolist(), view[:1].lengths.tolist()
    (['b', 'a'], [7])
    """

    def __init__(self, store: EmbeddingStore, entry_rows: Int64) -> None:
        self._store = store
        self._entry_rows = entry_rows

    @property
    def store(self) -> EmbeddingStore:
        """The store of the entries."""
        return self._store

    @property
    def entry_rows(self) -> Int64:
        """(n,) int64: their rows in the store's log of entries, which never change."""
        return self._entry_rows

    def __repr__(self) -> str:
        return f"<StoreView of {len(self):,} entries of {self._store.path}>"

    def __deepcopy__(self, memo: object) -> StoreView:
        return self  # it never changes

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_view, (self._store.path, self._entry_rows, self._fingerprint())

    def _fingerprint(self) -> bytes:
        return hashlib.blake2b("\n".join(self.ids.tolist()).encode(), digest_size=16).digest()


def _restore_view(path: str, entry_rows: Int64, fingerprint: bytes) -> StoreView:
    """Unpickle a view; a process opens a store once, whatever the number of its views."""
    view = StoreView(EmbeddingStore._shared(path), entry_rows)
    if len(entry_rows) and (
        entry_rows.max() >= len(view.store.log) or view._fingerprint() != fingerprint
    ):
        raise StoreError(f"{path}: it is no longer the store of the pickled view; pickle it again")
    return view


class EmbeddingStore(Entries):
    """A store, opened for reading: all its live entries, their embeddings, and their proteins.

    It shows the state when it was opened. Open it again to see later commits.

    Parameters
    ----------
    arrays : Arrays
        Its arrays. ``EmbeddingStore.open`` finds them by path.

    Attributes
    ----------
    path : str
        Absolute folder, or URL.
    encoders : mapping of str to EncoderInfo
        Its encoders, by name.
    options : mapping
        How its files were read.

    Examples
    --------
    >>> import tempfile
    >>> from protalign import EmbeddingStore, embed
    >>> path = tempfile.mkdtemp() + "/store.zarr"
    >>> report = embed("examples/sample/1bpi_A.cif", path, ["protalign_t6_2M"])
    >>> store = EmbeddingStore.open(path)
    >>> store.ids.tolist(), list(store.encoders)
    (['1bpi_A'], ['protalign_t6_2M'])
    >>> store.sequence("1bpi_A")[0][:10]
    'RPDFCLEPPY'
    """

    _open_stores: ClassVar[WeakValueDictionary[str, EmbeddingStore]] = WeakValueDictionary()

    def __init__(self, arrays: Arrays) -> None:
        if not isinstance(arrays, Arrays):
            raise TypeError(f"open the store with EmbeddingStore.open({str(arrays)!r})")
        self._arrays = arrays
        self.path = arrays.path
        self.log = EntryLog(arrays)
        self.encoders = EncoderMap(arrays)
        self.options: Mapping[str, Option] = arrays.state.options

    @classmethod
    def open(cls, path: str | Path) -> EmbeddingStore:
        """Open a store.

        Parameters
        ----------
        path : str or path
            A local folder, or a URL that fsspec knows ("s3://…").

        Raises
        ------
        StoreError
            The store is missing, damaged, or of another format.
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
        """Itself."""
        return self

    @property
    def entry_rows(self) -> Int64:
        """(n,) int64: rows of its live entries in its log of entries, ascending."""
        return self.log.live

    def __repr__(self) -> str:
        return f"<EmbeddingStore {self.path}: {len(self):,} entries>"

    def __deepcopy__(self, memo: object) -> EmbeddingStore:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return EmbeddingStore._shared, (self.path,)

    @cached_property
    def failures(self) -> list[Failure]:
        """Files and entries that could not be read or embedded, and still cannot."""
        return FailureLog(self._arrays, self.log).live

    def remarks(self) -> list[Remark]:
        r"""Return all that was noted when files were read, and all failures, one row for each.

        Notes come first, in the order of the entries. ``pandas.DataFrame(store.remarks())`` makes
        a table of them.

        Examples
        --------
        >>> import tempfile
        >>> from protalign import EmbeddingStore, embed
        >>> folder = tempfile.mkdtemp()
        >>> with open(f"{folder}/two.fasta", "w") as fasta:
        ...     _ = fasta.write(">a\nMKVJGIV\n>b\nGI-E\n")
        >>> _ = embed(f"{folder}/two.fasta", f"{folder}/store.zarr", ["protalign_t6_2M"])
        >>> for remark in EmbeddingStore.open(f"{folder}/store.zarr").remarks():
        ...     print(remark.kind, remark.id, remark.text)
        note a 1 J read as X
        failure b - at position 3 is not an amino acid
        """
        log = self.log
        notes = [
            Remark("note", str(log.ids[row]), log.source_path(row), note, "")
            for row, of_entry in log.noted()
            for note in of_entry
        ]
        failures = [Remark("failure", f.id, f.file, f.reason, f.advice) for f in self.failures]
        return notes + failures

    def sequence(self, entry_id: str) -> tuple[str, ...]:
        """Return the entry's chain sequences; raise InputError for an unknown id."""
        row = self.log.rows_of([entry_id])
        return SequenceItems(self._arrays)[int(self.log.item("sequence", row)[0])]

    def structure(self, entry_id: str) -> Structure:
        """Return the complex that the entry belongs to; raise InputError if it has no structure."""
        row = self.log.rows_of([entry_id])
        item = int(self.log.item("structure", row)[0])
        if item < 0:
            raise InputError(
                f"{entry_id}: it has no structure, since it was read from a sequence file",
                "choose entries with has_structure",
            )
        return StructureItems(self._arrays)[item]

    def residue_map(self, entry_id: str) -> ResidueMap:
        """Return the map from rows of the entry's structure embedding to residues.

        Examples
        --------
        >>> import tempfile
        >>> from protalign import EmbeddingStore, embed
        >>> path = tempfile.mkdtemp() + "/store.zarr"
        >>> report = embed("examples/sample/1bpi_A.cif", path, ["proteinmpnn_v_48_020"])
        >>> residues = EmbeddingStore.open(path).residue_map("1bpi_A")
        >>> len(residues), residues.chain_ids[0], residues.residue_numbers[:3].tolist()
        (58, 'A', [1, 2, 3])
        """
        kept = self.structure(entry_id).kept_chains
        first, count = self.log.chains(int(self.log.rows_of([entry_id])[0]))
        if not 0 <= first < first + count <= len(kept):
            raise self._arrays.inconsistent(f"{entry_id} has chains that its structure has not")
        return ResidueMap.of(kept[first : first + count])

    def sequence_rows(self, entry_rows: Int64) -> list[Int64]:
        """Return, for each row of entries' structure embeddings, the row of their sequence's.

        Parameters
        ----------
        entry_rows : (n,) int64
            Entries with a structure, by their rows in the log of entries (``entry_rows``).

        Returns
        -------
        list of (rows,) int64
            ``residue_map(id).sequence_index`` of each, read at once.
        """
        items = self.log.item("structure", entry_rows)
        chains = StructureItems(self._arrays).complete_residues(items)
        rows = []
        for row, complete in zip(entry_rows.tolist(), chains, strict=True):
            first, count = self.log.chains(row)
            rows.append(np.flatnonzero(np.concatenate(complete[first : first + count])))
        return rows

    def notes(self, entry_id: str) -> tuple[str, ...]:
        """Return the notes that were made when the entry's file was read."""
        return self.log.notes(int(self.log.rows_of([entry_id])[0]))

    def source(self, entry_id: str) -> str:
        """Return the path of the file that the entry was read from."""
        return self.log.source_path(int(self.log.rows_of([entry_id])[0]))

    def source_sha256(self, entry_id: str) -> bytes:
        """Return the SHA-256 (32 bytes) of that file, as it was when it was read."""
        return self.log.source_sha256(int(self.log.rows_of([entry_id])[0]))

    def info(self) -> dict[str, Any]:
        """Return counts, encoders and size, for JSON; bytes is None for a remote store."""
        sequences, structures = SequenceItems(self._arrays), StructureItems(self._arrays)
        encoders = {}
        for name, encoder in self.encoders.items():
            described = asdict(encoder)
            described["items"] = described.pop("n_items")
            described["items_total"] = described.pop("n_items_total")
            encoders[name] = described
        return {
            "path": path_text(self.path),
            "format": self._arrays.state.format,
            "entries": len(self),
            "annotated": int(np.count_nonzero(self.log.has_annotation(self.entry_rows))),
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
    """Return the bytes of the files below a folder, by their lengths."""
    size = 0
    for entry in walk(folder):
        with suppress(OSError):  # a writer beside this reader may have renamed it
            if entry.is_file(follow_symlinks=False):
                size += entry.stat(follow_symlinks=False).st_size
    return size
