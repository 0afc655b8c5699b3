"""Commands on several stores, as the tasks of a cluster leave them, and on one of all proteins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from protalign import EmbeddingStore, ProtAlignEstimator
from protalign.core.errors import InputError
from protalign.searching import ready_targets
from protalign.stores import read_vectors
from tests.helpers.commands import run
from tests.helpers.estimator_stores import build, read, renamed, sequence_only


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """A folder of one.zarr and shards/{9,10,11}.zarr: the same entries, in the same order.

    The last one has the first one's content, under another id and in another store.
    """
    folder = tmp_path_factory.mktemp("places")
    chains = read(sample)[:8]
    proteins = [*chains, sequence_only("fasta", "MKTAYIAKQRQISFVKSHF"), renamed(chains[0], "copy")]
    build(folder / "one.zarr", proteins)
    (folder / "shards").mkdir()
    for name, part in (("9", proteins[:3]), ("10", proteins[3:4]), ("11", proteins[4:])):
        build(folder / "shards" / f"{name}.zarr", part)
    for store in ("one.zarr", "shards/*.zarr"):
        name = store.partition("/")[0].partition(".")[0]
        run("fit", folder / store, "--out", folder / f"{name}.model", "--max-epochs", "2", "-q")
        out = folder / f"{name}.parquet"
        run("export", folder / store, "--model", folder / "one.model", "--out", out, "-q")
    return folder


def test_fit_is_that_of_one_store(places: Path) -> None:
    """The same pairs, each content once, and the same weights."""
    one, union = (places / f"{name}.model" / "model.safetensors" for name in ("one", "shards"))
    assert one.read_bytes() == union.read_bytes()


def test_export_is_that_of_one_store(places: Path) -> None:
    """The same vectors for each id; the file says where the stores lie."""
    one, union = (read_vectors(places / f"{name}.parquet") for name in ("one", "shards"))
    assert one.ids.tolist() == union.ids.tolist()
    np.testing.assert_array_equal(one.sequence, union.sequence)
    np.testing.assert_array_equal(one.structure, union.structure)
    assert union.metadata["store"]["path"] == str(places / "shards" / "*.zarr")


def test_search_opens_the_recorded_stores(places: Path) -> None:
    """Residues and coordinates come from all stores: the same hits as in one store."""
    words = ("search", "110l_A", "fasta", "--model", places / "one.model", "--rerank", 5, "--json")
    one, union = (
        json.loads(run(*words, "--vectors", places / f"{name}.parquet").stdout)
        for name in ("one", "shards")
    )
    assert one == union
    assert len(union["hits"]) == 10


def test_search_takes_several_stores(places: Path, tmp_path: Path) -> None:
    """--store several times, and vectors that were exported from a list of paths."""
    shards = [places / "shards" / f"{number}.zarr" for number in (9, 10, 11)]
    vectors = tmp_path / "vectors.parquet"
    run("export", *shards, "--model", places / "one.model", "--out", vectors, "-q")
    assert read_vectors(vectors).metadata["store"]["paths"] == list(map(str, shards))
    words = ("search", "110l_A", "--vectors", vectors, "--tm-score", "--json", "-k", 10)
    given = run(*words, *(word for shard in shards for word in ("--store", shard))).stdout
    hits = {hit["id"]: hit for hit in json.loads(given)["hits"]}
    assert hits["copy"]["tm_score"] > 0.99


def test_an_index_of_several_stores(places: Path, tmp_path: Path) -> None:
    """It is made, found complete, and searched; an id of each store is among the hits."""
    words = ("index", places / "shards" / "*.zarr", "--model", places / "one.model")
    run(*words, "--out", tmp_path / "index", "--words", 32, "-q")
    again = json.loads(run(*words, "--out", tmp_path / "index", "--json").stdout)
    assert again["added"] == {"sequence": 0, "structure": 0}
    searched = ("search", "110l_A", "--index", tmp_path / "index", "--model", places / "one.model")
    hits = json.loads(run(*searched, "-k", 20, "--json").stdout)["hits"]
    ids = {hit["id"] for hit in hits}
    assert len(ids) == 9
    assert "copy" in ids


def test_info_and_verify(places: Path) -> None:
    """Counts of all stores, equal content once; every chunk of each is read."""
    pattern = places / "shards" / "*.zarr"
    facts = json.loads(run("info", pattern, "--json").stdout)
    assert (facts["stores"], facts["entries"], facts["unique_structures"]) == (3, 10, 8)
    assert "stores                          3" in run("info", pattern).stdout
    checked = json.loads(run("verify", pattern, "--json").stdout)
    alone = json.loads(run("verify", places / "shards" / "10.zarr", "--json").stdout)
    assert checked["ok"]
    assert checked["chunks"] > 2 * alone["chunks"]
    run("verify", pattern, places / "one.parquet", code=2)


def test_align_is_that_of_one_store(places: Path) -> None:
    """The rows of both sides come from whichever store has the id."""
    words = ("align", "fasta", "copy", "--model", places / "one.model", "--json", "--store")
    stores = (places / "one.zarr", places / "shards" / "*.zarr")
    one, union = (run(*words, store).stdout for store in stores)
    assert one == union
    assert json.loads(one)["results"]


def test_split_score_and_evaluate(places: Path, tmp_path: Path) -> None:
    """The reports on several stores are those on one, but for its path."""
    split = tmp_path / "split.csv"
    shards, one = places / "shards" / "*.zarr", places / "one.zarr"
    run("split", shards, "--by", "cluster", "--out", split, "--method", "kmer")
    options = ("--model", places / "one.model", "--split", split, "--json")
    assert run("score", shards, *options).stdout == run("score", one, *options).stdout
    reports = [
        json.loads(run("evaluate", store, *options, "--bootstrap", 0, "--method", "kmer").stdout)
        for store in (shards, one)
    ]
    assert reports[0].pop("store") == str(shards)
    assert reports[1].pop("store") == str(one)
    assert reports[0] == reports[1]


def test_scikit_learn_cuts_several_stores(places: Path) -> None:
    """Cross-validation gives the scores of the one store."""
    estimator = ProtAlignEstimator(max_epochs=1, random_state=0, device="cpu")
    scores = [
        cross_val_score(estimator, store[store.has_structure], cv=2)
        for store in map(EmbeddingStore.open, (places / "one.zarr", places / "shards" / "*.zarr"))
    ]
    np.testing.assert_array_equal(*scores)


def test_targets_are_several_stores(places: Path, tmp_path: Path) -> None:
    """A server's targets: a pattern, or several stores; their vectors are made."""
    pattern = [places / "shards" / "*.zarr"]
    listed = [places / "shards" / f"{number}.zarr" for number in (9, 10, 11)]
    for targets in (pattern, listed):
        ready = ready_targets(targets, model=places / "one.model", cache=tmp_path)
        assert len(ready.side.vectors) == len(ready.side.store) == 10
    more = tmp_path / "more"
    more.mkdir()
    for number, entries in (("10", 1), ("11", 7)):  # a shard that comes while a server runs
        (more / f"{number}.zarr").symlink_to(places / "shards" / f"{number}.zarr")
        ready = ready_targets(more / "*.zarr", model=places / "one.model", cache=tmp_path)
        assert len(ready.side.vectors) == entries
    for pattern in ("none*.zarr", "*.parquet"):  # no store among what matches
        with pytest.raises(InputError, match=r"^.*\*\.\w+: no store matches; check the pattern$"):
            ready_targets(places / pattern, model=places / "one.model", cache=tmp_path)


def test_a_missing_file_with_a_bracket_is_one_failure(sample: Path, tmp_path: Path) -> None:
    """It looks like a pattern of stores; the other files are searched."""
    files = [sample / "1bpi_A.cif", tmp_path / "seqs[1].fasta"]
    assert [failure.file for failure in ready_targets(files, cache=tmp_path).side.failures] == [
        str(files[1])
    ]


def test_mistakes_are_one_line(places: Path, sample: Path) -> None:
    """No match; a pattern to write to; a store of another kind among them."""
    done = run("fit", places / "none*.zarr", "--out", places / "new", code=2)
    assert done.stderr == f"protalign: {places}/none*.zarr: no store matches; check the pattern\n"
    for words in (
        ("easy-search", sample / "1bpi_A.cif", places / "none*.zarr", places / "hits.m8"),
        ("easy-search", places / "none*.zarr", places / "one.zarr", places / "hits.m8"),
        ("serve", places / "none*.zarr"),
    ):
        line = f"{places}/none*.zarr: no store matches; check the pattern\n"
        assert run(*words, code=2).stderr.endswith(line)
    words = ("search", "110l_A", "--vectors", places / "one.parquet", "--tm-score")
    done = run(*words, "--store", places / "none*.zarr", code=2)
    assert (
        done.stderr
        == f"protalign: {places}/none*.zarr: the store is missing; name it with --store\n"
    )
    done = run("embed", sample, "--out", places / "?.zarr", code=2)
    assert "a pattern of stores can only be read; name one store to write to" in done.stderr
    assert done.stderr.count("\n") == 1
