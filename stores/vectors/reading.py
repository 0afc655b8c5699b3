"""Read aligned vectors from a Parquet file or a folder, and verify them."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.checks import first_few
from protalign.core.errors import InputError
from protalign.core.machine import usable_memory
from protalign.core.printing import one_line
from protalign.core.protein import MODALITIES
from protalign.core.untrusted import parse_json
from protalign.stores.vectors.annotations import COLUMNS, Annotations
from protalign.stores.vectors.folder_checking import verify_folder
from protalign.stores.vectors.mapped import MappedVectors
from protalign.stores.vectors.seal import BrokenSealError, has_whole_seal
from protalign.stores.vectors.table import (
    ANNOTATION_TYPES,
    METADATA_KEY,
    for_arrow,
    may_be_vectors,
    vector_columns,
    vectors_in,
)
from protalign.stores.vectors.unit import odd_rows
from protalign.stores.vectors.vectors import AlignedVectors

#: The columns of vectors; those that are missing hold none.
_ALIGNED = tuple(f"{modality}_vector" for modality in MODALITIES)
_MEANS = tuple(f"{modality}_mean" for modality in MODALITIES)
#: The longest vector that is read. A wider column is damage or worse.
_LONGEST = 1 << 16
_EXPORT_AGAIN = "export it again, or name another file"


def read_vectors(path: str | os.PathLike[str]) -> AlignedVectors:
    """Read a Parquet file, or open a folder, that ``write_vectors`` (``protalign export``) wrote.

    A folder is used where it lies (``MappedVectors``); ``verify_vectors`` compares its checksums.

    A file is loaded. Its checksums are compared with all its bytes. A table that another program
    wrote is read too, for example one that pandas, polars or DuckDB filtered: it has a column id of
    text, and sequence_vector, structure_vector or both, lists of numbers of unit length. Its
    provenance is what the program kept, mostly nothing.

    Parameters
    ----------
    path : str or path
        The file or the folder.

    Returns
    -------
    AlignedVectors
        Its rows, in the file's order; ``MappedVectors`` of a folder.

    Raises
    ------
    InputError
        The file is missing, is not Parquet, is damaged, holds another kind of table, names an id
        twice, or needs more memory than there is.

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
    if Path(path).is_dir():
        return MappedVectors(path)
    table, is_sealed = _table(path)
    metadata = _metadata(table.schema, path)
    ids = _ids(table, path)
    columns = {name: _vectors(table, name, path) for name in (*_ALIGNED, *_MEANS)}
    width = max(values.shape[1] for name in _ALIGNED if (values := columns[name][0]) is not None)
    (sequence, has_sequence), (structure, has_structure) = (
        _filled(*columns[name], len(ids), width, path) for name in _ALIGNED
    )
    vectors = AlignedVectors(
        ids,
        sequence,
        structure,
        has_sequence,
        has_structure,
        metadata,
        _lengths(table, path),
        columns["sequence_mean"][0],
        columns["structure_mean"][0],
        _annotations(table, path),
    )
    if not is_sealed:  # others may have done anything with it
        for problem in _odd_vectors(vectors):
            raise InputError(f"{path}: {problem}", _EXPORT_AGAIN)
    return vectors


def verify_vectors(path: str | os.PathLike[str]) -> list[str]:
    """Return what is wrong with a file or folder of vectors, one line each; nothing if it is whole.

    Reads all of it; of a folder also whether its Parquet files and arrays agree. Files of version
    0.1.0, and tables that other programs wrote, have no checksums of their own: damage shows only
    if they can no longer be read, or if a vector has not unit length.

    Parameters
    ----------
    path : str or path
        The file or the folder.

    Examples
    --------
    >>> import tempfile
    >>> from protalign.stores import VectorBatch, write_vectors
    >>> path = Path(tempfile.mkdtemp()) / "vectors.parquet"
    >>> batch = VectorBatch(["a"], sequence=np.array([[0.6, 0.8]], dtype=np.float32))
    >>> rows = write_vectors(path, [batch], dim=2, metadata={})
    >>> verify_vectors(path)
    []
    >>> with path.open("r+b") as file:
    ...     place, changed = file.seek(100), file.write(b"?")
    >>> print(*verify_vectors(path)[0].split(": ")[1:])
    it is damaged, its bytes are not those that were written; export it again, or name another file
    """
    if Path(path).is_dir():
        return verify_folder(Path(path))
    try:
        vectors = read_vectors(path)
    except InputError as error:
        return [str(error)]
    return [f"{path}: {problem}; {_EXPORT_AGAIN}" for problem in _odd_vectors(vectors)]


def _table(path: str | os.PathLike[str]) -> tuple[pa.Table, bool]:
    """Return the columns that count, and whether the file's checksums prove them."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise InputError(f"{path}: it is not a file", "name one that `protalign export` wrote")
        is_sealed = has_whole_seal(path)
        with (
            for_arrow(path, "rb") as source,
            pq.ParquetFile(source, page_checksum_verification=not is_sealed) as file,
        ):
            names = _columns(file, path)
            return file.read(columns=names), is_sealed
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: it does not exist", "write it with `protalign export`") from None
    except BrokenSealError:
        raise InputError(
            f"{path}: it is damaged, its bytes are not those that were written", _EXPORT_AGAIN
        ) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path}: it is not a readable Parquet file ({one_line(error, 200)})",
            "export to a name that ends in .parquet",
        ) from None


def _columns(file: pq.ParquetFile, path: object) -> list[str]:
    """Return the names of the columns to read; raise InputError if they cannot be vectors."""
    schema, footer = file.schema_arrow, file.metadata
    kinds = dict(zip(schema.names, schema.types, strict=True))
    readable = ("id", "length", *ANNOTATION_TYPES, *_ALIGNED, *_MEANS)
    known = [name for name in schema.names if name in readable]
    wrong = [name for name in known if name in (*_ALIGNED, *_MEANS)]
    wrong = [name for name in wrong if not may_be_vectors(kinds[name])]
    if "id" not in known or not set(_ALIGNED) & set(known) or len(set(known)) < len(known) or wrong:
        raise InputError(
            f"{path}: it holds no aligned vectors", "name a file that `protalign export` wrote"
        )
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    if footer.num_rows < 0 or footer.num_rows != sum(group.num_rows for group in groups):
        raise ValueError("its counts of rows contradict each other")
    widths = {name: width for name, width in vector_columns(schema).items() if name in known}
    needed = 4 * footer.num_rows * sum(widths.values()) + sum(g.total_byte_size for g in groups)
    if max(widths.values(), default=0) > _LONGEST or needed > usable_memory():
        raise InputError(
            f"{path}: it needs {needed / 1e9:,.1f} GB of memory, and this process may use "
            f"{usable_memory() / 1e9:,.1f} GB",
            "read a part of it with pyarrow, or use a larger machine",
        )
    return known


def _metadata(schema: pa.Schema, path: object) -> dict[str, Any]:
    """Return the provenance; nothing if another program has dropped it."""
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        return {}
    name = f"{path}: its provenance (the metadata {METADATA_KEY.decode()})"
    metadata = parse_json(raw, name, _EXPORT_AGAIN)
    if not isinstance(metadata, dict):
        raise InputError(f"{name}: not a JSON object", _EXPORT_AGAIN)
    return metadata


def _ids(table: pa.Table, path: object) -> npt.NDArray[np.object_]:
    """Return (n,) ids; raise InputError unless they are text, each once."""
    column = table["id"]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InputError(f"{path}: its ids are {column.type}, not text", "make them text")
    if column.null_count:
        raise InputError(f"{path}: {column.null_count:,} rows have no id", "leave them out")
    ids = np.empty(len(column), dtype=object)
    try:
        ids[:] = column.to_numpy()
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is damaged, its ids are not text", _EXPORT_AGAIN) from None
    if len(set(ids)) < len(ids):
        twice = [repr(name) for name, count in Counter(ids.tolist()).items() if count > 1]
        raise InputError(
            f"{path}: it has rows twice, of the ids {first_few(twice)}", "keep one row for each id"
        )
    return ids


def _vectors(table: pa.Table, name: str, path: object) -> tuple[Float32 | None, Bool | None]:
    """Return a column's vectors and which rows have one; None if the column is missing."""
    if name not in table.column_names:
        return None, None
    try:
        return vectors_in(table, name)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: the column {name} holds {error}", _EXPORT_AGAIN) from None


def _filled(
    vectors: Float32 | None, present: Bool | None, count: int, width: int, path: object
) -> tuple[Float32, Bool]:
    """Return a modality's vectors and which rows have one; rows of NaN for a missing column."""
    if vectors is None or present is None or not (vectors.shape[1] or present.any()):
        return np.full((count, width), np.nan, dtype=np.float32), np.zeros(count, dtype=np.bool_)
    if vectors.shape[1] != width:
        raise InputError(
            f"{path}: its sequence and structure vectors have different lengths, "
            f"{vectors.shape[1]} and {width}",
            _EXPORT_AGAIN,
        )
    return vectors, present


def _lengths(table: pa.Table, path: object) -> Int64 | None:
    """Return (n,) int64 residues; None if they are not recorded for all."""
    if "length" not in table.column_names or table["length"].null_count:
        return None
    try:
        lengths: Int64 = table["length"].cast(pa.int64()).to_numpy()
    except pa.ArrowException:
        raise InputError(
            f"{path}: its column length does not hold whole numbers", _EXPORT_AGAIN
        ) from None
    return lengths


def _annotations(table: pa.Table, path: object) -> Annotations | None:
    """Return the entries' annotations; None if the file has none of their columns."""
    if not set(table.column_names) & set(COLUMNS):
        return None
    columns = {
        name: _annotation(table[name], kind, f"{path}: its column {name}")
        if name in table.column_names
        else pa.nulls(table.num_rows, kind)
        for name, kind in COLUMNS.items()
    }
    return Annotations(columns)


def _annotation(column: pa.ChunkedArray, kind: pa.DataType, name: str) -> pa.Array:
    """Return a column of annotations in one piece; raise InputError if it holds something else."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_number = pa.types.is_integer(kind)
    if pa.types.is_floating(column.type):  # pandas makes such of whole numbers with gaps
        column = pc.if_else(pc.is_nan(column), None, column)
        fits = is_number
    elif pa.types.is_integer(column.type):
        fits = is_number
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        fits = not is_number
    else:
        fits = pa.types.is_null(column.type)
    try:
        if not fits:
            raise ValueError
        whole = column.cast(kind).combine_chunks()
        whole.validate(full=True)  # also that texts are UTF-8
        return whole
    except ValueError:  # of Arrow too
        content = "whole numbers of 32 bits" if is_number else "text"
        raise InputError(f"{name} does not hold {content}", _EXPORT_AGAIN) from None


def _odd_vectors(vectors: AlignedVectors) -> Iterator[str]:
    """Yield what is wrong with the numbers of vectors."""
    for modality in MODALITIES:
        values, present = vectors.candidates(modality)
        odd = odd_rows(values, present)
        if odd.any():
            ids = first_few(vectors.ids[odd].tolist())
            yield f"{modality} vectors of {ids} have no unit length"
        means = vectors.sequence_mean if modality == "sequence" else vectors.structure_mean
        if means is not None and np.isinf(means).any():
            yield f"means of the {modality} are infinite"
