"""Names and remarks on the command line: nothing forges a line, nothing is unsaid."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from protalign import EmbeddingStore
from protalign.core.notes import NoteCounter
from protalign.splits.split import Split, read_split, write_split
from tests.helpers.commands import PROTALIGN, run

ALONE = ("--structure-encoder", "none")


@pytest.fixture
def two(tmp_path: Path, sample: Path) -> Path:
    """A folder with two files: unknown residues in one, two models in the other."""
    folder = tmp_path / "two"
    folder.mkdir()
    text = gzip.decompress((sample / "1vqb_A.pdb.gz").read_bytes()).decode()
    (folder / "x.pdb").write_text(text.replace("GLU A", "QQQ A"))
    atoms = "".join(line for line in text.splitlines(True) if line.startswith("ATOM"))
    models = "".join(f"MODEL     {n:4d}\n{atoms}ENDMDL\n" for n in (1, 2, 3))
    (folder / "models.pdb").write_text(models + "END\n")
    return folder


def test_embed_shows_the_notes(two: Path, tmp_path: Path, encoder: str) -> None:
    """One of each kind, on standard error; the store keeps all; --json has them."""
    store = tmp_path / "store.zarr"
    done = run("embed", two, "--out", store, "--sequence-encoder", encoder, *ALONE)
    lines = done.stderr.splitlines()
    where = lines.index("2 notes:")
    assert lines[where + 1].startswith("  models: the first of its 3 models was read; to read")
    assert lines[where + 2].startswith("  x: 4 residues read as X, of unknown type: QQQ")
    assert "read as X" in EmbeddingStore.open(store).notes("x")[0]
    listed = run("info", store, "--notes").stdout.splitlines()
    assert listed[listed.index("2 notes:") + 1 :] == lines[where + 1 : where + 3]
    assert set(json.loads(run("info", store, "--notes", "--json").stdout)["notes"]) == {
        "x",
        "models",
    }
    command = ("embed", two, "--sequence-encoder", encoder, *ALONE, "--json", "--out")
    report = json.loads(run(*command, tmp_path / "other.zarr").stdout)
    assert [note["id"] for note in report["notes"]] == ["models", "x"]
    assert json.loads(run(*command, store).stdout)["notes"] == []


def test_notes_of_one_kind_are_counted() -> None:
    """Chains, numbers and names do not make another kind."""
    counter = NoteCounter()
    counter.add("a", ["chain A: one residue, left out", "3 residues read as X, of type: QQQ"])
    counter.add("b", ["chain B2: one residue, left out", "1,200 residues read as X, of type: UNK"])
    assert [(note.id, note.count) for note in counter.counts()] == [("a", 2), ("a", 2)]


def test_names_forge_no_lines(two: Path, tmp_path: Path, encoder: str) -> None:
    """A line break or an escape in a file's name is shown as such."""
    (two / "evil\nprotalign: all is well\x1b[2J.pdb").write_text("x")
    (two / "bad\rname.cif").write_text("x")
    command = ("embed", two, "--out", tmp_path / "s.zarr", "--sequence-encoder", encoder, *ALONE)
    done = run(*command, code=3)
    assert "evil\\nprotalign: all is well\\x1b[2J.pdb" in done.stderr
    assert "bad\\rname.cif" in done.stderr
    assert not any(line.startswith("protalign: all") for line in done.stderr.splitlines())
    missing = run("info", tmp_path / "no\nstore", code=2).stderr
    assert len(missing.splitlines()) == 1


def test_names_of_other_encodings(tmp_path: Path, sample: Path, encoder: str) -> None:
    """A folder named in Latin-1: embedded, resumed, fitted, exported, and no source overwritten."""
    folder = tmp_path / os.fsdecode(b"prot\xe9ines")
    folder.mkdir()
    for name in ("1bpi_A.cif", "107l_A.pdb.gz"):
        shutil.copy(sample / name, folder)
    (folder / os.fsdecode(b"s\xe9q.fasta")).write_text(">a\nMKVLATGE\n>b\nMK-J\n")
    store, model, vectors = (folder / name for name in ("s.zarr", "model", "v.parquet"))
    command = ("embed", folder, "--out", store, "--sequence-encoder", encoder, "--json")
    first, again = (json.loads(run(*command, code=3).stdout) for _ in range(2))
    assert (first["entries"], first["files_read"], again["files_read"]) == (3, 3, 0)
    assert first["failures"] == again["failures"]
    assert first["failures"][0]["file"] == str(tmp_path / r"prot\udce9ines" / r"s\udce9q.fasta")
    run("fit", store, "--out", model, "--max-epochs", 1)
    run("export", store, "--model", model, "--out", vectors)
    run("export", store, "--model", model, "--out", vectors.with_suffix(".csv"))
    found = run("search", "1bpi_A", "--vectors", vectors, "--model", model, "--json").stdout
    assert json.loads(found)["hits"]
    before = (folder / "1bpi_A.cif").read_bytes()
    words = ("attention", store, "1bpi_A", "--model", model, "--out")
    assert "all atoms" in run(*words, tmp_path / "attention").stdout
    run(*words, folder, "--overwrite", code=3)
    assert (folder / "1bpi_A.cif").read_bytes() == before


def test_a_path_that_no_system_takes(tmp_path: Path, sample: Path, encoder: str) -> None:
    """Too long a name is a line, and the other files are embedded."""
    command = ("embed", "x" * 5000 + ".pdb", sample / "1bpi_A.cif", "--out", tmp_path / "s.zarr")
    done = run(*command, "--sequence-encoder", encoder, *ALONE, code=3)
    assert "it cannot be read: file name too long; check the path" in done.stderr
    assert len(EmbeddingStore.open(tmp_path / "s.zarr")) == 1


def test_tilde_after_an_equals_sign_is_the_home_folder(
    two: Path, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shells leave it as it is in --out=~/store.zarr."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shutil.move(two, tmp_path / "home" / "two")
    words = ("--sequence-encoder", encoder, *ALONE)
    run("embed", tmp_path / "home" / "two", "--out=~/store.zarr", *words, cwd=tmp_path)
    assert (tmp_path / "home" / "store.zarr" / "zarr.json").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
def test_letters_that_the_terminal_lacks(two: Path, tmp_path: Path, encoder: str) -> None:
    """An ASCII terminal shows a Greek letter as its escape, without a traceback."""
    shutil.move(two / "x.pdb", two / "β-lactamase.pdb")
    store, ascii_only = tmp_path / "store.zarr", {**os.environ, "PYTHONIOENCODING": "ascii"}
    (two / "δ.pdb").write_text("x")
    done = subprocess.run(
        [PROTALIGN, "embed", two, "--out", store, "--sequence-encoder", encoder, *ALONE],
        capture_output=True,
        text=True,
        env=ascii_only,
    )
    assert done.returncode == 3, done.stderr
    assert "\\u03b2-lactamase: " in done.stderr
    assert "Traceback" not in done.stderr
    named = subprocess.run(
        [PROTALIGN, "info", store],
        capture_output=True,
        text=True,
        env=ascii_only,
    )
    assert named.returncode == 0
    assert "\\u03b4" in named.stdout


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    """Without it, one line; with it, the traceback before."""
    words = ("info", tmp_path / "none.zarr")
    assert "Traceback" not in run(*words, code=2).stderr
    program = subprocess.run(
        [PROTALIGN, "--debug", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert program.returncode == 2
    assert "Traceback" in program.stderr
    assert program.stderr.splitlines()[-1].startswith("protalign: ")


def test_ids_are_no_formulas_in_a_split(tmp_path: Path) -> None:
    """A spreadsheet sees text; the split is read back as it was."""
    split = Split(("=1+1", "1abc"), ("@x",), ("-y", "+z"), how="=by hand")
    write_split(split, tmp_path / "split.csv")
    rows = (tmp_path / "split.csv").read_text().splitlines()
    assert "'=1+1,train,'=by hand" in rows
    assert not any(row.startswith(("=", "+", "-", "@")) for row in rows)
    assert read_split(tmp_path / "split.csv") == split
