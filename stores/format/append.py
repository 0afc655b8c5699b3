"""Append to a store's arrays, in an order that leaves the store whole if it is cut off anywhere.

Rows are written beyond the committed ones first: arrays grow, whole chunks are replaced, each in
one atomic rename, and the checksums of full chunks are added to those recorded before. Then one
atomic write of the root group's zarr.json makes them count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.errors import InputError, StoreError
from protalign.core.untrusted import read_bytes
from protalign.stores.format.advice import RESTORE
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.checksums import CHECKSUM_BYTES, ChunkChecksums, crc32c
from protalign.stores.format.disk import (
    begin_commit,
    check_inside,
    chunks_present,
    clear_unfinished,
    commit_begun,
    end_commit,
    remove_file,
    replace_file,
    replace_last,
)
from protalign.stores.format.layout import ArraySpec
from protalign.stores.format.metadata import (
    METADATA_BYTES,
    array_json,
    group_json,
    groups_of,
    json_bytes,
    rows_described,
)
from protalign.stores.format.state import (
    StoreState,
    check_readable,
    is_filled_by_tasks,
    load_root,
    load_state,
)
from protalign.stores.format.text import encode_texts


def create_store(path: Path, state: StoreState) -> None:
    """Make the root group; its arrays follow with ``prepare_arrays``."""
    _write_root(path, {"attributes": {}, "zarr_format": 3, "node_type": "group"}, state)


def change_state(path: Path, change: Callable[[StoreState], StoreState]) -> StoreState:
    """Commit a change of the state on disk, in one atomic write; return the new state."""
    document = load_root(path)
    before = StoreState.parse(document["attributes"], str(path))
    state = change(before)
    if state != before:
        _write_root(path, document, state)
    return state


def _write_root(path: Path, document: dict[str, Any], state: StoreState) -> None:
    attributes = {**document["attributes"], **state.attributes()}
    text = json_bytes({**document, "attributes": attributes})
    check_readable(text, state, str(path))
    replace_last(path / "zarr.json", text)


def write_chunks(
    path: Path, name: str, spec: ArraySpec, first: int, rows: npt.NDArray[Any]
) -> list[int]:
    """Write whole chunks of an array; the rest of the last one is zeros.

    Parameters
    ----------
    path : Path
        The store's folder.
    name : str
        The array.
    spec : ArraySpec
        Its dtype, shape and chunks.
    first : int
        The number of the first chunk.
    rows : (n, *row_shape) array
        The rows from the beginning of that chunk on.

    Returns
    -------
    list of int
        The crc32c of each chunk.
    """
    check_inside(path, name)
    checksums = []
    for begin in range(0, len(rows), spec.chunk_rows):
        block = np.ascontiguousarray(rows[begin : begin + spec.chunk_rows], dtype=spec.dtype)
        if len(block) < spec.chunk_rows:
            padded = np.zeros(spec.chunk_shape, dtype=spec.dtype)
            padded[: len(block)] = block
            block = padded
        checksum = crc32c(block)
        file = path / name / spec.chunk_key(first + begin // spec.chunk_rows)
        content = block.reshape(-1).view(np.uint8).data
        replace_file(file, content, checksum.to_bytes(CHECKSUM_BYTES, "little"))
        checksums.append(checksum)
    return checksums


def prepare_arrays(path: Path, state: StoreState) -> None:
    """Make the arrays that are missing, and clear away what an interrupted run left.

    Descriptions of arrays and groups that are damaged are written anew: they follow from the state.
    """
    specs = state.arrays()
    for name in [*groups_of(specs), *specs]:
        if (path / name).is_symlink() or (path / name).exists():
            check_inside(path, name)
    interrupted = commit_begun(path)
    if state.bound and not interrupted:
        for name in specs:
            _refuse_newer_rows(path, name, specs[name], state)
    begin_commit(path)
    clear_unfinished(path)
    for name in groups_of(specs):
        if _described(path, name) != group_json():
            _describe(path, name, group_json())
    for name, spec in specs.items():
        rows = state.rows(name)
        if _described(path, name) != array_json(spec, rows):
            _truncate(path, name, spec, state)
            _describe(path, name, array_json(spec, rows))
        if interrupted and state.bound and not is_filled_by_tasks(name):
            ChunkChecksums(path, name).cut(rows // spec.chunk_rows)
    end_commit(path)


def _refuse_newer_rows(path: Path, name: str, spec: ArraySpec, state: StoreState) -> None:
    """Raise StoreError if an array has rows beyond the committed ones that no interrupted run left.

    Then the root is of an older commit, and cutting the array would lose what was committed since.
    """
    rows = state.rows(name)
    text = _described(path, name)
    if text == array_json(spec, rows) or rows_described(text) <= rows:
        return
    present = chunks_present(path / name)
    more = bool((present >= spec.chunks(rows)).any())
    if not more and rows % spec.chunk_rows:
        index = rows // spec.chunk_rows
        tail = LocalArrays(path, state, described=False).chunk(name, index)[
            rows % spec.chunk_rows :
        ]
        more = bool(tail.any())
    if more:
        raise StoreError(
            f"{path}: array {name} has more rows than zarr.json of the store says, which may be of "
            f"an older commit; {RESTORE}"
        )


def _described(path: Path, name: str) -> bytes:
    """Return the zarr.json of an array or group, b"" if it cannot be read."""
    try:
        return read_bytes(path / name / "zarr.json", "", most=METADATA_BYTES, links=False)
    except InputError:
        return b""


def _describe(path: Path, name: str, text: bytes) -> None:
    file = path / name / "zarr.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir() and not file.is_symlink():
        raise StoreError(
            f"{path}: the store is damaged, {name}/zarr.json is a folder; remove it, and run the "
            "command again"
        )
    replace_file(file, text)


def _truncate(path: Path, name: str, spec: ArraySpec, state: StoreState) -> None:
    """Cut an array back to its committed rows; fill the last chunk with zeros."""
    rows = state.rows(name)
    for index in chunks_present(path / name).tolist():
        if index >= spec.chunks(rows):
            remove_file(path / name / spec.chunk_key(index))
    begin = rows // spec.chunk_rows * spec.chunk_rows
    if begin < rows:
        # The description may be what is damaged, so it is not looked at.
        tail = LocalArrays(path, state, described=False).read(name, begin, rows)
        write_chunks(path, name, spec, begin // spec.chunk_rows, tail)
    if state.bound:
        ChunkChecksums(path, name).cut(rows // spec.chunk_rows)


class Appender:
    """Rows that wait to be appended to a store's arrays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: dict[str, list[npt.NDArray[Any] | list[Any]]] = {}
        #: Texts that wait, by column: they are made arrays all at once.
        self._texts: dict[str, list[str]] = {}
        self._waiting_rows: dict[str, int] = {}
        self._grow: dict[str, int] = {}
        self.arrays = LocalArrays(path)

    def rows(self, name: str) -> int:
        """Return the rows of an array, including those that wait."""
        if name.rpartition("/")[0] in self._texts:
            self._encode_texts()
        return self.arrays.rows(name) + self._waiting_rows.get(name, 0)

    def reload(self) -> None:
        """Read the committed state again; nothing may be waiting."""
        self.arrays = LocalArrays(self._path)

    @property
    def waiting(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._pending or self._grow or self._texts)

    def append(self, name: str, rows: npt.ArrayLike) -> None:
        """Append rows to an array, in any shape that fits (n, *row_shape)."""
        spec = self.arrays.spec(name)
        block: npt.NDArray[Any] | list[Any]
        if isinstance(rows, list) and not spec.row_shape:
            block = list(rows)  # a few numbers: no array for each
        else:
            block = np.asarray(rows, dtype=spec.dtype).reshape(-1, *spec.row_shape)
        blocks = self._pending.setdefault(name, [])
        if isinstance(block, list) and blocks and isinstance(blocks[-1], list):
            blocks[-1].extend(block)
        else:
            blocks.append(block)
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

    def append_one(self, column: str, values: list[int]) -> None:
        """Append one row to a ragged column of numbers."""
        self.append(f"{column}/start", [self.rows(f"{column}/values")])
        self.append(f"{column}/length", [len(values)])
        self.append(f"{column}/values", values)

    def append_texts(self, column: str, texts: Sequence[str]) -> None:
        """Append texts to a ragged column of UTF-8."""
        self._texts.setdefault(column, []).extend(texts)

    def _encode_texts(self) -> None:
        """Append the texts that wait as arrays."""
        texts, self._texts = self._texts, {}
        for column, of_column in texts.items():
            self.append_ragged(column, *encode_texts(of_column))

    def grow(self, name: str, rows: int) -> None:
        """Set the rows of an array; its chunks are written later, by tasks."""
        self._grow[name] = rows

    def commit(self, change: Callable[[StoreState], StoreState]) -> StoreState:
        """Write the rows that wait, then make them count together with a change of the state."""
        self._encode_texts()
        committed = dict(self._grow)
        last_chunks: dict[str, int | None] = {}
        if self.waiting:
            begin_commit(self._path)
        for name, count in self._grow.items():
            _describe(self._path, name, array_json(self.arrays.spec(name), count))
        for name, blocks in self._pending.items():
            dtype = self.arrays.spec(name).dtype
            rows = np.concatenate([np.asarray(block, dtype=dtype) for block in blocks])
            committed[name], last_chunks[name] = self._write(name, rows)

        def commit_rows(state: StoreState) -> StoreState:
            state = change(state)
            state = replace(state, committed={**state.committed, **committed})
            if not state.bound:
                return state
            merged = {**state.last_chunks, **last_chunks}
            return replace(
                state, last_chunks={name: crc for name, crc in merged.items() if crc is not None}
            )

        state = change_state(self._path, commit_rows)
        if self.waiting:
            end_commit(self._path)
        self._pending, self._waiting_rows, self._grow = {}, {}, {}
        self.arrays = LocalArrays(self._path, state)
        return state

    def _write(self, name: str, rows: npt.NDArray[Any]) -> tuple[int, int | None]:
        """Write rows behind the committed ones, whole chunks only.

        Return the new count, and the crc32c of the rows in a partly filled last chunk, or None.
        """
        spec, committed = self.arrays.spec(name), self.arrays.rows(name)
        if not len(rows):
            return committed, self.arrays.state.last_chunks.get(name)
        full = committed // spec.chunk_rows
        begin, stop = full * spec.chunk_rows, committed + len(rows)
        rows = np.concatenate([self.arrays.read(name, begin, committed), rows])
        _describe(self._path, name, array_json(spec, stop))
        checksums = write_chunks(self._path, name, spec, full, rows)
        in_last = stop % spec.chunk_rows
        if self.arrays.state.bound:
            whole = checksums[:-1] if in_last else checksums
            ChunkChecksums(self._path, name).record(full, whole)
        return stop, crc32c(np.ascontiguousarray(rows[-in_last:])) if in_last else None


class ChunkWriter:
    """Writes whole chunks of an array by assignment: ``writer[0:256] = rows``."""

    def __init__(self, path: Path, name: str, spec: ArraySpec) -> None:
        self._path, self._name, self._spec = path, name, spec

    def __setitem__(self, rows: slice, values: npt.ArrayLike) -> None:
        first, beyond = divmod(rows.start, self._spec.chunk_rows)
        assert not beyond, "a chunk is written from its first row on"
        whole = np.broadcast_to(values, (rows.stop - rows.start, *self._spec.row_shape))
        write_chunks(self._path, self._name, self._spec, first, whole)


def open_for_writing(path: Path, name: str) -> ChunkWriter:
    """Open an array of a store, to write whole chunks of it."""
    return ChunkWriter(path, name, load_state(path).arrays()[name])
