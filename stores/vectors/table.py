"""Vectors as an Arrow table: the columns of the files that they are written to and read from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from protalign.core.arrays import Bool, Float32
from protalign.core.errors import InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.core.protein import MODALITIES, Modality
from protalign.stores.vectors.annotations import COLUMNS, Annotations
from protalign.stores.vectors.unit import odd_rows

#: The columns of annotations in a file, and their types.
ANNOTATION_TYPES: dict[str, pa.DataType] = {
    name: pa.string() if pa.types.is_large_string(kind) else kind for name, kind in COLUMNS.items()
}
#: Key of the schema's metadata that holds ours, as JSON.
METADATA_KEY = b"protalign"


@dataclass(frozen=True, slots=True, eq=False)
class VectorBatch:
    """Some rows to write.

    Attributes
    ----------
    ids : sequence of str
        n ids.
    sequence, structure : (n, dim) float32, optional
        Aligned vectors. None if no entry of the batch has the modality; a row of NaN, which is
        written as null, if one entry does not have it.
    lengths : (n,) int, optional
        Residues of each entry; None if they are not known.
    sequence_mean, structure_mean : (n, D) float32, optional
        The mean of each entry's residue embeddings, None and NaN as above.
    annotations : Annotations, optional
        Name, organism, taxid and accession of each entry; None if they are not known.

    Examples
    --------
    >>> one = np.array([[0.6, 0.8]], dtype=np.float32)
    >>> batch = VectorBatch(["1a30"], sequence=one, structure=None, lengths=np.array([198]))
    >>> batch.column("sequence_vector").shape
    (1, 2)
    """

    ids: Sequence[str] | npt.NDArray[np.object_]
    sequence: Float32 | None = None
    structure: Float32 | None = None
    lengths: npt.NDArray[np.integer[Any]] | None = None
    sequence_mean: Float32 | None = None
    structure_mean: Float32 | None = None
    annotations: Annotations | None = None

    def column(self, name: str) -> Float32 | None:
        """Return the values of a column of vectors, by its name in the file."""
        values: Float32 | None = getattr(self, name.removesuffix("_vector"))
        return values


def schema_of(
    dim: int,
    mean_dims: Mapping[Modality, int],
    metadata: Mapping[str, Any],
    *,
    annotated: bool = False,
) -> pa.Schema:
    """Return the schema: id, length, aligned vectors per modality, means per width, annotations."""
    widths = {f"{modality}_vector": dim for modality in MODALITIES}
    widths |= {f"{m}_mean": mean_dims[m] for m in MODALITIES if m in mean_dims}
    element = pa.field("element", pa.float32(), nullable=False)
    fields = [pa.field("id", pa.string(), nullable=False), pa.field("length", pa.int32())]
    fields += [pa.field(name, pa.list_(element, width)) for name, width in widths.items()]
    if annotated:
        fields += [pa.field(name, kind) for name, kind in ANNOTATION_TYPES.items()]
    return pa.schema(
        fields, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True, allow_nan=False)}
    )


def vector_columns(schema: pa.Schema) -> dict[str, int]:
    """Return the width of each column of vectors by its name, in their order."""
    return {
        field.name: field.type.list_size
        for field in schema
        if pa.types.is_fixed_size_list(field.type)
    }


def feature_names(column: str, width: int) -> list[str]:
    """Return the names of a column's numbers: sequence0, …, or sequence_mean0, …."""
    return [f"{column.removesuffix('_vector')}{i}" for i in range(width)]


def table_of(batch: VectorBatch, schema: pa.Schema) -> pa.Table:
    """Return a batch as a table.

    Raise ValueError for values of a wrong shape, InputError for numbers that no vector has.
    """
    count = len(batch.ids)
    lengths = pa.nulls(count) if batch.lengths is None else pa.array(batch.lengths)
    columns = [pa.array(list(batch.ids), type=pa.string()), lengths.cast(pa.int32())]
    for name, width in vector_columns(schema).items():
        values = batch.column(name)
        if values is None:
            columns.append(pa.nulls(count, type=schema.field(name).type))
            continue
        if values.shape != (count, width):
            kind = name.replace("_vector", " vectors").replace("_mean", " means")
            raise ValueError(f"{kind} must be {(count, width)}, not {values.shape}")
        missing: Bool = np.all(np.isnan(values), axis=1)
        _check_numbers(batch, name, values, ~missing)
        # A null still has its slot in a fixed-size list; zeros fill it.
        filled = np.where(missing[:, None], np.float32(0), values).astype(np.float32, copy=False)
        columns.append(
            pa.FixedSizeListArray.from_arrays(
                pa.array(filled.reshape(-1)), type=schema.field(name).type, mask=pa.array(missing)
            )
        )
    if set(ANNOTATION_TYPES) <= set(schema.names):
        annotations = batch.annotations or Annotations.unknown(count)
        columns += [annotations.column(name).cast(kind) for name, kind in ANNOTATION_TYPES.items()]
    return pa.Table.from_arrays(columns, schema=schema)


def _check_numbers(batch: VectorBatch, name: str, values: Float32, present: Bool) -> None:
    """Raise InputError if a present row of a column is not finite, or a vector has another length.

    Readers trust what is written here.
    """
    aligned = name.endswith("_vector")
    if aligned:
        odd, problem = odd_rows(values, present), "has not unit length"
    else:
        odd, problem = present & ~np.isfinite(values).all(axis=1), "is not finite"
    if odd.any():
        entry_id = str(batch.ids[int(np.argmax(odd))])
        raise InputError(
            f"{printable(entry_id)}: its {name.replace('_', ' ')} {problem}",
            "divide each vector by its length"
            if aligned and np.isfinite(values[odd]).all()
            else "leave the entry out, or give NaN for all of its numbers",
        )


def vectors_in(table: pa.Table, name: str) -> tuple[Float32, Bool]:
    """Return a column's vectors, (n, width) float32, and (n,) bool: the rows that are not null.

    The vectors are a view of the table's memory, unless it is in pieces or rows are null: they
    are NaN then. A column of lists, as other programs write it, is copied; raise ValueError if
    they have several lengths, or lack a number.
    """
    column = table[name]
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    present = pc.is_valid(chunk).to_numpy(zero_copy_only=False)
    if not (is_vectors(column.type) and column.type.value_type == pa.float32()):
        return _copied(chunk, present), present
    width = column.type.list_size
    # ``values`` keeps the slots of nulls (``flatten`` would drop them), but not the offset.
    flat = chunk.values.slice(chunk.offset * width, len(chunk) * width)
    vectors = flat.to_numpy(zero_copy_only=flat.null_count == 0).reshape(-1, width)
    if not present.all():
        vectors = np.where(present[:, None], vectors, np.float32(np.nan))
    return vectors, present


def is_vectors(kind: pa.DataType) -> bool:
    """Return whether a column's type is lists of numbers that all have the same length."""
    return bool(pa.types.is_fixed_size_list(kind))


def may_be_vectors(kind: pa.DataType) -> bool:
    """Return whether a column of this type may hold vectors: lists of numbers, or only nulls."""
    if pa.types.is_null(kind):
        return True
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or is_vectors(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))


def _copied(chunk: pa.Array, present: Bool) -> Float32:
    """Return the lists of a column as (n, width) float32, NaN where there is none."""
    if not present.any():
        return np.full((len(chunk), 0), np.nan, dtype=np.float32)
    lists = chunk.drop_null()
    widths = pc.unique(pc.list_value_length(lists)).to_pylist()
    if len(widths) > 1:
        raise ValueError(f"vectors of {min(widths)} and of {max(widths)} numbers")
    numbers = pc.list_flatten(lists)
    if numbers.null_count:
        raise ValueError("a vector that lacks a number")
    vectors = np.full((len(chunk), widths[0]), np.nan, dtype=np.float32)
    vectors[present] = numbers.to_numpy(zero_copy_only=False).reshape(-1, widths[0])
    return vectors


@contextmanager
def for_arrow(path: str | os.PathLike[str], mode: str) -> Iterator[str | IO[bytes]]:
    """Give what pyarrow takes for a file: its path, or if that is not UTF-8 the file, opened."""
    if path_text(path) == str(path):
        yield str(path)
    else:
        with Path(path).open(mode) as file:
            yield file
