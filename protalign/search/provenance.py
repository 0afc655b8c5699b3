"""The model, the store and the reading options behind exported vectors, and checks of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from protalign.core.errors import InputError, ModelError
from protalign.core.paths import path_of, path_text
from protalign.heads.model import Model
from protalign.reading import ReadOptions
from protalign.stores import AlignedVectors, EmbeddingStore
from protalign.stores.union.paths import StorePaths, is_here


def check_made_by(vectors: AlignedVectors, model: Model) -> None:
    """Raise ModelError if exported vectors are another model's: no cosine would mean anything.

    Warn if they do not say whose they are.
    """
    theirs, ours = _model_sha256(vectors), model.weights_sha256
    if vectors.dim != model.embed_dim or theirs not in ("", ours):
        raise ModelError(
            f"the vectors: another model made them (weights {_short(theirs)}, not {_short(ours)}); "
            "search with that model, or export them again with this one"
        )
    if not theirs:
        _warn_unknown()


def check_same_model(queries: AlignedVectors, vectors: AlignedVectors) -> None:
    """Raise ModelError if two exported files are of different models; warn if one does not say."""
    theirs, ours = _model_sha256(queries), _model_sha256(vectors)
    differ = theirs != ours and theirs and ours
    if differ or queries.dim != vectors.dim:
        raise ModelError(
            f"the two files of vectors: different models made them (weights {_short(theirs)} and "
            f"{_short(ours)}); export both with one model"
        )
    if not (theirs and ours):
        _warn_unknown()


def _warn_unknown() -> None:
    warnings.warn(
        "the vectors: they do not say which model made them; the cosines mean something only if it "
        "is the same",
        stacklevel=3,
    )


def read_options(vectors: AlignedVectors) -> ReadOptions:
    """Return the options that the structure files behind exported vectors were read with.

    Queries are read the same way, but as they are: an assembly need not be in every file. The file
    of vectors records the options; an older one names its store, which records them; else they are
    the defaults.
    """
    options = _recorded(vectors, "store").get("options")
    paths = recorded_store(vectors)
    if options is None and paths and all(map(is_here, paths)):
        options = EmbeddingStore.open(paths).options
    known = {field.name for field in fields(ReadOptions)} - {"assembly"}
    try:
        recorded = dict(options or {})
        return ReadOptions(**{key: recorded[key] for key in known & set(recorded)})
    except (TypeError, ValueError):
        raise InputError(
            "the vectors: their reading options are damaged", "export them again"
        ) from None


def open_coordinates(vectors: AlignedVectors, path: StorePaths | None = None) -> EmbeddingStore:
    """Open the store that holds the vectors' structures: the one named, else the one recorded.

    Raise InputError if neither exists.
    """
    return open_store(path or recorded_store(vectors), "the vectors")


def open_store(path: StorePaths, of: object) -> EmbeddingStore:
    """Open the store of vectors or an index, by the path that was named, else recorded.

    Raise InputError if it is missing, or if there is no path: it is unknown.
    """
    if not path:
        raise InputError(f"{of}: the store is not recorded", "name it with --store")
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    for each in paths:
        if "://" not in str(each) and not is_here(each):
            raise InputError(f"{path_text(each)}: the store is missing", "name it with --store")
    return EmbeddingStore.open(paths)


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
    return EmbeddingStore.open(store) if store and all(map(is_here, store)) else None


def recorded_store(vectors: AlignedVectors) -> list[str]:
    """Return the paths of the store that the vectors were exported from; none if unknown."""
    return store_paths(vectors.metadata)


def store_paths(provenance: Mapping[str, Any]) -> list[str]:
    """Return the paths of the store in what a file of vectors or an index says; none if unknown."""
    store = provenance.get("store")
    if not isinstance(store, dict):
        return []
    several = store.get("paths")
    paths = several if isinstance(several, list) else [store.get("path", "")]
    return [path if "://" in path else str(path_of(path)) for path in map(str, paths) if path != ""]


def _model_sha256(vectors: AlignedVectors) -> str:
    """Return the hex digest of the weights that made vectors; "" if it is not recorded."""
    return str(_recorded(vectors, "model").get("weights_sha256", ""))


def _recorded(vectors: AlignedVectors, key: str) -> Mapping[str, Any]:
    """Return a part of the provenance; empty if it is missing or something else."""
    value = vectors.metadata.get(key)
    return value if isinstance(value, dict) else {}


def _short(digest: str) -> str:
    return f"{digest[:12]}…" if digest else "unknown"
