"""EmbeddingStore and StoreView: entries to slice, and their embeddings."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
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
from protalign.stores.contents import Contents, StoreContents
from protalign.stores.encoded import EncoderInfo
from protalign.stores.entries import check_modality
from protalign.stores.format.open import open_arrays
from protalign.stores.format.state import Option
from protalign.stores.items import ResidueMap
from protalign.stores.union.contents import open_union, union_of
from protalign.stores.union.paths import StorePaths, listed, the_one
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
        return self.store.log.ids_at(self.entry_rows)

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

    def chain_rows(self, modality: Modality) -> list[Int64]:
        """Return, for each entry, the rows of an embedding that each of its chains has.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The modality of the embedding. All of the entries have it.

        Returns
        -------
        list of (c,) int64
            A chain without rows is left out: one without a complete backbone has no row of a
            structure's embedding.
        """
        return self.store.log.chain_rows(check_modality(modality), self.entry_rows)

    def row_positions(self, modality: Modality) -> list[Int64]:
        """Return, for each entry, the positions in its sequence of the residues that have a row.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The modality of the embedding. All of the entries have it.

        Returns
        -------
        list of (rows,) int64
            Positions count from 0 through all chains. A structure has a row for each residue with
            a complete backbone.
        """
        lengths, rows = self.lengths, self.entry_rows
        found: list[Int64] = [np.arange(length) for length in lengths.tolist()]
        if check_modality(modality) == "structure":
            # Of a structure that lacks nothing no coordinates are read.
            lacking = np.flatnonzero(self.store.log.span(modality, rows)[1] != lengths)
            of_lacking = self.store.sequence_rows(rows[lacking])
            for place, positions in zip(lacking.tolist(), of_lacking, strict=True):
                found[place] = positions
        return found

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
        start[item >= 0] = encoded.starts(item[item >= 0])
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
        return f"<StoreView of {len(self):,} entries of {path_text(self._store.path)}>"

    def __deepcopy__(self, memo: object) -> StoreView:
        return self  # it never changes

    def __reduce__(self) -> tuple[Any, ...]:
        return restored_view, (self._store, self._entry_rows, self.fingerprint())

    def fingerprint(self) -> bytes:
        """Return a digest of the ids, in their order."""
        return hashlib.blake2b("\n".join(self.ids.tolist()).encode(), digest_size=16).digest()


def restored_view(store: EmbeddingStore, entry_rows: Int64, fingerprint: bytes) -> StoreView:
    """Return a view that another process had; raise StoreError if the store has other entries."""
    view = StoreView(store, entry_rows)
    if len(entry_rows) and (
        entry_rows.max() >= len(view.store.log) or view.fingerprint() != fingerprint
    ):
        raise StoreError(
            f"{store.path}: it is no longer the store of the view; open it and run this again"
        )
    return view


class EmbeddingStore(Entries):
    """A store, opened for reading: all its live entries, their embeddings, and their proteins.

    It may be several stores of the same encoders, which are read as one. It shows the state when it
    was opened. Open it again to see later commits.

    Parameters
    ----------
    contents : Contents
        Its parts. ``EmbeddingStore.open`` finds them by path.

    Attributes
    ----------
    path : str
        Absolute folder, URL or pattern, for messages.
    paths : tuple of str
        The absolute folders, URLs and patterns that it was opened by.
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

    _open_stores: ClassVar[WeakValueDictionary[object, EmbeddingStore]] = WeakValueDictionary()

    def __init__(self, contents: Contents) -> None:
        if not isinstance(contents, Contents):
            raise TypeError(f"open the store with EmbeddingStore.open({str(contents)!r})")
        self._contents = contents
        self.path = contents.path
        self.paths = contents.paths
        self.log = contents.log
        self.encoders = contents.encoders
        self.options: Mapping[str, Option] = contents.options

    @classmethod
    def open(cls, path: StorePaths) -> EmbeddingStore:
        """Open a store, or several stores as one.

        Stores that are opened together have entries of different ids and were embedded with the
        same encoders and options. Items of equal content count once, whatever store they are in.
        Memory is taken for what is used: numbers of every entry, and the ids that are asked for.

        Parameters
        ----------
        path : str, path or iterable of them
            A local folder, a URL that fsspec knows ("s3://…"), or a pattern of either
            ("shards/*.zarr", in which ``*``, ``?`` and ``[…]`` stand for parts of names). Stores of
            a pattern are in the order of their names, 9 before 10.

        Raises
        ------
        StoreError
            A store is missing, damaged, or of another format. Of several: one was embedded with
            other encoders or options, or is not finished, or no store matches a pattern.

        Examples
        --------
        >>> import tempfile
        >>> from protalign import EmbeddingStore, embed
        >>> folder = tempfile.mkdtemp()
        >>> for name in ("1bpi_A", "110l_A"):  # what two tasks of a cluster do
        ...     file, shard = f"examples/sample/{name}.cif", f"{folder}/{name}.zarr"
        ...     _ = embed(file, shard, ["protalign_t6_2M"])
        >>> EmbeddingStore.open(f"{folder}/*.zarr").ids.tolist()
        ['1bpi_A', '110l_A']
        """
        paths = listed(path)
        if (one := the_one(paths)) is not None:
            store = cls(StoreContents(open_arrays(one)))
            store.ids  # noqa: B018  # a damaged index is found now
            return store
        return cls(open_union(paths))

    @classmethod
    def _shared(cls, members: tuple[str, ...], paths: tuple[str, ...]) -> EmbeddingStore:
        """Return the store of a pickle; a process opens a store once."""
        key = members, paths
        store = cls._open_stores.get(key)
        if store is None or not store._contents.is_current():
            opened = cls.open(paths[0]) if members == paths[:1] else cls(union_of(members, paths))
            store = cls._open_stores[key] = opened
        return store

    @property
    def store(self) -> EmbeddingStore:
        """Itself."""
        return self

    @property
    def entry_rows(self) -> Int64:
        """(n,) int64: rows of its live entries in its log of entries, ascending."""
        return self.log.live

    def __contains__(self, entry_id: object) -> bool:
        return isinstance(entry_id, str) and self.log.find(entry_id) >= 0

    def _positions_of_ids(self, ids: Any) -> Int64:
        return np.searchsorted(self.log.live, self.log.rows_of(ids))  # all of its rows, ascending

    def __repr__(self) -> str:
        return f"<EmbeddingStore {path_text(self.path)}: {len(self):,} entries>"

    def __deepcopy__(self, memo: object) -> EmbeddingStore:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return EmbeddingStore._shared, (self._contents.members, self.paths)

    @property
    def failures(self) -> list[Failure]:
        """Files and entries that could not be read or embedded, and still cannot."""
        return self._contents.failures

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
        noted = dict(self.log.noted())
        rows = np.fromiter(noted, dtype=np.int64, count=len(noted))
        ids, files = self.log.ids_at(rows).tolist(), self.log.source_paths_at(rows).tolist()
        notes = [
            Remark("note", entry_id, file, note, "")
            for entry_id, file, of_entry in zip(ids, files, noted.values(), strict=True)
            for note in of_entry
        ]
        failures = [Remark("failure", f.id, f.file, f.reason, f.advice) for f in self.failures]
        return notes + failures

    def sequence(self, entry_id: str) -> tuple[str, ...]:
        """Return the entry's chain sequences; raise InputError for an unknown id."""
        return self.log.sequence(self._row(entry_id))

    def structure(self, entry_id: str) -> Structure:
        """Return the complex that the entry belongs to; raise InputError if it has no structure."""
        return self._structure(entry_id, self._row(entry_id))

    def _row(self, entry_id: str) -> int:
        return int(self.log.rows_of([entry_id])[0])

    def _structure(self, entry_id: str, row: int) -> Structure:
        structure = self.log.structure(row)
        if structure is None:
            raise InputError(
                f"{entry_id}: it has no structure, since it was read from a sequence file",
                "choose entries with has_structure",
            )
        return structure

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
        row = self._row(entry_id)
        kept = self._structure(entry_id, row).kept_chains
        first, count = self.log.chains(row)
        if not 0 <= first < first + count <= len(kept):
            raise self._contents.inconsistent(f"{entry_id} has chains that its structure has not")
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
        return self.log.sequence_rows(entry_rows)

    def notes(self, entry_id: str) -> tuple[str, ...]:
        """Return the notes that were made when the entry's file was read."""
        return self.log.notes(self._row(entry_id))

    def source(self, entry_id: str) -> str:
        """Return the path of the file that the entry was read from."""
        return self.log.source_path(self._row(entry_id))

    def source_sha256(self, entry_id: str) -> bytes:
        """Return the SHA-256 (32 bytes) of that file, as it was when it was read."""
        return self.log.source_sha256(self._row(entry_id))

    def info(self) -> dict[str, Any]:
        """Return counts, encoders and size, for JSON; bytes is None for a remote store."""
        encoders = {}
        for name, encoder in self.encoders.items():
            described = asdict(encoder)
            described["items"] = described.pop("n_items")
            described["items_total"] = described.pop("n_items_total")
            encoders[name] = described
        return {
            "path": path_text(self.path),
            "stores": len(self._contents.members),
            "entries": len(self),
            "annotated": int(np.count_nonzero(self.log.has_annotation(self.entry_rows))),
            **self._contents.facts(),
            "options": dict(self.options),
            "encoders": encoders,
            "failures": [asdict(failure) for failure in self.failures],
        }
