"""Aligned vectors in Parquet: written in pieces, read without copying, by anyone's reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protalign.errors import InputError
from protalign.stores import AlignedVectors, VectorBatch, read_vectors, write_vectors

DIM = 128
METADATA = {"model": {"loss": "clip", "temperature": 0.07}, "store": "Å/store.zarr"}


def _unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def batches() -> list[VectorBatch]:
    """Five entries with both modalities; three with sequences only; two of which one lacks one."""
    mixed = _unit(2, 4)
    mixed[1] = np.nan
    return [
        VectorBatch([f"p{i}" for i in range(5)], _unit(5, 0), _unit(5, 1)),
        VectorBatch(["f0", "f1", "ß2"], _unit(3, 2), None),
        VectorBatch(np.array(["m0", "m1"], dtype=object), _unit(2, 3), mixed),
    ]


@pytest.fixture
def path(tmp_path: Path, batches: list[VectorBatch]) -> Path:
    file = tmp_path / "vectors.parquet"
    assert write_vectors(file, iter(batches), dim=DIM, metadata=METADATA) == 10
    return file


def test_vectors_come_back(path: Path, batches: list[VectorBatch]) -> None:
    """Ids, vectors, what is missing, and provenance; the bits as they were."""
    vectors = read_vectors(path)
    assert len(vectors) == 10
    assert vectors.ids.tolist() == [str(i) for batch in batches for i in batch.ids]
    assert vectors.metadata == METADATA
    assert vectors.has_sequence.all()
    assert vectors.has_structure.tolist() == [True] * 5 + [False] * 3 + [True, False]
    np.testing.assert_array_equal(
        vectors.sequence, np.concatenate([batch.sequence for batch in batches])
    )
    np.testing.assert_array_equal(vectors.structure[:5], batches[0].structure)
    np.testing.assert_array_equal(vectors.structure[8], batches[2].structure[0])
    assert np.isnan(vectors.structure[[5, 6, 7, 9]]).all()
    assert vectors.sequence.dtype == vectors.structure.dtype == np.float32


def test_whole_columns_are_not_copied(tmp_path: Path) -> None:
    """In a file of one row group without nulls the arrays are views of what Parquet decoded."""
    path = tmp_path / "one.parquet"
    write_vectors(
        path,
        [VectorBatch([f"p{i}" for i in range(1000)], _unit(1000, 0), _unit(1000, 1))],
        dim=DIM,
        metadata={},
    )
    before = pa.total_allocated_bytes()
    vectors = read_vectors(path)
    assert not vectors.sequence.flags.owndata
    assert not vectors.sequence.flags.writeable
    assert pa.total_allocated_bytes() - before >= 2 * vectors.sequence.nbytes


def test_columns_are_what_the_format_says(path: Path) -> None:
    """id: string; two fixed-size lists of float32; one row group per batch; our metadata."""
    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    assert schema.names == ["id", "sequence_vector", "structure_vector"]
    assert schema.field("id").type == pa.string()
    for name in ("sequence_vector", "structure_vector"):
        assert pa.types.is_fixed_size_list(schema.field(name).type)
        assert schema.field(name).type.list_size == DIM
        assert schema.field(name).type.value_type == pa.float32()
    assert file.num_row_groups == 3
    assert b"protalign" in schema.metadata


def test_pandas_reads_it(path: Path, batches: list[VectorBatch]) -> None:
    """A DataFrame of ids and arrays, None where a vector is missing."""
    frame = pd.read_parquet(path)
    assert frame["id"].tolist() == [str(i) for batch in batches for i in batch.ids]
    np.testing.assert_array_equal(
        np.stack(frame["sequence_vector"][:5].tolist()), batches[0].sequence
    )
    assert frame["structure_vector"].isna().sum() == 4


def test_polars_reads_it(path: Path, batches: list[VectorBatch]) -> None:
    """Columns of fixed-width arrays, nulls where a vector is missing."""
    frame = pl.read_parquet(path)
    assert frame["sequence_vector"].dtype == pl.Array(pl.Float32, DIM)
    np.testing.assert_array_equal(frame["sequence_vector"][:5].to_numpy(), batches[0].sequence)
    assert frame["structure_vector"].null_count() == 4


def test_duckdb_reads_it(path: Path, batches: list[VectorBatch]) -> None:
    """SQL over the file: a nearest neighbour by dot product, ids by condition."""
    rows = duckdb.sql(
        f"SELECT id, sequence_vector FROM '{path}' WHERE structure_vector IS NULL ORDER BY id"
    ).fetchall()
    assert [row[0] for row in rows] == ["f0", "f1", "m1", "ß2"]
    np.testing.assert_array_equal(np.float32(rows[0][1]), batches[1].sequence[0])
    [(nearest,)] = duckdb.sql(
        f"SELECT b.id FROM '{path}' a, '{path}' b WHERE a.id = 'p3' ORDER BY "
        "list_inner_product(a.sequence_vector::FLOAT[], b.sequence_vector::FLOAT[]) DESC LIMIT 1"
    ).fetchall()
    assert nearest == "p3"


def test_select(path: Path) -> None:
    """Rows by id, in the order asked for, repeated if asked twice; unknown ids are named."""
    vectors = read_vectors(path)
    chosen = vectors.select(["m1", "p0", "p0"])
    assert isinstance(chosen, AlignedVectors)
    assert chosen.ids.tolist() == ["m1", "p0", "p0"]
    np.testing.assert_array_equal(chosen.sequence[1], vectors.sequence[0])
    assert chosen.has_structure.tolist() == [False, True, True]
    assert len(vectors.select([])) == 0
    with pytest.raises(InputError, match="no 'mm1'; close to it: m1"):
        vectors.select(["p0", "mm1"])
    with pytest.raises(InputError, match="'w', 'x', 'y' and 1 more"):
        vectors.select(["w", "x", "y", "z"])


def test_a_file_is_whole_or_not_there(tmp_path: Path, path: Path) -> None:
    """A run that breaks off leaves the old file, and no debris."""
    before = path.read_bytes()

    def breaking() -> Iterator[VectorBatch]:
        yield VectorBatch(["a"], _unit(1, 0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_vectors(path, breaking(), dim=DIM, metadata={})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.parquet"]


def test_same_vectors_same_bytes(path: Path, tmp_path: Path, batches: list[VectorBatch]) -> None:
    """The file holds nothing but its contents: no time, no place."""
    again = tmp_path / "again.parquet"
    write_vectors(again, batches, dim=DIM, metadata=METADATA)
    assert again.read_bytes() == path.read_bytes()


def test_what_is_no_vectors_file(tmp_path: Path) -> None:
    """Missing, foreign and broken files are told apart; a misfitting batch is a fault."""
    with pytest.raises(InputError, match="does not exist"):
        read_vectors(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not Parquet")
    with pytest.raises(InputError, match="no readable Parquet file"):
        read_vectors(tmp_path / "text.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="holds no aligned vectors"):
        read_vectors(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="is no folder"):
        write_vectors(tmp_path / "no" / "v.parquet", [], dim=DIM, metadata={})
    batch = VectorBatch(["a", "b"], _unit(1, 0))
    with pytest.raises(ValueError, match="sequence vectors must be"):
        write_vectors(tmp_path / "v.parquet", [batch], dim=DIM, metadata={})


def test_no_vectors_at_all(tmp_path: Path) -> None:
    """An empty export is a file with no rows."""
    path = tmp_path / "empty.parquet"
    assert write_vectors(path, [], dim=DIM, metadata=METADATA) == 0
    vectors = read_vectors(path)
    assert vectors.sequence.shape == (0, DIM)
    assert vectors.metadata == METADATA
