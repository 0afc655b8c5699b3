"""Read a store behind a URL that Zarr and fsspec know."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore

from protalign.core.arrays import Bool
from protalign.core.errors import StoreError
from protalign.stores.format.advice import RESTORE
from protalign.stores.format.arrays import MANY_CHUNKS, Arrays, check_place, chunk_error
from protalign.stores.format.checksums import (
    CHECKSUM_BYTES,
    CHECKSUM_FILE,
    DamagedEntryError,
    decoded_entry,
    entry_of,
)
from protalign.stores.format.kept_chunks import KeptChunks
from protalign.stores.format.metadata import METADATA_BYTES, array_fault
from protalign.stores.format.pieces import Pieces, pieces
from protalign.stores.format.state import StoreState, is_filled_by_tasks
from protalign.stores.objects.client import advice_for, fault_of, is_object_url, zarr_store

#: Chunks kept in memory: enough for a batch's neighbours, small beside the batch.
CHUNKS_KEPT = 16
#: Whole chunks that are asked for before they are used.
CHUNKS_AHEAD = 8


class _BadChunkError(Exception):
    """A chunk that the state says is written is missing, or is another one."""

    def __init__(self, array: str, chunk: str, fault: str) -> None:
        self.array = array
        self.chunk = chunk
        self.fault = fault
        super().__init__(array, chunk, fault)


class _BadArrayError(Exception):
    """An array's zarr.json does not follow the format."""

    def __init__(self, array: str, fault: str) -> None:
        self.array = array
        self.fault = fault
        super().__init__(array, fault)


class _Checked(WrapperStore[Any]):
    """A Zarr store in which a missing or an exchanged chunk is an error.

    Zarr reads a missing chunk as zeros, and any chunk at any place.
    """

    def expect(self, state: StoreState) -> None:
        """Check what is read from now on against a committed state."""
        self._state: StoreState = state
        self._specs = state.arrays()
        self._checksums: dict[str, bytes] = {}

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        try:
            value = await super().get(key, prototype, byte_range)
        except Exception as error:
            if type(error).__module__.startswith("obstore"):
                raise OSError(fault_of(error)) from None
            raise
        array, _, name = key.rpartition("/")
        if not array or byte_range is not None or array not in self._specs:
            return value
        if name == "zarr.json":
            self._check_array(array, value)
        elif name.startswith("c."):
            # A task writes its chunk of ``done`` last: if it is missing, the task is not done yet.
            if value is None and not array.endswith("/done"):
                raise _BadChunkError(array, name, "is missing")
            if value is not None and self._state.bound:
                await self._check_place(array, name, value, prototype)
        return value

    def _check_array(self, array: str, value: Buffer | None) -> None:
        text = b"" if value is None or len(value) > METADATA_BYTES else value.to_bytes()
        fault = array_fault(text, self._specs[array], self._state.rows(array))
        if fault:
            raise _BadArrayError(array, fault)

    async def _check_place(
        self, array: str, name: str, value: Buffer, prototype: BufferPrototype
    ) -> None:
        if array not in self._checksums:
            recorded = await super().get(f"{array}/{CHECKSUM_FILE}", prototype)
            self._checksums[array] = b"" if recorded is None else recorded.to_bytes()
        spec, index = self._specs[array], int(name.split(".")[1])
        try:
            entry = decoded_entry(array, index, entry_of(self._checksums[array], index))
        except DamagedEntryError as error:
            raise _BadChunkError(array, name, f"cannot be trusted, since {error}") from None
        data = np.ascontiguousarray(value.as_numpy_array()).view(np.uint8)
        if len(data) != spec.chunk_bytes + CHECKSUM_BYTES:
            fault = f"has {len(data)} bytes instead of {spec.chunk_bytes + CHECKSUM_BYTES}"
        else:
            fault = check_place(data, array, index, spec, self._state, entry)
        if fault:
            raise _BadChunkError(array, name, fault)


class RemoteArrays(Arrays):
    """A store behind a URL, read through the Zarr API."""

    def __init__(self, url: str, kept: KeptChunks | None = None) -> None:
        try:
            store = _Checked(
                zarr_store(url) if is_object_url(url) else FsspecStore.from_url(url, read_only=True)
            )
            store.expect(StoreState({}))
            self._group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
        except StoreError:
            raise
        except Exception as error:  # each service has errors of its own; of a root that is no group
            fault, advice = _first_line(error), advice_for(url, error)
            if isinstance(error, FileNotFoundError):
                fault, advice = "nothing is there", "check the address"
            raise StoreError(f"{url}: it cannot be opened as a store ({fault}); {advice}") from None
        super().__init__(
            url, StoreState.parse(self._group.attrs.asdict(), url), kept or KeptChunks(CHUNKS_KEPT)
        )
        store.expect(self.state)
        self._opened: dict[str, zarr.Array[Any]] = {}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Return rows start to stop; all their chunks are fetched at once."""
        stop = self.rows(name) if stop is None else stop
        spec = self._specs[name]
        if stop <= start:
            return np.empty((0, *spec.row_shape), dtype=spec.dtype)
        if start < 0 or stop > self.rows(name):
            raise self.inconsistent(f"it points outside array {name}")
        if stop - start > MANY_CHUNKS * spec.chunk_rows and not is_filled_by_tasks(name):
            self.check_backed(name)
        try:
            return np.asarray(self._array(name)[start:stop])
        except _BadChunkError as error:
            raise chunk_error(self.path, error.array, error.chunk, error.fault) from None
        except StoreError:
            raise
        except Exception as error:  # each service has errors of its own
            raise StoreError(
                f"{self.path}: array {name}, rows {start} to {stop}, cannot be read "
                f"({_first_line(error)}); {advice_for(self.path, error)}; if nothing is wrong with "
                "them, the store is damaged"
            ) from None

    def check_backed(self, name: str) -> None:
        """Fetch the array's last chunk, which is missing if the counts are made up."""
        last = self._specs[name].chunks(self.rows(name)) - 1
        self.chunk(name, last)

    def chunk(self, name: str, index: int) -> npt.NDArray[Any]:
        """Return one chunk, from memory if it was read lately."""
        key = (self.path, name, index)
        rows = self.kept.get(key)
        if rows is None:
            size = self._specs[name].chunk_rows
            rows = self.read(name, index * size, min((index + 1) * size, self.rows(name)))
            self.kept.put(key, rows)
        return rows

    def gather(
        self, name: str, start: npt.NDArray[Any], length: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """Return the rows of n ranges; whole chunks are fetched, several ahead of their use."""
        self._check_ranges(name, start, length)
        out = self._room(name, np.asarray(length, np.int64))
        cut = pieces(
            np.asarray(start, np.int64), np.asarray(length, np.int64), self._specs[name].chunk_rows
        )
        waiting: deque[tuple[Pieces, Future[npt.NDArray[Any]]]] = deque()
        asked: tuple[int, Future[npt.NDArray[Any]]] | None = None
        with ThreadPoolExecutor(CHUNKS_AHEAD) as pool:
            for some in chain(cut, repeat(None)):
                if some is not None:
                    if asked is None or asked[0] != some.chunk:
                        asked = some.chunk, pool.submit(self.chunk, name, some.chunk)
                    waiting.append((some, asked[1]))
                    if len(waiting) <= CHUNKS_AHEAD:
                        continue
                if not waiting:
                    return out
                ready, chunk = waiting.popleft()
                ready.copy(chunk.result(), out)
        raise AssertionError

    def done_tasks(self, name: str) -> Bool:
        """Return (tasks,) bool: done as the root group says, or by a chunk of ``done``."""
        array, plan = f"encoders/{name}/done", f"encoders/{name}/plan/row"
        done = np.ones(self.backed_rows(plan), dtype=np.bool_)
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
            except _BadArrayError as error:
                raise StoreError(
                    f"{self.path}: array {error.array} is damaged: {error.fault}; {RESTORE}"
                ) from None
            if not isinstance(array, zarr.Array):
                raise StoreError(
                    f"{self.path}: the store is damaged, array {name} is missing; {RESTORE}"
                )
            self._opened[name] = array
        return self._opened[name]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
