"""``protalign search`` by files, ids and vectors, with TM-scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from protalign.cli.app import app
from protalign.core.errors import InputError, ModelError, ProtAlignError
from protalign.embedding import choose_encoder, embed
from protalign.encoders import EncoderSpec
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.reading import ReadOptions
from protalign.search.queries import embed_queries, read_options, stored_backbone
from protalign.search.superposition import tm_score
from protalign.stores import EmbeddingStore, read_vectors

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """Twelve sample chains as a store of chains, a model and exported vectors."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "files").mkdir()
    for path in sorted(path for path in sample.iterdir() if ".pdb" in path.name)[:12]:
        (folder / "files" / path.name).symlink_to(path)
    names = {"sequence": "protalign_t6_2M", "structure": "proteinmpnn_v_48_020"}
    choices = [
        choose_encoder(m, EncoderSpec(name, device="cpu"), "", folder / "store.zarr")
        for m, name in names.items()
    ]
    embed([folder / "files"], folder / "store.zarr", choices, options=ReadOptions(per="chain"))
    store = EmbeddingStore.open(folder / "store.zarr")
    estimator = ProtAlignEstimator(max_epochs=5, random_state=0, device="cpu").fit(store)
    estimator.export(store, folder / "vectors.parquet")
    estimator.save(folder / "model")
    return folder


def search(work: Path, *arguments: object) -> list[dict[str, object]]:
    """The hits, as --format json gives them; errors are raised."""
    words = ["search", *map(str, arguments), "--vectors", str(work / "vectors.parquet")]
    done = RUNNER.invoke(app, [*words, "--format", "json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["hits"]


def test_an_id_needs_no_model(work: Path) -> None:
    """Cosines are those of the file's vectors, lengths those of the hits."""
    vectors = read_vectors(work / "vectors.parquet")
    first, second = vectors.ids[:2].tolist()
    hits = search(work, first, second, "-k", "3")
    expected = vectors.search(vectors.sequence[:2], 3)
    assert [hit["id"] for hit in hits] == vectors.ids[expected[0].reshape(-1)].tolist()
    np.testing.assert_allclose([hit["cosine"] for hit in hits], expected[1].reshape(-1), atol=1e-6)
    assert vectors.lengths is not None
    assert [hit["length"] for hit in hits] == vectors.lengths[expected[0].reshape(-1)].tolist()
    same = search(work, first, "--query-by", "structure", "--against", "structure", "-k", "1")
    assert same[0]["id"] == first
    assert same[0]["cosine"] == pytest.approx(1, abs=1e-5)


def test_another_file_of_vectors_asks(work: Path, tmp_path: Path) -> None:
    """A Parquet file's entries are queries; vectors of another model are refused."""
    store = EmbeddingStore.open(work / "store.zarr")
    ProtAlignEstimator.load(work / "model").export(store[:2], tmp_path / "two.parquet")
    hits = search(work, tmp_path / "two.parquet", "-k", "2")
    same = search(work, *store.ids[:2], "-k", "2")
    assert [(hit["query"], hit["id"]) for hit in hits] == [(h["query"], h["id"]) for h in same]
    other = ProtAlignEstimator(max_epochs=1, random_state=1, device="cpu").fit(store)
    other.export(store[:2], tmp_path / "other.parquet")
    with pytest.raises(ModelError, match="different models"):
        search(work, tmp_path / "other.parquet")


def test_a_file_is_read_as_the_store_was(work: Path) -> None:
    """The vectors' file says per chain, so a structure file's chain finds its own vector."""
    vectors = read_vectors(work / "vectors.parquet")
    assert read_options(vectors) == ReadOptions(per="chain")
    store = EmbeddingStore.open(work / "store.zarr")
    path, entry = store.source(store.ids[3]), store.ids[3]
    arguments = ("--model", work / "model", "--against", "structure", "-k", "1", "--tm-score")
    (hit,) = search(work, path, *arguments)
    assert (hit["query"], hit["id"]) == (entry, entry)
    assert hit["cosine"] == pytest.approx(1, abs=1e-4)
    assert hit["tm_score"] == pytest.approx(1, abs=1e-3)
    with pytest.raises(InputError, match="give --model"):
        search(work, path)


def test_each_chain_of_a_complex_is_a_query(work: Path, shared: Path) -> None:
    """Chains of one file are pooled from their own rows, not from the whole complex's."""
    path = shared / "data" / "casf2016" / "1bcu" / "1bcu_protein.pdb.gz"
    estimator = ProtAlignEstimator.load(work / "model").set_params(device="cpu")
    found = embed_queries([path], estimator, options=ReadOptions(per="chain"), device="cpu")
    whole = embed_queries([path], estimator, device="cpu")
    assert len(found.ids) > 1
    assert found.lengths[0] == len(found.backbones[0])
    assert len(whole.ids) == 1
    assert not np.allclose(found.vectors[0], found.vectors[1])


def test_tm_scores_of_hits(work: Path, tmp_path: Path) -> None:
    """By the query's length, as a superposition of the store's coordinates gives; else none."""
    store = EmbeddingStore.open(work / "store.zarr")
    entry = store.ids[0]
    for hit in search(work, entry, "-k", "4", "--tm-score"):
        backbones = stored_backbone(store, entry), stored_backbone(store, str(hit["id"]))
        assert hit["tm_score"] == pytest.approx(tm_score(*backbones))
    query = tmp_path / "query.fasta"
    query.write_text(f">new\n{store.sequence(entry)[0]}\n")
    hits = search(work, query, "--model", work / "model", "-k", "1", "--tm-score")
    assert hits[0]["tm_score"] is None
    with pytest.raises(ProtAlignError, match="name it with --store"):
        search(work, entry, "--tm-score", "--store", tmp_path / "gone.zarr")


def test_a_name_that_is_nothing(work: Path) -> None:
    """Neither a file nor an id: told, with what is close."""
    entry = read_vectors(work / "vectors.parquet").ids[0]
    with pytest.raises(
        InputError, match=rf"the vectors have no '{entry}x'; close to it: .*{entry}"
    ):
        search(work, f"{entry}x")


def test_fit_and_score_take_a_split(work: Path, tmp_path: Path) -> None:
    """Eight entries train, two stop training, two are tested; other files of ids are refused."""
    store = EmbeddingStore.open(work / "store.zarr")
    parts = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    table = tmp_path / "table.csv"
    rows = [f"{i},{part}\n" for i, part in zip(store.ids, parts, strict=True)]
    table.write_text("id,split\n" + "".join(rows))
    split = tmp_path / "split.csv"

    def run(*words: object) -> dict[str, Any]:
        done = RUNNER.invoke(app, [*map(str, words), "--json"])
        if isinstance(done.exception, ProtAlignError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    where = work / "store.zarr"
    made = run("split", where, "--by", "column", table, "--out", split)
    assert made["counts"] == {"train": 8, "validation": 2, "test": 2}
    fitted = run("fit", where, "--out", tmp_path / "m", "--split", split, "--max-epochs", "2")
    assert fitted["pairs"] == 8
    assert ProtAlignEstimator.load(tmp_path / "m").n_validation_pairs_ == 2
    scored = run("score", where, "--model", tmp_path / "m", "--split", split, "--part", "train")
    assert scored["n_queries"] == 8
    assert run("score", where, "--model", tmp_path / "m", "--split", split)["n_queries"] == 2
    with pytest.raises(InputError, match="--split says which entries are meant"):
        run("score", where, "--model", tmp_path / "m", "--split", split, "--ids", table)
    with pytest.raises(InputError, match="a table goes with --by column"):
        run("split", where, "--by", "column", "--out", split)


def test_an_id_is_not_taken_for_a_file(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PDBbind's folders bear the ids: the id asks, its vectors being there; ./id is the file."""
    entry = str(read_vectors(work / "vectors.parquet").ids[0])
    folder = work / "named"
    (folder / entry).mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert search(work, entry, "-k", "1")[0]["query"] == entry
    with pytest.raises(InputError, match="give --model"):
        search(work, f"./{entry}")
    for nothing in ("", "x" * 300):
        with pytest.raises(InputError, match="the vectors have no"):
            search(work, nothing)


def test_a_sequence_with_a_stored_id_has_no_coordinates(work: Path, tmp_path: Path) -> None:
    """The TM-score is the query's own: none of a FASTA record, whatever it is called."""
    entry = str(read_vectors(work / "vectors.parquet").ids[0])
    query = tmp_path / "query.fasta"
    query.write_text(f">{entry}\nMKVLAAGIVGLCAKAYLVETRW\n>bad\nMK1\n")
    words = ["search", query, entry, "--vectors", work / "vectors.parquet", "-k", "1"]
    words += ["--model", work / "model", "--tm-score", "--format", "tsv"]
    done = RUNNER.invoke(app, [*map(str, words)])
    assert done.exit_code == 3
    assert "(bad)" in done.stderr
    header, record, stored = (line.split("\t") for line in done.stdout.splitlines())
    assert header == ["query", "rank", "id", "cosine", "length", "against", "tm_score"]
    assert record[0] == stored[0] == entry
    assert record[-1] == ""
    assert 0 < float(stored[-1]) <= 1
