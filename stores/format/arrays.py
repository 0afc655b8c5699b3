"""Read a store's arrays; the chunk files of a local store are memory-mapped.

Every chunk is checked against its crc32c, and a missing chunk is an error: Zarr itself would
return zeros, which look like data.
"""

from __future__ import annotations

import json
import mmap
import resource
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.errors import StoreError
from protalign.stores.format.layout import ArraySpec
from protalign.stores.format.state import StoreState, load_state
from protalign.stores.format.text import decode_texts

CHECKSUM_BYTES = 4


class Arrays(ABC):
    """The committed arrays of one store, by name ("sequences/hash").

    Attributes
    ----------
    path : str
        Folder or URL.
    state : StoreState
        The committed state that is read; rows beyond it are not shown.
    """

    def __init__(self, path: str, state: StoreState) -> None:
        self.path = path
        self.state = state
        self._specs = state.arrays()

    @abstractmethod
    def chunk(self, name: str, index: int) -> npt.NDArray[Any]:
        """Return one chunk, checked, with at least its committed rows. Do not write to it."""

    @abstractmethod
    def done_tasks(self, name: str) -> Bool:
        """Return (tasks,) bool: the tasks of an encoder with all their rows written."""

    def spec(self, name: str) -> ArraySpec:
        """Return the array's dtype, shape and chunks."""
        return self._specs[name]

    def rows(self, name: str) -> int:
        """Return the committed rows of an array."""
        return self.state.rows(name)

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
        beyond = (start < 0) | (length < 0) | (length > self.rows(name) - start)
        if beyond.any():
            raise StoreError(
                f"{self.path}: the store's index is inconsistent, it points outside array {name}; "
                "run `protalign verify`"
            )
        out = np.empty((int(length.sum()), *spec.row_shape), dtype=spec.dtype)
        for chunk_index, begin, target, count in _pieces(start, length, spec.chunk_rows):
            out[target : target + count] = self.chunk(name, chunk_index)[begin : begin + count]
        return out

    def texts(self, column: str) -> npt.NDArray[np.object_]:
        """Return all committed texts of a ragged column of UTF-8."""
        try:
            return decode_texts(
                self.read(f"{column}/values"),
                self.read(f"{column}/start"),
                self.read(f"{column}/length"),
            )
        except UnicodeDecodeError:
            raise StoreError(
                f"{self.path}: array {column}/values is not UTF-8; run `protalign verify`"
            ) from None

    def ragged(self, column: str, index: int) -> npt.NDArray[Any]:
        """Return the values of one row of a ragged column."""
        start = int(self.read(f"{column}/start", index, index + 1)[0])
        length = int(self.read(f"{column}/length", index, index + 1)[0])
        return self.read(f"{column}/values", start, start + length)


def _pieces(start: Int64, length: Int64, chunk_rows: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut ranges at chunk borders: (chunk, first row in it, first row of the output, rows).

    Ranges that continue one another are joined, and chunks come in ascending order, so that each
    is opened once.
    """
    target = np.cumsum(length) - length
    filled = length > 0
    start, length, target = start[filled], length[filled], target[filled]
    if len(start) == 0:
        return
    first = np.flatnonzero(np.concatenate([[True], start[1:] != start[:-1] + length[:-1]]))
    length = np.add.reduceat(length, first)
    start, target = start[first], target[first]
    order = np.argsort(start, kind="stable")
    for row, count, output in zip(
        start[order].tolist(), length[order].tolist(), target[order].tolist(), strict=True
    ):
        while count:
            index, begin = divmod(row, chunk_rows)
            taken = min(count, chunk_rows - begin)
            yield index, begin, output, taken
            row, output, count = row + taken, output + taken, count - taken


def check_array_json(text: bytes, spec: ArraySpec, rows: int) -> str:
    """Return the fault of an array's zarr.json, "" if it is as the format says."""
    try:
        described = json.loads(text)
        expected = {
            "zarr_format": 3,
            "node_type": "array",
            "data_type": spec.dtype.name,
            "chunk_grid": _named("regular", chunk_shape=list(spec.chunk_shape)),
            "chunk_key_encoding": _named("default", separator="."),
        }
        wrong = [key for key, value in expected.items() if described.get(key) != value]
        codecs = [codec["name"] for codec in described["codecs"]]
        endian = described["codecs"][0].get("configuration", {}).get("endian", "little")
        if codecs != ["bytes", "crc32c"] or endian != "little":
            wrong.append("codecs")
        if tuple(described["shape"][1:]) != spec.row_shape or described["shape"][0] < rows:
            wrong.append("shape")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "its zarr.json cannot be read"
    return f"its zarr.json does not follow the format ({', '.join(wrong)})" if wrong else ""


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def check_chunk(data: Any, spec: ArraySpec) -> str:
    """Return the fault of a chunk file's bytes, "" if there is none."""
    if len(data) != spec.chunk_bytes + CHECKSUM_BYTES:
        return f"has {len(data)} bytes instead of {spec.chunk_bytes + CHECKSUM_BYTES}"
    content = np.frombuffer(data, np.uint8)
    stored = int.from_bytes(content[-CHECKSUM_BYTES:].tobytes(), "little")
    if google_crc32c.value(content[:-CHECKSUM_BYTES]) != stored:
        return "does not match its checksum"
    return ""


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
    """A store in a local folder, its chunk files memory-mapped."""

    def __init__(self, path: Path, state: StoreState | None = None) -> None:
        super().__init__(str(path), load_state(path) if state is None else state)
        self._folder = path
        self._maps: OrderedDict[tuple[str, int], npt.NDArray[Any]] = OrderedDict()
        self._checked: set[tuple[str, int]] = set()
        self._arrays_checked: set[str] = set()
        self._limit = _open_files_allowed()
        self._lock = threading.Lock()

    def chunk(self, name: str, index: int) -> npt.NDArray[Any]:
        """Return one chunk, checked when it is first read; its memory is the file's."""
        key = (name, index)
        with self._lock:
            rows = self._maps.get(key)
            if rows is None:
                rows = self._maps[key] = self._map(name, index)
                while len(self._maps) > self._limit:
                    self._maps.popitem(last=False)
            else:
                self._maps.move_to_end(key)
        return rows

    def _map(self, name: str, index: int) -> npt.NDArray[Any]:
        spec = self._specs[name]
        if name not in self._arrays_checked:
            self._check_array(name)
        file = self._folder / name / spec.chunk_key(index)
        try:
            with file.open("rb") as handle:
                data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise chunk_error(self.path, name, file.name, "is missing") from None
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise chunk_error(self.path, name, file.name, f"cannot be read ({error})") from None
        if (name, index) not in self._checked:
            wrong = check_chunk(data, spec)
            if wrong:
                raise chunk_error(self.path, name, file.name, wrong)
            self._checked.add((name, index))
        count = spec.chunk_bytes // spec.dtype.itemsize
        return np.frombuffer(data, spec.dtype, count).reshape(spec.chunk_shape)

    def _check_array(self, name: str) -> None:
        try:
            text = (self._folder / name / "zarr.json").read_bytes()
        except OSError:
            text = b""
        wrong = check_array_json(text, self._specs[name], self.rows(name))
        if wrong:
            raise StoreError(
                f"{self.path}: array {name} is damaged: {wrong}; run `protalign verify`"
            )
        self._arrays_checked.add(name)

    def done_tasks(self, name: str) -> Bool:
        """Return (tasks,) bool: done as the root group says, or by a chunk of ``done``."""
        array = f"encoders/{name}/done"
        done = np.zeros(self.rows(array), dtype=np.bool_)
        known = self.state.encoders[name].tasks_done
        done[:known] = True
        if known < len(done):
            for file in (self._folder / array).glob("c.*"):
                task = file.name[2:]
                if task.isdecimal() and known <= int(task) < len(done):
                    done[int(task)] = bool(self.chunk(array, int(task))[0])
        return done
