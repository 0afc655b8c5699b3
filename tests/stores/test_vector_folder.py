"""A folder of vectors: the rows of a file, mapped; whole or not there; nothing in it is trusted."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protalign.core.annotation import Annotation
from protalign.core.digests import sealed, unsealed
from protalign.core.errors import InputError, WriteError
from protalign.core.protein import MODALITIES, Modality
from protalign.search.index import Index
from protalign.stores import (
    AlignedVectors,
    MappedVectors,
    VectorBatch,
    read_vectors,
    verify_vectors,
    write_vectors,
)
from protalign.stores.vectors.annotations import Annotations
from protalign.stores.vectors.files import seal

DIM, ROWS = 8, 40
MEAN_DIMS: dict[Modality, int] = {"sequence": 3}
METADATA = {"model": {"weights_sha256": "ab"}, "store": {"path": "Å/store.zarr"}}
NAMES = ["a\nb", "../../etc", "ß,2", "=1+1", "x" * 300, "", "\U0001f9ec", "a\x00b"]


def _unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _batches() -> Iterator[VectorBatch]:
    """Batches of 16, 16 and 8 rows; the first one has no structures, others miss some."""
    for number, count in enumerate((16, 16, 8)):
        first = 16 * number
        structure = _unit(count, 10 + number)
        structure[::5] = np.nan
        about = [Annotation(f"protein {i}", "Homo sapiens", 9606, f"P{i}") for i in range(count)]
        about[1] = Annotation()
        yield VectorBatch(
            [
                *NAMES[: count if number == 0 else 0],
                *(f"p{i}" for i in range(first, first + count)),
            ][:count],
            _unit(count, number),
            structure if number else None,
            np.arange(count) + 50,
            _unit(count, 20 + number)[:, :3],
            None,
            Annotations.of(about),
        )


def _write(path: Path, **options: Any) -> Path:
    options = {"rows_per_file": 13} | options if not path.suffix else options
    write_vectors(
        path, _batches(), dim=DIM, metadata=METADATA, mean_dims=MEAN_DIMS, annotated=True, **options
    )
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows in one Parquet file. Only to be read."""
    return _write(tmp_path_factory.mktemp("file") / "vectors.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in a folder. Only to be read."""
    return _write(tmp_path_factory.mktemp("folder") / "vectors")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return copytree(folder, tmp_path / "copy")


class TestContract:
    """What every reader of vectors relies on, of a file and of a folder."""

    @pytest.fixture(params=["file", "folder"])
    def vectors(self, request: pytest.FixtureRequest) -> AlignedVectors:
        """Vectors of each kind."""
        return read_vectors(request.getfixturevalue(request.param))

    def test_columns(self, vectors: AlignedVectors) -> None:
        """All rows in order, NaN and False if a modality is missing."""
        batches = list(_batches())
        assert len(vectors) == ROWS
        assert vectors.dim == DIM
        assert vectors.ids.tolist() == [name for batch in batches for name in batch.ids]
        sequence = np.concatenate([batch.sequence for batch in batches])
        missing = np.full((16, DIM), np.nan, np.float32)
        structure = np.concatenate([missing, *(batch.structure for batch in batches[1:])])
        for modality, values in zip(MODALITIES, (sequence, structure), strict=True):
            np.testing.assert_array_equal(vectors.candidates(modality)[0], values)
            np.testing.assert_array_equal(vectors.present(modality), np.isfinite(values[:, 0]))
        np.testing.assert_array_equal(
            vectors.sequence_mean, np.concatenate([batch.sequence_mean for batch in batches])
        )
        assert vectors.structure_mean is None
        lengths = np.concatenate([batch.lengths for batch in batches])
        np.testing.assert_array_equal(vectors.lengths, lengths)
        assert vectors.lengths is not None
        assert vectors.lengths.dtype == np.int64
        assert vectors.metadata == METADATA
        assert "40 ids, 8 numbers each: 40 sequences, 18 structures" in repr(vectors)

    def test_some_rows(self, vectors: AlignedVectors) -> None:
        """The columns of some rows, by their numbers."""
        rows = np.array([39, 0, 20, 20])
        assert vectors.ids_at(rows).tolist() == vectors.ids[rows].tolist()
        assert vectors.lengths_at(rows) == [57, 50, 54, 54]
        for modality in MODALITIES:
            expected = vectors.candidates(modality)[0][rows]
            np.testing.assert_array_equal(vectors.vectors_at(modality, rows), expected)
        about = vectors.annotations_at([17, 2, -1])
        assert [each.accession for each in about] == [None, "P2", "P0"]
        assert about[1].taxid == 9606
        assert vectors.annotations is not None
        assert vectors.annotations[2] == about[1]
        assert vectors.id_column().to_pylist() == vectors.ids.tolist()

    def test_lookup(self, vectors: AlignedVectors) -> None:
        """Every id is found, and others are not; a mask and ids select the same rows."""
        assert vectors.rows_of(vectors.ids.tolist()).tolist() == list(range(ROWS))
        assert vectors.rows_of(["p99", "a"]).tolist() == [-1, -1]
        assert all(name in vectors for name in NAMES)
        assert "p99" not in vectors
        assert 7 not in vectors
        chosen = vectors.select(["p20", "a\nb"])
        mask = np.zeros(ROWS, dtype=bool)
        mask[[0, 20]] = True
        frame = vectors[mask].to_pandas()
        assert chosen.ids.tolist() == ["p20", "a\nb"]
        assert frame.loc["p20", "accession"] == chosen.annotations_at([0])[0].accession == "P4"
        np.testing.assert_array_equal(frame.loc["p20", "sequence_vector"], chosen.sequence[0])
        with pytest.raises(InputError, match="no entry 'P20'; did you mean 'p20'"):
            vectors.select(["P20"])
        with pytest.raises(InputError, match="a mask of shape"):
            vectors.select(np.ones(3, dtype=bool))

    def test_a_copy(self, vectors: AlignedVectors) -> None:
        """It can be sent to another process."""
        again = pickle.loads(pickle.dumps(vectors))  # noqa: S301
        assert again.ids.tolist() == vectors.ids.tolist()
        np.testing.assert_array_equal(again.structure, vectors.structure)

    def test_it_is_whole(self, vectors: AlignedVectors, file: Path, folder: Path) -> None:
        """Nothing is found in what was just written."""
        assert verify_vectors(folder if isinstance(vectors, MappedVectors) else file) == []


def test_a_folder_is_searched_as_a_file_is(file: Path, folder: Path) -> None:
    """The same rows and the same bits of the cosines, for both modalities."""
    ours, theirs = Index(read_vectors(folder)), Index(read_vectors(file))
    assert isinstance(ours.vectors, MappedVectors)
    for modality in MODALITIES:
        found = ours.search(_unit(5, 3), 30, against=modality)
        expected = theirs.search(_unit(5, 3), 30, against=modality)
        for ours_, theirs_ in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours_, theirs_)


def test_others_read_a_folder(file: Path, folder: Path) -> None:
    """Its Parquet files are one table to pyarrow, DuckDB and polars; numpy loads its arrays."""
    assert [pq.read_metadata(path).num_rows for path in sorted(folder.glob("*.parquet"))] == [
        *[13] * 3,
        1,
    ]
    expected = pq.read_table(file)
    files = str(folder / "*.parquet")
    assert ds.dataset(sorted(map(str, folder.glob("*.parquet")))).to_table().equals(expected)
    assert duckdb.sql(f"SELECT count(*), sum(length) FROM '{files}'").fetchall() == [
        (40, expected["length"].to_numpy().sum())
    ]
    assert pl.read_parquet(files)["id"].to_list() == expected["id"].to_pylist()
    part = read_vectors(folder / "part-00001.parquet")
    assert part.ids.tolist() == expected["id"].to_pylist()[13:26]
    array = np.load(folder / "sequence.npy", mmap_mode="r", allow_pickle=False)
    np.testing.assert_array_equal(array, read_vectors(file).sequence)


def test_a_modality_that_nothing_has_takes_no_room(tmp_path: Path) -> None:
    """A folder of sequences only has no arrays of structures, and can be searched."""
    path = tmp_path / "vectors"
    write_vectors(path, [VectorBatch(["a", "b"], _unit(2, 0))], dim=DIM, metadata={})
    assert not list(path.glob("structure*"))
    vectors = read_vectors(path)
    assert np.isnan(vectors.structure).all()
    assert not vectors.has_structure.any()
    assert Index(vectors).search(_unit(1, 0), 5)[0].shape == (1, 0)
    assert vectors.lengths is None
    assert vectors.annotations_at([0]) == [Annotation()]
    assert verify_vectors(path) == []
    write_vectors(path, [], dim=DIM, metadata={})
    assert len(read_vectors(path)) == 0
    assert read_vectors(path).ids.tolist() == []
    assert verify_vectors(path) == []


def test_ids_are_unique(tmp_path: Path) -> None:
    """Also in different batches; nothing is left."""
    batches = [VectorBatch([f"p{i}", "q", f"r{i}"], _unit(3, i)) for i in range(2)]
    with pytest.raises(InputError, match=r"rows twice, of the ids 'q'; give one row"):
        write_vectors(tmp_path / "vectors", batches, dim=DIM, metadata={})
    assert not list(tmp_path.iterdir())


def test_ids_of_equal_hashes_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collision cannot be had of short ids, so all hashes are made 7."""
    for module in ("folder_writing", "mapped", "folder_checking"):
        monkeypatch.setattr(
            f"protalign.stores.vectors.{module}.text_hashes",
            lambda values, lengths: np.full(len(lengths), 7, dtype=np.uint64),
        )
    vectors = read_vectors(_write(tmp_path / "vectors"))
    assert vectors.rows_of(["p20", "p99", "a\nb"]).tolist() == [20, -1, 0]
    assert verify_vectors(tmp_path / "vectors") == []
    batches = [VectorBatch(["p", "q", "q"], _unit(3, 0))]
    with pytest.raises(InputError, match="rows twice, of the ids 'q'"):
        write_vectors(tmp_path / "twice", batches, dim=DIM, metadata={})


def test_only_vectors_are_replaced(folder: Path, tmp_path: Path) -> None:
    """An empty folder and older vectors are; a folder of something else and a file are not."""
    place = tmp_path / "vectors"
    place.mkdir()
    _write(place, rows_per_file=1)
    _write(place)
    names = {path.name for path in place.iterdir()}
    assert names == {path.name for path in folder.iterdir()}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for name in ("other", "file"):
        with pytest.raises(WriteError, match="exists and is not a folder of vectors"):
            _write(tmp_path / name)
    for count in (0, True, 1.5):
        with pytest.raises(InputError, match="rows_per_file"):
            _write(place, rows_per_file=count)


def test_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    """The older vectors stay as they were, and the next writer removes what is left."""
    place = _write(tmp_path / "vectors")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    code = (
        "import os, signal, sys, numpy as np\n"
        "from protalign.stores import VectorBatch, write_vectors\n"
        "def batches():\n"
        "    yield VectorBatch(['a', 'b'], np.eye(2, 8, dtype='f4'))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_vectors(sys.argv[1], batches(), dim=8, metadata={})\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(place)], check=False)
    assert ran.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert len(list(tmp_path.iterdir())) == 2
    _write(place)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors"]


def _use(path: Path) -> str:
    """Open a folder and use all columns; return the error's line, "" if there is none."""
    try:
        vectors = read_vectors(path)
        vectors.rows_of(["p20", "p99"])
        vectors.select(["p20"])
        vectors.annotations_at(range(ROWS))
        vectors.id_column()
    except InputError as error:
        return str(error)
    return ""


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_found(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """By verify, in every file; reading gives a line, or values, and never another error."""
    copy = copytree(folder, tmp_path_factory.mktemp("damage") / "copy")
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    content = bytearray((copy / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    (copy / name).write_bytes(content)
    problems = verify_vectors(copy)
    assert problems or name == "vectors.json"  # white space of the document means nothing
    assert all("\n" not in problem for problem in problems)
    assert "\n" not in _use(copy)


def _link(path: Path) -> None:
    other = path.parent.parent / "elsewhere"
    path.rename(other)
    path.symlink_to(other)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [_link, _pipe, Path.unlink])
@pytest.mark.parametrize("name", ["sequence.npy", "vectors.json", "part-00000.parquet"])
def test_only_files_inside_are_read(copy: Path, name: str, change: Callable[[Path], None]) -> None:
    """A link out of the folder, a pipe, and a missing file are one line."""
    change(copy / name)
    assert len(verify_vectors(copy)) == 1
    if not name.startswith("part"):
        with pytest.raises(InputError):
            read_vectors(copy)


def _numbers(name: str, place: int, value: int) -> Callable[[Path, dict[str, Any]], None]:
    """Return a change of a number of an array, with the checksum that fits it."""

    def change(path: Path, document: dict[str, Any]) -> None:
        import google_crc32c

        file = path / f"{name}.npy"
        values = np.load(file)
        values[place] = value
        file.write_bytes(file.read_bytes()[:128] + values.tobytes())
        document["checksums"][name] = google_crc32c.value(values.tobytes())

    return change


def _document(*keys: Any, value: Any) -> Callable[[Path, dict[str, Any]], None]:
    """Return a change of the document."""

    def change(path: Path, document: dict[str, Any]) -> None:
        place: Any = document
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


HOSTILE = {
    "texts beyond their bytes": _numbers("description_offsets", 21, 2**40),
    "texts before their bytes": _numbers("id_offsets", 20, -5),
    "texts that end early": _numbers("description_offsets", 21, 0),
    "rows beyond the entries": _numbers("id_row", slice(None), 10**12),
    "rows below the entries": _numbers("id_row", slice(None), -3),
    "one row for all": _numbers("id_row", slice(None), 20),
    "hashes of others": _numbers("id_hash", slice(None), 5),
    "bytes that are no text": _numbers("id", slice(None), 255),
    "flags that are none": _document("present", "structure", value=40),
    "another length": _numbers("length", 3, 7),
    "another taxid": _numbers("taxid", 3, 7),
    "huge": _document("entries", value=2**62),
    "more than the files": _document("entries", value=41),
    "wide": _document("dim", value=2**40),
    "no number": _document("dim", value="8"),
    "a negative count": _document("parts", 0, value=[-1, 10]),
    "no parts": _document("parts", value=None),
    "another modality": _document("present", "../../x", value=3),
    "another column": _document("text_bytes", value={}),
    "checksums of others": _document("checksums", value={}),
    "no provenance": _document("metadata", value=3),
    "another provenance": _document("metadata", "model", value={"weights_sha256": "cd"}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder_is_one_line(copy: Path, kind: str) -> None:
    """Whatever numbers it holds under checksums that fit, verify names a fault in a line."""
    document = unsealed(json.loads((copy / "vectors.json").read_text()))
    assert document is not None
    HOSTILE[kind](copy, document)
    document = {"schema": document.pop("schema"), **document}
    (copy / "vectors.json").write_text(json.dumps(sealed(document)))
    problems = verify_vectors(copy)
    assert problems
    assert all(str(copy) in problem and "\n" not in problem for problem in problems)
    if kind in ("texts beyond their bytes", "texts that end early", "rows beyond the entries"):
        assert "it is damaged" in _use(copy)
    assert "\n" not in _use(copy)


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("id", "id"),
        ("length", "length"),
        ("sequence_vector", "sequence"),
        ("structure_vector", "structure"),
        ("sequence_mean", "sequence_mean"),
        ("accession", "accession"),
        ("taxid", "taxid"),
    ],
)
def test_files_that_disagree_are_found(copy: Path, column: str, name: str) -> None:
    """A Parquet file with another column, sealed and of the recorded size."""
    path = copy / "part-00001.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(column)
    turned = table[column].take([1, 0, *range(12, 1, -1)])
    pq.write_table(table.set_column(place, table.schema.field(column), turned), path)
    seal(path)
    document = unsealed(json.loads((copy / "vectors.json").read_text()))
    assert document is not None
    document["parts"][1][1] = path.stat().st_size
    document = {"schema": document.pop("schema"), **document}
    (copy / "vectors.json").write_text(json.dumps(sealed(document)))
    (problem,) = verify_vectors(copy)
    assert f"part-00001.parquet and the array of {name} differ" in problem


def test_hashes_are_those_of_the_document(folder: Path) -> None:
    """The sum of (b + 1) f(i), with the first numbers of SplitMix64 as others publish them."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    rows = np.load(folder / "id_row.npy").tolist()
    place = rows.index(read_vectors(folder).ids.tolist().index("p20"))
    expected = sum((byte + 1) * f for byte, f in zip(b"p20", published, strict=True)) % 2**64
    assert int(np.load(folder / "id_hash.npy")[place]) == expected


def test_another_version_is_named(copy: Path) -> None:
    """A folder of a later schema, and one that was changed by hand."""
    text = (copy / "vectors.json").read_text()
    (copy / "vectors.json").write_text(text.replace("vectors/1", "vectors/2"))
    with pytest.raises(InputError, match=r"schema protalign-vectors/2, this version reads"):
        read_vectors(copy)
    (copy / "vectors.json").write_text(text.replace('"dim": 8', '"dim": 4'))
    with pytest.raises(InputError, match="changed since it was written"):
        read_vectors(copy)
