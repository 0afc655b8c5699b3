"""The chunks that are open at once, of one store or of all that are read together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy.typing as npt


class KeptChunks:
    """Chunks by store, array and number; the one that was used longest ago is let go.

    Parameters
    ----------
    limit : int
        Chunks to keep.

    Examples
    --------
    >>> import numpy as np
    >>> kept = KeptChunks(1)
    >>> kept.put(("store.zarr", "sequences/hash", 0), np.zeros(2))
    >>> kept.put(("store.zarr", "sequences/hash", 1), np.ones(2))
    >>> kept.get(("store.zarr", "sequences/hash", 0)) is None
    True
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: OrderedDict[tuple[str, str, int], npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str, int]) -> npt.NDArray[Any] | None:
        """Return a chunk, None if it is not open."""
        with self._lock:
            chunk = self._chunks.get(key)
            if chunk is not None:
                self._chunks.move_to_end(key)
        return chunk

    def put(self, key: tuple[str, str, int], chunk: npt.NDArray[Any]) -> None:
        """Keep a chunk."""
        with self._lock:
            self._chunks[key] = chunk
            while len(self._chunks) > self._limit:
                self._chunks.popitem(last=False)
