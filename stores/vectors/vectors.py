"""Read aligned vectors from the Parquet file that ``write_vectors`` writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.checks import did_you_mean, first_few
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.stores.vectors.table import METADATA_KEY, vector_columns, vectors_in


@dataclass(frozen=True, eq=False)
class AlignedVectors:
    """Ids and their aligned vectors, of unit length.

    Attributes
    ----------
    ids : (n,) object array of str
        Ids of the entries.
    sequence, structure : (n, dim) float32
        The vectors; a row of NaN if the entry does not have the modality. They are read-only views
        of Arrow's memory, unless rows are missing.
    has_sequence, has_structure : (n,) bool
        Whether each entry has a vector of the modality.
    metadata : mapping
        The provenance: the model that made them, and the store.
    lengths : (n,) int64, optional
        Residues of each entry; None in a file of an earlier version.
    sequence_mean, structure_mean : (n, D) float32, optional
        Means of each entry's residue embeddings; None unless they were exported
        (``features=("aligned", "mean")``).

    Examples
    --------
    >>> vectors = AlignedVectors(
    ...     ids=np.array(["a", "b"], dtype=object),
    ...     sequence=np.eye(2, dtype=np.float32),
    ...     structure=np.eye(2, dtype=np.float32),
    ...     has_sequence=np.ones(2, dtype=bool),
    ...     has_structure=np.ones(2, dtype=bool),
    ... )
    >>> vectors.select(["b"]).sequence
    array([[0., 1.]], dtype=float32)
    """

    ids: npt.NDArray[np.object_]
    sequence: Float32
    structure: Float32
    has_sequence: Bool
    has_structure: Bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    lengths: Int64 | None = None
    sequence_mean: Float32 | None = None
    structure_mean: Float32 | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {entry_id: row for row, entry_id in enumerate(self.ids.tolist())}

    def select(self, ids: Sequence[str] | npt.NDArray[Any]) -> AlignedVectors:
        """Return the rows of these ids, in their order; raise InputError for unknown ids."""
        wanted = [str(entry_id) for entry_id in ids]
        unknown = [entry_id for entry_id in wanted if entry_id not in self._row]
        if unknown:
            raise InputError(
                f"the vectors have no entry {first_few([repr(entry_id) for entry_id in unknown])}",
                did_you_mean(unknown[0], self._row) or "export them first",
            )
        rows = np.array([self._row[entry_id] for entry_id in wanted], dtype=np.int64)
        columns = {
            column.name: getattr(self, column.name)
            for column in fields(self)
            if column.name != "metadata"
        }
        selected: dict[str, Any] = {
            name: None if values is None else values[rows] for name, values in columns.items()
        }
        return AlignedVectors(**selected, metadata=self.metadata)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out cached values: a copy computes its own."""
        return {column.name: getattr(self, column.name) for column in fields(self)}

    def candidates(self, against: Modality) -> tuple[Float32, Bool]:
        """Return a modality's vectors, (n, dim) float32, and (n,) bool: the present rows."""
        if against == "sequence":
            return self.sequence, self.has_sequence
        return self.structure, self.has_structure


def read_vectors(path: str | os.PathLike[str]) -> AlignedVectors:
    """Read a Parquet file that ``write_vectors`` (or ``protalign export``) wrote.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    AlignedVectors
        Its rows, in the file's order.

    Raises
    ------
    InputError
        The file is missing, is not Parquet, or holds another kind of table.

    Examples
    --------
    >>> import tempfile
    >>> from protalign.stores import VectorBatch, write_vectors
    >>> path = tempfile.mkdtemp() + "/vectors.parquet"
    >>> batch = VectorBatch(["a"], sequence=np.array([[0.6, 0.8]], dtype=np.float32))
    >>> rows = write_vectors(path, [batch], dim=2, metadata={})
    >>> vectors = read_vectors(path)
    >>> vectors.sequence, vectors.has_structure
    (array([[0.6, 0.8]], dtype=float32), array([False]))
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: it does not exist", "write it with `protalign export`") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path}: it is not a readable Parquet file ({error})",
            "export to a name that ends in .parquet",
        ) from None
    metadata = _metadata(table.schema, path)
    (sequence, has_sequence), (structure, has_structure) = (
        vectors_in(table, f"{modality}_vector") for modality in MODALITIES
    )
    ids = np.empty(table.num_rows, dtype=object)
    ids[:] = table["id"].to_pylist()
    means = {
        f"{m}_mean": vectors_in(table, f"{m}_mean")[0]
        for m in MODALITIES
        if f"{m}_mean" in vector_columns(table.schema)
    }
    return AlignedVectors(
        ids,
        sequence,
        structure,
        has_sequence,
        has_structure,
        metadata,
        _lengths(table),
        **means,
    )


def _lengths(table: pa.Table) -> Int64 | None:
    """Return (n,) int64 residues; None if the file is older than the column."""
    if "length" not in table.column_names or table["length"].null_count:
        return None
    lengths: Int64 = table["length"].to_numpy().astype(np.int64)
    return lengths


def _metadata(schema: pa.Schema, path: object) -> dict[str, Any]:
    raw = (schema.metadata or {}).get(METADATA_KEY, b"")
    expected = {f"{modality}_vector" for modality in MODALITIES}
    try:
        metadata = json.loads(raw)
    except ValueError:
        metadata = None
    columns = vector_columns(schema)
    if not isinstance(metadata, dict) or "id" not in schema.names or not expected <= set(columns):
        raise InputError(
            f"{path}: it holds no aligned vectors", "name a file that `protalign export` wrote"
        )
    return metadata
