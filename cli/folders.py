"""What a folder is that a command was given in place of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from protalign.core.errors import InputError
from protalign.core.paths import path_text

if TYPE_CHECKING:
    from protalign.stores import EmbeddingStore

#: The document of each kind of folder but a store, the kind, and files that only it has.
DOCUMENTS = {
    "config.json": ("a model", "*.safetensors"),
    "vectors.json": ("a folder of vectors", "part-*.parquet"),
    "vector-index.json": ("an index of vectors", "*_centroids.npy"),
    "index.json": ("an index of words", "segment-*/*.words"),
}


def kind_of(path: Path) -> str:
    """Return what a folder is that has another kind's document, such as "an index of words".

    "" for a store, and for a folder without such a document.
    """
    if (path / "zarr.json").is_file():
        return ""
    return next((kind for name, (kind, _) in DOCUMENTS.items() if (path / name).is_file()), "")


def opened_store(
    paths: str | Sequence[str], advice: str = "name one that `protalign embed` made"
) -> EmbeddingStore:
    """Open a command's stores; a folder of another kind is named as what it is."""
    from protalign.stores import EmbeddingStore

    for path in [paths] if isinstance(paths, str) else paths:
        if kind := kind_of(Path(path)):
            name = path_text(path)
            raise InputError(f"{name}: it is {kind}, not a store", advice.format(name))
    return EmbeddingStore.open(paths)
