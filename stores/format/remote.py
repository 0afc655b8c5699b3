"""Read a store behind a URL that Zarr and fsspec know."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore

from protalign.core.arrays import Bool
from protalign.core.errors import StoreError
from protalign.stores.format.arrays import Arrays, chunk_error
from protalign.stores.format.state import StoreState

#: Chunks kept in memory: enough for a batch's neighbours, small beside the batch.
CHUNKS_KEPT = 16


class _MissingChunkError(Exception):
    """A chunk that the state says is written does not exist."""

    def __init__(self, array: str, chunk: str) -> None:
        self.array = array
        self.chunk = chunk
        super().__init__(array, chunk)


class _WithoutHoles(WrapperStore[Any]):
    """A Zarr store in which a missing chunk is an error instead of a chunk of zeros."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        array, _, name = key.rpartition("/")
        # A task writes its chunk of ``done`` last: if it is missing, the task is not done yet.
        if value is None and name.startswith("c.") and not array.endswith("/done"):
            raise _MissingChunkError(array, name)
        return value


class RemoteArrays(Arrays):
    """A store behind a URL, read through the Zarr API."""

    def __init__(self, url: str) -> None:
        try:
            store = _WithoutHoles(FsspecStore.from_url(url, read_only=True))
            self._group = zarr.open_group(store, mode="r", zarr_format=3)
        except (OSError, ValueError, ImportError) as error:
            raise StoreError(
                f"{url}: it cannot be opened as a store ({error}); check the address"
            ) from None
        super().__init__(url, StoreState.parse(self._group.attrs.asdict(), url))
        self._opened: dict[str, zarr.Array[Any]] = {}
        self._lock = threading.Lock()
        self._chunks: OrderedDict[tuple[str, int], npt.NDArray[Any]] = OrderedDict()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Return rows start to stop; all their chunks are fetched at once."""
        stop = self.rows(name) if stop is None else stop
        spec = self._specs[name]
        if stop <= start:
            return np.empty((0, *spec.row_shape), dtype=spec.dtype)
        try:
            return np.asarray(self._array(name)[start:stop])
        except _MissingChunkError as error:
            raise chunk_error(self.path, error.array, error.chunk, "is missing") from None
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self.path}: array {name}, rows {start} to {stop}, cannot be read ({error}); "
                "check the connection; if it is fine, the store is damaged"
            ) from None

    def chunk(self, name: str, index: int) -> npt.NDArray[Any]:
        """Return one chunk, from memory if it was read lately."""
        key = (name, index)
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        size = self._specs[name].chunk_rows
        rows = self.read(name, index * size, min((index + 1) * size, self.rows(name)))
        with self._lock:
            self._chunks[key] = rows
            while len(self._chunks) > CHUNKS_KEPT:
                self._chunks.popitem(last=False)
        return rows

    def done_tasks(self, name: str) -> Bool:
        """Return (tasks,) bool: done as the root group says, or by a chunk of ``done``."""
        array = f"encoders/{name}/done"
        done = np.ones(self.rows(array), dtype=np.bool_)
        known = self.state.encoders[name].tasks_done
        if known < len(done):
            done[known:] = self.read(array, known) != 0
        return done

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._opened:
            try:
                array = self._group[name]
            except KeyError:
                array = None
            if not isinstance(array, zarr.Array):
                raise StoreError(
                    f"{self.path}: the store is damaged, array {name} is missing; restore it from "
                    "a copy"
                )
            self._opened[name] = array
        return self._opened[name]
