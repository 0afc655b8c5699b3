"""Write vectors block by block: to Parquet, CSV or AnnData's .h5ad by the ending, or a folder."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from protalign.core.checks import check_whole
from protalign.core.errors import InputError
from protalign.core.files import new_file
from protalign.core.printing import table_cell
from protalign.core.protein import Modality
from protalign.stores.vectors.folder import is_vector_folder
from protalign.stores.vectors.folder_writing import ROW_GROUP, ROWS_PER_FILE, write_folder
from protalign.stores.vectors.seal import seal
from protalign.stores.vectors.table import (
    ANNOTATION_TYPES,
    METADATA_KEY,
    VectorBatch,
    feature_names,
    for_arrow,
    schema_of,
    table_of,
    vector_columns,
    vectors_in,
)


def write_vectors(
    path: str | os.PathLike[str],
    batches: Iterable[VectorBatch],
    *,
    dim: int,
    metadata: Mapping[str, Any],
    mean_dims: Mapping[Modality, int] | None = None,
    annotated: bool = False,
    rows_per_file: int | None = None,
) -> int:
    """Write vectors batch by batch; return the number of rows.

    The file or folder appears whole or not at all.

    - a name without an ending: a folder, for many vectors. It has Parquet files of at most
      ``rows_per_file`` rows each (part-00000.parquet, …), which other programs read as one table,
      and flat arrays of the same rows, which ``read_vectors`` maps into memory without loading
      them (docs/store-format.md). In memory are a batch and 32 bytes for each id.
    - ``.parquet``: a row group per batch, with the entries' annotations; ``read_vectors`` reads it.
    - ``.csv``: id, length, and a column for each number (sequence0, …), empty if an entry does not
      have the modality. No annotations and no provenance. An id that a spreadsheet would take for
      a formula has an apostrophe before it, as in every table.
    - ``.h5ad``: ``obs`` has the ids, ``length`` and the annotations as text (columns that are all
      unknown are left out), ``obsm`` the columns of vectors under the Parquet file's names (rows
      of NaN if missing), ``uns["protalign"]`` the provenance as JSON; there is no ``X``. It is put
      together in memory.

    Parameters
    ----------
    path : str or path
        The file, or the folder. It is replaced if it exists; a folder only if it is empty or one
        of vectors.
    batches : iterable of VectorBatch
        Rows; ids must be unique over all of them.
    dim : int
        Width of the aligned vectors.
    metadata : mapping
        The provenance, as JSON values. In Parquet it is under "protalign" in the schema's metadata.
    mean_dims : mapping of modality to int, optional
        Widths of the mean embeddings. Without it there are no such columns.
    annotated : bool
        Whether the file has columns for the batches' annotations.
    rows_per_file : int, optional
        Rows of a folder's Parquet file, at most; default: 1,000,000.

    Raises
    ------
    InputError
        The file's ending is unknown, its folder is missing, the library anndata is missing, a
        folder's id occurs twice, a vector has not unit length, a number is not finite, or
        ``rows_per_file`` is given for one file.
    WriteError
        The path is a folder of something else, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from protalign.stores import VectorBatch, read_vectors
    >>> path = tempfile.mkdtemp() + "/vectors.parquet"
    >>> vectors = np.eye(2, dtype=np.float32)
    >>> write_vectors(path, [VectorBatch(["a", "b"], vectors, vectors)], dim=2, metadata={})
    2
    >>> read_vectors(path).ids.tolist()
    ['a', 'b']
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: the folder does not exist", "make it")
    if not target.suffix or (target.is_dir() and is_vector_folder(target)):
        rows = ROWS_PER_FILE if rows_per_file is None else rows_per_file
        check_whole("rows_per_file", rows, 1)
        return write_folder(
            target,
            batches,
            dim=dim,
            metadata=metadata,
            mean_dims=mean_dims or {},
            annotated=annotated,
            rows_per_file=rows,
        )
    if target.is_dir():
        raise InputError(f"{target}: it is a folder", "name a file")
    if target.suffix not in _WRITERS:
        raise InputError(
            f"{target}: its ending is not a known format",
            f"let the name end in {', '.join(_WRITERS)}, or give a folder a name without an ending",
        )
    if rows_per_file is not None:
        raise InputError(
            f"rows_per_file: it has no effect on {target}, one file",
            "leave it out, or name a folder",
        )
    if target.suffix == ".h5ad":
        _anndata()
    schema = schema_of(dim, mean_dims or {}, metadata, annotated=annotated)
    with new_file(target) as unfinished:
        tables = (table_of(batch, schema) for batch in batches)
        return _WRITERS[target.suffix](unfinished, schema, tables)


def _write_parquet(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> int:
    rows = 0
    with (
        for_arrow(path, "wb") as sink,
        pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for table in tables:
            writer.write_table(table, row_group_size=ROW_GROUP)
            rows += table.num_rows
    seal(path)
    return rows


def _write_csv(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> int:
    names = ["id", "length"]
    for column, width in vector_columns(schema).items():
        names += feature_names(column, width)
    kinds = [pa.string(), pa.int32(), *[pa.float32()] * (len(names) - 2)]
    flat = pa.schema(list(zip(names, kinds, strict=True)))
    rows = 0
    options = pa_csv.WriteOptions(quoting_style="needed")
    with (
        for_arrow(path, "wb") as sink,
        pa_csv.CSVWriter(sink, flat, write_options=options) as writer,
    ):
        for table in tables:
            ids = pa.array(map(table_cell, table["id"].to_pylist()), pa.string())
            columns = [ids, table["length"]]
            for column in vector_columns(schema):
                values, present = vectors_in(table, column)
                columns += [pa.array(number, mask=~present) for number in values.T.copy()]
            writer.write_table(pa.Table.from_arrays(columns, schema=flat))
            rows += table.num_rows
    return rows


def _write_anndata(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> int:
    table = pa.Table.from_batches(
        [batch for table in tables for batch in table.to_batches()], schema=schema
    )
    import h5py  # anndata brings it, and pandas
    import pandas as pd

    # Text as Python objects: some versions of anndata cannot write pandas's string type.
    obs = pd.DataFrame(index=pd.Index(table["id"].to_pylist(), dtype=object))
    if table["length"].null_count == 0:
        obs["length"] = table["length"].to_numpy()
    for name in [name for name in ANNOTATION_TYPES if name in table.column_names]:
        texts = ["" if value is None else str(value) for value in table[name].to_pylist()]
        if any(texts):
            obs[name] = pd.Series(texts, index=obs.index, dtype=object)
    anndata = _anndata()
    data = anndata.AnnData(
        obs=obs,
        var=pd.DataFrame(index=pd.Index([], dtype=object)),
        obsm={name: vectors_in(table, name)[0] for name in vector_columns(schema)},
        uns={METADATA_KEY.decode(): schema.metadata[METADATA_KEY].decode()},
    )
    # HDF5 in memory: on a full disk it prints errors of its own, and ends with another one.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        anndata.io.write_elem(file, "/", data)
    path.write_bytes(content.getbuffer())
    return int(table.num_rows)


def _anndata() -> Any:
    try:
        import anndata
    except ImportError:
        raise InputError(
            "the library anndata, which writes .h5ad, is missing",
            'pip install "protalign[anndata]"',
        ) from None
    return anndata


#: The endings of a file's name, and the function that writes each.
_WRITERS: dict[str, Callable[[Path, pa.Schema, Iterator[pa.Table]], int]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".h5ad": _write_anndata,
}
