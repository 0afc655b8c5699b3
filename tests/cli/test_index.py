"""``protalign index``, and searches by what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protalign import EmbeddingStore
from tests.helpers.commands import run


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    """An index of the finished store. Only to be read."""
    path = tmp_path_factory.mktemp("indexed") / "index"
    words = ("index", finished / "store.zarr", "--model", finished / "model", "--words", 50)
    report = json.loads(run(*words, "--out", path, "--json").stdout)
    assert report["new"]
    assert report["added"] == report["entries"] == {"sequence": 40, "structure": 40}
    done = run(*words, "--out", path)
    assert done.stdout == f"{path}: nothing is new; it has 40 sequences and 40 structures\n"
    return path


def test_a_sequence_finds_its_structure_and_a_structure_its_sequence(
    finished: Path, indexed: Path, tmp_path: Path
) -> None:
    """A file that is in no store finds the chain that it was taken from, by words and residues."""
    store = EmbeddingStore.open(finished / "store.zarr")
    entry = "1bpi_A"
    query = tmp_path / "query.fasta"
    query.write_text(f">mine\n{store.sequence(entry)[0]}\n")
    by = ("--index", indexed, "--model", finished / "model", "--mode", "global")
    (hit,) = json.loads(run("search", query, *by, "-k", 1, "--json").stdout)["hits"]
    assert (hit["query"], hit["id"], hit["against"]) == ("mine", entry, "structure")
    assert list(hit)[4:9] == ["local_score", "evalue", "backing", "probability", "global_score"]
    assert -1 <= hit["cosine"] <= 1
    by = (*by, "--rerank", 5, "--tm-score")
    table = run("search", store.source(entry), *by).stdout
    header, first, *others = table.splitlines()
    assert header.split()[:3] == ["query", "rank", "id"]
    assert first.split()[:3] == [entry, "1", entry]
    assert len(others) == 4
    report = json.loads(run("verify", indexed, "--json").stdout)
    assert report["ok"]


def test_mistakes_are_one_line(finished: Path, indexed: Path, tmp_path: Path) -> None:
    """Neither vectors nor an index, no model, another folder: exit code 2."""
    model = ("--model", finished / "model")
    out, vectors = ("--out", tmp_path / "new"), finished / "vectors.parquet"
    for store in ("missing.zarr", "missing/", "missing*.zarr"):
        problem = run("index", tmp_path / store, *out, code=2).stderr
        assert "no store matches" in problem or "does not exist" in problem
    assert "is not a ProtAlign store" in run("index", tmp_path, *out, code=2).stderr
    assert "--model: it is missing" in run("index", finished / "store.zarr", *out, code=2).stderr
    for option in (model, ("--seed", 0), ("--words", 64), ("--scheduler", "tcp://a:1")):
        problem = run("index", vectors, *out, *option, code=2).stderr
        assert f"{option[0]}: indexing vectors does without; leave the option out" in problem
    for words in (
        ("search", "1b5m_A"),
        ("search", "1b5m_A", "--index", indexed),
        ("search", "1b5m_A", "--index", tmp_path, *model),
        ("search", "1b5m_A", "--index", indexed, "--vectors", finished / "vectors.parquet"),
        ("index", finished / "store.zarr", *model, "--out", finished / "store.zarr"),
        ("verify", indexed, "--upgrade"),
    ):
        done = run(*words, code=2)
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "; " in done.stderr


def test_an_index_keeps_its_number_of_words(finished: Path, tmp_path: Path) -> None:
    """Another number, or another seed, is refused: what is added gets the words that it has."""
    path = tmp_path / "index"
    words = ("index", finished / "store.zarr", "--model", finished / "model", "--out", path)
    run(*words, "--words", 7, "--seed", 1)
    before = (path / "index.json").read_bytes()
    for option, built_with in ((("--words", 5), "7 words"), (("--words", 8), "7 words"),
                               (("--seed", 0), "seed 1")):  # fmt: skip
        (line,) = run(*words, *option, code=2).stderr.splitlines()
        assert f"{path}: it was built with {built_with}, not {option[1]}, and " in line
        assert f"({option[0]}) out, or name another folder for a new index" in line
    for same in ((), ("--words", 7), ("--seed", 1)):
        assert "nothing is new" in run(*words, *same).stdout
    assert (path / "index.json").read_bytes() == before
