"""``protalign easy-search`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protalign.heads.model import Model
from protalign.heads.shipped import SHIPPED, shipped_model, worth
from protalign.search.alignment_formats import M8_COLUMNS
from protalign.stores import EmbeddingStore
from tests.helpers.commands import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    """A folder with a query and the first search's file of hits and cache."""
    folder = tmp_path_factory.mktemp("easy")
    [sequence] = EmbeddingStore.open(finished / "store.zarr").sequence("1bpi_A")
    (folder / "query.fasta").write_text(f">query\n{sequence}\n")
    run("easy-search", folder / "query.fasta", finished / "store.zarr", folder / "hits.m8")
    return folder


def test_one_command_finds_the_own_structure(folder: Path) -> None:
    """An m8 file without a header; the first hit is the query's own structure, whole."""
    rows = [line.split("\t") for line in (folder / "hits.m8").read_text().splitlines()]
    assert {len(row) for row in rows} == {len(M8_COLUMNS)}
    best = dict(zip(M8_COLUMNS, rows[0], strict=True))
    assert (best["query"], best["target"], best["fident"]) == ("query", "1bpi_A", "1.000")
    assert (best["qstart"], best["qend"], best["tstart"], best["tend"]) == ("1", "58", "1", "58")
    assert float(best["evalue"]) < 1e-6
    assert all(float(row[M8_COLUMNS.index("evalue")]) <= 10 for row in rows)
    assert (folder / "protalign-cache").is_dir()


def test_it_says_which_model_it_took_and_what_that_is_worth(folder: Path, finished: Path) -> None:
    """One line; a model that is named, by its training."""
    words = ["easy-search", folder / "query.fasta", finished / "store.zarr"]
    done = run(*words, folder / "again.m8")
    assert f"model: {SHIPPED}; {worth()}" in done.stderr.splitlines()
    assert "residues in" not in done.stderr  # nothing is embedded again
    assert (folder / "again.m8").read_bytes() == (folder / "hits.m8").read_bytes()
    own = ["--model", finished / "model"]  # of too few proteins for E-values
    done = run(*words, folder / "own.m8", *own, "--format-output", "query,target,score")
    assert "trained on 20 pairs" in done.stderr
    done = run(*words, folder / "own.m8", *own, code=2)
    assert "evalue, bits: the model's residue stage is not calibrated" in done.stderr
    columns = ["--format-output", "query,target"]
    done = run(*words, folder / "own.m8", *own, *columns, "--min-prob", 0.5, code=2)
    assert "min_prob: the model's residue stage is not calibrated" in done.stderr
    assert run(*words, folder / "quiet.m8", "--quiet").stderr == ""


def test_several_files_come_of_one_run(folder: Path, finished: Path) -> None:
    """By their suffixes; filters and columns are those of ``search``."""
    words = ["easy-search", folder / "query.fasta", finished / "store.zarr", folder / "a.json"]
    words += ["-o", folder / "a.tsv.gz", "--format-output", "query,target,tcov", "--min-cov", 0.9]
    run(*words, "--max-evalue", 1e-6)
    hits = json.loads((folder / "a.json").read_text())
    assert "1bpi_A" in json.dumps(hits)
    assert "1cdc_B" not in json.dumps(hits)
    assert (folder / "a.tsv.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_a_least_probability_takes_the_place_of_the_highest_evalue(
    folder: Path, finished: Path
) -> None:
    """With 0 all are given, also those above E = 10; with 0.5 those that have it."""
    words = ["easy-search", folder / "query.fasta", finished / "store.zarr", folder / "p.tsv"]
    words += ["--format-output", "evalue,prob"]
    found = {}
    for least in (0, 0.5):
        run(*words, "--min-prob", least)
        lines = (folder / "p.tsv").read_text().splitlines()[1:]  # the first names them
        found[least] = [tuple(map(float, line.split("\t"))) for line in lines]
    assert len(found[0]) == len(EmbeddingStore.open(finished / "store.zarr"))
    assert max(evalue for evalue, _ in found[0]) > 10
    assert found[0.5] == [row for row in found[0] if row[1] >= 0.5]
    assert len(found[0.5]) >= 1
    run(*words, "--min-prob", 0, "--max-evalue", 20)
    both = [line.split("\t") for line in (folder / "p.tsv").read_text().splitlines()[1:]]
    assert 10 < max(float(evalue) for evalue, _ in both) <= 20


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["missing.fasta", "store", "hits.m8"], "missing.fasta: it does not exist"),
        (["query.fasta", "query.fasta", "hits.m8"], "no structures"),
        (["query.fasta", "store", "hits.doc"], "hits.doc"),
        (["query.fasta", "store", "hits.m8", "--model", "query.fasta"], "query.fasta"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], problem: str, folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and no file of hits."""
    monkeypatch.chdir(folder)
    given = [str(finished / "store.zarr") if word == "store" else word for word in words]
    (folder / "hits.m8").rename(folder / "kept.m8")
    done = run("easy-search", *given, "--quiet", code=2)
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "hits.m8").exists()
    (folder / "kept.m8").rename(folder / "hits.m8")


def test_a_file_that_cannot_be_read_is_named(folder: Path, finished: Path, tmp_path: Path) -> None:
    """Exit code 3; the others are searched."""
    (tmp_path / "bad.fasta").write_text(">x\n12345\n")
    (tmp_path / "good.fasta").write_bytes((folder / "query.fasta").read_bytes())
    out = tmp_path / "hits.m8"
    done = run("easy-search", tmp_path, finished / "store.zarr", out, code=3)
    assert "bad.fasta" in done.stderr
    assert out.read_text() == (folder / "hits.m8").read_text()


def test_the_shipped_model_is_whole_and_small() -> None:
    """Its parts are as they were written, and it takes at most 3 MB."""
    run("verify", shipped_model())
    assert sum(file.stat().st_size for file in shipped_model().iterdir()) <= 3_000_000
    model = Model.load(shipped_model())
    assert model.residue_scorer().calibration is not None
    assert {record.model for record in model.encoders.values()} == {
        *("protalign_t6_2M", "proteinmpnn_v_48_020")
    }
