"""Open the committed arrays of a store, wherever it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from protalign.stores.format.arrays import Arrays, LocalArrays


def open_arrays(path: str) -> Arrays:
    """Return the arrays of a store at a path or URL; raise StoreError if it is not a store."""
    return open_several([path])[0]


def open_several(paths: Sequence[str]) -> list[Arrays]:
    """Return the arrays of stores that are read together: they share what may be open at once."""
    opened: list[Arrays] = []
    shared: dict[type[Arrays], Arrays] = {}
    for path in paths:
        if "://" in path:
            from protalign.stores.format.remote import RemoteArrays  # slow to import, seldom needed

            first = shared.get(RemoteArrays)
            arrays: Arrays = RemoteArrays(path, kept=None if first is None else first.kept)
        else:
            first = shared.get(LocalArrays)
            arrays = LocalArrays(Path(path), kept=None if first is None else first.kept)
        shared.setdefault(type(arrays), arrays)
        opened.append(arrays)
    return opened
