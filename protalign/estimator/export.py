"""Export of a store's entries: aligned vectors and the means of the residues' embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.checks import check_choice
from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.core.spread import Spread, checked, spread_over
from protalign.core.threads import OnSameCores
from protalign.core.words import Feature
from protalign.heads.inputs import Inputs, means_of
from protalign.heads.model import Model
from protalign.heads.provenance import provenance_of
from protalign.stores import EmbeddingStore, Entries, VectorBatch, write_vectors
from protalign.stores.part import StorePart

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
    scheduler: str | None = None,
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
    scheduler : str, optional
        Address of a Dask scheduler, such as "tcp://10.0.0.1:8786", whose workers pool the entries
        on the model's device. They must see the store under the same path. Default: this process.

    Raises
    ------
    InputError
        An id occurs twice, a feature is unknown, the file cannot be written there, or ``entries``
        is not a store or a view of one.
    StoreError
        No scheduler answers, or it has no workers.
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
    pooling = _Pooling(model, entries.store, names, with_means)
    with spread_over(scheduler) as spread:
        return write_vectors(
            path,
            _batches(pooling, entries, inputs, spread),
            dim=model.embed_dim,
            metadata=provenance_of(model, entries.store, inputs.encoders),
            mean_dims=model.dims if with_means else None,
            annotated=True,
            rows_per_file=rows_per_file,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Pooling:
    """Pools a block of entries; returns modality -> vectors, and their means if wanted.

    A worker opens the store once, when it gets this.
    """

    model: Model
    store: EmbeddingStore
    names: Mapping[Modality, str | None] | None
    with_means: bool

    def __call__(self, part: StorePart) -> tuple[dict[Modality, Float32], dict[Modality, Float32]]:
        entries = part.of(self.store)
        inputs, every = self.model.inputs(entries, names=self.names), np.arange(len(entries))
        vectors = {m: self.model.vectors(inputs, m, every) for m in inputs.dims}
        return vectors, {m: means_of(inputs, m, every) for m in inputs.dims if self.with_means}


def _batches(
    pooling: _Pooling, entries: Entries, inputs: Inputs, spread: Spread
) -> Iterator[VectorBatch]:
    """Yield the rows of the file, some thousands of entries at a time."""
    log, lengths = entries.store.log, _residues(entries, inputs)
    starts = range(0, len(entries), _ENTRIES_AT_ONCE)
    blocks = (StorePart(entries[start : start + _ENTRIES_AT_ONCE]) for start in starts)
    pooled = spread.map(OnSameCores(pooling), blocks)
    for start, (vectors, means) in zip(starts, pooled, strict=True):
        positions = np.arange(start, min(start + _ENTRIES_AT_ONCE, len(entries)))
        _check(vectors, means, len(positions), pooling.model)
        yield VectorBatch(
            log.texts_at(entries.entry_rows[positions]),
            vectors.get("sequence"),
            vectors.get("structure"),
            lengths[positions],
            means.get("sequence"),
            means.get("structure"),
            entries[positions].annotations,
        )


def _check(
    vectors: Mapping[Modality, Float32], means: Mapping[Modality, Float32], n: int, model: Model
) -> None:
    """Raise ProtAlignError if what was pooled does not belong to n entries."""
    for column in vectors.values():
        checked(column, (n, model.embed_dim), np.float32)
    for modality, column in means.items():
        checked(column, (n, model.dims[modality]), np.float32)


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
