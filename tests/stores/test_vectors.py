"""Exported vectors: written in pieces, read without copying, by anyone's reader."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from protalign.core.errors import InputError
from protalign.core.printing import cell_text
from protalign.core.protein import Modality
from protalign.stores import (
    AlignedVectors,
    VectorBatch,
    read_vectors,
    verify_vectors,
    write_vectors,
)

DIM = 128
MEAN_DIMS: dict[Modality, int] = {"sequence": 20, "structure": 12}
COLUMNS = {
    "sequence_vector": DIM,
    "structure_vector": DIM,
    "sequence_mean": MEAN_DIMS["sequence"],
    "structure_mean": MEAN_DIMS["structure"],
}
METADATA = {"model": {"loss": "clip", "temperature": 0.07}, "store": {"path": "Å/store.zarr"}}


def _unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def batches() -> list[VectorBatch]:
    """Five entries with both modalities; three with sequences only; two of which one lacks one."""
    mixed, mixed_mean = _unit(2, 4), _unit(2, 5)[:, : MEAN_DIMS["structure"]]
    mixed[1] = mixed_mean[1] = np.nan
    return [
        VectorBatch(
            [f"p{i}" for i in range(5)],
            _unit(5, 0),
            _unit(5, 1),
            np.arange(5) + 100,
            10 * _unit(5, 6)[:, : MEAN_DIMS["sequence"]],
            _unit(5, 7)[:, : MEAN_DIMS["structure"]],
        ),
        VectorBatch(
            ["f0", "f1", 'ß,"2'],
            _unit(3, 2),
            None,
            np.array([1, 2, 3]),
            _unit(3, 8)[:, : MEAN_DIMS["sequence"]],
        ),
        VectorBatch(
            np.array(["m0", "m1"], dtype=object),
            _unit(2, 3),
            mixed,
            np.array([7, 8], dtype=np.int32),
            _unit(2, 9)[:, : MEAN_DIMS["sequence"]],
            mixed_mean,
        ),
    ]


def _write(path: Path, batches: list[VectorBatch], **options: Any) -> Path:
    options = {"dim": DIM, "metadata": METADATA, "mean_dims": MEAN_DIMS, **options}
    assert write_vectors(path, iter(batches), **options) == 10
    return path


@pytest.fixture
def path(tmp_path: Path, batches: list[VectorBatch]) -> Path:
    """Aligned vectors and means."""
    return _write(tmp_path / "vectors.parquet", batches)


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
    assert vectors.lengths is not None
    assert vectors.lengths.tolist() == [100, 101, 102, 103, 104, 1, 2, 3, 7, 8]
    assert vectors.lengths.dtype == np.int64
    assert vectors.sequence_mean is not None
    np.testing.assert_array_equal(
        vectors.sequence_mean, np.concatenate([batch.sequence_mean for batch in batches])
    )
    assert vectors.structure_mean is not None
    np.testing.assert_array_equal(vectors.structure_mean[:5], batches[0].structure_mean)
    assert np.isnan(vectors.structure_mean[[5, 6, 7, 9]]).all()


def test_a_file_without_lengths_and_means_is_read(path: Path, tmp_path: Path) -> None:
    """As those were that earlier versions wrote, and those with a length missing."""
    old = tmp_path / "old.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select(["id", "sequence_vector", "structure_vector"]), old)
    vectors = read_vectors(old)
    assert vectors.lengths is vectors.sequence_mean is vectors.structure_mean is None
    assert vectors.select(["m1"]).lengths is None
    np.testing.assert_array_equal(vectors.sequence, read_vectors(path).sequence)
    write_vectors(old, [VectorBatch(["a"], _unit(1, 0))], dim=DIM, metadata={})
    assert read_vectors(old).lengths is None


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


def test_columns_are_what_the_format_says(path: Path, batches: list[VectorBatch]) -> None:
    """id, length, fixed-size lists of float32; one row group per batch; our metadata."""
    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    assert schema.names == ["id", "length", *COLUMNS]
    assert schema.field("id").type == pa.string()
    assert schema.field("length").type == pa.int32()
    for name, width in COLUMNS.items():
        assert schema.field(name).type == pa.list_(schema.field(name).type.value_field, width)
        assert schema.field(name).type.value_type == pa.float32()
    assert file.num_row_groups == 3
    assert b"protalign" in schema.metadata
    aligned = _write(path.with_name("aligned.parquet"), batches, mean_dims=None)
    assert pq.read_schema(aligned).names == ["id", "length", "sequence_vector", "structure_vector"]


def test_a_frame_is_that_of_the_file(path: Path) -> None:
    """to_pandas gives what pandas reads; an id or several give their rows."""
    vectors, read = read_vectors(path), pd.read_parquet(path).set_index("id")
    frame = vectors.to_pandas()
    assert frame.index.tolist() == read.index.tolist()
    assert set(frame.columns) <= set(read.columns)
    for name in COLUMNS:
        for ours, theirs in zip(frame[name], read[name], strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or np.array_equal(ours, theirs)
    first, last = vectors.ids[0], vectors.ids[-1]
    assert vectors[first].ids.tolist() == [first]
    assert vectors[[last, first]].ids.tolist() == [last, first]
    with pytest.raises(InputError, match="no entry 'nobody'"):
        vectors["nobody"]


def test_pandas_reads_it(path: Path, batches: list[VectorBatch]) -> None:
    """A DataFrame of ids and arrays, None where a vector is missing."""
    frame = pd.read_parquet(path)
    assert frame["id"].tolist() == [str(i) for batch in batches for i in batch.ids]
    assert frame["length"].tolist() == [100, 101, 102, 103, 104, 1, 2, 3, 7, 8]
    assert [len(frame[name][0]) for name in COLUMNS] == list(COLUMNS.values())
    np.testing.assert_array_equal(
        np.stack(frame["sequence_vector"][:5].tolist()), batches[0].sequence
    )
    assert frame["structure_vector"].isna().sum() == 4


def test_polars_reads_it(path: Path, batches: list[VectorBatch]) -> None:
    """Columns of fixed-width arrays, nulls where a vector is missing."""
    frame = pl.read_parquet(path)
    for name, width in COLUMNS.items():
        assert frame[name].dtype == pl.Array(pl.Float32, width)
    assert frame["length"].dtype == pl.Int32
    np.testing.assert_array_equal(frame["sequence_vector"][:5].to_numpy(), batches[0].sequence)
    assert frame["structure_vector"].null_count() == 4


def test_duckdb_reads_it(path: Path, batches: list[VectorBatch]) -> None:
    """SQL over the file: a nearest neighbour by dot product, ids by condition."""
    rows = duckdb.sql(
        f"SELECT id, sequence_vector FROM '{path}' WHERE structure_vector IS NULL ORDER BY id"
    ).fetchall()
    assert [row[0] for row in rows] == ["f0", "f1", "m1", 'ß,"2']
    np.testing.assert_array_equal(np.float32(rows[0][1]), batches[1].sequence[0])
    [(nearest,)] = duckdb.sql(
        f"SELECT b.id FROM '{path}' a, '{path}' b WHERE a.id = 'p3' ORDER BY "
        "list_inner_product(a.sequence_vector::FLOAT[], b.sequence_vector::FLOAT[]) DESC LIMIT 1"
    ).fetchall()
    assert nearest == "p3"
    counted = duckdb.sql(
        f"SELECT count({'), count('.join(['length', *COLUMNS])}), sum(length) FROM '{path}'"
    ).fetchall()
    assert counted == [(10, 10, 6, 10, 6, 531)]


def test_csv_equals_parquet(path: Path, batches: list[VectorBatch]) -> None:
    """The same numbers to the last bit, a column each, empty where an entry lacks a modality."""
    frame = pd.read_csv(_write(path.with_name("vectors.csv"), batches))
    vectors = read_vectors(path)
    assert frame["id"].tolist() == vectors.ids.tolist()
    assert vectors.lengths is not None
    assert frame["length"].tolist() == vectors.lengths.tolist()
    names = list(frame.columns)[2:]
    assert names[0] == "sequence0"
    assert names[-1] == "structure_mean11"
    for name, width in COLUMNS.items():
        attribute = name.removesuffix("_vector")
        numbers = frame[[f"{attribute}{i}" for i in range(width)]].to_numpy().astype(np.float32)
        np.testing.assert_array_equal(numbers, getattr(vectors, attribute))


def test_ids_are_no_formulas_in_csv(path: Path) -> None:
    """A spreadsheet would run them; other formats hold them as they are."""
    ids = ["=1+1", "+x", "-2", '@SUM("a")', "'=q", "5'", "a=b"]
    vector = np.tile(np.float32([1, 0]), (len(ids), 1))
    batches = [VectorBatch(ids, sequence=vector)]
    for name in ("ids.csv", "ids.parquet"):
        write_vectors(path.with_name(name), batches, dim=2, metadata={})
    cells = pd.read_csv(path.with_name("ids.csv"))["id"].tolist()
    assert cells == ["'=1+1", "'+x", "'-2", '\'@SUM("a")', "''=q", "5'", "a=b"]
    assert list(map(cell_text, cells)) == ids
    assert read_vectors(path.with_name("ids.parquet")).ids.tolist() == ids


def test_anndata_has_all_of_it(path: Path, batches: list[VectorBatch]) -> None:
    """obs: ids and lengths; obsm: a matrix per column, NaN where missing; uns: the provenance."""
    import anndata  # a second, which each test process would take

    data = anndata.read_h5ad(_write(path.with_name("vectors.h5ad"), batches))
    vectors = read_vectors(path)
    assert data.obs_names.tolist() == vectors.ids.tolist()
    assert vectors.lengths is not None
    assert data.obs["length"].tolist() == vectors.lengths.tolist()
    assert set(data.obsm) == set(COLUMNS)
    for name in COLUMNS:
        expected = getattr(vectors, name.removesuffix("_vector"))
        np.testing.assert_array_equal(data.obsm[name], expected)
    assert json.loads(data.uns["protalign"]) == METADATA


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is computed, with the command to install it; likewise an unknown ending."""
    monkeypatch.setitem(sys.modules, "anndata", None)

    def never() -> Iterator[VectorBatch]:
        raise AssertionError("a batch was asked for")
        yield

    with pytest.raises(InputError, match=r'pip install "protalign\[anndata\]"'):
        write_vectors(tmp_path / "v.h5ad", never(), dim=DIM, metadata={})
    with pytest.raises(
        InputError, match=r"not a known format; let the name end in \.parquet, \.csv"
    ):
        write_vectors(tmp_path / "v.feather", never(), dim=DIM, metadata={})
    assert not list(tmp_path.iterdir())


def test_select(path: Path) -> None:
    """Rows by id, in the order asked for, repeated if asked twice; unknown ids are named."""
    vectors = read_vectors(path)
    chosen = vectors.select(["m1", "p0", "p0"])
    assert isinstance(chosen, AlignedVectors)
    assert chosen.ids.tolist() == ["m1", "p0", "p0"]
    np.testing.assert_array_equal(chosen.sequence[1], vectors.sequence[0])
    assert chosen.has_structure.tolist() == [False, True, True]
    assert len(vectors.select([])) == 0
    with pytest.raises(InputError, match="no entry 'mm1'; did you mean 'm1'"):
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
    _write(again, batches)
    assert again.read_bytes() == path.read_bytes()


def test_every_changed_byte_is_found(path: Path) -> None:
    """A byte of the file that is another one: never other vectors in silence."""
    data, rng = path.read_bytes(), np.random.default_rng(0)
    assert verify_vectors(path) == []
    for place in [*rng.integers(len(data), size=300), *range(len(data) - 40, len(data))]:
        changed = bytearray(data)
        changed[place] ^= rng.integers(1, 256)
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"damaged|not a readable Parquet file") as error:
            read_vectors(path)
        assert "\n" not in str(error.value)
        assert verify_vectors(path) == [str(error.value)]
    for size in rng.integers(len(data), size=40):
        path.write_bytes(data[:size])
        assert len(verify_vectors(path)) == 1


def test_other_readers_look_at_checksums_too(path: Path) -> None:
    """Each page has one, which pyarrow compares if it is asked to."""
    data = bytearray(path.read_bytes())
    begin = pq.read_metadata(path).row_group(0).column(2).data_page_offset
    data[begin + 2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)


def test_a_file_without_checksums_is_read(path: Path, tmp_path: Path) -> None:
    """As version 0.1.0 wrote it; vectors that have lost their unit length are noticed still."""
    old = tmp_path / "old.parquet"
    pq.write_table(pq.read_table(path), old)
    assert verify_vectors(old) == []
    vectors = read_vectors(old)
    assert vectors.metadata == METADATA
    np.testing.assert_array_equal(vectors.sequence, read_vectors(path).sequence)
    table = pq.read_table(path).to_pandas()
    table.loc[3, "sequence_vector"][7] = 30.0
    pq.write_table(pa.Table.from_pandas(table), old)
    with pytest.raises(InputError, match="sequence vectors of p3 have no unit length"):
        read_vectors(old)
    assert len(verify_vectors(old)) == 1


def _by_pandas(path: Path, filtered: Path) -> None:
    frame = pd.read_parquet(path)
    frame[frame["length"] > 2].to_parquet(filtered)


def _by_polars(path: Path, filtered: Path) -> None:
    pl.read_parquet(path).filter(pl.col("length") > 2).write_parquet(filtered)


def _by_duckdb(path: Path, filtered: Path) -> None:
    duckdb.sql(f"COPY (FROM '{path}' WHERE length > 2) TO '{filtered}' (FORMAT parquet)")


def _by_pyarrow(path: Path, filtered: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.greater(table["length"], 2)), filtered)


@pytest.mark.parametrize("program", [_by_pandas, _by_polars, _by_duckdb, _by_pyarrow])
def test_a_table_that_another_program_filtered(path: Path, program: Any) -> None:
    """It is read by its columns, whatever lists they are; provenance is what the program kept."""
    filtered = path.with_name("filtered.parquet")
    program(path, filtered)
    vectors, kept = read_vectors(filtered), [0, 1, 2, 3, 4, 7, 8, 9]
    expected = read_vectors(path).select(read_vectors(path).ids[kept])
    assert vectors.ids.tolist() == expected.ids.tolist()
    for name in ("sequence", "structure", "has_structure", "lengths", *list(COLUMNS)[2:]):
        np.testing.assert_array_equal(getattr(vectors, name), getattr(expected, name))
        assert getattr(vectors, name).dtype == getattr(expected, name).dtype
    assert vectors.metadata == (METADATA if program is _by_pyarrow else {})
    assert verify_vectors(filtered) == []


@pytest.mark.parametrize("program", [_by_pandas, _by_polars, _by_duckdb, _by_pyarrow])
def test_no_rows_and_one_modality(tmp_path: Path, program: Any) -> None:
    """Nothing is left after the filter, or no structure: columns of nulls, or of no type."""
    path, filtered = tmp_path / "v.parquet", tmp_path / "filtered.parquet"
    batch = VectorBatch(["a", "b"], _unit(2, 0), None, np.array([1, 1]))
    write_vectors(path, [batch], dim=DIM, metadata={})
    program(path, filtered)
    assert len(read_vectors(filtered)) == 0
    write_vectors(path, [replace(batch, lengths=np.array([3, 4]))], dim=DIM, metadata={})
    program(path, filtered)
    vectors = read_vectors(filtered)
    np.testing.assert_array_equal(vectors.sequence, batch.sequence)
    assert vectors.structure.shape == (2, DIM)
    assert not vectors.has_structure.any()
    pq.write_table(pq.read_table(filtered).drop(["structure_vector"]), filtered)
    assert read_vectors(filtered).structure.shape == (2, DIM)


def test_exports_put_together(path: Path, tmp_path: Path) -> None:
    """Of different ids they are read; ids that are there twice are named."""
    more, both = tmp_path / "more.parquet", tmp_path / "both.parquet"
    write_vectors(more, [VectorBatch(["q0", "q1"], _unit(2, 20))], dim=DIM, metadata=METADATA)
    columns = ["id", "length", "sequence_vector", "structure_vector"]
    first = pq.read_table(path, columns=columns)
    pq.write_table(pa.concat_tables([first, pq.read_table(more)]), both)
    assert read_vectors(both).ids.tolist() == [*first["id"].to_pylist(), "q0", "q1"]
    pq.write_table(pa.concat_tables([first, first.slice(2, 3)]), both)
    with pytest.raises(InputError, match="it has rows twice, of the ids 'p2', 'p3', 'p4'; keep"):
        read_vectors(both)
    assert len(verify_vectors(both)) == 1


def _table(**columns: Any) -> pa.Table:
    vectors = pa.array([[1.0, 0.0]] * 2, type=pa.list_(pa.float32()))
    usual = {"id": ["a", "b"], "sequence_vector": vectors, "structure_vector": vectors}
    return pa.table({**usual, **columns})


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"id": [1, 2]}, "its ids are int64, not text"),
        ({"id": ["a", None]}, "1 rows have no id"),
        ({"sequence_vector": [[1.0, 0.0], [1.0]]}, "vectors of 1 and of 2 numbers"),
        ({"sequence_vector": [[1.0, None], [1.0, 0.0]]}, "a vector that lacks a number"),
        ({"sequence_vector": [[1.0, 0.0, 0.0]] * 2}, "have different lengths, 2 and 3"),
        ({"sequence_vector": [[float("nan"), 0.0]] * 2}, "of a, b have no unit length"),
        ({"sequence_vector": [[2.0, 0.0]] * 2}, "of a, b have no unit length"),
        ({"sequence_vector": ["x", "y"]}, "holds no aligned vectors"),
        ({"sequence_vector": [["x"], ["y"]]}, "holds no aligned vectors"),
        ({"sequence_vector": [1.0, 2.0]}, "holds no aligned vectors"),
        ({"length": ["x", "y"]}, "its column length does not hold whole numbers"),
        ({"length": [1.5, 2.0]}, "its column length does not hold whole numbers"),
    ],
)
def test_tables_that_others_made_wrong(
    tmp_path: Path, columns: dict[str, Any], problem: str
) -> None:
    """Each has its line."""
    path = tmp_path / "other.parquet"
    pq.write_table(_table(**columns), path)
    with pytest.raises(InputError, match=problem):
        read_vectors(path)
    assert len(verify_vectors(path)) == 1


@pytest.mark.parametrize(
    "metadata",
    [b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"a":' * 9999, b'{"a": 1, "a": 2}'],
)
def test_provenance_that_is_none(tmp_path: Path, metadata: bytes) -> None:
    """JSON that is damaged, of another kind, or nested without end."""
    path = tmp_path / "other.parquet"
    pq.write_table(_table().replace_schema_metadata({b"protalign": metadata}), path)
    with pytest.raises(InputError, match="provenance") as error:
        read_vectors(path)
    assert "\n" not in str(error.value)


def test_more_than_fits_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may promise gigabytes: nulls of vectors of 10^9 numbers, or many of them."""
    monkeypatch.setattr("protalign.stores.vectors.reading.usable_memory", lambda: 1e8)
    path = tmp_path / "other.parquet"
    for rows, width in ((1, 1 << 30), (1, 100_000), (2000, 1 << 16)):
        promised = pa.schema(
            [("id", pa.string()), ("sequence_vector", pa.list_(pa.float32(), width))]
        )
        nulls = pa.nulls(rows, pa.list_(pa.float32()))
        table = pa.table({"id": [str(row) for row in range(rows)], "sequence_vector": nulls})
        metadata = {b"ARROW:schema": base64.b64encode(promised.serialize())}
        with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(metadata)
        before = pa.total_allocated_bytes()
        with pytest.raises(InputError, match="GB of memory"):
            read_vectors(path)
        assert pa.total_allocated_bytes() - before < 1 << 20


def test_only_files_are_read(tmp_path: Path) -> None:
    """A folder, a pipe that nobody writes to, a device."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match=r"it is not a (file|folder of vectors);"):
            read_vectors(path)


def test_a_short_name(path: Path) -> None:
    """Printed, vectors are a line."""
    line = "AlignedVectors(10 ids, 128 numbers each: 10 sequences, 6 structures)"
    assert repr(read_vectors(path)) == line


def test_masks(tmp_path: Path) -> None:
    """A mask gives rows, also one of objects, as pandas makes them; it is never an id."""
    path = tmp_path / "v.parquet"
    write_vectors(path, [VectorBatch(["a", "True"], _unit(2, 0))], dim=DIM, metadata={})
    vectors = read_vectors(path)
    for mask in ([True, False], np.array([True, False], dtype=object), pd.array([True, False])):
        assert vectors.select(mask).ids.tolist() == ["a"]
    for wrong in ([True], [True, None], np.array([1, "a"], dtype=object)):
        with pytest.raises(InputError):
            vectors.select(wrong)
    assert vectors.select(np.array(["True", "a"], dtype=object)).ids.tolist() == ["True", "a"]


def test_files_that_hold_no_vectors(tmp_path: Path) -> None:
    """Missing, foreign and broken files have an error each; a misfitting batch is a fault."""
    with pytest.raises(InputError, match="does not exist"):
        read_vectors(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not Parquet")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_vectors(tmp_path / "text.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="holds no aligned vectors"):
        read_vectors(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="the folder does not exist"):
        write_vectors(tmp_path / "no" / "v.parquet", [], dim=DIM, metadata={})
    batch = VectorBatch(["a", "b"], _unit(1, 0))
    with pytest.raises(ValueError, match="sequence vectors must be"):
        write_vectors(tmp_path / "v.parquet", [batch], dim=DIM, metadata={})
    batch = VectorBatch(["a"], _unit(1, 0), sequence_mean=_unit(1, 0))
    with pytest.raises(ValueError, match="sequence means must be"):
        write_vectors(
            tmp_path / "v.parquet", [batch], dim=DIM, metadata={}, mean_dims={"sequence": 3}
        )


def test_no_vectors_at_all(tmp_path: Path) -> None:
    """An empty export is a file with no rows."""
    path = tmp_path / "empty.parquet"
    assert write_vectors(path, [], dim=DIM, metadata=METADATA) == 0
    vectors = read_vectors(path)
    assert vectors.sequence.shape == (0, DIM)
    assert vectors.metadata == METADATA
