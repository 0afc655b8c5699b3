"""Write vectors to a folder of Parquet files and flat arrays, block by block."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protalign.core.arrays import Bool, Float32
from protalign.core.checks import first_few
from protalign.core.errors import InputError
from protalign.core.files import check_replaceable, new_folder
from protalign.core.protein import MODALITIES, Modality
from protalign.stores.id_hashes import Hashes, in_runs, text_hashes
from protalign.stores.vectors.annotations import Annotations
from protalign.stores.vectors.flat import (
    TEXTS_AT_ONCE,
    FlatTexts,
    FlatWriter,
    TextWriter,
    map_array,
)
from protalign.stores.vectors.folder import (
    DOCUMENT,
    ID,
    SCHEMA,
    TEXTS,
    VectorFolder,
    part_name,
)
from protalign.stores.vectors.seal import seal
from protalign.stores.vectors.table import VectorBatch, for_arrow, schema_of, table_of

#: Rows of a row group, when many are written at once.
ROW_GROUP = 65536
#: Rows of a Parquet file: about a GB with two vectors of 128 numbers.
ROWS_PER_FILE = 1_000_000
#: Files of a folder: their names have five digits.
MOST_PARTS = 100_000


def write_folder(
    path: str | os.PathLike[str],
    batches: Iterable[VectorBatch],
    *,
    dim: int,
    metadata: Mapping[str, Any],
    mean_dims: Mapping[Modality, int],
    annotated: bool,
    rows_per_file: int = ROWS_PER_FILE,
) -> int:
    """Write a folder of vectors; return the number of rows. See ``write_vectors``.

    It appears whole or not at all. In memory are a batch at a time, and 32 bytes for each id.

    Raises
    ------
    InputError
        An id occurs twice.
    WriteError
        The path has something that is not a folder of vectors, or cannot be written.
    """
    check_replaceable(path, DOCUMENT, SCHEMA, "a folder of vectors")
    schema = schema_of(dim, mean_dims, metadata, annotated=annotated)
    with new_folder(path) as folder:
        with (
            ParquetParts(folder, schema, rows_per_file) as parts,
            _Arrays(folder, dim, mean_dims, annotated=annotated) as arrays,
        ):
            for batch in batches:
                parts.add(table_of(batch, schema))
                arrays.add(batch)
        content = arrays.finish(parts.written, metadata)
        (folder / DOCUMENT).write_text(content.text(), encoding="utf-8")
    return content.entries


class ParquetParts:
    """Writes tables into Parquet files of at most so many rows each, sealed.

    Parameters
    ----------
    folder : Path
        Their folder.
    schema : Arrow schema
        The schema of all.
    rows_per_file : int
        Rows of a file, at most.

    Attributes
    ----------
    written : list of (int, int)
        Rows and bytes of each file that is complete.
    """

    def __init__(self, folder: Path, schema: pa.Schema, rows_per_file: int) -> None:
        self.written: list[tuple[int, int]] = []
        self._folder, self._schema, self._most = folder, schema, rows_per_file
        self._open: ExitStack | None = None
        self._rows = 0

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._end()
        elif self._open is not None:
            self._open.close()

    def add(self, table: pa.Table) -> None:
        """Write a table's rows, as a row group if they fit into the open file."""
        while table.num_rows:
            if self._rows == self._most:
                self._end()
                self._begin()
            rows = min(table.num_rows, self._most - self._rows)
            self._writer.write_table(table.slice(0, rows), row_group_size=ROW_GROUP)
            self._rows += rows
            table = table.slice(rows)

    @property
    def _path(self) -> Path:
        return self._folder / part_name(len(self.written))

    def _begin(self) -> None:
        if len(self.written) == MOST_PARTS:
            raise InputError(
                f"rows_per_file={self._most}: more than {MOST_PARTS:,} files would be written",
                "put more rows into a file",
            )
        self._rows, self._open = 0, ExitStack()
        sink = self._open.enter_context(for_arrow(self._path, "wb"))
        self._writer = self._open.enter_context(
            pq.ParquetWriter(sink, self._schema, compression="zstd", write_page_checksum=True)
        )

    def _end(self) -> None:
        assert self._open is not None
        self._open.close()
        self._open = None
        seal(self._path)
        self.written.append((self._rows, self._path.stat().st_size))


class _Arrays:
    """Writes the flat arrays of a folder."""

    def __init__(
        self, folder: Path, dim: int, mean_dims: Mapping[Modality, int], *, annotated: bool
    ) -> None:
        self._folder, self._dim, self._mean_dims = folder, dim, dict(mean_dims)
        self._annotated, self._entries = annotated, 0
        self._present = dict.fromkeys(MODALITIES, 0)
        self._unknown_lengths = 0
        self._hashes: list[Hashes] = []
        self._writers: dict[str, FlatWriter] = {}
        self._texts: dict[str, TextWriter] = {}

    def __enter__(self) -> Self:
        self._open = ExitStack()
        for name in (ID, *TEXTS) if self._annotated else (ID,):
            self._texts[name] = TextWriter(
                self._writer(name, "|u1"), self._writer(f"{name}_offsets", "<i8")
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _writer(self, name: str, dtype: str, width: int | None = None) -> FlatWriter:
        if name not in self._writers:
            writer = FlatWriter(self._folder / f"{name}.npy", dtype, width)
            self._writers[name] = self._open.enter_context(writer)
        return self._writers[name]

    def add(self, batch: VectorBatch) -> None:
        """Add the rows of a batch whose shapes are checked."""
        count, ids = len(batch.ids), list(batch.ids)
        for start in range(0, count, TEXTS_AT_ONCE):
            added = self._texts[ID].add(ids[start : start + TEXTS_AT_ONCE])
            self._hashes.append(text_hashes(*added))
        lengths = np.full(count, -1, dtype=np.int64) if batch.lengths is None else batch.lengths
        self._unknown_lengths += count if batch.lengths is None else 0
        self._writer("length", "<i4").add(lengths)
        for modality in MODALITIES:
            self._add_vectors(modality, batch.column(f"{modality}_vector"), count)
        for modality, width in self._mean_dims.items():
            values, _ = _with_nan(batch.column(f"{modality}_mean"), count, width)
            self._writer(f"{modality}_mean", "<f4", width).add(values)
        if self._annotated:
            self._add_annotations(batch.annotations or Annotations.unknown(count))
        self._entries += count

    def _add_vectors(self, modality: Modality, given: Float32 | None, count: int) -> None:
        """Add vectors; the arrays begin with the first that is present."""
        values, present = _with_nan(given, count, self._dim)
        if modality not in self._writers:
            if not present.any():
                return
            vectors = self._writer(modality, "<f4", self._dim)
            flags = self._writer(f"{modality}_present", "|b1")
            for start in range(0, self._entries, TEXTS_AT_ONCE):
                before = min(TEXTS_AT_ONCE, self._entries - start)
                vectors.add(np.full((before, self._dim), np.nan, dtype=np.float32))
                flags.add(np.zeros(before, dtype=np.bool_))
        self._writers[modality].add(values)
        self._writers[f"{modality}_present"].add(present)
        self._present[modality] += int(present.sum())

    def _add_annotations(self, annotations: Annotations) -> None:
        for name in TEXTS:
            texts = pc.fill_null(annotations.column(name), "").to_pylist()
            self._texts[name].add(texts)
        taxids = pc.fill_null(annotations.column("taxid"), 0)
        self._writer("taxid", "<i4").add(taxids.to_numpy(zero_copy_only=False))

    def finish(self, parts: list[tuple[int, int]], metadata: Mapping[str, Any]) -> VectorFolder:
        """Write the index of ids; return the folder's content. Raise InputError for equal ids."""
        hashes = np.concatenate([np.empty(0, np.uint64), *self._hashes])
        self._hashes.clear()
        order, equal = in_runs(hashes)
        self._check_unique(equal)
        with ExitStack() as self._open:
            rows, sorted_hashes = self._writer("id_row", "<i8"), self._writer("id_hash", "<u8")
            self._writer("length", "<i4")
            if self._annotated:
                self._writer("taxid", "<i4")
            for modality, width in self._mean_dims.items():
                self._writer(f"{modality}_mean", "<f4", width)
            for start in range(0, len(order), TEXTS_AT_ONCE):
                block = order[start : start + TEXTS_AT_ONCE]
                rows.add(block)
                sorted_hashes.add(hashes[block])
        return VectorFolder(
            self._entries,
            self._dim,
            {m: count for m, count in self._present.items() if count},
            self._mean_dims,
            self._unknown_lengths == 0,
            self._annotated,
            {name: self._writers[name].rows for name in self._texts},
            tuple(parts),
            {name: writer.checksum for name, writer in self._writers.items()},
            metadata,
        )

    def _check_unique(self, equal: npt.NDArray[np.int64]) -> None:
        """Raise InputError if rows whose ids have equal hashes have equal ids."""
        values = map_array(self._folder, f"{ID}.npy", "|u1", (self._writers[ID].rows,))
        offsets = map_array(self._folder, f"{ID}_offsets.npy", "<i8", (self._entries + 1,))
        seen: set[str] = set()
        twice: dict[str, None] = {}
        for entry_id in FlatTexts(self._folder, ID, values, offsets).at(equal).tolist():
            if entry_id in seen:
                twice[repr(entry_id)] = None
            seen.add(entry_id)
        if twice:
            raise InputError(
                f"the vectors: rows twice, of the ids {first_few(list(twice))}",
                "give one row for each id",
            )


def _with_nan(values: Float32 | None, count: int, width: int) -> tuple[Float32, Bool]:
    """Return (n, width) float32, a row of NaN for each that has one, and (n,) bool: the others."""
    if values is None:
        return np.full((count, width), np.nan, dtype=np.float32), np.zeros(count, dtype=np.bool_)
    missing: Bool = np.any(np.isnan(values), axis=1)
    filled = np.where(missing[:, None], np.float32(np.nan), values)
    return filled.astype(np.float32, copy=False), ~missing
