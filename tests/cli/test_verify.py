"""``protalign verify``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from protalign import EmbeddingStore, read_vectors
from protalign.stores import VectorBatch, write_vectors
from tests.helpers.commands import run


def test_the_damaged_ids_are_named(embedded_few: Path, tmp_path: Path, encoder: str) -> None:
    """A whole store passes; one flipped byte is found, with exit code 3 and the ids it hit."""
    store = tmp_path / "store.zarr"
    shutil.copytree(embedded_few, store)
    assert "whole" in run("verify", store).stdout
    chunk = next((store / "encoders" / encoder / "values").glob("c*"))
    damaged = bytearray(chunk.read_bytes())
    damaged[1000] ^= 1
    chunk.write_bytes(bytes(damaged))
    text = run("verify", store, code=3).stdout
    assert EmbeddingStore.open(store).ids[0] in text
    assert text.count("restore it from a copy, or remove the store and embed its files again") == 1
    report = json.loads(run("verify", store, "--json", code=3).stdout)
    assert not report["ok"]
    assert EmbeddingStore.open(store).ids[0] in report["damaged_ids"]


@pytest.mark.parametrize("name", ["vectors.parquet", "model"])
def test_vectors_and_models(name: str, finished: Path, tmp_path: Path) -> None:
    """What `export` and `fit` write is checked too: a flipped bit in any file is found."""
    source, path = finished / name, tmp_path / name
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copyfile(source, path)
    assert "whole" in run("verify", path).stdout
    assert json.loads(run("verify", path, "--json").stdout)["ok"]
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        before = file.read_bytes()
        data = bytearray(before)
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
        lines = run("verify", path, code=3).stdout.splitlines()
        assert len(lines) >= 1
        report = json.loads(run("verify", path, "--json", code=3).stdout)
        assert report["problems"] == lines
        file.write_bytes(before)


def test_a_folder_that_lost_its_document(finished: Path, tmp_path: Path) -> None:
    """It is damaged, not "not a store": exit code 3, and the file that is missing."""
    vectors, cells = tmp_path / "vectors", tmp_path / "cells"
    few = finished / "store.zarr", "--model", finished / "model", "-q"
    run("export", *few, "--out", vectors)
    run("index", vectors, "--out", cells, "-q")
    run("index", *few, "--out", tmp_path / "words", "--words", 8)
    shutil.copytree(finished / "model", tmp_path / "model")
    for folder, document in (
        (vectors, "vectors.json"),
        (cells, "vector-index.json"),
        (tmp_path / "model", "config.json"),
        (tmp_path / "words", "index.json"),
    ):
        (folder / document).unlink()
        done = run("verify", folder, code=3)
        assert f"{folder}: it is damaged, {document} of " in done.stdout
        assert not json.loads(run("verify", folder, "--json", code=3).stdout)["ok"]


def test_a_foreign_table_in_a_folder_of_vectors(finished: Path, tmp_path: Path) -> None:
    """Other programs would read it too, as rows of the folder."""
    vectors = tmp_path / "vectors"
    store = finished / "store.zarr", "--model", finished / "model"
    run("export", *store, "--out", vectors, "-q")
    for name in ("part-00099.parquet", "more.PARQUET", "below/x.parquet"):
        (vectors / name).parent.mkdir(exist_ok=True)
        shutil.copy(vectors / "part-00000.parquet", vectors / name)
        problem = run("verify", vectors, code=3).stdout
        assert f"{vectors}: {name} is not a part of it" in problem
        (vectors / name).unlink()
    assert "it is whole" in run("verify", vectors).stdout


def test_what_is_none_of_these(tmp_path: Path) -> None:
    """A folder without a store, or nothing at all, is one line and exit code 2."""
    assert "is not a ProtAlign store" in run("verify", tmp_path, code=2).stderr
    assert "does not exist" in run("verify", tmp_path / "nothing", code=2).stderr


def test_an_index_is_compared_with_its_store(finished: Path, tmp_path: Path) -> None:
    """That which is recorded, if it is here, or that which is named; the output says which."""
    store, moved, index = (tmp_path / name for name in ("store.zarr", "moved.zarr", "index"))
    shutil.copytree(finished / "store.zarr", store)
    run("index", store, "--model", finished / "model", "--out", index, "--words", 8, "-q")
    same = f"{index}: it is whole, and its entries are those of {{}}\n"
    assert run("verify", index).stdout == same.format(store)
    assert json.loads(run("verify", index, "--json").stdout)["store"] == str(store)
    store.rename(moved)
    text = run("verify", index).stdout
    assert text == f"{index}: it is whole; its store is not here, and was not compared (--store)\n"
    assert json.loads(run("verify", index, "--json").stdout)["store"] is None
    assert run("verify", index, "--store", moved).stdout == same.format(moved)

    fasta = tmp_path / "other.fasta"
    fasta.write_text("".join(f">{entry}\nMKVLAAGIVG\n" for entry in EmbeddingStore.open(moved).ids))
    run("embed", fasta, "--out", store, "--sequence-encoder", "protalign_t6_2M",
        "--structure-encoder", "none")  # fmt: skip
    for words in ((), ("--store", store)):
        problem = run("verify", index, *words, code=3).stdout
        assert f"{store} have the same ids but other sequences than when it was built" in problem
    shutil.rmtree(store)
    store.mkdir()
    (store / "zarr.json").write_text("{")
    text = run("verify", index).stdout
    assert text.startswith(f"{index}: it is whole; its store was not compared: {store}")
    run("verify", index, "--store", tmp_path / "nothing", code=2)
    (line,) = run("verify", moved, "--store", moved, code=2).stderr.splitlines()
    assert line.endswith(f"--store: {moved} is not an index of words; leave the option out")
    (line,) = run("verify", index, index, "--store", moved, code=2).stderr.splitlines()
    assert line.endswith(f"{index}: only stores are checked together; check it alone")


def test_a_store_that_has_grown_since_its_index(finished: Path, tmp_path: Path) -> None:
    """The index is whole, but it lacks entries: exit code 0, how many, and what to do."""
    store, index = tmp_path / "store.zarr", tmp_path / "index"
    shutil.copytree(finished / "store.zarr", store)
    build = ("index", store, "--model", finished / "model", "--out", index, "--words", 8, "-q")
    run(*build)
    assert json.loads(run("verify", index, "--json").stdout)["lacking"] == 0
    fasta = tmp_path / "later.fasta"
    fasta.write_text("".join(f">later{n}\nMKVLAAGIVG{'KLA' * n}\n" for n in range(3)))
    run("embed", fasta, "--out", store, "--sequence-encoder", "protalign_t6_2M", "-q")
    lacks = "it lacks 3 entries of {}, which cannot be found; run `protalign index` again\n"
    assert run("verify", index).stdout == f"{index}: it is whole, but {lacks.format(store)}"
    document = json.loads(run("verify", index, "--json").stdout)
    assert (document["ok"], document["problems"], document["lacking"]) == (True, [], 3)
    searched = run("search", "1a2p_A", "--index", index, "--model", finished / "model")
    assert searched.stderr.endswith(f"{index}: {lacks.format('the store')}")
    run(*build)
    assert run("verify", index).stdout.endswith(f"whole, and its entries are those of {store}\n")


def test_an_index_is_compared_with_its_vectors(finished: Path, tmp_path: Path) -> None:
    """Those that are named: it does not record where they are, and the output says so."""
    vectors, index = tmp_path / "vectors", tmp_path / "index"
    few = finished / "store.zarr", "--model", finished / "model", "-q"
    run("export", *few, "--out", vectors)
    run("index", vectors, "--out", index, "-q")
    alone = run("verify", index).stdout
    assert alone == f"{index}: it is whole; its vectors were not compared (--vectors)\n"
    assert json.loads(run("verify", index, "--json").stdout)["vectors"] is None
    same = f"{index}: it is whole, and its vectors are those of {{}}\n"
    for its_own in (vectors, finished / "vectors.parquet"):
        assert run("verify", index, "--vectors", its_own).stdout == same.format(its_own)
    document = json.loads(run("verify", index, "--vectors", vectors, "--json").stdout)
    assert (document["ok"], document["vectors"]) == (True, str(vectors))

    every = read_vectors(finished / "vectors.parquet")
    others = (
        VectorBatch(every.ids.tolist(), every.sequence, every.structure[:, ::-1]),
        VectorBatch(every.ids[1:].tolist(), every.sequence[1:], every.structure[1:]),
    )
    for number, other in enumerate(others):
        path = tmp_path / f"{number}.parquet"
        write_vectors(path, [other], dim=every.dim, metadata={})
        problem = run("verify", index, "--vectors", path, code=3).stdout
        assert problem.startswith(f"{index}: it is an index of other vectors; ")
    (tmp_path / "1.parquet").write_bytes(b"PAR1")
    assert "1.parquet" in run("verify", index, "--vectors", tmp_path / "1.parquet", code=3).stdout
    run("verify", index, "--vectors", tmp_path / "nothing", code=2)
    (line,) = run("verify", vectors, "--vectors", vectors, code=2).stderr.splitlines()
    assert line.endswith(f"--vectors: {vectors} is not an index of vectors; leave the option out")


def test_a_damaged_store_hides_nothing_of_an_index(finished: Path, tmp_path: Path) -> None:
    """Both are named, with exit code 3: what was asked for cannot be answered."""
    store, index = tmp_path / "store.zarr", tmp_path / "index"
    shutil.copytree(finished / "store.zarr", store)
    run("index", store, "--model", finished / "model", "--out", index, "--words", 8, "-q")
    words = next(index.glob("*/*words*"))
    words.write_bytes(words.read_bytes()[:-1])
    for ids in (store / "entries" / "id").rglob("c.*"):
        ids.write_bytes(bytes(byte ^ 1 for byte in ids.read_bytes()))
    for named in ((), ("--store", store)):
        problems = json.loads(run("verify", index, "--json", *named, code=3).stdout)["problems"]
        assert any(words.name in problem for problem in problems)
        assert not named or any("its store was not compared" in problem for problem in problems)
