"""``protalign info``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from protalign.heads.shipped import shipped_model
from protalign.stores import EmbeddingStore
from tests.helpers.commands import run


def test_a_store_is_described(finished: Path, encoder: str) -> None:
    """All 40 proteins, both encoders complete, nothing failed."""
    facts = json.loads(run("info", finished / "store.zarr", "--json").stdout)
    assert facts["entries"] == 40
    assert set(facts["encoders"]) == {encoder, "proteinmpnn_v_48_020"}
    for described in facts["encoders"].values():
        assert described["items"] == described["items_total"] > 0
        assert len(described["weights_sha256"]) == 64
    assert facts["failures"] == []
    assert "40" in run("info", finished / "store.zarr").stdout


def test_a_folder_of_another_kind_is_named(tmp_path: Path) -> None:
    """Not only that it is not a store, but what it is."""
    (tmp_path / "index.json").write_text("{}")
    for folder, kind in ((shipped_model(), "a model"), (tmp_path, "an index of words")):
        line = run("info", folder, code=2).stderr
        assert line == (
            f"protalign: {folder}: it is {kind}, not a store; "
            "name one that `protalign embed` made\n"
        )


@pytest.mark.parametrize(
    "arguments",
    [
        "info index",
        "fit index --out new",
        "score index --model MODEL",
        "score ind* --model MODEL",
        "split index --by cluster --out new",
        "export index --model MODEL --out new.parquet",
        "evaluate index --model MODEL --split split.csv",
        "reproduce index --split split.csv --out new",
        "attention index 1abc_A --model MODEL --out new",
        "index index --model MODEL --out new",
        "align MKTAYIAKQRQ 1abc --model MODEL --store index",
    ],
)
def test_every_command_names_a_folder_of_another_kind(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of words is no store, and the line says so; also one that a pattern finds."""
    monkeypatch.chdir(tmp_path)
    Path("index").mkdir()
    Path("index/index.json").write_text("{}")
    Path("split.csv").write_text("id,part\n1abc_A,test\n")
    words = [str(shipped_model()) if each == "MODEL" else each for each in arguments.split()]
    assert run(*words, code=2).stderr.endswith(
        "index: it is an index of words, not a store; name one that `protalign embed` made\n"
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == ["index", "split.csv"]


def test_failures_are_listed(few: Path, tmp_path: Path, encoder: str) -> None:
    """The inputs that failed follow the encoders, with the problem and the advice."""
    (few / "empty.pdb").write_bytes(b"")
    store = tmp_path / "store.zarr"
    run("embed", few, "--out", store, "--sequence-encoder", encoder, "--quiet", code=3)
    text = run("info", store).stdout
    assert "1 failed:" in text
    assert "empty.pdb" in text


@pytest.fixture(scope="module")
def remarked(tmp_path_factory: pytest.TempPathFactory, encoder: str) -> Path:
    """A store with two notes and a failure, whose id is a formula to a spreadsheet."""
    folder = tmp_path_factory.mktemp("remarked")
    fasta = folder / "x,y.fasta"
    fasta.write_text(">a Insulin OS=x OX=1\nMKVJGIV\n>b\nMKVGIV\n>c\nJJ\n>=1+1\nGI-E\n")
    store = folder / "store.zarr"
    done = run("embed", fasta, "--out", store, "--sequence-encoder", encoder, code=3)
    assert f"all of them: protalign info {store} --notes --format tsv" in done.stderr
    return store


def test_notes_and_failures_are_a_table(remarked: Path) -> None:
    """TSV, CSV, and in Python: one row each, notes first."""
    expected = [
        ("note", "a", "1 J read as X", ""),
        ("note", "c", "2 J read as X", ""),
        ("failure", "=1+1", "- at position 3 is not an amino acid", "remove it, or write X"),
    ]
    remarks = EmbeddingStore.open(remarked).remarks()
    assert [(r.kind, r.id, r.text, r.advice) for r in remarks] == expected
    frame = pd.DataFrame(remarks)
    assert frame["kind"].tolist() == ["note", "note", "failure"]
    assert {Path(file).name for file in frame["file"]} == {"x,y.fasta"}
    for form, delimiter in (("tsv", "\t"), ("csv", ",")):
        text = run("info", remarked, "--notes", "--format", form).stdout
        header, *rows = csv.reader(io.StringIO(text), delimiter=delimiter)
        assert header == ["kind", "id", "file", "text", "advice"]
        assert [(row[0], row[3], row[4]) for row in rows] == [
            ("note", "1 J read as X", ""),
            ("note", "2 J read as X", ""),
            ("failure", "'- at position 3 is not an amino acid", "remove it, or write X"),
        ]
        assert [row[1] for row in rows] == ["a", "c", "'=1+1"]


def test_notes_are_shown_and_in_json(remarked: Path) -> None:
    """Below the failures, by id; and how many entries have a name."""
    facts = json.loads(run("info", remarked, "--notes", "--json").stdout)
    assert facts["notes"] == {"a": ["1 J read as X"], "c": ["2 J read as X"]}
    assert (facts["entries"], facts["annotated"]) == (3, 1)
    text = run("info", remarked, "--notes", "--format", "text").stdout
    assert "2 notes:\n  a: 1 J read as X\n  c: 2 J read as X\n" in text


def test_a_form_belongs_to_notes(remarked: Path) -> None:
    """Alone it has no effect, and JSON is another one."""
    assert "without --notes" in run("info", remarked, "--format", "tsv", code=2).stderr
    words = ("info", remarked, "--notes", "--format", "tsv", "--json")
    assert "contradicts --json" in run(*words, code=2).stderr
