"""Aligned vectors, as the Parquet file that ``write_vectors`` writes has them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.stores.vectors.table import METADATA_KEY, vector_columns, vectors_in


@dataclass(frozen=True, eq=False)
class AlignedVectors:
    """Ids and unit-length vectors.

    Attributes
    ----------
    ids : (n,) object array of str.
    sequence, structure : (n, dim) float32; a row of NaN where the entry lacks the modality. Views
        of what Arrow read (read-only, not copied) unless rows are missing.
    has_sequence, has_structure : (n,) bool.
    metadata : provenance: the model that made them and the store.
    lengths : (n,) int64 residues of each entry; None in a file written before it had them.
    sequence_mean, structure_mean : (n, D_P) and (n, D_S) float32, the means of each entry's residue
        embeddings; None unless they were exported (``features=("aligned", "mean")``).
    """

    ids: npt.NDArray[np.object_]
    sequence: Float32
    structure: Float32
    has_sequence: npt.NDArray[np.bool_]
    has_structure: npt.NDArray[np.bool_]
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
        """The rows of these ids, in their order; raises InputError for ids that are not there."""
        wanted = [str(entry_id) for entry_id in ids]
        unknown = [entry_id for entry_id in wanted if entry_id not in self._row]
        if unknown:
            close = get_close_matches(unknown[0], self._row, n=3)
            raise InputError(
                f"the vectors have no {', '.join(map(repr, unknown[:3]))}"
                + (f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""),
                f"close to it: {', '.join(close)}" if close else "export them first",
            )
        rows = np.array([self._row[entry_id] for entry_id in wanted], dtype=np.int64)
        columns = {
            column.name: getattr(self, column.name)
            for column in fields(self)
            if column.name != "metadata"
        }
        chosen: dict[str, Any] = {
            name: None if old is None else old[rows] for name, old in columns.items()
        }
        return AlignedVectors(**chosen, metadata=self.metadata)

    def __getstate__(self) -> dict[str, Any]:
        """Copies, and processes that they are sent to, make what is cached anew."""
        return {column.name: getattr(self, column.name) for column in fields(self)}

    def candidates(self, against: Modality) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """((n, dim) float32, (n,) bool): a modality's vectors, and which of them are there."""
        if against == "sequence":
            return self.sequence, self.has_sequence
        return self.structure, self.has_structure


def read_vectors(path: str | os.PathLike[str]) -> AlignedVectors:
    """Read a Parquet file that ``write_vectors`` (or ``protalign export``) wrote.

    Raises InputError if it is missing, no Parquet file, or another kind of table.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", "write it with `protalign export`") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path} is no readable Parquet file ({error})",
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
    """(n,) int64 residues; None in a file written before there was such a column."""
    if "length" not in table.column_names or table["length"].null_count:
        return None
    lengths: Int64 = table["length"].to_numpy().astype(np.int64)
    return lengths


def _metadata(schema: pa.Schema, path: object) -> dict[str, Any]:
    raw = (schema.metadata or {}).get(METADATA_KEY, b"")
    wanted = {f"{modality}_vector" for modality in MODALITIES}
    try:
        metadata = json.loads(raw)
    except ValueError:
        metadata = None
    columns = vector_columns(schema)
    if not isinstance(metadata, dict) or "id" not in schema.names or not wanted <= set(columns):
        raise InputError(
            f"{path} holds no aligned vectors", "name a file that `protalign export` wrote"
        )
    return metadata
