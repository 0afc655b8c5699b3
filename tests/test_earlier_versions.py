"""Stores, models and vectors of earlier versions still open and give the same numbers."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

import protalign
from protalign import EmbeddingStore, Model, ProtAlignEstimator, read_vectors
from protalign.core.annotation import Annotation
from protalign.stores import verify

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store, the model and the vectors of version 0.1.0."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(DATA / "version-0.1.0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_store_opens(earlier: Path) -> None:
    """It is whole, and has its ids, encoders and rows."""
    store = EmbeddingStore.open(earlier / "store.zarr")
    assert store.ids.tolist() == ["1bns_C", "1bpi_A", "1gob_A", "fasta"]
    assert verify(earlier / "store.zarr").ok
    for encoder, dim in (("protalign_t6_2M", 160), ("proteinmpnn_v_48_020", 128)):
        rows = store[["1bpi_A"]].embeddings(encoder)[0]
        assert rows.shape == (58, dim)


def test_a_model_gives_the_vectors_that_were_exported(earlier: Path) -> None:
    """Loaded as a Model or as an estimator, it pools the store's rows to the same vectors."""
    store = EmbeddingStore.open(earlier / "store.zarr")
    vectors = read_vectors(earlier / "vectors.parquet")
    model = Model.load(earlier / "model")
    assert model.weights_sha256 == vectors.metadata["model"]["weights_sha256"]
    np.testing.assert_allclose(model.vectors(store, "sequence"), vectors.sequence, atol=1e-6)
    estimator = ProtAlignEstimator.load(earlier / "model")
    assert (estimator.n_iter_, estimator.embed_dim) == (2, 8)
    structures = store[store.has_structure]
    estimator.set_params(output="structure", device="cpu")
    np.testing.assert_allclose(estimator.transform(structures), vectors.structure[:3], atol=1e-6)


def test_vectors_are_searched(earlier: Path) -> None:
    """By id, without the model."""
    hits = protalign.search("1bpi_A", earlier / "vectors.parquet", k=2)
    assert [hit.query for hit in hits] == ["1bpi_A", "1bpi_A"]
    assert all(-1 <= hit.cosine <= 1 for hit in hits)


def test_names_are_unknown(earlier: Path) -> None:
    """Neither its entries nor its vectors have names, and hits say so."""
    assert set(EmbeddingStore.open(earlier / "store.zarr").annotations) == {Annotation()}
    vectors = read_vectors(earlier / "vectors.parquet")
    assert vectors.annotations is None
    assert {hit.description for hit in protalign.search("1bpi_A", vectors)} == {None}


def test_a_store_is_read_with_a_new_one(earlier: Path, sample: Path) -> None:
    """Stores of both formats, of the same encoders, are read as one."""
    encoders = ["protalign_t6_2M", "proteinmpnn_v_48_020"]
    protalign.embed(sample / "110l_A.cif", earlier / "new.zarr", encoders)
    store = EmbeddingStore.open([earlier / "store.zarr", earlier / "new.zarr"])
    assert store.ids.tolist()[-2:] == ["fasta", "110l_A"]
    assert store.info()["format"] == "1.0, 1.1"
    assert set(store.annotations) == {Annotation()}
    assert store[["1bpi_A", "110l_A"]].embeddings("proteinmpnn_v_48_020").lengths[0] == 58


def test_a_store_is_added_to(earlier: Path, sample: Path) -> None:
    """New files go into an old store; what it had stays."""
    before = EmbeddingStore.open(earlier / "store.zarr").ids.tolist()
    report = protalign.embed([sample / "1a2p_A.pdb.gz"], earlier / "store.zarr")
    assert report.failures == []
    store = EmbeddingStore.open(earlier / "store.zarr")
    assert store.ids.tolist() == [*before, "1a2p_A"]
    assert set(store.annotations) == {Annotation()}
    assert verify(earlier / "store.zarr").ok
