"""Read a store's arrays; the chunk files of a local store are memory-mapped.

Every chunk is checked against its crc32c, and against the checksum that was recorded for its place.
A missing chunk is an error: Zarr itself would return zeros, which look like data.
"""

from __future__ import annotations

import mmap
import os
import resource
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.errors import InputError, StoreError
from protalign.core.untrusted import open_regular, read_bytes
from protalign.stores.format.checksums import CHECKSUM_BYTES, ChunkChecksums, DamagedEntryError
from protalign.stores.format.disk import check_inside, chunks_present, commit_begun
from protalign.stores.format.kept_chunks import KeptChunks
from protalign.stores.format.layout import ArraySpec
from protalign.stores.format.metadata import METADATA_BYTES, array_fault, array_json, rows_described
from protalign.stores.format.pieces import pieces
from protalign.stores.format.state import StoreState, is_filled_by_tasks, load_state
from protalign.stores.format.text import are_texts, decode_texts

#: An array of more chunks is read only if all of them exist, before memory is taken for it.
MANY_CHUNKS = 1024


class Arrays(ABC):
    """The committed arrays of one store, by name ("sequences/hash").

    Attributes
    ----------
    path : str
        Folder or URL.
    state : StoreState
        The committed state that is read; rows beyond it are not shown.
    kept : KeptChunks
        The chunks that are open, of this store and of those that are read together with it.
    """

    def __init__(self, path: str, state: StoreState, kept: KeptChunks) -> None:
        self.path = path
        self.kept = kept
        self.state = state
        self._specs = state.arrays()

    @abstractmethod
    def chunk(self, name: str, index: int) -> npt.NDArray[Any]:
        """Return one chunk, checked, with at least its committed rows. Do not write to it."""

    @abstractmethod
    def check_backed(self, name: str) -> None:
        """Raise StoreError if an array visibly has fewer chunks than its rows take."""

    @abstractmethod
    def done_tasks(self, name: str) -> Bool:
        """Return (tasks,) bool: the tasks of an encoder with all their rows written."""

    def spec(self, name: str) -> ArraySpec:
        """Return the array's dtype, shape and chunks."""
        return self._specs[name]

    def rows(self, name: str) -> int:
        """Return the committed rows of an array."""
        return self.state.rows(name)

    def backed_rows(self, name: str) -> int:
        """Return the committed rows of an array, if its chunks exist; else raise StoreError."""
        if self._specs[name].chunks(self.rows(name)) > MANY_CHUNKS:
            self.check_backed(name)
        return self.rows(name)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Return a copy of rows start to stop (default: all committed)."""
        stop = self.rows(name) if stop is None else stop
        begin, length = np.array([start], np.int64), np.array([stop - start], np.int64)
        return self.gather(name, begin, length)

    def gather(
        self, name: str, start: npt.NDArray[Any], length: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """Return the rows of n ranges, one range after another, in one new array."""
        spec = self._specs[name]
        length = np.asarray(length, dtype=np.int64)
        start = np.asarray(start, dtype=np.int64)
        self._check_ranges(name, start, length)
        out = self._room(name, length)
        for some in pieces(start, length, spec.chunk_rows):
            some.copy(self.chunk(name, some.chunk), out)
        return out

    def _check_ranges(self, name: str, start: npt.NDArray[Any], length: npt.NDArray[Any]) -> None:
        """Raise StoreError if a range of rows is not within an array."""
        beyond = (start < 0) | (length < 0) | (length > self.rows(name) - start)
        if beyond.any():
            raise self.inconsistent(f"it points outside array {name}")

    def _room(self, name: str, length: Int64) -> npt.NDArray[Any]:
        """Return a new array for ranges of these lengths."""
        spec = self._specs[name]
        total = length.sum(dtype=np.float64)  # which cannot overflow
        if total > MANY_CHUNKS * spec.chunk_rows and not is_filled_by_tasks(name):
            self.check_backed(name)
        try:
            if total > 2**62:
                raise OverflowError
            return np.empty((int(length.sum()), *spec.row_shape), dtype=spec.dtype)
        except (MemoryError, ValueError, OverflowError):
            raise StoreError(
                f"{self.path}: {total:,.0f} rows of array {name} do not fit into memory; read "
                "fewer entries at once, or check the store with `protalign verify`"
            ) from None

    def inconsistent(self, fault: str) -> StoreError:
        """Return the error for an index whose parts contradict each other."""
        return StoreError(
            f"{self.path}: the store's index is inconsistent, {fault}; run `protalign verify`"
        )

    def texts(self, column: str) -> npt.NDArray[np.object_]:
        """Return all committed texts of a ragged column of UTF-8."""
        try:
            return decode_texts(*self._bytes_of_texts(column))
        except UnicodeDecodeError:
            raise self._not_utf8(column) from None

    def check_texts(self, column: str) -> None:
        """Raise StoreError unless ``texts`` of a column would return them; no text is made."""
        values, start, _ = self._bytes_of_texts(column)
        if not are_texts(values, start):
            raise self._not_utf8(column)

    def _bytes_of_texts(
        self, column: str
    ) -> tuple[npt.NDArray[np.uint8], Int64, npt.NDArray[np.int32]]:
        """Return the bytes of all texts of a column, and where each begins and how long it is."""
        values = self.read(f"{column}/values")
        start, length = self.read(f"{column}/start"), self.read(f"{column}/length")
        if not consecutive(start, length, len(values)):
            raise self.inconsistent(f"{column} is not cut into consecutive texts")
        return values, start, length

    def texts_at(self, column: str, rows: Int64) -> npt.NDArray[np.object_]:
        """Return the texts of some rows, (n,) int64 in any order, of a ragged column of UTF-8."""
        one = np.ones_like(rows)
        start = self.gather(f"{column}/start", rows, one)
        length = self.gather(f"{column}/length", rows, one).astype(np.int64)
        values = self.gather(f"{column}/values", start, length)
        try:
            return decode_texts(values, np.cumsum(length) - length, length)
        except UnicodeDecodeError:
            raise self._not_utf8(column) from None

    def text(self, column: str, index: int) -> str:
        """Return one text of a ragged column of UTF-8."""
        try:
            return self.ragged(column, index).tobytes().decode("utf-8")
        except UnicodeDecodeError:
            raise self._not_utf8(column) from None

    def _not_utf8(self, column: str) -> StoreError:
        return StoreError(
            f"{self.path}: array {column}/values is not UTF-8; run `protalign verify`"
        )

    def ragged(self, column: str, index: int) -> npt.NDArray[Any]:
        """Return the values of one row of a ragged column."""
        start = int(self.read(f"{column}/start", index, index + 1)[0])
        length = int(self.read(f"{column}/length", index, index + 1)[0])
        return self.read(f"{column}/values", start, start + length)


def consecutive(start: npt.NDArray[Any], length: npt.NDArray[Any], total: int) -> bool:
    """Return whether ranges follow one another from 0 to the total."""
    if len(start) != len(length) or (length < 0).any():
        return False
    ends = np.cumsum(length, dtype=np.int64)
    return bool(np.array_equal(start, ends - length)) and (ends[-1] if len(ends) else 0) == total


def check_chunk(data: Any, spec: ArraySpec) -> str:
    """Return the fault of a chunk file's bytes, "" if there is none."""
    if len(data) != spec.chunk_bytes + CHECKSUM_BYTES:
        return f"has {len(data)} bytes instead of {spec.chunk_bytes + CHECKSUM_BYTES}"
    content = np.frombuffer(data, np.uint8)
    if google_crc32c.value(content[:-CHECKSUM_BYTES]) != own_checksum(data):
        return "does not match its checksum"
    return ""


def own_checksum(data: Any) -> int:
    """Return the checksum at the end of a chunk file's bytes."""
    return int.from_bytes(bytes(data[-CHECKSUM_BYTES:]), "little")


def check_place(
    data: Any, name: str, index: int, spec: ArraySpec, state: StoreState, recorded: int | None
) -> str:
    """Return why a whole chunk is not the one that was committed at its place, "" if it is.

    Parameters
    ----------
    data : bytes-like
        The chunk file's bytes, which match their own checksum.
    name, index, spec : str, int, ArraySpec
        Its array and number, and the array's chunks.
    state : StoreState
        The committed state that is read.
    recorded : int or None
        The recorded checksum, if there is one.
    """
    if not state.bound or name.endswith("/done"):
        return ""
    in_chunk = state.rows(name) - index * spec.chunk_rows
    if in_chunk >= spec.chunk_rows:
        same = recorded is None or recorded == own_checksum(data)
    else:
        committed = np.frombuffer(data, np.uint8)[: in_chunk * spec.row_bytes]
        same = google_crc32c.value(committed) == state.last_chunks.get(name)
    return "" if same else "is whole, but not the one that was committed at its place"


def chunk_error(path: str, name: str, key: str, what: str) -> StoreError:
    """Return the error for one bad chunk, in the words that every reader uses."""
    return StoreError(
        f"{path}: the store is damaged, chunk {key} of array {name} {what}; run "
        "`protalign verify`, which lists the ids concerned"
    )


def _open_files_allowed() -> int:
    """Return the number of maps to keep open at once; each holds a file descriptor."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(16, min(4096, soft // 4))


class LocalArrays(Arrays):
    """A store in a local folder, its chunk files memory-mapped.

    Parameters
    ----------
    path : Path
        The store's folder.
    state : StoreState, optional
        The committed state to read; default: the one on disk.
    described : bool
        Whether each array's zarr.json is checked when the array is first read.
    kept : KeptChunks, optional
        Where maps are kept, with those of other stores; default: its own.
    """

    def __init__(
        self,
        path: Path,
        state: StoreState | None = None,
        *,
        described: bool = True,
        kept: KeptChunks | None = None,
    ) -> None:
        super().__init__(
            str(path),
            load_state(path) if state is None else state,
            kept or KeptChunks(_open_files_allowed()),
        )
        self._folder = path
        self._described = described
        self._checked: set[tuple[str, int]] = set()
        self._checksums: dict[str, ChunkChecksums] = {}
        self._lock = threading.Lock()

    def chunk(self, name: str, index: int) -> npt.NDArray[Any]:
        """Return one chunk, checked when it is first read; its memory is the file's."""
        key = (self.path, name, index)
        rows = self.kept.get(key)
        if rows is None:
            with self._lock:
                rows = self.kept.get(key)
                if rows is None:
                    rows = self._mapped(name, index)
                    self.kept.put(key, rows)
        return rows

    def _mapped(self, name: str, index: int) -> npt.NDArray[Any]:
        try:
            return self._map(name, index)
        except StoreError:
            if self._folder.is_dir():
                raise
            raise StoreError(
                f"{self.path}: the store was removed while it was open; put it back, or leave it "
                "out"
            ) from None

    def _map(self, name: str, index: int) -> npt.NDArray[Any]:
        spec = self._specs[name]
        if name not in self._checksums:
            self._check_array(name)
        file = self._folder / name / spec.chunk_key(index)
        if (name, index) not in self._checked:
            data, wrong = open_chunk(file, spec)
            wrong = wrong or self._fault(name, index, data)
            if wrong:
                # It may be written anew at this moment, with items that failed before.
                data, wrong = open_chunk(file, spec)
                wrong = wrong or self._fault(name, index, data)
            if wrong:
                raise chunk_error(self.path, name, file.name, wrong)
            self._checked.add((name, index))
        else:
            data, wrong = open_chunk(file, spec)
            if wrong:
                raise chunk_error(self.path, name, file.name, wrong)
        count = spec.chunk_bytes // spec.dtype.itemsize
        return np.frombuffer(data, spec.dtype, count).reshape(spec.chunk_shape)

    def _fault(self, name: str, index: int, data: Any) -> str:
        wrong = check_chunk(data, self._specs[name])
        if wrong or not self.state.bound:
            return wrong
        try:
            recorded = self._checksums[name].get(index)
        except DamagedEntryError as error:
            return f"cannot be trusted, since {error}"
        return check_place(data, name, index, self._specs[name], self.state, recorded)

    def _check_array(self, name: str) -> None:
        check_inside(self._folder, name)
        if self._described:
            try:
                text = read_bytes(
                    self._folder / name / "zarr.json", "", most=METADATA_BYTES, links=False
                )
            except InputError:
                text = b""
            wrong = array_fault(text, self._specs[name], self.rows(name))
            if not wrong and self.state.bound:
                wrong = self._of_other_commit(name, text)
            if wrong:
                raise StoreError(
                    f"{self.path}: array {name} is damaged: {wrong}; run `protalign verify`"
                )
        self._checksums[name] = ChunkChecksums(self._folder, name)

    def _of_other_commit(self, name: str, text: bytes) -> str:
        """Return the fault of an array that goes on behind the root's last commit."""
        spec, rows = self._specs[name], self.rows(name)
        if text == array_json(spec, rows) or rows_described(text) == rows:
            return ""
        # Is a commit under way, or was there one since this reader opened the store?
        if commit_begun(self._folder) or load_state(self._folder) != self.state:
            return ""
        return f"it has more than the {rows} rows of the last commit, or its zarr.json is damaged"

    def check_backed(self, name: str) -> None:
        """Raise StoreError unless an array has as many chunk files as its rows take."""
        expected = self._specs[name].chunks(self.rows(name))
        present = chunks_present(self._folder / name)
        missing = expected - int(np.count_nonzero(present < expected))
        if missing:
            raise StoreError(
                f"{self.path}: the store is damaged, {missing:,} chunks of array {name} are "
                "missing; run `protalign verify`"
            )

    def done_tasks(self, name: str) -> Bool:
        """Return (tasks,) bool: done as the root group says, or by a chunk of ``done``."""
        array, plan = f"encoders/{name}/done", f"encoders/{name}/plan/row"
        done = np.zeros(self.backed_rows(plan), dtype=np.bool_)
        known = self.state.encoders[name].tasks_done
        done[:known] = True
        if known < len(done):
            present = chunks_present(self._folder / array)
            for task in present[(present >= known) & (present < len(done))].tolist():
                done[task] = bool(self.chunk(array, task)[0])
        return done


def open_chunk(file: Path, spec: ArraySpec) -> tuple[Any, str]:
    """Return (the memory-mapped bytes of a chunk file, ""), or (b"", the fault).

    Only a regular file of exactly the right size is opened.
    """
    size = spec.chunk_bytes + CHECKSUM_BYTES
    try:
        with open_regular(file, links=False) as handle:
            present = os.fstat(handle).st_size
            if present != size:
                return b"", f"has {present} bytes instead of {size}"
            return mmap.mmap(handle, size, access=mmap.ACCESS_READ), ""
    except FileNotFoundError:
        return b"", "is missing"
    except OSError as error:
        return b"", f"cannot be read ({error.strerror or error})"
