"""Names, organisms and accessions in a store, and in the vectors that are exported of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protalign.core.annotation import Annotation
from protalign.core.errors import InputError, StoreError
from protalign.core.protein import Protein
from protalign.stores import (
    EmbeddingStore,
    StoreWriter,
    VectorBatch,
    read_vectors,
    verify,
    write_vectors,
)
from protalign.stores.entries import EntryLog
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.layout import is_annotation
from protalign.stores.vectors.annotations import Annotations
from tests.helpers.stores import OPTIONS, add_all, build, digest, sequence_only, tree

INSULIN = Annotation("Insulin", "Homo sapiens", 9606, "P01308")
PARTLY = Annotation(None, "Bacillus Å", None, None)
UNKNOWN = Annotation()


def named(protein: Protein, annotation: Annotation) -> Protein:
    return replace(protein, annotation=annotation)


@pytest.fixture
def described(tmp_path: Path, empty: Path) -> Path:
    """A store of four entries: one with all facts, two with none, one with an organism."""
    path = Path(shutil.copytree(empty, tmp_path / "store.zarr"))
    given = zip("abcd", (INSULIN, UNKNOWN, PARTLY, UNKNOWN), strict=True)
    with StoreWriter(path, OPTIONS) as writer:
        add_all(writer, [named(sequence_only(n, f"ACDE{n.upper()}"), each) for n, each in given])
    return path


def test_entries_give_their_annotations(described: Path) -> None:
    """In the order of the entries or of a view; unknown ones are None."""
    store = EmbeddingStore.open(described)
    assert list(store.annotations) == [INSULIN, UNKNOWN, PARTLY, UNKNOWN]
    view = store[["c", "d", "a"]]
    assert list(view.annotations) == [PARTLY, UNKNOWN, INSULIN]
    assert view.annotations["taxid"] == [None, None, 9606]
    assert view.annotations[-1] == INSULIN
    assert list(view.annotations[1:]) == [UNKNOWN, INSULIN]
    frame = view.annotations.to_pandas()
    assert frame["taxid"].tolist() == [pd.NA, pd.NA, 9606]
    assert frame["organism"][0] == "Bacillus Å"
    assert list(store[np.zeros(4, dtype=bool)].annotations) == []
    assert store.info()["annotated"] == 2
    assert verify(described).ok


def test_only_the_entries_asked_for_are_read(
    described: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a store reads no text of an annotation, and a view reads its own entries'."""
    read: list[tuple[str, int]] = []
    gather = LocalArrays.gather

    def watched(self: LocalArrays, name: str, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        if is_annotation(name) and name.endswith("/values"):
            read.append((name, int(np.sum(length))))
        return gather(self, name, start, length)

    monkeypatch.setattr(LocalArrays, "gather", watched)
    store = EmbeddingStore.open(described)
    assert len(store) == 4
    assert read == []
    assert store["c"].annotations[0] == PARTLY
    assert dict(read) == {
        "annotations/description/values": 0,
        "annotations/organism/values": len("Bacillus Å".encode()),
        "annotations/accession/values": 0,
    }


def test_another_title_embeds_nothing_again(
    tmp_path: Path, filled: Path, proteins: list[Protein]
) -> None:
    """A changed file with another name has its new annotation; items and embeddings stay."""
    path = Path(shutil.copytree(filled, tmp_path / "store.zarr"))
    before = {name: data for name, data in tree(path).items() if name.startswith("encoders")}
    protein = named(proteins[0], INSULIN)
    for content, annotation in (("first", INSULIN), ("second", PARTLY)):
        with StoreWriter(path, OPTIONS) as writer:
            again = named(protein, annotation)
            assert writer.add(protein.source, digest(content), [again]) == []
        store = EmbeddingStore.open(path)
        assert store[protein.id].annotations[0] == annotation
        assert store.info()["annotated"] == 1
    build(path, [])
    after = {name: data for name, data in tree(path).items() if name.startswith("encoders")}
    assert after == before
    assert verify(path).ok


def test_the_number_of_commits_makes_no_difference(tmp_path: Path, empty: Path) -> None:
    """Byte for byte, also after a run that was cut off within a file."""
    proteins = [named(sequence_only(n, f"ACDE{n.upper()}"), INSULIN) for n in "acdef"]
    trees = []
    for per_commit in (1, 5):
        path = Path(shutil.copytree(empty, tmp_path / f"{per_commit}.zarr"))
        for begin in range(0, 5, per_commit):
            with StoreWriter(path, OPTIONS) as writer:
                part = proteins[: begin + per_commit]
                writer.add("x.fasta", digest("x"), part, last=begin + per_commit == 5)
        trees.append(tree(path))
    assert trees[0] == trees[1]
    assert list(EmbeddingStore.open(path).annotations) == [INSULIN] * 5


def test_a_store_made_before_opens_and_grows(
    tmp_path: Path, filled: Path, proteins: list[Protein]
) -> None:
    """Without the table it is whole and all is unknown; what is added is known."""
    path = Path(shutil.copytree(filled, tmp_path / "store.zarr"))
    shutil.rmtree(path / "annotations")
    before = tree(path)
    store = EmbeddingStore.open(path)
    assert set(store.annotations) == {UNKNOWN}
    assert verify(path).ok
    assert tree(path) == before
    build(path, [*proteins, named(sequence_only("new", "ACDEFG"), INSULIN)])
    assert EmbeddingStore.open(path)["new"].annotations[0] == INSULIN
    assert EmbeddingStore.open(path)[0].annotations[0] == UNKNOWN
    assert verify(path).ok


def test_a_lost_table_is_damage(described: Path) -> None:
    """If a store has annotations, their arrays must be there; others are read still."""
    shutil.rmtree(described / "annotations" / "organism")
    report = verify(described)
    assert not report.ok
    assert {"a", "c"} <= set(report.damaged_ids)
    store = EmbeddingStore.open(described)
    assert store.sequence("a") == ("ACDEA",)
    with pytest.raises(StoreError, match="annotations/organism"):
        store["a"].annotations  # noqa: B018


def test_rows_out_of_order_are_refused(described: Path) -> None:
    """The table is searched by halving, so a row out of order would hide others."""
    arrays = LocalArrays(described)
    log = EntryLog(arrays)
    rows = np.array([2, 0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "read", lambda name: rows)
        with pytest.raises(StoreError, match="annotations/entry is not ascending"):
            log.annotations(np.array([0]))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A file of three vectors, two of them with annotations."""
    path = tmp_path / "vectors.parquet"
    eye = np.eye(3, dtype=np.float32)
    batches = [
        VectorBatch(["a"], eye[:1], eye[:1], np.array([5]), annotations=Annotations.of([INSULIN])),
        VectorBatch(["b", "c"], eye[1:], annotations=Annotations.of([UNKNOWN, PARTLY])),
    ]
    assert write_vectors(path, batches, dim=3, metadata={}, annotated=True) == 3
    return path


def test_vectors_have_the_annotations(exported: Path) -> None:
    """Row by row, also of a selection; other readers see texts, numbers and nulls."""
    vectors = read_vectors(exported)
    assert vectors.annotations is not None
    assert list(vectors.annotations) == [INSULIN, UNKNOWN, PARTLY]
    selected = vectors.select(["c", "a"]).annotations
    assert selected is not None
    assert list(selected) == [PARTLY, INSULIN]
    assert vectors.annotations_at([2, -1, 0])[::2] == [PARTLY, INSULIN]
    frame = pd.read_parquet(exported)
    assert frame["description"].tolist()[0] == "Insulin"
    assert frame["taxid"].isna().tolist() == [False, True, True]


def test_tables_of_other_programs(exported: Path, tmp_path: Path) -> None:
    """Without the columns all is unknown; pandas' floats are whole numbers; else one line."""
    path, table = tmp_path / "other.parquet", pq.read_table(exported)
    pq.write_table(table.drop_columns(["description", "organism", "taxid", "accession"]), path)
    old = read_vectors(path)
    assert old.annotations is None
    assert old.annotations_at([0, 1]) == [UNKNOWN, UNKNOWN]
    table.to_pandas().to_parquet(path)
    again = read_vectors(path).annotations
    assert again is not None
    assert list(again) == [INSULIN, UNKNOWN, PARTLY]
    for name, values, words in (
        ("taxid", pa.array([1.5, None, None]), "whole numbers of 32 bits"),
        ("taxid", pa.array([2**40, None, None]), "whole numbers of 32 bits"),
        ("taxid", pa.array(["9606", None, None]), "whole numbers of 32 bits"),
        ("organism", pa.array([1, 2, 3]), "text"),
        ("organism", pa.array([b"\xff", b"", b""]).view(pa.string()), "text"),
    ):
        place = table.column_names.index(name)
        pq.write_table(table.set_column(place, name, values), path)
        with pytest.raises(InputError, match=f"its column {name} does not hold {words}"):
            read_vectors(path)


def test_csv_holds_numbers_alone_and_anndata_the_facts(exported: Path, tmp_path: Path) -> None:
    """A table of features stays one; obs of AnnData has text."""
    import anndata

    vectors = read_vectors(exported)
    for name in ("v.csv", "v.h5ad"):
        batch = VectorBatch(vectors.ids, vectors.sequence, annotations=vectors.annotations)
        write_vectors(tmp_path / name, [batch], dim=3, metadata={}, annotated=True)
    header = (tmp_path / "v.csv").read_text().splitlines()[0]
    assert "organism" not in header
    obs = anndata.read_h5ad(tmp_path / "v.h5ad").obs
    assert obs["organism"].tolist() == ["Homo sapiens", "", "Bacillus Å"]
    assert obs["taxid"].tolist() == ["9606", "", ""]


def test_format_1_0_takes_none(tmp_path: Path, filled: Path) -> None:
    """What wrote such a store still reads it: its root names no array that version lacks."""
    path = Path(shutil.copytree(filled, tmp_path / "store.zarr"))
    shutil.rmtree(path / "annotations")
    from tests.stores.test_upgrade import as_format_1_0

    as_format_1_0(path)
    with StoreWriter(path, OPTIONS) as writer:
        assert not writer.keeps_annotations
        add_all(writer, [named(sequence_only("new", "ACDEFG"), INSULIN)])
    assert EmbeddingStore.open(path)["new"].annotations[0] == UNKNOWN
    committed = json.loads((path / "zarr.json").read_text())["attributes"]["protalign"]["committed"]
    assert not any(map(is_annotation, committed))
    assert not (path / "annotations").exists()
    assert verify(path, upgrade=True).ok
    with StoreWriter(path, OPTIONS) as writer:
        add_all(writer, [named(sequence_only("newer", "ACDEFGH"), INSULIN)])
    assert list(EmbeddingStore.open(path)[["new", "newer"]].annotations) == [UNKNOWN, INSULIN]
    assert verify(path).ok
