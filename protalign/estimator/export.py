"""A store's entries to a file: aligned vectors, and the means of the residues' embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.checks import check_choice
from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.heads.inputs import Inputs
from protalign.heads.kernels.packed import PackedBatch
from protalign.heads.mean import mean_rows
from protalign.heads.model import Heads, vectors_of
from protalign.stores import Entries, VectorBatch, write_vectors

#: What a file may hold of each modality.
FEATURES = ("aligned", "mean")
#: Entries whose vectors are in memory at once.
_ENTRIES_AT_ONCE = 16384


def export_vectors(
    heads: Heads,
    entries: Entries,
    inputs: Inputs,
    path: str | Path,
    *,
    mean_dims: Mapping[Modality, int],
    features: Sequence[str] = ("aligned",),
    model: Mapping[str, Any],
) -> int:
    """Write the vectors of a store's entries; returns the number of entries.

    Parameters
    ----------
    heads : the fitted heads, on the device to compute on.
    entries, inputs : a store's entries, and their embeddings as the heads take them.
    path : ``.parquet``, ``.csv`` or ``.h5ad``: see ``protalign.stores.write_vectors``.
    mean_dims : D_P and D_S.
    features : "aligned", and "mean" for the means of the residues' embeddings beside them.
    model : provenance of the heads: protalign_version, weights_sha256, parameters, encoders.

    Raises
    ------
    InputError : an id is there twice, a feature is unknown, or the file cannot be written there.
    """
    with_means = "mean" in _checked(features)
    if len(set(entries.ids)) != len(entries):
        raise InputError("an id is there twice", "export each entry once")
    facts = dict(model)
    metadata = {
        "protalign_version": facts.pop("protalign_version"),
        "model": facts,
        "store": {
            "path": entries.store.path,
            "options": dict(entries.store.options),  # as queries must be read
            "encoders": {m: asdict(info) for m, info in inputs.encoders.items()},
        },
    }
    return write_vectors(
        path,
        vector_batches(heads, entries, inputs, with_means=with_means),
        dim=heads.embed_dim,
        metadata=metadata,
        mean_dims=mean_dims if with_means else None,
    )


def vector_batches(
    heads: Heads, entries: Entries, inputs: Inputs, *, with_means: bool = False
) -> Iterator[VectorBatch]:
    """What a file says of the entries, some thousands of them at a time."""
    ids, lengths = entries.ids, _residues(entries, inputs)
    for start in range(0, len(ids), _ENTRIES_AT_ONCE):
        positions = np.arange(start, min(start + _ENTRIES_AT_ONCE, len(ids)))
        vectors = {m: vectors_of(heads, inputs, m, positions) for m in inputs.dims}
        means = {m: means_of(inputs, m, positions) for m in inputs.dims if with_means}
        yield VectorBatch(
            ids[positions],
            vectors.get("sequence"),
            vectors.get("structure"),
            lengths[positions],
            means.get("sequence"),
            means.get("structure"),
        )


def means_of(inputs: Inputs, modality: Modality, positions: Int64) -> Float32:
    """(k, D) mean residue embedding of some entries; NaN for those that lack the modality.

    Entries that share an embedding are averaged once.
    """
    items = inputs.items(modality)[positions]
    there = np.flatnonzero(items >= 0)
    _, first, item = np.unique(items[there], return_index=True, return_inverse=True)
    means = np.full((len(positions), inputs.dims[modality]), np.nan, dtype=np.float32)
    if len(there):
        blocks = inputs.blocks(modality, positions[there[first]])
        each = [mean_rows(PackedBatch.from_ragged(rows)).numpy() for rows in blocks]
        means[there] = np.concatenate(each)[item]
    return means


def _residues(entries: Entries, inputs: Inputs) -> Int64:
    """(n,) residues of each entry: of its sequence, or rows of its structure where it has none."""
    sequence = entries.lengths
    if "structure" not in inputs.dims:
        return sequence
    return np.where(sequence > 0, sequence, inputs.lengths("structure"))


def _checked(features: Sequence[str]) -> set[str]:
    if isinstance(features, str):
        raise InputError(f"features={features!r} is a text", f"give a tuple: ({features!r},)")
    for name in features:
        check_choice("features", name, FEATURES)
    if "aligned" not in features:
        raise InputError(
            f"features={tuple(features)} without aligned vectors",
            'they are always written: give ("aligned", "mean")',
        )
    return set(features)
