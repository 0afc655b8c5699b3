"""Append to a store's arrays, in an order that leaves the store whole if it is cut off anywhere.

Rows are written beyond the committed ones first: arrays grow, whole chunks are replaced, each in
one atomic rename. Then one atomic write of the root group's zarr.json makes them count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from protalign.core.errors import StoreError
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.layout import ArraySpec
from protalign.stores.format.state import StoreState, load_state
from protalign.stores.format.text import encode_texts


def create_store(path: Path, state: StoreState) -> None:
    """Make the root group; its arrays follow with ``prepare_arrays``."""
    zarr.create_group(path, zarr_format=3, attributes=state.attributes())


def change_state(path: Path, change: Callable[[StoreState], StoreState]) -> StoreState:
    """Commit a change of the state on disk, in one atomic write; return the new state."""
    before = load_state(path)
    state = change(before)
    if state != before:
        zarr.open_group(path, mode="r+", zarr_format=3).update_attributes(state.attributes())
    return state


def open_for_writing(path: Path, name: str) -> zarr.Array[Any]:
    """Open an array and always write its chunks, also those of zeros.

    The setting is made on the array: ``zarr.config`` is shared by all threads, so another thread
    that leaves a ``with`` could take the setting away before the array is opened.
    """
    array = zarr.open_array(path / name, mode="r+", zarr_format=3)
    return array.with_config({"write_empty_chunks": True})


def prepare_arrays(path: Path, state: StoreState) -> None:
    """Make the arrays that are missing, and clear away what an interrupted run left."""
    for debris in path.rglob("*.partial"):  # Zarr's temporary files
        debris.unlink(missing_ok=True)
    for name, spec in state.arrays().items():
        if not (path / name / "zarr.json").exists():
            _create_array(path, name, spec)
        elif _rows_on_disk(path, name) != state.rows(name):
            _truncate(open_for_writing(path, name), spec, state.rows(name))


def _rows_on_disk(path: Path, name: str) -> int:
    """Return an array's rows as its zarr.json has them; opening it takes Zarr 50 times longer."""
    try:
        return int(json.loads((path / name / "zarr.json").read_bytes())["shape"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise StoreError(
            f"{path}: array {name} is damaged: its zarr.json cannot be read; run `protalign verify`"
        ) from None


def _create_array(path: Path, name: str, spec: ArraySpec) -> None:
    *groups, _ = name.split("/")
    for depth in range(1, len(groups) + 1):
        group = path.joinpath(*groups[:depth])
        if not (group / "zarr.json").exists():
            zarr.create_group(group, zarr_format=3)
    zarr.create_array(
        path / name,
        shape=(0, *spec.row_shape),
        chunks=spec.chunk_shape,
        dtype=spec.dtype,
        fill_value=0,
        filters=None,
        serializer=BytesCodec(endian="little" if spec.dtype.itemsize > 1 else None),
        compressors=Crc32cCodec(),
        chunk_key_encoding={"name": "default", "separator": "."},
        zarr_format=3,
    )


def _truncate(array: zarr.Array[Any], spec: ArraySpec, rows: int) -> None:
    """Cut an array back to its committed rows; fill the last chunk with zeros."""
    begin = rows // spec.chunk_rows * spec.chunk_rows
    tail = array[begin:rows] if begin < rows else None
    array.resize((begin + spec.chunk_rows if begin < rows else rows, *spec.row_shape))
    if tail is not None:
        padded = np.zeros(spec.chunk_shape, dtype=spec.dtype)
        padded[: rows - begin] = tail
        array[begin : begin + spec.chunk_rows] = padded
        array.resize((rows, *spec.row_shape))


class Appender:
    """Rows that wait to be appended to a store's arrays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: dict[str, list[npt.NDArray[Any]]] = {}
        self._waiting_rows: dict[str, int] = {}
        self._grow: dict[str, int] = {}
        self.arrays = LocalArrays(path)

    def rows(self, name: str) -> int:
        """Return the rows of an array, including those that wait."""
        return self.arrays.rows(name) + self._waiting_rows.get(name, 0)

    def reload(self) -> None:
        """Read the committed state again; nothing may be waiting."""
        self.arrays = LocalArrays(self._path)

    @property
    def waiting(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._pending or self._grow)

    def append(self, name: str, rows: npt.ArrayLike) -> None:
        """Append rows to an array, in any shape that fits (n, *row_shape)."""
        spec = self.arrays.spec(name)
        block = np.asarray(rows, dtype=spec.dtype).reshape(-1, *spec.row_shape)
        self._pending.setdefault(name, []).append(block)
        self._waiting_rows[name] = self._waiting_rows.get(name, 0) + len(block)

    def append_ragged(
        self, column: str, values: npt.NDArray[Any], lengths: npt.NDArray[Any]
    ) -> None:
        """Append packed rows to a ragged column."""
        first = self.rows(f"{column}/values")
        lengths = np.asarray(lengths, dtype=np.int64)
        self.append(f"{column}/start", first + np.cumsum(lengths) - lengths)
        self.append(f"{column}/length", lengths)
        self.append(f"{column}/values", values)

    def append_texts(self, column: str, texts: Sequence[str]) -> None:
        """Append texts to a ragged column of UTF-8."""
        self.append_ragged(column, *encode_texts(texts))

    def grow(self, name: str, rows: int) -> None:
        """Set the rows of an array; its chunks are written later, by tasks."""
        self._grow[name] = rows

    def commit(self, change: Callable[[StoreState], StoreState]) -> StoreState:
        """Write the rows that wait, then make them count together with a change of the state."""
        committed = dict(self._grow)
        for name, rows in self._grow.items():
            row_shape = self.arrays.spec(name).row_shape
            open_for_writing(self._path, name).resize((rows, *row_shape))
        for name, blocks in self._pending.items():
            committed[name] = self._write(name, np.concatenate(blocks))

        def commit_rows(state: StoreState) -> StoreState:
            state = change(state)
            return replace(state, committed={**state.committed, **committed})

        state = change_state(self._path, commit_rows)
        self._pending, self._waiting_rows, self._grow = {}, {}, {}
        self.arrays = LocalArrays(self._path, state)
        return state

    def _write(self, name: str, rows: npt.NDArray[Any]) -> int:
        """Write rows behind the committed ones, whole chunks only; return the new count."""
        spec, committed = self.arrays.spec(name), self.arrays.rows(name)
        begin = committed // spec.chunk_rows * spec.chunk_rows
        stop = committed + len(rows)
        if len(rows):
            array = open_for_writing(self._path, name)
            array.resize((stop, *spec.row_shape))
            array[begin:stop] = np.concatenate([self.arrays.read(name, begin, committed), rows])
        return stop
