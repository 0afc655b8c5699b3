"""Hits in files: the values of the columns, the forms, filters, and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import biotite.sequence as sequences
import biotite.sequence.align as align
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import protalign
from protalign import EmbeddingStore, Model
from protalign.core.errors import Failure, InputError, WriteError
from protalign.core.printing import cell_text, table_cell
from protalign.core.protein import Backbone, Chain
from protalign.residues import Alignment
from protalign.residues.calibration import Calibration
from protalign.search import Hit, Hits, hit_page
from protalign.search.alignment_formats import M8_COLUMNS
from protalign.search.alignments import NamedAlignment
from protalign.search.hit_columns import (
    COLUMNS,
    HitTable,
    alignment_values,
    json_schema,
    parse_columns,
)
from protalign.search.hit_files import cell, check_files, form_of, write_table
from protalign.search.residue_rows import ResidueRows, positions
from tests.conftest import REPOSITORY

QUERIES = ["1a2p_A", "1bpi_A"]
EVERY = tuple(COLUMNS)
Search = Callable[..., Hits]


@pytest.fixture(scope="module")
def search(finished: Path) -> Search:
    """A search of the sample with a second stage, by a model whose scores are calibrated."""
    model = Model.load(finished / "model", "cpu")
    stage = model.residue_scorer()
    known = Calibration(-10.0, 0.5, 5.0, scale=25.0, n_pairs=10_000)
    model.residue_stage = replace(stage, calibration=known)

    def run(queries: Any, **options: Any) -> Hits:
        options = {"model": model, "rerank": 30, **options}
        return protalign.search(queries, finished / "vectors.parquet", **options)

    return run


@pytest.fixture(scope="module")
def hits(search: Search, sample: Path) -> Hits:
    """Two ids, searched by their sequences, and a file, searched by its structure."""
    return search([*QUERIES, sample / "1b5m_A.pdb.gz"], k=4, columns=EVERY)


@pytest.fixture(scope="module")
def table(hits: Hits) -> HitTable:
    """All columns of these hits."""
    return hits.table()


def sequence_of(finished: Path, entry_id: str) -> str:
    """An entry's letters."""
    return "".join(EmbeddingStore.open(finished / "store.zarr").sequence(entry_id))


def test_columns_are_counted_from_the_letters(finished: Path, table: HitTable) -> None:
    """Every number of an alignment follows from its two lines of letters, as biotite counts."""
    assert len(table.rows) == 12
    for row in table.rows:
        q, t = row["qaln"], row["taln"]
        assert (
            q.replace("-", "")
            == sequence_of(finished, row["query"])[row["qstart"] - 1 : row["qend"]]
        )
        assert (
            t.replace("-", "")
            == sequence_of(finished, row["target"])[row["tstart"] - 1 : row["tend"]]
        )
        assert row["alnlen"] == len(q) == len(t)
        trace = align.Alignment.trace_from_strings([q, t])
        both = [sequences.ProteinSequence(line.replace("-", "")) for line in (q, t)]
        identity = align.get_sequence_identity(align.Alignment(both, trace, None), mode="all")
        assert row["fident"] == pytest.approx(identity)
        pairs = (trace >= 0).all(axis=1).sum()
        assert row["mismatch"] == pairs - round(identity * len(q))
        assert row["gapopen"] == sum(
            line[i] == "-" != line[i - 1] for line in (q, t) for i in range(1, len(line))
        )
        for side, length in (("q", row["qlen"]), ("t", row["tlen"])):
            span = row[f"{side}end"] - row[f"{side}start"] + 1
            assert row[f"{side}cov"] == pytest.approx(span / length)
        assert row["qlen"] == len(sequence_of(finished, row["query"]))
        assert row["tlen"] == len(sequence_of(finished, row["target"]))
        assert len(row["qchains"]) == len(row["tchains"]) == 1
    assert {row["against"] for row in table.rows} == {"sequence", "structure"}


def test_residues_without_a_backbone_are_counted(
    search: Search, finished: Path, sample: Path, tmp_path: Path
) -> None:
    """A structure that lacks some atoms is aligned without these residues, which are gaps."""
    lines = gzip.decompress((sample / "1b5m_A.pdb.gz").read_bytes()).decode().splitlines(True)
    numbers = list(dict.fromkeys(line[22:27] for line in lines if line.startswith("ATOM")))
    without = {*numbers[:3], *numbers[20:22]}
    kept = [line for line in lines if line[12:16] != " O  " or line[22:27] not in without]
    (tmp_path / "cut.pdb").write_text("".join(kept))
    hits = search(tmp_path / "cut.pdb", k=1, columns="target,qlen,qstart,qend,qaln,taln,gapopen")
    (row,) = hits.table().rows
    letters = sequence_of(finished, "1b5m_A")
    assert (row["target"], row["qlen"]) == ("1b5m_A", len(letters))
    assert row["qstart"] > 3
    assert row["qaln"].replace("-", "") == letters[row["qstart"] - 1 : row["qend"]]
    opposite = {
        row["qstart"] + len(row["qaln"][:i].replace("-", "")) - 1
        for i, (q, t) in enumerate(zip(row["qaln"], row["taln"], strict=True))
        if q != "-" and t == "-"
    }
    assert opposite >= {20, 21}


def test_numbers_are_those_of_the_hits(hits: Hits, table: HitTable, finished: Path) -> None:
    """Scores, E-values and probabilities are the printed ones; bits give the E-value."""
    n_targets = len(protalign.read_vectors(finished / "vectors.parquet"))
    for hit, row in zip(hits, table.rows, strict=True):
        assert (row["query"], row["target"], row["rank"]) == (hit.query, hit.id, hit.rank)
        assert (row["evalue"], row["prob"]) == (hit.evalue, hit.probability)
        assert (row["score"], row["cosine"]) == (hit.local_score, hit.cosine)
        assert (row["local_score"], row["global_score"]) == (hit.local_score, hit.global_score)
        assert row["mode"] == "local"
        assert row["evalue"] == pytest.approx(n_targets * 2 ** -row["bits"])


@given(st.floats(-50, 5000), st.integers(1, 10**9))
def test_bits_are_the_rarity_of_an_excess(excess: float, n_targets: int) -> None:
    """Targets times 2 ** -bits is the E-value; more excess is never fewer bits."""
    calibration = Calibration(0.0, 0.0, 0.0, scale=1.0, n_pairs=1000)
    bits = float(calibration.bits(excess))
    assert bits >= 0
    assert bits <= float(calibration.bits(excess + 1))
    evalue = float(calibration.evalue(excess, n_targets))
    assert evalue == pytest.approx(n_targets * 2**-bits, rel=1e-5, abs=1e-300)
    if excess > 20:
        assert bits == pytest.approx(excess / math.log(2))


def test_superposed_columns_put_the_hit_on_the_query(
    finished: Path, hits: Hits, table: HitTable
) -> None:
    """u and t move the entry's CA atoms; rmsd and the three TM-scores follow from them."""
    store = EmbeddingStore.open(finished / "store.zarr")

    def trace(entry_id: str) -> np.ndarray:
        (chain,) = store.structure(entry_id).kept_chains
        assert chain.backbone is not None
        return chain.backbone.coordinates[chain.structure_rows, 1].astype(np.float64)

    assert hits.comparison is not None
    for hit, place, row in zip(hits, hits.places, table.rows, strict=True):
        u, t = np.reshape(row["u"], (3, 3)), np.array(row["t"])
        np.testing.assert_allclose(u @ u.T, np.eye(3), atol=1e-5)
        found = hits.comparison.superposition(place, hit)
        assert found is not None
        moved = trace(hit.id) @ u.T + t
        apart = np.linalg.norm(moved[found.hit_rows] - trace(hit.query)[found.query_rows], axis=1)
        assert row["rmsd"] == pytest.approx(np.sqrt((apart**2).mean()), abs=1e-3)
        for name, length in (
            ("qtmscore", row["qlen"]),
            ("ttmscore", row["tlen"]),
            ("alntmscore", len(apart)),
        ):
            d0 = 1.24 * (length - 15) ** (1 / 3) - 1.8 if length > 21 else 0.5
            score = (1 / (1 + (apart / max(d0, 0.5)) ** 2)).sum() / length
            assert row[name] == pytest.approx(score, abs=2e-3)
        if hit.query == hit.id:
            assert row["rmsd"] == pytest.approx(0, abs=1e-3)


def drawn_chain(name: str, letters: str, complete: list[bool]) -> Chain:
    """A chain with these letters, of which some have a complete backbone."""
    chain = Chain.from_sequence(letters, id=name)
    coordinates = np.zeros((len(letters), 4, 3), np.float32)
    coordinates[~np.array(complete, dtype=bool)] = np.nan
    return replace(chain, backbone=Backbone(coordinates))


CHAINS = st.lists(
    st.lists(st.tuples(st.sampled_from("ACDEFGHIKLMNPQRSTVWYX"), st.booleans()), min_size=1),
    min_size=1,
    max_size=4,
).map(
    lambda chains: [
        drawn_chain("" if place == 0 else "BCD"[place - 1], "".join(a for a, _ in c),
                    [seen for _, seen in c])
        for place, c in enumerate(chains)
    ]
)  # fmt: skip


@given(CHAINS, CHAINS, st.data())
def test_any_alignment_is_told_in_whole_sequences(
    query: list[Chain], target: list[Chain], data: st.DataObject
) -> None:
    """Rows of structures become positions; counts and letters agree whatever is left out."""
    rows = positions(query, "structure"), positions(target, "sequence")
    n = min(map(len, rows))
    if n == 0:
        return
    size = data.draw(st.integers(1, n))
    chosen = [
        np.sort(data.draw(st.permutations(range(len(each))).map(lambda p: p[:size])))
        for each in rows
    ]
    pairs = [each[kept] for each, kept in zip(rows, chosen, strict=True)]
    wholes = [
        ResidueRows.of("x", "sequence", chains, np.empty((sum(map(len, chains)), 0)))
        for chains in (query, target)
    ]
    structure = ResidueRows.of("x", "structure", query, np.empty((len(rows[0]), 0)))
    assert "".join(wholes[0].letters[row] for row in rows[0]) == structure.letters
    found = Alignment(
        "local", 1.0, *pairs, np.ones(size, np.float32), len(wholes[0]), len(wholes[1])
    )
    values = alignment_values(NamedAlignment(*wholes, found))
    for side, line, whole in (("q", "qaln", wholes[0]), ("t", "taln", wholes[1])):
        part = whole.letters[values[f"{side}start"] - 1 : values[f"{side}end"]]
        assert values[line].replace("-", "") == part
        assert values[f"{side}cov"] == pytest.approx(len(part) / len(whole))
    columns = list(zip(values["qaln"], values["taln"], strict=True))
    assert len(columns) == values["alnlen"]
    assert sum("-" not in column for column in columns) == size
    same = sum(a == b != "X" for a, b in columns)
    assert values["fident"] == pytest.approx(same / len(columns))
    assert values["mismatch"] == size - same
    gaps = sum(
        values[line][i] == "-" != values[line][i - 1]
        for line in ("qaln", "taln")
        for i in range(1, len(columns))
    )
    assert values["gapopen"] == gaps
    on = [
        [(whole.chains[c] or "1") for c in whole.chain_index[each].tolist()]
        for whole, each in zip(wholes, pairs, strict=True)
    ]
    expected = list(dict.fromkeys(zip(*on, strict=True)))
    assert list(zip(values["qchains"], values["tchains"], strict=True)) == expected


def test_every_form_holds_the_same(table: HitTable, tmp_path: Path) -> None:
    """m8 without a header, TSV, CSV, JSON and Parquet agree, compressed or not."""
    cells = {}
    for form in ("m8", "tsv", "csv"):
        write_table(table, tmp_path / f"hits.{form}", header=form == "m8")
        text = (tmp_path / f"hits.{form}").read_text()
        delimiter = "," if form == "csv" else "\t"
        cells[form] = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    assert cells["m8"] == cells["tsv"] == cells["csv"]
    assert cells["tsv"][0] == list(table.columns)
    write_table(table, tmp_path / "bare.m8")
    assert (tmp_path / "bare.m8").read_text() == "\n".join(map("\t".join, cells["tsv"][1:])) + "\n"

    write_table(table, tmp_path / "hits.json")
    document = json.loads((tmp_path / "hits.json").read_text())
    assert document["hits"] == list(table.rows)
    assert check(document, json_schema()) == []
    write_table(table, tmp_path / "hits.parquet")
    assert pq.read_table(tmp_path / "hits.parquet").to_pylist() == list(table.rows)
    assert [query["hits"] for query in document["queries"]] == [4, 4, 4]

    for path in tmp_path.glob("hits.*"):
        for name in ("one", "two"):
            write_table(table, tmp_path / f"{name}{path.suffix}.gz", header=True)
        one = (tmp_path / f"one{path.suffix}.gz").read_bytes()
        assert one == (tmp_path / f"two{path.suffix}.gz").read_bytes()
        assert gzip.decompress(one) == path.read_bytes()
        assert one[4:8] == bytes(4)  # the time


#: The column of each attribute of a hit.
COLUMN_OF = {
    "query": "query",
    "rank": "rank",
    "id": "target",
    "cosine": "cosine",
    "length": "tlen",
    "against": "against",
    "tm_score": "qtmscore",
    "local_score": "local_score",
    "evalue": "evalue",
    "backing": "backing",
    "probability": "prob",
    "global_score": "global_score",
    "bits": "bits",
    "score": "score",
    "description": "tdesc",
    "organism": "torganism",
    "taxid": "taxid",
    "accession": "tacc",
}


@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "global"}, {"mode": "global", "length_term": 2}, {"rerank": 0}],
    ids=["local", "global", "length term", "vectors"],
)
def test_usual_columns_hold_every_attribute_of_a_hit(
    search: Search, sample: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Whatever the search gave is in TSV, CSV, JSON and Parquet, and the mode that ordered it."""
    assert COLUMN_OF.keys() == {each.name for each in fields(Hit)}
    hits = search(["1a2p_A", sample / "1b5m_A.pdb.gz"], k=9, tm_score=True, **options)
    by_residues = options.get("rerank") != 0
    columns = {
        name: column
        for name, column in COLUMN_OF.items()
        if by_residues or COLUMNS[column].need in ("", "coordinates")
    }
    expected = [{column: getattr(hit, name) for name, column in columns.items()} for hit in hits]
    if by_residues:
        expected = [{**row, "mode": options.get("mode", "local")} for row in expected]
    else:
        assert {getattr(hit, n) for hit in hits for n in COLUMN_OF.keys() - columns} == {None}
    for form in ("tsv", "csv", "json", "parquet"):
        hits.write(tmp_path / f"hits.{form}")
    document = json.loads((tmp_path / "hits.json").read_text())
    assert check(document, json_schema()) == []
    rows = pq.read_table(tmp_path / "hits.parquet").to_pylist()
    for found in (document["hits"], rows):
        assert [{name: row[name] for name in expected[0]} for row in found] == expected
    for form, delimiter in (("tsv", "\t"), ("csv", ",")):
        with (tmp_path / f"hits.{form}").open(newline="") as file:
            read = list(csv.DictReader(file, delimiter=delimiter))
        assert list(read[0]) == document["columns"]
        for row, known in zip(read, expected, strict=True):
            assert {name: row[name] for name in known} == {
                name: cell(name, value) for name, value in known.items()
            }


@pytest.mark.parametrize("mode", ["local", "global"])
def test_both_scores_may_be_asked_for(search: Search, mode: str) -> None:
    """Alone and without an alignment; a hit whose residues were not compared has neither."""
    columns = "target,score,local_score,global_score,mode"
    hits = search("1a2p_A", k=40, rerank=3, mode=mode, columns=columns)
    rows = hits.table().rows
    for hit, row in zip(hits[:3], rows[:3], strict=True):
        assert list(row.values()) == [hit.id, hit.score, hit.local_score, hit.global_score, mode]
        assert hit.score == (hit.local_score if mode == "local" else hit.global_score)
    assert hits.comparison is not None
    assert hits.comparison._alignments == {}
    without = [hit for hit in hits if hit.local_score is None]
    for row in rows[len(hits) - len(without) :]:
        assert set(row.values()) - {row["target"]} == {None}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rerank": 0}, "2 hits of 1 query, ordered by the cosine of the vectors."),
        (
            {},
            "ordered by the probability of a common fold: the best local alignment of the residues "
            "(mode local).",
        ),
        ({"mode": "global"}, "ordered by the best diagonal of the residues (mode global)."),
        (
            {"mode": "global", "length_term": 2},
            "(mode global), less 2 nats for each residue by which the lengths differ.",
        ),
    ],
)
def test_the_page_says_what_orders_its_hits(
    search: Search, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    """In words, whatever its columns are."""
    hits = search("1a2p_A", k=2, columns="query,target,cosine", **options)
    hits.write(tmp_path / "hits.html")
    assert words in (tmp_path / "hits.html").read_text()


def check(value: Any, schema: dict[str, Any], at: str = "") -> list[str]:
    """The places of a value that a JSON Schema of this document's words does not allow."""
    if "const" in schema:
        return [] if value == schema["const"] else [at]
    if "enum" in schema:
        return [] if value in schema["enum"] else [at]
    names = {"string": str, "integer": int, "number": (int, float), "array": list, "object": dict}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if value is None:
        return [] if "null" in kinds else [at]
    if isinstance(value, bool) or not isinstance(value, names[kinds[0]]):
        return [at]
    wrong = []
    if isinstance(value, list):
        for place, each in enumerate(value):
            wrong += check(each, schema["items"], f"{at}[{place}]")
    if isinstance(value, dict):
        wrong += [f"{at}.{key}" for key in schema.get("required", []) if key not in value]
        for key, each in value.items():
            known = schema["properties"].get(key)
            wrong += [f"{at}.{key}"] if known is None else check(each, known, f"{at}.{key}")
    return wrong


def test_the_schema_is_the_published_one(table: HitTable) -> None:
    """docs/hits.schema.json and docs/formats.md have every column, and wrong documents fail."""
    path = REPOSITORY / "docs" / "hits.schema.json"
    if not path.is_file():
        pytest.skip("the documents are not here: this runs over an installed wheel")
    assert json.loads(path.read_text()) == json_schema()
    formats = (REPOSITORY / "docs" / "formats.md").read_text()
    assert [name for name in COLUMNS if f"`{name}`" not in formats] == []
    document = table.as_dict()
    document["hits"][0] = {**document["hits"][0], "rank": "first", "colour": 1}
    assert check(document, json_schema()) == [".hits[0].rank", ".hits[0].colour"]


NASTY = ["=1+1", "a\tb", "<script>alert(1)</script>", 'q"u,o', "\u202egpj.exe", "\udcff", "--", "é"]


@pytest.mark.parametrize("text", NASTY)
def test_texts_of_files_cannot_act(text: str, tmp_path: Path) -> None:
    """Tabs, formulas, tags, quotes, direction marks and broken Unicode are only text."""
    row = {"query": text, "target": "t", "rank": 1, "cosine": -0.5, "tdesc": text}
    row |= {"qchains": [text]}
    query = {"id": text, "length": 3, "modality": "sequence", "hits": 1}
    failure = Failure(text, text, text, text)
    nasty = HitTable(tuple(row), (row,), (query,), (failure,))
    for form in ("m8", "tsv", "csv", "json", "parquet", "html"):
        write_table(nasty, tmp_path / f"hits.{form}")
    for form, delimiter in (("tsv", "\t"), ("csv", ",")):
        lines = (tmp_path / f"hits.{form}").read_text().splitlines()
        assert len(lines) == 2
        cells = dict(zip(*csv.reader(lines, delimiter=delimiter,
                                     quoting=csv.QUOTE_NONE if delimiter == "\t" else 0),
                         strict=True))  # fmt: skip
        assert cells["query"] == cells["tdesc"] == cells["qchains"] == table_cell(text)
        assert cells["cosine"] == "-0.5000"
        if text.isprintable():
            assert cell_text(cells["query"]) == text
        assert not cells["query"].startswith(("=", "-"))
    assert check(json.loads((tmp_path / "hits.json").read_text()), json_schema()) == []
    page = (tmp_path / "hits.html").read_text()
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert len(pq.read_table(tmp_path / "hits.parquet")) == 1


class Page(HTMLParser):
    """The tags that are open, and the rows of tables."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "tr" in self.open and data.strip():
            self.rows[-1][-1] += data


def test_the_page_has_a_table_for_each_query(
    table: HitTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All hits with their numbers, and nothing from elsewhere; long ones are cut."""
    text = hit_page.page(table)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.tags.isdisjoint({"img", "iframe", "form"})
    assert len(page.rows) == len(table.rows) + 3
    targets = [row[0] for row in page.rows if row[0] != "target"]
    assert targets == [row["target"] for row in table.rows]
    assert "Unknown for all hits: backing, tdesc" in text  # no background, no names
    monkeypatch.setattr(hit_page, "ROWS_SHOWN", 5)
    cut = Page()
    cut.feed(hit_page.page(table))
    assert len(cut.rows) == 5 + 2
    assert "the first 5 hits" in hit_page.page(table)
    assert "<script" not in hit_page.page(table.select(["query", "cosine"]))


def test_filters_keep_the_best_that_pass(search: Search) -> None:
    """Each filter gives the hits of a search without it that have the number, and up to k."""
    everything = search(QUERIES, k=30, columns="evalue,prob,score,qcov,tcov,qtmscore,u")
    rows = everything.table().rows
    assert len(rows) == 60
    tests: dict[str, tuple[float, Callable[[dict[str, Any]], bool]]] = {
        "max_evalue": (0.1, lambda row: row["evalue"] <= 0.1),
        "min_prob": (0.2, lambda row: row["prob"] >= 0.2),
        "min_score": (100, lambda row: row["score"] >= 100),
        "min_cov": (0.3, lambda row: min(row["qcov"], row["tcov"]) >= 0.3),
        "min_tm": (0.3, lambda row: row["qtmscore"] is not None and row["qtmscore"] >= 0.3),
    }
    for name, (value, passes) in tests.items():
        kept = search(QUERIES, k=4, **{name: value})
        for query in QUERIES:
            expected = [
                hit.id
                for hit, row in zip(everything, rows, strict=True)
                if hit.query == query and passes(row)
            ]
            assert 0 < len(expected) < 30, name
            found = [hit for hit in kept if hit.query == query]
            assert [hit.id for hit in found] == expected[:4]
            assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    assert len(search(QUERIES, max_evalue=0)) == 0


def test_only_shown_hits_are_aligned(search: Search) -> None:
    """Of 30 candidates the filters that cost nothing leave some, and k of these are aligned."""
    hits = search(QUERIES[:1], k=2, max_evalue=1e9, columns="fident")
    hits.table()
    assert hits.comparison is not None
    assert len(hits.comparison._alignments) == 2
    assert hits.comparison._superpositions == {}


def test_results_do_not_depend_on_what_is_kept(
    search: Search, table: HitTable, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that keeps one alignment at a time gives the same table."""
    monkeypatch.setattr("protalign.search.comparison.KEPT", 1)
    again = search([*QUERIES, sample / "1b5m_A.pdb.gz"], k=4, columns=EVERY)
    assert again.table() == table
    assert again.comparison is not None
    assert len(again.comparison._alignments) == 1


def test_the_mode_decides_the_score_and_the_alignment(search: Search) -> None:
    """The global mode's are of the best diagonal; E-value, bits and probability are as before."""
    of_local = "local_score,evalue,bits,prob"
    columns = f"score,global_score,qaln,taln,qcov,{of_local}"
    hits = search("1a2p_A", k=3, mode="global", columns=columns)
    local = {hit.id: hit for hit in search("1a2p_A", k=30)}
    for hit, row in zip(hits, hits.table().rows, strict=True):
        assert row["score"] == row["global_score"] == hit.global_score
        known = local[hit.id]
        assert [row[name] for name in of_local.split(",")] == [
            known.local_score, known.evalue, known.bits, known.probability
        ]  # fmt: skip
        assert row["qaln"].count("-") == row["taln"].count("-") == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"rerank": 0, "columns": M8_COLUMNS}, "fident, alnlen, .*, bits: only a search that comp"),
        ({"rerank": 0, "min_cov": 0.5}, "min_cov: only a search that compares residues"),
        ({"rerank": 0, "max_evalue": 1}, "max_evalue: only a search"),
        ({"rerank": 0, "columns": "global_score,mode"}, "global_score, mode: only a search that"),
        ({"columns": "query,targt"}, "'targt': not a column of hits; did you mean 'target'"),
        ({"columns": "query,query"}, "query: the column is named twice"),
        ({"columns": []}, "columns: none is named"),
        ({"rerank": 0, "min_prob": 0.5}, "min_prob: only a search"),
        ({"min_prob": 50}, "min_prob=50: .* a finite number of at least 0 and at most 1$"),
        ({"min_prob": math.nan}, "min_prob=nan: out of range"),
        ({"min_cov": 1.5}, "min_cov=1.5: .* a finite number of at least 0 and at most 1$"),
        ({"min_tm": "high"}, "min_tm='high': out of range"),
        ({"queries": "MKTAYIAKQRQISFVKSHF", "columns": "u,t,alntmscore"},
         "u, t, alntmscore: the queries have no coordinates"),
        ({"queries": "MKTAYIAKQRQISFVKSHF", "min_tm": 0.5}, "min_tm: the queries have no coord"),
        ({"queries": "MKTAYIAKQRQISFVKSHF", "superpose": True}, "superpose: the queries have no"),
        ({"queries": np.zeros((30, 160), np.float32), "columns": "qaln"},
         "qaln: the queries' letters are unknown"),
    ],
)  # fmt: skip
def test_what_cannot_be_given_is_refused_by_name(
    search: Search, options: dict[str, Any], line: str
) -> None:
    """One line that names the columns and filters, before anything is searched."""
    queries = options.pop("queries", "1a2p_A")
    with pytest.raises(InputError, match=line) as error:
        search(queries, **options)
    assert "\n" not in str(error.value)
    options["queries"] = queries


def test_a_model_without_a_calibration_gives_no_evalues(search: Search, finished: Path) -> None:
    """Its E-values are refused by name; a file's usual columns leave them out."""
    bare = Model.load(finished / "model", "cpu")
    bare.residue_stage = replace(bare.residue_scorer(), calibration=None)
    with pytest.raises(InputError, match="evalue, bits: the model's residue stage is not calibr"):
        search("1a2p_A", model=bare, columns=M8_COLUMNS)
    hits = search("1a2p_A", model=bare, k=1)
    assert {"evalue", "bits", "prob"}.isdisjoint(hits.table().columns)
    assert "score" in hits.table().columns
    with pytest.raises(InputError, match="evalue: the model's"):
        hits.table("evalue")


def test_unknown_cells_are_empty(search: Search, tmp_path: Path) -> None:
    """A sequence beside an id: its superposed columns are empty, and null in JSON."""
    hits = search(["1a2p_A", "MKTAYIAKQRQISFVKSHF"], k=1, columns="query,u,rmsd,fident")
    rows = {row["query"]: row for row in hits.table().rows}
    assert rows["query_1"]["u"] is rows["query_1"]["rmsd"] is None
    assert rows["1a2p_A"]["u"] is not None
    hits.write(tmp_path / "hits.m8")
    lines = [line.split("\t") for line in (tmp_path / "hits.m8").read_text().splitlines()]
    assert ["query_1", "", ""] in [line[:3] for line in lines]


def test_files_are_checked_before_the_search(tmp_path: Path) -> None:
    """Suffixes, doubles, inputs, folders; the search's own files are not replaced."""
    assert [form_of(name) for name in ("a.m8", "b.parquet.gz", "C.HTML")] == [
        "m8",
        "parquet",
        "html",
    ]
    for name in ("hits", "hits.txt", ".m8", "hits.gz", "hits.m8.zip"):
        with pytest.raises(InputError, match="no form of hits has this suffix"):
            form_of(name)
    file = tmp_path / "vectors.parquet"
    file.touch()
    (tmp_path / "link.parquet").symlink_to(file)
    with pytest.raises(InputError, match="the search reads it"):
        check_files([tmp_path / "link.parquet"], [file, None, "MKV"])
    with pytest.raises(InputError, match="named twice"):
        check_files([tmp_path / "a.m8", tmp_path / "." / "a.m8"])
    with pytest.raises(WriteError, match="its folder is missing"):
        check_files([tmp_path / "gone" / "a.m8"])
    (tmp_path / "b.m8").mkdir()
    with pytest.raises(WriteError, match="it is a folder"):
        check_files([tmp_path / "b.m8"])
    check_files([tmp_path / "a.m8", tmp_path / "a.m8.gz"], [file])


def test_names_of_columns() -> None:
    """Text or a list, with spaces; none is none."""
    assert parse_columns(" query , u ") == parse_columns(["query", "u"]) == ("query", "u")
    assert parse_columns(None) == ()
    assert tuple(COLUMNS)[: len(M8_COLUMNS)] == M8_COLUMNS


def test_hits_of_no_search_have_no_files(tmp_path: Path) -> None:
    """They are refused in a line."""
    with pytest.raises(InputError, match="these hits are of no search"):
        Hits(()).write(tmp_path / "hits.m8")
