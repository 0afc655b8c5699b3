"""What a file of vectors or an index says of the model and the store that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from protalign.core.encoder_record import EncoderRecord
from protalign.core.paths import path_text
from protalign.core.protein import Modality
from protalign.heads.model import Model
from protalign.stores import EmbeddingStore


def provenance_of(
    model: Model, store: EmbeddingStore, encoders: Mapping[Modality, EncoderRecord]
) -> dict[str, Any]:
    """Return the model, the store and the store's encoders that were read, as JSON values.

    The store's options are those with which queries must be read.
    """
    description = model.description()
    return {
        "protalign_version": description["protalign_version"],
        "model": {
            "parameters": description["parameters"],
            "encoders": description["encoders"],
            "weights_sha256": model.weights_sha256,
        },
        "store": {
            **_place(store.paths),
            "options": dict(store.options),
            "encoders": {m: asdict(record) for m, record in encoders.items()},
        },
    }


def _place(paths: Sequence[str]) -> dict[str, Any]:
    """Return the path of a store; of one that was opened by several paths, these."""
    if len(paths) == 1:
        return {"path": path_text(paths[0])}
    return {"paths": [path_text(path) for path in paths]}
