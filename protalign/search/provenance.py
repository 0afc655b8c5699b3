"""The model, the store and the reading options behind exported vectors, and checks of them."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

from protalign.core.errors import InputError, ModelError
from protalign.heads.model import Model
from protalign.reading import ReadOptions
from protalign.stores import AlignedVectors, EmbeddingStore


def check_made_by(vectors: AlignedVectors, model: Model) -> None:
    """Raise ModelError if exported vectors are another model's: no cosine would mean anything."""
    theirs, ours = _model_sha256(vectors), model.weights_sha256
    if theirs != ours:
        raise ModelError(
            f"the vectors: another model made them (weights {theirs[:12]}…, not {ours[:12]}…); "
            "search with that model, or export them again with this one"
        )


def check_same_model(queries: AlignedVectors, vectors: AlignedVectors) -> None:
    """Raise ModelError if two exported files are of different models."""
    theirs, ours = _model_sha256(queries), _model_sha256(vectors)
    if theirs != ours or queries.sequence.shape[1] != vectors.sequence.shape[1]:
        raise ModelError(
            f"the two files of vectors: different models made them (weights {theirs[:12]}… and "
            f"{ours[:12]}…); export both with one model"
        )


def read_options(vectors: AlignedVectors) -> ReadOptions:
    """Return the options that the structure files behind exported vectors were read with.

    Queries are read the same way. The file records them; an older file names its store, which
    records them; else they are the defaults.
    """
    options = vectors.metadata.get("store", {}).get("options")
    path = recorded_store(vectors)
    if options is None and path and Path(path).is_dir():
        options = EmbeddingStore.open(path).options
    known = {field.name for field in fields(ReadOptions)}
    return ReadOptions(**{key: value for key, value in (options or {}).items() if key in known})


def open_coordinates(
    vectors: AlignedVectors, path: str | os.PathLike[str] | None = None
) -> EmbeddingStore:
    """Open the store that holds the vectors' structures: the one named, else the one recorded.

    Raise InputError if neither exists.
    """
    store = str(path or recorded_store(vectors))
    if not store:
        raise InputError("the vectors: their store is not recorded", "name it with --store")
    if "://" not in store and not Path(store).is_dir():
        raise InputError(f"{store}: the store is missing", "name it with --store")
    return EmbeddingStore.open(store)


def coordinates_of(
    queries: AlignedVectors, vectors: AlignedVectors, coordinates: EmbeddingStore
) -> EmbeddingStore | None:
    """Return the store with the coordinates of a second file's entries; None if it is missing.

    It is ``coordinates``, the store of ``vectors``, only if both files are of one store: in
    another one an equal id may be another protein.
    """
    store = recorded_store(queries)
    if store == recorded_store(vectors):
        return coordinates
    return EmbeddingStore.open(store) if store and Path(store).is_dir() else None


def recorded_store(vectors: AlignedVectors) -> str:
    """Return the path of the store that the vectors were exported from; "" if unknown."""
    return str(vectors.metadata.get("store", {}).get("path", ""))


def _model_sha256(vectors: AlignedVectors) -> str:
    return str(vectors.metadata.get("model", {}).get("weights_sha256"))
