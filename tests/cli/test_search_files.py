"""``protalign search`` with files of hits and superposed structures."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.commands import Done, run

COLUMNS = "query,target,fident,qstart,qend,score,cosine,qtmscore"


@pytest.fixture
def search(finished: Path) -> Callable[..., Done]:
    """Run a search of the sample that compares residues."""

    def search(*words: object, code: int = 0) -> Done:
        known = ("--vectors", finished / "vectors.parquet", "--model", finished / "model")
        return run("search", *words, *known, code=code)

    return search


def test_several_files_from_one_search(search: Callable[..., Done], tmp_path: Path) -> None:
    """They hold what --json prints, and nothing is printed in their place."""
    files = [tmp_path / name for name in ("hits.m8", "hits.json.gz", "hits.html")]
    out = [word for file in files for word in ("-o", file)]
    words = ("1a2p_A", "1bpi_A", "--rerank", 20, "-k", 3, "--tm-score")
    done = search(*words, *out, "--format-output", COLUMNS, "--superpose", tmp_path / "placed")
    assert done.stdout == ""
    assert f"6 hits of 2 queries: {files[0]}" in done.stderr
    assert f"{tmp_path / 'placed'}: 6 hits superposed" in done.stderr
    printed = json.loads(search(*words, "--json", "-o", tmp_path / "all.csv").stdout)["hits"]
    hits = json.loads(gzip.decompress(files[1].read_bytes()))["hits"]
    for ours, theirs in zip(hits, printed, strict=True):
        assert list(ours) == COLUMNS.split(",")
        assert ours["qtmscore"] == theirs["tm_score"]
        assert (ours["target"], ours["score"]) == (theirs["id"], theirs["local_score"])
    lines = [line.split("\t") for line in files[0].read_text().splitlines()]
    assert [line[:2] for line in lines] == [[hit["query"], hit["id"]] for hit in printed]
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 7
    assert len(list((tmp_path / "placed").glob("*/view.pml"))) == 2
    header = ("--header", "-o", tmp_path / "named.m8", "--format-output", "query,target")
    search("1a2p_A", *header)
    assert (tmp_path / "named.m8").read_text().startswith("query\ttarget\n1a2p_A\t")


def test_files_hold_what_is_printed(search: Callable[..., Done], tmp_path: Path) -> None:
    """Every column of the printed table is in a file without --format-output, TM-scores too."""
    names = {"id": "target", "length": "tlen", "probability": "prob", "tm_score": "qtmscore"}
    words = ("1a2p_A", "--rerank", 20, "-k", 9, "--tm-score", "--mode", "global")
    for more in ((), ("--length-term", 2)):
        out = ("-o", tmp_path / "hits.json", "-o", tmp_path / "hits.tsv", "--json")
        printed = json.loads(search(*words, *more, *out).stdout)["hits"]
        assert ("score" in printed[0]) == bool(more)
        rows = json.loads((tmp_path / "hits.json").read_text())["hits"]
        for hit, row in zip(printed, rows, strict=True):
            for name, value in hit.items():  # an uncalibrated model gives no E-values
                assert row.get(names.get(name, name)) == value, name
            assert row["mode"] == "global"
        scores = [row["score"] for row in rows]
        assert scores == sorted(scores, reverse=True)
        assert (scores == [row["global_score"] for row in rows]) == (not more)
        header = (tmp_path / "hits.tsv").read_text().splitlines()[0]
        assert header.split("\t") == list(rows[0])


def test_no_hits_are_an_empty_file(search: Callable[..., Done], tmp_path: Path) -> None:
    """Nothing passes the filter: the files say so, and no folder is made."""
    words = ("--rerank", 20, "--min-tm", 1, "-o", tmp_path / "hits.tsv")
    done = search("1a2p_A", *words, "--min-score", 1e9, "--superpose", tmp_path / "placed")
    assert (tmp_path / "hits.tsv").read_text().startswith("query\ttarget\trank\t")
    assert len((tmp_path / "hits.tsv").read_text().splitlines()) == 1
    assert "placed: not written, since there are no hits" in done.stderr
    assert not (tmp_path / "placed").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-o", "{tmp}/hits.m8"], "fident, alnlen, .*bits: only a search that compares residues"),
        (["-o", "{tmp}/hits.xls"], "no form of hits has this suffix; name it .m8, .tsv"),
        (["-o", "{tmp}/a.csv", "--header"], "--header: has no effect without an .m8 file"),
        (["--format-output", "query"], "--format-output: has no effect without --out"),
        (["-o", "{tmp}/a.csv", "--format-output", "query,evlue"], "did you mean 'evalue'"),
        (["-o", "{finished}/vectors.parquet"], "the search reads it; name another file"),
        (["--superpose", "{finished}"], "not a folder of superposed hits"),
        (["-o", "{tmp}/a.csv", "--superpose", "{tmp}"], "--superpose replaces its folder"),
        (["--min-cov", "0.5"], "min_cov: only a search that compares residues"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    search: Callable[..., Done], finished: Path, tmp_path: Path, words: list[str], line: str
) -> None:
    """Exit code 2 before the search begins, and no file."""
    given = [word.format(tmp=tmp_path, finished=finished) for word in words]
    done = search("1a2p_A", *given, code=2)
    (problem,) = done.stderr.splitlines()
    assert re.search(line, problem)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_html_is_the_file_of_out(search: Callable[..., Done], tmp_path: Path) -> None:
    """--html writes what -o writes, may stand alone, and wants a page's suffix."""
    words = ("1a2p_A", "--rerank", 20, "-k", 2)
    done = search(*words, "--html", tmp_path / "one.html")
    assert done.stdout == ""
    search(*words, "-o", tmp_path / "two.html")
    text = (tmp_path / "one.html").read_text()
    assert text == (tmp_path / "two.html").read_text()
    assert 'id="hit-1"' in text
    done = search(*words, "--html", tmp_path / "hits.csv", code=2)
    assert "hits.csv: --html writes a page; name it .html or .html.gz" in done.stderr
