"""Export of a store's entries: aligned vectors and the means of the residues' embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import numpy as np

from protalign.core.arrays import Int64
from protalign.core.checks import check_choice
from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.core.words import Feature
from protalign.heads.inputs import Inputs, means_of
from protalign.heads.model import Model
from protalign.heads.provenance import provenance_of
from protalign.stores import Entries, VectorBatch, write_vectors

#: Entries with vectors in memory at once.
_ENTRIES_AT_ONCE = 16384


def export_vectors(
    model: Model,
    entries: Entries,
    path: str | os.PathLike[str],
    *,
    features: Sequence[str] = ("aligned",),
    names: Mapping[Modality, str | None] | None = None,
    rows_per_file: int | None = None,
) -> int:
    """Write the vectors of a store's entries; return the number of entries.

    Parameters
    ----------
    model : Model
        The model, on the device to compute on.
    entries : EmbeddingStore or StoreView
        The entries.
    path : str or path
        ``.parquet``, ``.csv`` or ``.h5ad``, or a folder, whose name has no ending; see
        ``protalign.stores.write_vectors``.
    features : sequence of str
        "aligned", and "mean" for the means of the residues' embeddings beside them.
    names : mapping, optional
        Modality -> name of the encoder to read, if the store has several that fit the model.
    rows_per_file : int, optional
        Rows of a folder's Parquet file, at most.

    Raises
    ------
    InputError
        An id occurs twice, a feature is unknown, the file cannot be written there, or ``entries``
        is not a store or a view of one.
    """
    if not isinstance(entries, Entries):
        raise InputError(
            f"X: a {type(entries).__name__}, but only a store's entries have ids to export",
            "use transform",
        )
    with_means = "mean" in _checked(features)
    if len(np.unique(entries.entry_rows)) != len(entries):
        raise InputError("X: an id occurs twice", "export each entry once")
    inputs = model.inputs(entries, names=names)
    return write_vectors(
        path,
        _batches(model, entries, inputs, with_means=with_means),
        dim=model.embed_dim,
        metadata=provenance_of(model, entries.store, inputs.encoders),
        mean_dims=model.dims if with_means else None,
        annotated=True,
        rows_per_file=rows_per_file,
    )


def _batches(
    model: Model, entries: Entries, inputs: Inputs, *, with_means: bool
) -> Iterator[VectorBatch]:
    """Yield the rows of the file, some thousands of entries at a time."""
    log, lengths = entries.store.log, _residues(entries, inputs)
    for start in range(0, len(entries), _ENTRIES_AT_ONCE):
        positions = np.arange(start, min(start + _ENTRIES_AT_ONCE, len(entries)))
        vectors = {m: model.vectors(inputs, m, positions) for m in inputs.dims}
        means = {m: means_of(inputs, m, positions) for m in inputs.dims if with_means}
        yield VectorBatch(
            log.texts_at(entries.entry_rows[positions]),
            vectors.get("sequence"),
            vectors.get("structure"),
            lengths[positions],
            means.get("sequence"),
            means.get("structure"),
            entries[positions].annotations,
        )


def _residues(entries: Entries, inputs: Inputs) -> Int64:
    """Return (n,) residues of each entry: of its sequence, else the rows of its structure."""
    sequence = entries.lengths
    if "structure" not in inputs.dims:
        return sequence
    return np.where(sequence > 0, sequence, inputs.lengths("structure"))


def _checked(features: Sequence[str]) -> set[str]:
    if isinstance(features, str):
        raise InputError(f"features={features!r}: a text", f"give a tuple: ({features!r},)")
    for name in features:
        check_choice("features", name, get_args(Feature))
    if "aligned" not in features:
        raise InputError(
            f"features={tuple(features)}: aligned is missing, but it is always written",
            'give ("aligned", "mean")',
        )
    return set(features)
