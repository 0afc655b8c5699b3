"""Check a folder of vectors: all checksums, and that its Parquet files and arrays agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protalign.core.errors import InputError
from protalign.core.printing import one_line
from protalign.core.protein import MODALITIES
from protalign.core.untrusted import open_regular
from protalign.stores.format.text import encode_texts
from protalign.stores.id_hashes import text_hashes
from protalign.stores.vectors.annotations import COLUMNS
from protalign.stores.vectors.flat import (
    AGAIN,
    TEXTS_AT_ONCE,
    Array,
    checksum_of,
    damaged,
)
from protalign.stores.vectors.folder import ID, TEXTS, part_name
from protalign.stores.vectors.mapped import MappedVectors
from protalign.stores.vectors.seal import BrokenSealError, has_whole_seal
from protalign.stores.vectors.table import schema_of, vectors_in
from protalign.stores.vectors.unit import odd_rows


def verify_folder(path: Path) -> list[str]:
    """Return what is wrong with a folder of vectors, one line each; nothing if it is whole.

    Reads all of it, a block or a row group at a time.
    """
    try:
        vectors = MappedVectors(path)
        problems = list(_wrong_checksums(vectors))
        if problems:  # the rest would only say it again
            return problems
        for name in vectors.folder.texts:
            vectors.text_column(name).check()
        problems += [*_wrong_ids(vectors), *_odd_vectors(vectors), *_wrong_parts(vectors)]
    except InputError as error:
        return [str(error)]
    return problems


def _wrong_checksums(vectors: MappedVectors) -> Iterator[str]:
    for name, values in vectors.arrays.items():
        if checksum_of(values) != vectors.folder.checksums[name]:
            yield str(damaged(vectors.path, f"{name}.npy is not as it was written"))


def _wrong_ids(vectors: MappedVectors) -> Iterator[str]:
    """Yield a line if ids cannot be found by their hashes."""
    texts = vectors.text_column(ID)
    hashes, rows = vectors.arrays["id_hash"], vectors.arrays["id_row"]
    wrong = str(damaged(vectors.path, "id_hash.npy and id_row.npy are not of its ids"))
    for start in range(0, len(vectors), TEXTS_AT_ONCE):
        block = slice(start, start + TEXTS_AT_ONCE)
        if len(rows[block]) and not 0 <= rows[block].min() <= rows[block].max() < len(vectors):
            yield wrong
            return
        ascending = hashes[start : start + TEXTS_AT_ONCE + 1]
        encoded = encode_texts(texts.at(rows[block]).tolist())
        if (ascending[1:] < ascending[:-1]).any() or not np.array_equal(
            text_hashes(*encoded), hashes[block]
        ):
            yield wrong
            return
    for first in np.flatnonzero(hashes[1:] == hashes[:-1]).tolist():
        if len(set(texts.at(rows[first : first + 2]).tolist())) < 2:
            yield str(damaged(vectors.path, "an id occurs twice"))
            return


def _odd_vectors(vectors: MappedVectors) -> Iterator[str]:
    """Yield a line for each modality with a vector that has not unit length."""
    for modality in MODALITIES:
        values, present = vectors.candidates(modality)
        odd: list[int] = []
        for start in range(0, len(vectors), TEXTS_AT_ONCE):
            block = values[start : start + TEXTS_AT_ONCE]
            here = present[start : start + TEXTS_AT_ONCE]
            wrong = odd_rows(block, here) | (~here & np.isfinite(block).all(axis=1))
            odd += (start + np.flatnonzero(wrong)).tolist()
        if odd:
            name = vectors.ids_at(np.array(odd[:1]))[0]
            problem = f"{len(odd):,} {modality} vectors have no unit length, the first of {name}"
            yield f"{vectors.path}: {problem}; {AGAIN}"


def _wrong_parts(vectors: MappedVectors) -> Iterator[str]:
    """Yield a line for each Parquet file that is damaged, is foreign, or has other rows."""
    folder, first = vectors.folder, 0
    for number, (rows, size) in enumerate(folder.parts):
        name = part_name(number)
        problem = _wrong_part(vectors, vectors.path / name, first, rows, size)
        if problem:
            yield str(damaged(vectors.path, f"{name}{problem}"))
        first += rows
    for other in sorted(vectors.path.rglob("*.[pP][aA][rR][qQ][uU][eE][tT]")):
        name = str(other.relative_to(vectors.path))
        if name not in map(part_name, range(len(folder.parts))):
            problem = f"{name} is not a part of it, and other programs would read it too"
            yield f"{vectors.path}: {problem}; move that file elsewhere"


def _wrong_part(vectors: MappedVectors, path: Path, first: int, rows: int, size: int) -> str:
    folder = vectors.folder
    try:
        with open_regular(path, links=False) as handle:
            if path.stat().st_size != size or not has_whole_seal(path):
                return " is not as it was written"
            with (
                open(handle, "rb", closefd=False) as source,
                pq.ParquetFile(source) as file,
            ):
                schema = schema_of(
                    folder.dim, folder.mean_dims, folder.metadata, annotated=folder.annotated
                )
                if not file.schema_arrow.equals(schema, check_metadata=True):
                    return " has other columns or another provenance"
                if file.metadata.num_rows != rows:
                    return f" has {file.metadata.num_rows:,} rows, not {rows:,}"
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    if column := _other_column(vectors, table, first):
                        return f" and the array of {column} differ"
                    first += table.num_rows
    except BrokenSealError:
        return " is not as it was written"
    except (pa.ArrowException, OSError, ValueError) as error:
        return f": {one_line(error, 200)}"
    return ""


def _other_column(vectors: MappedVectors, table: pa.Table, first: int) -> str:
    """Return the name of a column that is not that of the arrays, from a row on; "" if all are."""
    rows = slice(first, first + table.num_rows)
    numbers = np.arange(rows.start, rows.stop)
    if table[ID].to_pylist() != vectors.ids_at(numbers).tolist():
        return ID
    lengths = table["length"].fill_null(-1).to_numpy()
    if not np.array_equal(lengths, vectors.arrays["length"][rows]):
        return "length"
    for modality in MODALITIES:
        values, present = vectors_in(table, f"{modality}_vector")
        expected, here = vectors.candidates(modality)
        if not (np.array_equal(present, here[rows]) and _same(values, expected[rows])):
            return modality
    for modality in vectors.folder.mean_dims:
        name = f"{modality}_mean"
        if not _same(vectors_in(table, name)[0], vectors.arrays[name][rows]):
            return name
    if vectors.folder.annotated:
        for name in COLUMNS:
            if name in TEXTS:
                theirs = vectors.text_column(name).at(numbers).tolist()
                same = table[name].fill_null("").to_pylist() == theirs
            else:
                known = table[name].fill_null(0).to_numpy()
                same = np.array_equal(known, vectors.arrays[name][rows])
            if not same:
                return name
    return ""


def _same(ours: Array, theirs: Array) -> bool:
    return np.array_equal(ours, theirs, equal_nan=True)
