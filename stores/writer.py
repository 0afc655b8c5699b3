"""Put proteins into a store: entries, unique items, failures, encoders' plans."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from protalign.core.annotation import Annotation
from protalign.core.encoder_record import EncoderRecord
from protalign.core.errors import Failure, StoreError
from protalign.core.paths import may_exist
from protalign.core.protein import Protein
from protalign.stores.entries import EntryLog, FailureLog, live_sources, read_failures
from protalign.stores.filling.plan import BatchPlan, plan_tasks, read_plan
from protalign.stores.format.append import Appender, create_store, prepare_arrays
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.disk import PARTIAL, begin_commit
from protalign.stores.format.layout import ANNOTATIONS, ENCODER_CHUNK_ROWS, checked_encoder_name
from protalign.stores.format.lock import LOCK_FILE, StoreLock
from protalign.stores.format.state import (
    EncoderState,
    Option,
    StoreState,
    check_storable,
    load_state,
)
from protalign.stores.item_writer import ItemWriter, place_in_structure
from protalign.stores.items import items_of
from protalign.stores.union.paths import check_is_one

#: Columns of the entries log, beside the id and its notes.
ENTRY_COLUMNS = (
    "source",
    "sequence_item",
    "structure_item",
    "structure_chain",
    "structure_chains",
    "structure_offset",
    "structure_length",
)


@dataclass
class _Reading:
    """A source that is being read: the ids read so far, and the ids that failed, in order."""

    ids: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)


class StoreWriter:
    """Opens a store for adding, or makes it; one process at a time.

    Added entries wait in memory until ``commit``. Leaving the ``with`` block commits, unless an
    exception ends it.

    Parameters
    ----------
    path : str or path
        A local folder.
    options : mapping
        How files are read. A store takes only the options that it was made with.

    Raises
    ------
    StoreError
        The path is not a store, another process writes to it, or the options differ.

    Examples
    --------
    >>> import tempfile
    >>> from protalign.core.protein import Chain, Protein
    >>> from protalign.stores import EmbeddingStore
    >>> path = tempfile.mkdtemp() + "/store.zarr"
    >>> with StoreWriter(path, {}) as writer:
    ...     protein = Protein("first", "a.fasta", (Chain.from_sequence("ACDE"),))
    ...     writer.add("a.fasta", bytes(32), [protein])
    []
    >>> EmbeddingStore.open(path).sequence("first")
    ('ACDE',)
    """

    def __init__(self, path: str | os.PathLike[str], options: Mapping[str, Option]) -> None:
        check_folder(path)
        self.path = Path(path).absolute()
        _make_folder(self.path)
        self._lock = StoreLock(self.path)
        self._lock.acquire()
        try:
            self._open(dict(options))
        except BaseException:
            self._lock.release()
            raise

    def _open(self, options: dict[str, Option]) -> None:
        if not (self.path / "zarr.json").exists():
            begin_commit(self.path)  # until its arrays are made
            create_store(self.path, StoreState(options))
        state = load_state(self.path)
        _check_options(state.options, options, self.path)
        prepare_arrays(self.path, state)
        self._appender = Appender(self.path)
        self._load_indexes()

    def _load_indexes(self) -> None:
        arrays = self._appender.arrays
        log = EntryLog(arrays)
        self._entry = {entry_id: row for row, entry_id in enumerate(log.ids.tolist())}
        self._columns = {
            name: array("q", arrays.read(f"entries/{name}").astype(np.int64).tobytes())
            for name in ENTRY_COLUMNS
        }
        self._source_paths: list[str] = log.source_paths.tolist()
        self._source_hashes = [row.tobytes() for row in arrays.read("sources/sha256")]
        self._source = {path: row for row, path in enumerate(self._source_paths)}
        self._source_of_hash = {sha256: row for row, sha256 in enumerate(self._source_hashes)}
        self._open_sources = set(arrays.state.open_sources)
        self._items = ItemWriter(self._appender)
        self._failures: dict[str, dict[str, Failure]] = {}  # by file, then by id
        for failure in read_failures(arrays):
            self._failures.setdefault(failure.file, {})[failure.id] = failure
        self._readings: dict[int, _Reading] = {}
        self._new_ids: list[str] = []
        self._new_notes: list[str] = []
        self._new_annotations: list[tuple[int, Annotation]] = []  # rows of entries

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.commit()
        finally:
            self._lock.release()

    @property
    def n_entries(self) -> int:
        """Live entries, including those that wait."""
        current = live_sources(np.array(self._source_paths, dtype=object))
        rows = np.fromiter(self._entry.values(), dtype=np.int64, count=len(self._entry))
        sources = np.frombuffer(self._columns["source"], dtype=np.int64)[rows]
        return int(np.count_nonzero(current[sources]))

    @property
    def keeps_annotations(self) -> bool:
        """Whether names and organisms of new entries are kept: since format 1.1."""
        return self._appender.arrays.state.keeps_annotations

    @property
    def failures(self) -> list[Failure]:
        """Failures that still hold, also those of encoders; commits first."""
        self.commit()
        arrays = LocalArrays(self.path)
        return FailureLog(arrays, EntryLog(arrays)).live

    def source_is_current(self, path: str, sha256: bytes) -> bool:
        """Return whether all entries of this file, with these contents, are in the store.

        Also true if the file was moved: its entries keep the path that they were read from. A
        moved file with failures is read again, so that they get its present path.
        """
        moved = self._moved_source(path, sha256)
        if moved is not None and self._failures.get(self._source_paths[moved]):
            moved = None
        row = self._source.get(path, moved)
        return (
            row is not None and self._source_hashes[row] == sha256 and row not in self._open_sources
        )

    def _moved_source(self, path: str, sha256: bytes) -> int | None:
        """Return the row of a file of the same name and contents that is gone from its path."""
        row = self._source_of_hash.get(sha256)
        return row if row is not None and self._was_moved(row, path, sha256) else None

    def _was_moved(self, source: int, path: str, sha256: bytes) -> bool:
        """Return whether the file at ``path`` is a known one that is gone from its old path."""
        old = self._source_paths[source]
        same = self._source_hashes[source] == sha256 and Path(old).name == Path(path).name
        return same and not may_exist(old)

    def add(
        self,
        source_path: str,
        sha256: bytes,
        records: Sequence[Protein | Failure],
        last: bool = True,
    ) -> list[Failure]:
        """Add the proteins and failures of a file, or of a part of it, in its order.

        Parameters
        ----------
        source_path : str
            The file, as ``core.paths.path_text`` writes it.
        sha256 : bytes
            The SHA-256 of its bytes, or ``b""`` if the file cannot be opened: then its failures
            are kept, and the entries of an earlier version stay.
        records : sequence of Protein or Failure
            The proteins read from it, and the records that could not be read.
        last : bool
            Whether this is the last part of the file.

        Returns
        -------
        list of Failure
            The failures that the store itself adds: ids that are already taken.
        """
        if not sha256:
            for record in records:
                if isinstance(record, Failure):
                    self.add_failure(record)
            return []
        source = self._source_row(source_path, sha256)
        reading = self._readings.setdefault(source, _Reading())
        refused = []
        for record in records:
            failure: Failure | None
            if isinstance(record, Failure):
                failure = record
            else:
                failure = self._add_protein(record, source, source_path, reading)
                refused += [] if failure is None else [failure]
            if failure is not None:
                self.add_failure(failure)
                reading.failures.append(failure.id)
        if last:
            self._resolve(source_path, reading.failures)
            del self._readings[source]
            self._open_sources.discard(source)
        return refused

    def add_failure(self, failure: Failure) -> None:
        """Keep a failure; a known one is not kept twice."""
        known = self._failures.setdefault(failure.file, {})
        if known.get(failure.id) != failure:
            known[failure.id] = failure
            self._log_failure(failure)

    def forget_failure(self, failure: Failure) -> None:
        """Take a logged failure back, for example because its file is gone."""
        known = self._failures.get(failure.file, {})
        if known.pop(failure.id, None) is not None:
            self._log_failure(Failure(failure.id, failure.file, reason="", advice=""))

    def _resolve(self, source_path: str, still: list[str]) -> None:
        """Take back the file's failures that did not occur when it was read this time.

        Those that did are logged again if the file now has them in another order.
        """
        known, occurred = self._failures.get(source_path, {}), dict.fromkeys(still)
        in_order = [entry_id for entry_id in occurred if entry_id in known]
        for entry_id in [entry_id for entry_id in known if entry_id not in occurred]:
            self.forget_failure(known[entry_id])
        if list(known) != in_order:
            for failure in [known[entry_id] for entry_id in in_order]:
                self.forget_failure(failure)
                self.add_failure(failure)

    def _forget_failures_before_move(self, source: int | None) -> None:
        """Take back the failures under the path that a file had before it was moved."""
        if source is not None:
            for failure in list(self._failures.get(self._source_paths[source], {}).values()):
                self.forget_failure(failure)

    def _log_failure(self, failure: Failure) -> None:
        for name in ("id", "file", "reason", "advice"):
            self._appender.append_texts(f"failures/{name}", [getattr(failure, name)])

    def _source_row(self, path: str, sha256: bytes) -> int:
        """Return the row of this version of the file; a new one unless it is the latest known."""
        row = self._source.get(path)
        if row is None or self._source_hashes[row] != sha256:
            if row is not None:
                self._open_sources.discard(row)
            self._forget_failures_before_move(self._moved_source(path, sha256))
            row = self._source[path] = len(self._source_paths)
            self._source_paths.append(path)
            self._source_hashes.append(sha256)
            self._source_of_hash[sha256] = row
            self._appender.append_texts("sources/path", [path])
            self._appender.append("sources/sha256", np.frombuffer(sha256, np.uint8))
        self._open_sources.add(row)
        return row

    def _add_protein(
        self, protein: Protein, source: int, path: str, reading: _Reading
    ) -> Failure | None:
        row = self._entry.get(protein.id)
        if row is not None:
            owner = self._columns["source"][row]
            owner_path = self._source_paths[owner]
            # A file that is gone frees its ids: it was renamed, or replaced by this one.
            taken = (
                owner_path != path and self._source[owner_path] == owner and may_exist(owner_path)
            )
            if taken or protein.id in reading.ids:
                return Failure(
                    protein.id,
                    path,
                    f"duplicate id: {protein.id} was read from {owner_path} already",
                    "give each protein an id of its own: rename one of the two",
                )
        reading.ids.add(protein.id)
        values = self._entry_values(protein, source)
        if row is None or values != tuple(self._columns[name][row] for name in ENTRY_COLUMNS):
            self._append_entry(protein, values)
        return None

    def _entry_values(self, protein: Protein, source: int) -> tuple[int, ...]:
        """Put the entry's items into the store; return its columns."""
        sequence = self._items.sequence(protein.sequences)
        if protein.structure is None:
            return (source, sequence, -1, 0, 0, 0, 0)
        first, count = place_in_structure(protein)
        lengths = [len(chain.structure_rows) for chain in protein.structure.kept_chains]
        offset, length = sum(lengths[:first]), sum(lengths[first : first + count])
        item = self._items.structure(protein.structure)
        return (source, sequence, item, first, count, offset, length)

    def _append_entry(self, protein: Protein, values: tuple[int, ...]) -> None:
        row = self._entry[protein.id] = len(self._columns["source"])
        if protein.annotation and self.keeps_annotations:
            self._new_annotations.append((row, protein.annotation))
        self._new_ids.append(protein.id)
        self._new_notes.append("\n".join(protein.notes))
        for name, value in zip(ENTRY_COLUMNS, values, strict=True):
            self._columns[name].append(value)

    def _append_new_entries(self) -> None:
        """Append the entries since the last commit, one column at a time."""
        if not self._new_ids:
            return
        first = self._appender.rows("entries/source")
        self._appender.append_texts("entries/id", self._new_ids)
        self._appender.append_texts("entries/notes", self._new_notes)
        for name, column in self._columns.items():
            self._appender.append(f"entries/{name}", column[first:])
        self._append_new_annotations()
        self._new_ids, self._new_notes = [], []

    def _append_new_annotations(self) -> None:
        if not self._new_annotations:
            return
        rows = [row for row, _ in self._new_annotations]
        annotations = [annotation for _, annotation in self._new_annotations]
        self._appender.append(f"{ANNOTATIONS}/entry", rows)
        for name in ("description", "organism", "accession"):
            texts = [getattr(annotation, name) or "" for annotation in annotations]
            self._appender.append_texts(f"{ANNOTATIONS}/{name}", texts)
        self._appender.append(f"{ANNOTATIONS}/taxid", [each.taxid or 0 for each in annotations])
        self._new_annotations = []

    def commit(self) -> None:
        """Make everything added so far part of the store, in one step."""
        self._append_new_entries()
        open_sources = tuple(sorted(self._open_sources))
        state = self._appender.arrays.state
        if self._appender.waiting or state.open_sources != open_sources:
            self._appender.commit(lambda state: replace(state, open_sources=open_sources))

    def check_encoder(self, name: str, record: EncoderRecord) -> None:
        """Raise StoreError if no store can hold the record, or the name is another encoder's."""
        check_storable(record)
        known = self._appender.arrays.state.encoders.get(checked_encoder_name(name))
        differences = [] if known is None else known.record.differences(record)
        if differences:
            raise StoreError(
                f"{self.path}: the embeddings {name!r} were made with another encoder "
                f"({'; '.join(differences)}); use that one, or another name "
                f"(--{record.modality}-name)"
            )

    def plan(
        self,
        encoder: str,
        record: EncoderRecord,
        batch_rows: int,
        chunk_rows: int = ENCODER_CHUNK_ROWS,
    ) -> BatchPlan:
        """Record which items the encoder is to embed, in which batches; commits first.

        Parameters
        ----------
        encoder : str
            Name of these embeddings in the store.
        record : EncoderRecord
            Its provenance; must be that of the embeddings already under this name.
        batch_rows : int
            Residues of a batch, at most; a batch holds at least one item.
        chunk_rows : int
            Rows of a chunk, if the encoder is new to the store.

        Returns
        -------
        BatchPlan
            The work to do, including unfinished tasks of earlier plans.

        Raises
        ------
        StoreError
            The embeddings under this name are another encoder's, or no store can hold the record.
        """
        self.commit()
        self._appender.reload()  # tasks may have been done since
        self._register(encoder, record, chunk_rows)
        self._plan_new_items(encoder, batch_rows)
        return read_plan(self._appender.arrays, encoder)

    def _register(self, name: str, record: EncoderRecord, chunk_rows: int) -> None:
        self.check_encoder(name, record)
        if name not in self._appender.arrays.state.encoders:
            encoder = EncoderState(record, chunk_rows)
            begin_commit(self.path)  # until its arrays are made
            state = self._appender.commit(
                lambda state: replace(state, encoders={**state.encoders, name: encoder})
            )
            prepare_arrays(self.path, state)

    def _plan_new_items(self, encoder: str, batch_rows: int) -> None:
        appender, group = self._appender, f"encoders/{encoder}"
        state = appender.arrays.state.encoders[encoder]
        items = items_of(appender.arrays, state.record.modality)
        first = appender.rows(f"{group}/start")
        if first == len(items):
            return
        rows = items.rows(first)
        plan = plan_tasks(
            rows,
            items.cost(first),
            batch_rows=batch_rows,
            chunk_rows=state.chunk_rows,
            first_row=appender.rows(f"{group}/values"),
        )
        tasks = appender.rows(f"{group}/done") + len(plan.task)
        appender.append(f"{group}/plan/task", plan.task + appender.rows(f"{group}/plan/batch"))
        appender.append(f"{group}/plan/batch", plan.batch + appender.rows(f"{group}/plan/item"))
        appender.append(f"{group}/plan/item", np.arange(first, len(items)))
        appender.append(f"{group}/plan/row", plan.row)
        appender.append(f"{group}/start", plan.start)
        appender.append(f"{group}/length", rows)
        appender.grow(f"{group}/values", plan.end)
        appender.grow(f"{group}/done", tasks)
        appender.commit(lambda state: state)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise StoreError if a store cannot be at the path, or something else is."""
    if "://" in str(path):
        raise StoreError(
            f"{path}: a URL cannot be written to; name a local or mounted folder, or for "
            "`protalign embed` an address that begins with s3://, gs:// or az://"
        )
    check_is_one(path)
    folder = Path(path).absolute()
    if folder.exists():
        if not folder.is_dir():
            raise StoreError(f"{folder}: it is a file; name a folder for the store")
        others = [f for f in folder.iterdir() if f.name != LOCK_FILE and f.suffix != PARTIAL]
        if others and not (folder / "zarr.json").exists():
            raise StoreError(
                f"{folder}: it exists and is not a store; name a new folder, or one that "
                "`protalign embed` made"
            )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: it cannot be made ({error.strerror}); name another") from None


def _check_options(stored: Mapping[str, Option], given: Mapping[str, Option], path: Path) -> None:
    differing = [
        f"{name} {stored.get(name)}, not {given.get(name)}"
        for name in sorted({*stored, *given})
        if stored.get(name) != given.get(name)
    ]
    if differing:
        raise StoreError(
            f"{path}: it was made with other options ({'; '.join(differing)}); use the same ones, "
            "or make another store"
        )
