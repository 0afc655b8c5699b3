"""``protalign search`` by files, ids and vectors, with TM-scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protalign import EmbeddingStore, read_vectors
from protalign.search.queries import stored_backbone
from protalign.search.superposition import tm_score
from tests.helpers.commands import run


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, sample: Path, encoder: str) -> Path:
    """Twelve sample chains as a store of chains, a model and exported vectors."""
    folder = tmp_path_factory.mktemp("search")
    files = sorted(path for path in sample.iterdir() if ".pdb" in path.name)[:12]
    store, model = folder / "store.zarr", folder / "model"
    run("embed", *files, "--out", store, "--sequence-encoder", encoder, "--per", "chain")
    run("fit", store, "--out", model, "--max-epochs", 5)
    run("export", store, "--model", model, "--out", folder / "vectors.parquet")
    return folder


def search(work: Path, *words: object) -> list[dict[str, Any]]:
    """Return the hits that --json prints."""
    done = run("search", *words, "--vectors", work / "vectors.parquet", "--json")
    hits: list[dict[str, Any]] = json.loads(done.stdout)["hits"]
    return hits


def refused(work: Path, *words: object) -> str:
    """Return the one line of a search that ends with exit code 2."""
    done = run("search", *words, "--vectors", work / "vectors.parquet", code=2)
    (line,) = done.stderr.splitlines()
    return line


def test_a_file_has_one_modality(work: Path, sample: Path, tmp_path: Path) -> None:
    """What to query with can be chosen of ids and vectors; of files alone it is refused."""
    entry = str(read_vectors(work / "vectors.parquet").ids[0])
    structure, fasta, model = sample / "1bpi_A.cif", tmp_path / "query.fasta", work / "model"
    fasta.write_text(">one\nRPDFCLEPPYTGPCKARIIRYFYNAKAG\n")
    for by in ("sequence", "structure"):
        for queries in ([structure], [fasta], ["RPDFCLEPPYTGPCKA"], [structure, fasta]):
            line = refused(work, *queries, "--model", model, "--query-by", by)
            assert f"query_by='{by}': it is for ids and vectors, and all queries are files" in line
            assert "leave query_by (--query-by) out" in line
        hits = search(work, entry, structure, "--model", model, "--query-by", by, "-k", 2)
        assert {hit["query"] for hit in hits} == {entry, "1bpi_A_A"}  # --per chain


def test_an_id_needs_no_model(work: Path) -> None:
    """Cosines are those of the file's vectors, lengths those of the hits."""
    vectors = read_vectors(work / "vectors.parquet")
    hits = search(work, *vectors.ids[:2], "-k", 3)
    cosines = vectors.sequence[:2] @ vectors.structure.T
    nearest = np.argsort(-cosines, axis=1)[:, :3]
    assert [hit["id"] for hit in hits] == vectors.ids[nearest.reshape(-1)].tolist()
    expected = np.take_along_axis(cosines, nearest, axis=1).reshape(-1)
    np.testing.assert_allclose([hit["cosine"] for hit in hits], expected, atol=1e-6)
    assert vectors.lengths is not None
    assert [hit["length"] for hit in hits] == vectors.lengths[nearest.reshape(-1)].tolist()
    first = vectors.ids[0]
    same = search(work, first, "--query-by", "structure", "--against", "structure", "-k", 1)
    assert same[0]["id"] == first
    assert same[0]["cosine"] == pytest.approx(1, abs=1e-5)


def test_a_sequence_finds_structures_and_a_structure_itself(finished: Path, tmp_path: Path) -> None:
    """A mutant that is not in the store has hits, best first; a structure file finds itself."""
    store = EmbeddingStore.open(finished / "store.zarr")
    letters = store.sequence("1b5m_A")[0]
    query = tmp_path / "query.fasta"
    query.write_text(f">mutant\n{letters[:20]}A{letters[21:]}\n")
    hits = search(finished, query, "--model", finished / "model", "-k", 3)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert hits[0]["cosine"] >= hits[1]["cosine"] >= hits[2]["cosine"]
    assert {hit["against"] for hit in hits} == {"structure"}
    table = run(
        *("search", store.source("1b5m_A"), "--vectors", finished / "vectors.parquet"),
        *("--model", finished / "model", "-k", 1, "--against", "structure", "--format", "tsv"),
    ).stdout.splitlines()
    assert table[1].split("\t")[:4] == ["1b5m_A", "1", "1b5m_A", "1.0000"]


def test_a_query_that_cannot_be_read_is_a_line(finished: Path, tmp_path: Path) -> None:
    """Search goes on with the other queries and exits with 3."""
    query = tmp_path / "query.fasta"
    query.write_text(">good\nMQIFVKTLTGKTITLEVEPSD\n>bad\nMQ1FVK\n")
    arguments = ("--vectors", finished / "vectors.parquet", "--model", finished / "model")
    done = run("search", query, *arguments, "-k", 1, code=3)
    assert "good" in done.stdout
    assert "(bad)" in done.stderr


def test_another_file_of_vectors_asks(work: Path, tmp_path: Path) -> None:
    """A Parquet file's entries are queries; vectors of another model are refused."""
    store = work / "store.zarr"
    ids = EmbeddingStore.open(store).ids[:2].tolist()
    (tmp_path / "two.txt").write_text("\n".join(ids))
    export = ("export", store, "--ids", tmp_path / "two.txt")
    run(*export, "--model", work / "model", "--out", tmp_path / "two.parquet")
    hits = search(work, tmp_path / "two.parquet", "-k", 2)
    same = search(work, *ids, "-k", 2)
    assert [(hit["query"], hit["id"]) for hit in hits] == [(h["query"], h["id"]) for h in same]
    run("fit", store, "--out", tmp_path / "other", "--max-epochs", 1, "--seed", 1)
    run(*export, "--model", tmp_path / "other", "--out", tmp_path / "other.parquet")
    assert "different models" in refused(work, tmp_path / "other.parquet")


def test_a_file_is_read_as_the_store_was(work: Path) -> None:
    """The vectors' file says per chain, so a structure file's chain finds its own vector."""
    store = EmbeddingStore.open(work / "store.zarr")
    path, entry = store.source(store.ids[3]), store.ids[3]
    arguments = ("--model", work / "model", "--against", "structure", "-k", 1, "--tm-score")
    (hit,) = search(work, path, *arguments)
    assert (hit["query"], hit["id"]) == (entry, entry)
    assert hit["cosine"] == pytest.approx(1, abs=1e-4)
    assert hit["tm_score"] == pytest.approx(1, abs=1e-3)
    assert "--model" in refused(work, path)


def test_each_chain_of_a_complex_is_a_query(work: Path, finished: Path, shared: Path) -> None:
    """If the store is one of chains; else the complex is one query. Chains have their own rows."""
    path = shared / "data" / "casf2016" / "1bcu" / "1bcu_protein.pdb.gz"
    by_chain = search(work, path, "--model", work / "model", "-k", 1)
    assert len(by_chain) > 1
    assert len({round(hit["cosine"], 6) for hit in by_chain}) == len(by_chain)
    (whole,) = search(finished, path, "--model", finished / "model", "-k", 1)
    assert whole["query"] == "1bcu"


def test_tm_scores_of_hits(work: Path, tmp_path: Path) -> None:
    """By the query's length, as a superposition of the store's coordinates gives; else none."""
    store = EmbeddingStore.open(work / "store.zarr")
    entry = store.ids[0]
    for hit in search(work, entry, "-k", 4, "--tm-score"):
        backbones = stored_backbone(store, entry), stored_backbone(store, str(hit["id"]))
        assert hit["tm_score"] == pytest.approx(tm_score(*backbones))
    query = tmp_path / "query.fasta"
    query.write_text(f">new\n{store.sequence(entry)[0]}\n")
    by_file = (query, "--model", work / "model", "-k", 1)
    line = refused(work, *by_file, "--tm-score")
    assert line == (
        "protalign: tm_score: the queries have no coordinates; search with structure files or ids, "
        "or leave it out"
    )
    assert refused(work, "MKVLAAGIVGLCAKAYLV", *by_file[1:], "--tm-score") == line
    scores = [hit["tm_score"] for hit in search(work, entry, *by_file, "--tm-score")]
    assert scores[0] is None
    assert scores[1] is not None
    line = refused(work, entry, "--tm-score", "--store", tmp_path / "gone.zarr")
    assert "name it with --store" in line


def test_a_name_that_is_nothing(work: Path) -> None:
    """Neither a file nor an id: an error, with ids that are close."""
    entry = read_vectors(work / "vectors.parquet").ids[0]
    line = refused(work, f"{entry}x")
    assert f"'{entry}x'" in line
    assert f"{entry}" in line.replace(f"{entry}x", "")
    assert "--format tsv: contradicts --json" in refused(work, entry, "--format", "tsv", "--json")


def test_an_id_is_not_taken_for_a_file(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PDBbind's folders bear the ids: the id asks, if it has vectors; ./id is the file."""
    entry = str(read_vectors(work / "vectors.parquet").ids[0])
    folder = work / "named"
    (folder / entry).mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert search(work, entry, "-k", 1)[0]["query"] == entry
    assert "--model" in refused(work, f"./{entry}")
    for nothing in ("", "1" * 300):
        assert f"'{nothing[:60]}'" in refused(work, nothing)


def test_a_sequence_with_a_stored_id_has_no_coordinates(work: Path, tmp_path: Path) -> None:
    """The TM-score is the query's own: none of a FASTA record, whatever it is called."""
    entry = str(read_vectors(work / "vectors.parquet").ids[0])
    query = tmp_path / "query.fasta"
    query.write_text(f">{entry}\nMKVLAAGIVGLCAKAYLVETRW\n>bad\nMK1\n")
    done = run(
        *("search", query, entry, "--vectors", work / "vectors.parquet", "-k", 1),
        *("--model", work / "model", "--tm-score", "--format", "tsv"),
        code=3,
    )
    assert "(bad)" in done.stderr
    header, record, stored = (line.split("\t") for line in done.stdout.splitlines())
    assert header == ["query", "rank", "id", "cosine", "length", "against", "tm_score"]
    assert record[0] == stored[0] == entry
    assert record[-1] == ""
    assert 0 < float(stored[-1]) <= 1


def test_a_second_stage_orders_by_residues(work: Path) -> None:
    """--rerank prints both scores and the E-value; --mode chooses the order; all is every entry."""
    first = str(read_vectors(work / "vectors.parquet").ids[0])
    model = ("--model", work / "model")
    hits = search(work, first, *model, "--rerank", 12, "-k", 12)
    scores = [hit["local_score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert {hit["evalue"] for hit in hits} == {None}  # twelve chains are too few to calibrate
    assert list(hits[0])[4:9] == ["local_score", "evalue", "backing", "probability", "global_score"]
    hits = search(work, first, *model, "--rerank", 12, "-k", 12, "--mode", "global")
    scores = [hit["global_score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    every = search(work, first, *model, "--rerank", "all", "-k", 12, "--mode", "global")
    assert [hit["id"] for hit in every] == [hit["id"] for hit in hits]
    wrong = run("search", first, "--vectors", work / "vectors.parquet", "--rerank", "every", code=2)
    assert "'every': give all, or a whole number of at least 0" in wrong.stderr
    assert "needs a model" in refused(work, first, "--rerank", 5)
    table = run("search", first, *model, "--rerank", 3, "--vectors", work / "vectors.parquet")
    assert "evalue" in table.stdout.splitlines()[0]
