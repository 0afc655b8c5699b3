"""The Parquet file of aligned vectors: one row per id, one fixed-size list per modality."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protalign.errors import InputError
from protalign.protein import Modality
from protalign.stores.nearest import nearest

#: Key of the schema's metadata that holds ours, as JSON.
METADATA_KEY = b"protalign"
#: Rows of a row group, when many are written at once.
ROW_GROUP = 65536
_MODALITIES: tuple[Modality, Modality] = ("sequence", "structure")

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class VectorBatch:
    """Some rows to write.

    Attributes
    ----------
    ids : n ids.
    sequence, structure : (n, dim) float32, None where no entry of the batch has the modality. A row
        of NaN says that the entry does not have it, and is written as null.
    """

    ids: Sequence[str] | npt.NDArray[np.object_]
    sequence: Float32 | None = None
    structure: Float32 | None = None


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
    """

    ids: npt.NDArray[np.object_]
    sequence: Float32
    structure: Float32
    has_sequence: npt.NDArray[np.bool_]
    has_structure: npt.NDArray[np.bool_]
    metadata: Mapping[str, Any] = field(default_factory=dict)

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
        return AlignedVectors(
            self.ids[rows],
            self.sequence[rows],
            self.structure[rows],
            self.has_sequence[rows],
            self.has_structure[rows],
            self.metadata,
        )

    def search(
        self, queries: Float32, k: int = 5, *, against: Modality = "structure"
    ) -> tuple[npt.NDArray[np.int64], Float32]:
        """The k nearest entries to each query by cosine: exact, in blocks of bounded memory.

        Parameters
        ----------
        queries : (q, dim) float32, of unit length.
        k : hits for each, at least 1; fewer where there are fewer vectors.
        against : whose vectors are ranked, "sequence" or "structure".

        Returns
        -------
        rows : (q, k) int64 indices into ``ids``, best first.
        cosine : (q, k) float32.
        """
        if against not in _MODALITIES or k < 1:
            raise InputError(
                f"against={against!r}, k={k!r}", "give sequence or structure, and a k of at least 1"
            )
        candidates = self.sequence if against == "sequence" else self.structure
        if queries.ndim != 2 or queries.shape[1] != candidates.shape[1]:
            raise InputError(
                f"queries of shape {queries.shape} do not fit vectors of {candidates.shape[1]}",
                "pool them with the model that made the vectors",
            )
        return nearest(np.ascontiguousarray(queries, dtype=np.float32), candidates, k)


def write_vectors(
    path: str | os.PathLike[str],
    batches: Iterable[VectorBatch],
    *,
    dim: int,
    metadata: Mapping[str, Any],
) -> int:
    """Write vectors as they come, a row group per batch; return the number of rows.

    The file appears whole or not at all: it is written under another name and then renamed.

    Parameters
    ----------
    path : the Parquet file, replaced if it is there.
    batches : rows; ids must be unique over all of them.
    dim : length of the vectors.
    metadata : JSON values, kept in the schema's metadata under the key "protalign".

    Raises
    ------
    InputError : the file's folder is not there, or a folder has the file's name.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is no folder", "make it, or name another file")
    if target.is_dir():
        raise InputError(f"{target} is a folder", "name a file")
    unfinished = target.with_name(f".{target.name}.{uuid4().hex}.partial")
    schema = _schema(dim, metadata)
    rows = 0
    try:
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            for batch in batches:
                table = _table(batch, dim, schema)
                writer.write_table(table, row_group_size=ROW_GROUP)
                rows += table.num_rows
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _schema(dim: int, metadata: Mapping[str, Any]) -> pa.Schema:
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), dim)
    fields = [pa.field("id", pa.string(), nullable=False)]
    fields += [pa.field(f"{modality}_vector", vector) for modality in _MODALITIES]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def _table(batch: VectorBatch, dim: int, schema: pa.Schema) -> pa.Table:
    count = len(batch.ids)
    columns = [pa.array(list(batch.ids), type=pa.string())]
    for modality in _MODALITIES:
        kind = schema.field(f"{modality}_vector").type
        vectors: Float32 | None = getattr(batch, modality)
        if vectors is None:
            columns.append(pa.nulls(count, type=kind))
            continue
        if vectors.shape != (count, dim):
            raise ValueError(f"{modality} vectors must be {(count, dim)}, not {vectors.shape}")
        missing: npt.NDArray[np.bool_] = np.any(np.isnan(vectors), axis=1)
        # A null still has its slot in a fixed-size list; zeros fill it.
        values = np.where(missing[:, None], np.float32(0), vectors).astype(np.float32, copy=False)
        columns.append(
            pa.FixedSizeListArray.from_arrays(
                pa.array(values.reshape(-1)), type=kind, mask=pa.array(missing)
            )
        )
    return pa.Table.from_arrays(columns, schema=schema)


def read_vectors(path: str | os.PathLike[str]) -> AlignedVectors:
    """Read a file that ``write_vectors`` (or ``protalign export``) wrote.

    Raises InputError if it is missing, no Parquet file, or another kind of table.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", "write it with `protalign export`") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path} is no readable Parquet file ({error})", "export it again"
        ) from None
    metadata = _metadata(table.schema, path)
    arrays = {modality: _vectors(table, modality) for modality in _MODALITIES}
    ids = np.empty(table.num_rows, dtype=object)
    ids[:] = table["id"].to_pylist()
    return AlignedVectors(
        ids,
        arrays["sequence"][0],
        arrays["structure"][0],
        arrays["sequence"][1],
        arrays["structure"][1],
        metadata,
    )


def _metadata(schema: pa.Schema, path: object) -> dict[str, Any]:
    raw = (schema.metadata or {}).get(METADATA_KEY)
    wanted = {"id", *(f"{modality}_vector" for modality in _MODALITIES)}
    if raw is None or not wanted <= set(schema.names):
        raise InputError(
            f"{path} holds no aligned vectors", "name a file that `protalign export` wrote"
        )
    metadata: dict[str, Any] = json.loads(raw)
    return metadata


def _vectors(table: pa.Table, modality: Literal["sequence", "structure"]) -> tuple[Any, Any]:
    """((n, dim) float32, (n,) bool): the vectors, and which rows are there."""
    column = table[f"{modality}_vector"]
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    dim = column.type.list_size
    there = pc.is_valid(chunk).to_numpy(zero_copy_only=False)
    # ``values`` keeps the slots of nulls (``flatten`` would drop them), but not the offset.
    flat = chunk.values.slice(chunk.offset * dim, len(chunk) * dim)
    vectors = flat.to_numpy(zero_copy_only=flat.null_count == 0).reshape(-1, dim)
    if not there.all():
        vectors = np.where(there[:, None], vectors, np.float32(np.nan))
    return vectors, there
