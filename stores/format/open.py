"""Open the committed arrays of a store, wherever it is."""

from __future__ import annotations

from pathlib import Path

from protalign.stores.format.arrays import Arrays, LocalArrays


def open_arrays(path: str) -> Arrays:
    """Return the arrays of a store at a path or URL; raise StoreError if it is not a store."""
    if "://" in path:
        from protalign.stores.format.remote import RemoteArrays  # slow to import, seldom needed

        return RemoteArrays(path)
    return LocalArrays(Path(path))
