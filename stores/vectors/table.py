"""Vectors as an Arrow table: the columns of every file that they are written to and read from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from protalign.core.arrays import Float32
from protalign.core.protein import MODALITIES, Modality

#: Key of the schema's metadata that holds ours, as JSON.
METADATA_KEY = b"protalign"


@dataclass(frozen=True, slots=True, eq=False)
class VectorBatch:
    """Some rows to write.

    Attributes
    ----------
    ids : n ids.
    sequence, structure : (n, dim) float32, None where no entry of the batch has the modality. A row
        of NaN says that the entry does not have it, and is written as null.
    lengths : (n,) integers, residues of each entry; None where they are not known.
    sequence_mean, structure_mean : (n, D) float32, the mean of each entry's residue embeddings;
        what is missing as above.
    """

    ids: Sequence[str] | npt.NDArray[np.object_]
    sequence: Float32 | None = None
    structure: Float32 | None = None
    lengths: npt.NDArray[np.integer[Any]] | None = None
    sequence_mean: Float32 | None = None
    structure_mean: Float32 | None = None

    def column(self, name: str) -> Float32 | None:
        """The values of a column of vectors, by its name in the file."""
        values: Float32 | None = getattr(self, name.removesuffix("_vector"))
        return values


def schema_of(
    dim: int, mean_dims: Mapping[Modality, int], metadata: Mapping[str, Any]
) -> pa.Schema:
    """id, length, a column of aligned vectors per modality, and of means per width given."""
    widths = {f"{modality}_vector": dim for modality in MODALITIES}
    widths |= {f"{m}_mean": mean_dims[m] for m in MODALITIES if m in mean_dims}
    element = pa.field("element", pa.float32(), nullable=False)
    fields = [pa.field("id", pa.string(), nullable=False), pa.field("length", pa.int32())]
    fields += [pa.field(name, pa.list_(element, width)) for name, width in widths.items()]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def vector_columns(schema: pa.Schema) -> dict[str, int]:
    """Name -> width of the columns of vectors, in their order."""
    return {
        field.name: field.type.list_size
        for field in schema
        if pa.types.is_fixed_size_list(field.type)
    }


def feature_names(column: str, width: int) -> list[str]:
    """Names of the numbers of one column of vectors: sequence0, …; sequence_mean0, …."""
    return [f"{column.removesuffix('_vector')}{i}" for i in range(width)]


def table_of(batch: VectorBatch, schema: pa.Schema) -> pa.Table:
    """A batch as a table; raises ValueError for values of a wrong shape."""
    count = len(batch.ids)
    lengths = pa.nulls(count) if batch.lengths is None else pa.array(batch.lengths)
    columns = [pa.array(list(batch.ids), type=pa.string()), lengths.cast(pa.int32())]
    for name, width in vector_columns(schema).items():
        kind, values = schema.field(name).type, batch.column(name)
        if values is None:
            columns.append(pa.nulls(count, type=kind))
            continue
        if values.shape != (count, width):
            what = name.replace("_vector", " vectors").replace("_mean", " means")
            raise ValueError(f"{what} must be {(count, width)}, not {values.shape}")
        missing: npt.NDArray[np.bool_] = np.any(np.isnan(values), axis=1)
        # A null still has its slot in a fixed-size list; zeros fill it.
        filled = np.where(missing[:, None], np.float32(0), values).astype(np.float32, copy=False)
        columns.append(
            pa.FixedSizeListArray.from_arrays(
                pa.array(filled.reshape(-1)), type=kind, mask=pa.array(missing)
            )
        )
    return pa.Table.from_arrays(columns, schema=schema)


def vectors_in(table: pa.Table, name: str) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """((n, width) float32, (n,) bool): a column's vectors, and which rows are there.

    A view of the table's memory unless it is in pieces or rows are missing (NaN).
    """
    column = table[name]
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = column.type.list_size
    there = pc.is_valid(chunk).to_numpy(zero_copy_only=False)
    # ``values`` keeps the slots of nulls (``flatten`` would drop them), but not the offset.
    flat = chunk.values.slice(chunk.offset * width, len(chunk) * width)
    vectors = flat.to_numpy(zero_copy_only=flat.null_count == 0).reshape(-1, width)
    if not there.all():
        vectors = np.where(there[:, None], vectors, np.float32(np.nan))
    return vectors, there
