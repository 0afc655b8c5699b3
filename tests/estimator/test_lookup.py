"""Vectors to Parquet, and back into scikit-learn by id."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from protalign.core.errors import InputError, WriteError
from protalign.estimator import export as exporting
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.estimator.lookup import VectorLookup
from protalign.heads import inputs
from protalign.heads.kernels.batch import mean_rows
from protalign.stores import EmbeddingStore, read_vectors


@pytest.fixture(scope="module")
def vectors(
    store: EmbeddingStore, fitted: ProtAlignEstimator, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The whole store, exported. Only to be read."""
    path = tmp_path_factory.mktemp("vectors") / "vectors.parquet"
    assert fitted.export(store, path, features=("aligned", "mean")) == 43
    return path


def test_export_is_transform(
    store: EmbeddingStore, fitted: ProtAlignEstimator, vectors: Path
) -> None:
    """The file has every id with transform's vectors; a FASTA entry's structure is null."""
    read = read_vectors(vectors)
    assert read.ids.tolist() == store.ids.tolist()
    np.testing.assert_array_equal(read.sequence, fitted.transform(store))
    assert read.has_sequence.all()
    assert read.ids[~read.has_structure].tolist() == ["fasta"]


def test_a_folder_of_other_things_is_not_replaced(
    store: EmbeddingStore, fitted: ProtAlignEstimator, tmp_path: Path
) -> None:
    """Told before anything is pooled; nothing is left behind."""
    folder = tmp_path / "results.parquet"
    folder.mkdir()
    with pytest.raises(InputError, match="is a folder; name a file"):
        fitted.export(store, folder)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(WriteError, match="exists and is not a folder of vectors"):
        fitted.export(store, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "results.parquet"]


def test_a_folder_is_the_file(
    store: EmbeddingStore, fitted: ProtAlignEstimator, vectors: Path, tmp_path: Path
) -> None:
    """Everything that a file of vectors gives, in files of at most 20 entries."""
    folder = tmp_path / "vectors"
    mean = ("aligned", "mean")
    assert fitted.export(store, folder, features=mean, rows_per_file=20) == 43
    assert len(list(folder.glob("part-*.parquet"))) == 3
    pd.testing.assert_frame_equal(
        read_vectors(folder).to_pandas(), read_vectors(vectors).to_pandas()
    )
    ids = store.ids[[3, 1]]
    for features in ("aligned", "both"):
        ours, theirs = (VectorLookup(path, features=features) for path in (folder, vectors))
        np.testing.assert_array_equal(ours.transform(ids), theirs.transform(ids))
        assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()
    assert read_vectors(folder).metadata == read_vectors(vectors).metadata
    with pytest.raises(InputError, match="rows_per_file: it has no effect"):
        fitted.export(store, tmp_path / "v.parquet", rows_per_file=20)


def test_export_says_where_it_comes_from(store: EmbeddingStore, vectors: Path) -> None:
    """Model and store, with the hashes of their weights, are in the file's metadata."""
    metadata = read_vectors(vectors).metadata
    assert len(metadata["model"]["weights_sha256"]) == 64
    assert metadata["model"]["parameters"]["loss"] == "clip"
    assert metadata["store"]["path"] == store.path
    for modality in ("sequence", "structure"):
        expected = store.encoder_for(modality).weights_sha256
        assert metadata["store"]["encoders"][modality]["weights_sha256"] == expected


def test_export_goes_in_blocks(
    store: EmbeddingStore,
    fitted: ProtAlignEstimator,
    vectors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However few entries are in memory at once, the vectors are the same."""
    monkeypatch.setattr(exporting, "_ENTRIES_AT_ONCE", 5)
    fitted.export(store, tmp_path / "blocks.parquet", features=("aligned", "mean"))
    blocks, whole = read_vectors(tmp_path / "blocks.parquet"), read_vectors(vectors)
    assert blocks.ids.tolist() == whole.ids.tolist()
    np.testing.assert_allclose(blocks.structure, whole.structure, atol=1e-6)
    np.testing.assert_array_equal(blocks.structure_mean, whole.structure_mean)


def test_means_are_of_the_residues(store: EmbeddingStore, vectors: Path) -> None:
    """The plain mean of each entry's stored rows; nothing where there are none."""
    read = read_vectors(vectors)
    for modality in ("sequence", "structure"):
        encoder = store.encoder_for(modality).name
        there = np.flatnonzero(getattr(store, f"has_{modality}"))
        rows = store.embeddings(encoder, there)
        means = getattr(read, f"{modality}_mean")
        expected = [np.asarray(own, dtype=np.float64).mean(axis=0) for own in rows]
        np.testing.assert_allclose(means[there], expected, atol=1e-6)
        assert np.isnan(means[~getattr(store, f"has_{modality}")]).all()


def test_lengths_are_of_the_sequence(store: EmbeddingStore, vectors: Path) -> None:
    """Residues of each entry's sequence, also where a few have no structure row."""
    assert read_vectors(vectors).lengths.tolist() == store.lengths.tolist()


def test_an_embedding_that_entries_share_is_averaged_once(
    store: EmbeddingStore, fitted: ProtAlignEstimator, tmp_path: Path, monkeypatch: Any
) -> None:
    """43 entries have 42 sequences: the copy's mean is its original's."""
    averaged = []
    monkeypatch.setattr(
        inputs,
        "mean_rows",
        lambda batch: averaged.append(len(batch.lengths)) or mean_rows(batch),
    )
    fitted.export(store, tmp_path / "v.parquet", features=("aligned", "mean"))
    unique = [len(set(store.items(m)[store.items(m) >= 0])) for m in ("sequence", "structure")]
    assert sum(averaged) == sum(unique) < 43 + 42


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (("mean",), "aligned is missing"),
        (("aligned", "means"), "did you mean 'mean'"),
        ("aligned", "give a tuple"),
    ],
)
def test_wrong_features_are_refused(
    store: EmbeddingStore, fitted: ProtAlignEstimator, tmp_path: Path, features: Any, reason: str
) -> None:
    """In one line, before anything is pooled."""
    with pytest.raises(InputError, match=reason):
        fitted.export(store, tmp_path / "v.parquet", features=features)


@pytest.mark.parametrize("ending", ["csv", "h5ad"])
def test_other_formats(
    store: EmbeddingStore, fitted: ProtAlignEstimator, vectors: Path, tmp_path: Path, ending: str
) -> None:
    """As the file's name ends, with the same numbers."""
    path = tmp_path / f"vectors.{ending}"
    assert fitted.export(store, path, features=("aligned", "mean")) == 43
    read = read_vectors(vectors)
    if ending == "csv":
        frame = pd.read_csv(path, index_col="id")
        names = VectorLookup(vectors, output="both", features="both").get_feature_names_out()
        assert sorted(frame.columns) == sorted(["length", *names])
        assert frame.index.tolist() == read.ids.tolist()
        found = frame[[f"sequence{i}" for i in range(128)]].to_numpy(np.float32)
    else:
        import anndata  # a second, which each test process would take

        found = anndata.read_h5ad(path).obsm["sequence_vector"]
    np.testing.assert_array_equal(found, read.sequence)


def test_only_stores_are_exported(
    store: EmbeddingStore, fitted: ProtAlignEstimator, tmp_path: Path
) -> None:
    """Arrays have no ids; an id twice could not be looked up."""
    with pytest.raises(InputError, match="use transform"):
        fitted.export([(np.zeros((2, 20)), None)], tmp_path / "x.parquet")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="twice"):
        fitted.export(store[[0, 0]], tmp_path / "x.parquet")


@pytest.mark.parametrize("features", ["aligned", "mean", "both"])
@pytest.mark.parametrize("output", ["sequence", "structure", "both"])
def test_ids_become_vectors(vectors: Path, output: str, features: str) -> None:
    """Lists, arrays, Series and single columns of ids; any order; an id may come twice."""
    read = read_vectors(vectors)
    rows = [4, 0, 4, 9]
    ids = [str(read.ids[row]) for row in rows]
    aligned = {"sequence": [read.sequence], "structure": [read.structure]}
    mean = {"sequence": [read.sequence_mean], "structure": [read.structure_mean]}
    for parts in (aligned, mean):
        parts["both"] = parts["sequence"] + parts["structure"]
    chosen = {"aligned": aligned[output], "mean": mean[output]}
    chosen["both"] = chosen["aligned"] + chosen["mean"]
    expected = np.hstack([part[rows] for part in chosen[features]])
    lookup = VectorLookup(vectors, output=output, features=features)
    for X in (ids, np.array(ids), np.array(ids, dtype=object), pd.Series(ids), [[i] for i in ids]):
        np.testing.assert_array_equal(lookup.transform(X), expected)
    assert lookup.get_feature_names_out().shape == (expected.shape[1],)


def test_it_feeds_a_classifier(store: EmbeddingStore, vectors: Path) -> None:
    """A pipeline takes ids as X: fits, predicts, cross-validates."""
    view = store[store.has_structure]
    ids, labels = view.ids.tolist(), view.lengths > 120
    pipeline = make_pipeline(VectorLookup(vectors), LogisticRegression(C=100))
    assert pipeline.fit(ids, labels).score(ids, labels) > 0.8
    assert len(cross_val_score(pipeline, np.array(ids), labels, cv=3)) == 3


def test_set_output_names_the_columns(vectors: Path) -> None:
    """A pandas table of vectors, named as get_feature_names_out says."""
    lookup = VectorLookup(vectors, output="both").set_output(transform="pandas")
    table = lookup.fit_transform(["copy"])
    assert table.columns[0] == "sequence0"
    assert table.columns[-1] == "structure127"
    means = lookup.set_params(features="mean").fit_transform(["copy"])
    assert list(means.columns[[0, 20]]) == ["sequence_mean0", "structure_mean0"]


def test_means_that_were_not_exported_are_asked_for(
    store: EmbeddingStore, fitted: ProtAlignEstimator, tmp_path: Path
) -> None:
    """The error says how to export them; a misspelt choice is told too."""
    path = tmp_path / "aligned.parquet"
    fitted.export(store[:3], path)
    with pytest.raises(InputError, match="the column sequence_mean is missing; export it"):
        VectorLookup(path, features="mean").transform(store[:3].ids)
    with pytest.raises(InputError, match="did you mean 'mean'"):
        VectorLookup(path, features="means").transform(store[:3].ids)


def test_unknown_and_missing_are_named(store: EmbeddingStore, vectors: Path) -> None:
    """Unknown ids, ids without the modality, and X that is not a list of ids."""
    with pytest.raises(InputError, match="'9xyz'"):
        VectorLookup(vectors).transform(["copy", "9xyz"])
    with pytest.raises(
        InputError, match=r"fasta: the structure vector is missing; .*has_structure"
    ):
        VectorLookup(vectors, output="structure").transform(["copy", "fasta"])
    with pytest.raises(InputError, match="not a list of ids"):
        VectorLookup(vectors).transform(np.zeros((3, 2)))
    with pytest.raises(InputError, match="a StoreView, but ids are looked up; give its ids"):
        VectorLookup(vectors).transform(store[:3])
    with pytest.raises(InputError, match="did you mean 'structure'"):
        VectorLookup(vectors, output="structur").transform(["copy"])
    with pytest.raises(InputError, match="does not exist"):
        VectorLookup("nowhere.parquet").transform(["copy"])


def test_clone_and_pickle_take_the_path_along(vectors: Path) -> None:
    """Neither carries the vectors: both read the file themselves."""
    lookup = VectorLookup(vectors)
    expected = lookup.transform(["copy"])
    data = pickle.dumps(lookup)
    assert len(data) < 1000
    for copy in (pickle.loads(data), clone(lookup)):  # noqa: S301
        np.testing.assert_array_equal(copy.transform(["copy"]), expected)


def test_a_changed_file_is_read_again(
    store: EmbeddingStore, fitted: ProtAlignEstimator, tmp_path: Path
) -> None:
    """Vectors exported anew, or another path, are seen by a lookup that has read the old ones."""
    path = tmp_path / "vectors.parquet"
    fitted.export(store[:3], path)
    lookup = VectorLookup(path)
    lookup.transform(store[:1].ids)
    fitted.export(store[3:6], path)
    assert lookup.transform(store[3:4].ids).shape == (1, 128)
    fitted.export(store[:1], tmp_path / "other.parquet")
    lookup.set_params(path=tmp_path / "other.parquet")
    with pytest.raises(InputError, match="the vectors have no"):
        lookup.transform(store[3:4].ids)
