"""Searches, alignments, vectors and entries over HTTP: the numbers of ``protalign.search``."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

import protalign
from protalign.reading import read_fasta
from protalign.search import Hits
from protalign.searching import Targets
from protalign.serve.app import make_app
from protalign.serve.library import Library
from tests.serve.helpers import by_chain, check_error, client, two_chains


@pytest.fixture(scope="session")
def fasta(tmp_path_factory: pytest.TempPathFactory, library: Library) -> Path:
    """Sequences of two chains of the sample, under other names."""
    path = tmp_path_factory.mktemp("fasta") / "queries.fasta"
    records = [
        f">q{n} of the sample\n{library.store.sequence(i)[0]}\n"
        for n, i in enumerate(["1bpi_A", "1a2p_A"])
    ]
    path.write_text("".join(records))
    return path


def same_hits(document: dict[str, Any], hits: Hits) -> None:
    """Check a document of hits against the hits of a search in this process."""
    expected = hits.table(document["columns"]).as_dict()
    assert [q["id"] for q in document["queries"]] == [q["id"] for q in expected["queries"]]
    assert len(document["hits"]) == len(expected["hits"]) > 0
    for got, want in zip(document["hits"], expected["hits"], strict=True):
        assert set(got) == set(want)
        for name, value in want.items():
            if name == "evalue":  # its logarithm has the error of a score
                assert got[name] == pytest.approx(value, rel=1e-2), name
            elif isinstance(value, float):
                assert got[name] == pytest.approx(value, abs=1e-5, rel=1e-4), name
            elif not isinstance(value, list):
                assert got[name] == value, name


@pytest.mark.parametrize(
    "parameters",
    [
        {"k": 3},
        {"k": 4, "rerank": 20},
        {"k": 4, "rerank": 20, "mode": "global", "length_term": 2.0, "min_cov": 0.5},
        {"k": 5, "against": "sequence"},
        {"k": 5, "rerank": 20, "min_prob": 0.5},
        {"k": 5, "rerank": 20, "max_evalue": 0.01, "columns": "query,target,evalue,qaln,taln"},
    ],
)
def test_sequences_find_what_a_search_in_process_finds(
    served: TestClient, targets: Targets, fasta: Path, parameters: dict[str, Any]
) -> None:
    """FASTA records get the same ids, cosines and scores as from the one function."""
    answer = served.post("/v1/search", json={"fasta": fasta.read_text(), **parameters})
    assert answer.status_code == 200, answer.text
    side = targets.side
    hits = protalign.search(
        str(fasta), side.vectors, model=targets.model, store=side.store, device="cpu", **parameters
    )
    same_hits(answer.json(), hits)


def test_structures_and_ids_find_what_a_search_in_process_finds(
    served: TestClient, targets: Targets, sample: Path
) -> None:
    """Uploaded files, also compressed, and ids are superposed and found as in process."""
    names = ["1bpi_A.cif", "1b5m_A.pdb.gz"]
    columns = "query,target,rank,cosine,qtmscore,rmsd,score,qlen,tlen"
    answer = served.post(
        "/v1/search",
        data={
            "ids": ["1a2p_A"],
            "k": "2",
            "query_by": "structure",
            "rerank": "10",
            "columns": columns,
            "tm_score": "1",
        },
        files=[("structures", (f"a/b/{name}", (sample / name).read_bytes())) for name in names],
    )
    assert answer.status_code == 200, answer.text
    hits = protalign.search(
        [*(str(sample / name) for name in names), "1a2p_A"],
        targets.side.vectors,
        model=targets.model,
        store=targets.side.store,
        k=2,
        query_by="structure",
        rerank=10,
        columns=columns,
        tm_score=True,
        device="cpu",
    )
    document = answer.json()
    by_query = {row["query"]: [] for row in document["hits"]}
    for row in document["hits"]:
        by_query[row["query"]].append(row)
    expected = hits.table().as_dict()["hits"]
    assert set(by_query) == {"1bpi_A", "1b5m_A", "1a2p_A"}
    for want in expected:
        got = by_query[want["query"]][want["rank"] - 1]
        assert got["target"] == want["target"]
        for name in ("cosine", "qtmscore", "rmsd", "score"):
            assert got[name] == pytest.approx(want[name], abs=1e-5, rel=1e-4)


def test_the_form_of_the_answer_is_the_clients_choice(served: TestClient) -> None:
    """JSON, TSV, m8, Arrow and a page hold the same hits; another form is a 406."""
    body = {"ids": ["1bpi_A", "1a2p_A"], "k": 2, "rerank": 10}

    def ask(accept: str) -> Any:
        return served.post("/v1/search", json=body, headers={"Accept": accept})

    rows = ask("application/json").json()["hits"]
    wanted = [(row["query"], row["target"]) for row in rows]
    assert len(wanted) == 4
    tsv = list(csv.DictReader(io.StringIO(ask("text/tab-separated-values").text), delimiter="\t"))
    assert [(row["query"], row["target"]) for row in tsv] == wanted
    m8 = [line.split("\t") for line in ask("text/x-m8").text.splitlines()]
    assert [tuple(line[:2]) for line in m8] == wanted
    assert {len(line) for line in m8} == {12}
    arrow = pa.ipc.open_stream(ask("application/vnd.apache.arrow.stream").content).read_all()
    assert list(zip(arrow["query"].to_pylist(), arrow["target"].to_pylist(), strict=True)) == wanted
    page = ask("text/html;q=0.9, image/png")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-disposition"].startswith("attachment")
    assert "1bpi_A" in page.text
    assert ask("*/*").headers["content-type"] == "application/json"


def test_one_bad_record_does_not_stop_the_others(served: TestClient, sample: Path) -> None:
    """What cannot be read is named in the failures, by the record or by the file as text."""
    answer = served.post(
        "/v1/search",
        data={"fasta": ">good\nRPDFCLEPPYTGPCKARIIRYFYNAKAG\n>bad\nRPD1CLE\n"},
        files=[("structures", ("../../etc/pass wd\u202e.pdb", b"ATOM  nothing"))],
    )
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert [query["id"] for query in document["queries"]] == ["good"]
    named = {(failure["file"], failure["id"]) for failure in document["failures"]}
    assert named == {("fasta", "bad"), ("pass_wd_.pdb", "pass_wd_")}


def test_a_bare_sequence_is_a_query(served: TestClient) -> None:
    """A sequence without a header, on several lines, is query_1."""
    answer = served.post("/v1/search", json={"fasta": "RPDFCLEPPYTGPCK\nARIIRYFYNAKAG\n", "k": 1})
    assert answer.json()["queries"] == [
        {
            "id": "query_1",
            "length": 28,
            "modality": "sequence",
            "hits": 1,
            "input": {"field": "fasta", "index": 0},
        }
    ]


def test_each_query_names_the_part_of_the_request_that_it_came_from(
    targets: Targets, sample: Path
) -> None:
    """Chains of one file are queries of their own, and each is aligned by its name."""
    library = by_chain(targets)
    files = [("structures", ("two (1).pdb", two_chains(sample)))]
    asked = {"fasta": f">bad\nM1\n>s\n{library.store.sequence('1bpi_A')[0]}", "ids": ["1b5m_A"]}
    with client(make_app(lambda: library)) as asking:
        answer = asking.post("/v1/search", data={**asked, "k": 2}, files=files)
        assert answer.status_code == 200, answer.text
        inputs = {query["id"]: query["input"] for query in answer.json()["queries"]}
        both = {"field": "structures", "index": 0}
        assert inputs == {
            "two_(1)_I": both,
            "two_(1)_A": both,
            "s": {"field": "fasta", "index": 1},
            "1b5m_A": {"field": "ids", "index": 0},
        }
        for query, length in (("two_(1)_I", 63), ("two_(1)_A", 108), ("s", 58), ("1b5m_A", 84)):
            more = {**asked, "query": query, "target": "1a2p_A"}
            view = asking.post("/v1/align", data=more, files=files).json()
            assert (view["query"]["id"], view["query"]["length"]) == (query, length)
            more = {**asked, "query": query, "hits": ["1a2p_A"]}
            placed = asking.post("/v1/map", data=more, files=files).json()
            assert [each["id"] for each in placed["queries"]] == [query]
        more = {**asked, "query": "bad", "target": "1a2p_A"}
        check_error(asking.post("/v1/align", json=more), 422, "bad: ", param="query")
        more = {**asked, "query": "none", "target": "1a2p_A"}
        check_error(asking.post("/v1/align", json=more), 422, "none: not a query", param="query")


def test_an_alignment_is_the_hit_view_of_a_search(
    served: TestClient, targets: Targets, fasta: Path
) -> None:
    """Pairs, score and E-value are those of a search in process, for one query and one entry."""
    text = fasta.read_text().split(">")[1]
    answer = served.post("/v1/align", json={"fasta": f">{text}", "target": "1bpi_A"})
    assert answer.status_code == 200, answer.text
    side = targets.side
    hits = protalign.search(
        str(fasta),
        side.vectors,
        model=targets.model,
        store=side.store,
        rerank=40,
        k=40,
        device="cpu",
    )
    place = next(i for i, h in enumerate(hits) if (h.query, h.id) == ("q0", "1bpi_A"))
    view, got = hits.view(place), answer.json()
    assert [pair[:2] for pair in got["pairs"]] == [pair[:2] for pair in view["pairs"]]
    assert got["hit"]["score"] == pytest.approx(view["hit"]["score"], rel=1e-4)
    assert got["hit"]["evalue"] == pytest.approx(view["hit"]["evalue"], rel=1e-2)
    assert got["hit"]["cosine"] == pytest.approx(view["hit"]["cosine"], abs=1e-5)
    assert got["structures"]["target"] == view["structures"]["target"]


def test_a_structure_is_superposed_on_its_target(served: TestClient, sample: Path) -> None:
    """A structure query of an entry's own file lies on that entry: TM-score 1, no distance."""
    answer = served.post(
        "/v1/align",
        data={"target": "1bpi_A"},
        files=[("structures", ("mine.cif", (sample / "1bpi_A.cif").read_bytes()))],
    )
    found = answer.json()["superposition"]
    assert found["qtmscore"] == pytest.approx(1, abs=1e-4)
    assert found["rmsd"] == pytest.approx(0, abs=1e-3)


def test_openai_clients_get_vectors(served: TestClient, library: Library) -> None:
    """Vectors come in order, as numbers or base64, and are those of the model."""
    texts = ["RPDFCLEPPYTGPCKARIIRYFYNAKAG", "MKTAYIAKQRQISFVKSHFSRQ"]
    models = served.get("/v1/models").json()
    assert [each["id"] for each in models["data"]] == ["protalign-2M"]
    answer = served.post("/v1/embeddings", json={"input": texts, "model": "protalign-2M"}).json()
    assert answer["object"] == "list"
    assert [each["index"] for each in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 50, "total_tokens": 50}
    rows = library.searcher.encoders.encode("sequence", [(text,) for text in texts])
    want = library.searcher.model.pool("sequence", rows)
    np.testing.assert_allclose([each["embedding"] for each in answer["data"]], want, atol=1e-5)
    packed = served.post(
        "/v1/embeddings", json={"input": texts[1], "encoding_format": "base64", "user": "me"}
    ).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed), "<f4"), want[1], atol=1e-5)


def test_entries_are_known_by_their_ids(served: TestClient, library: Library) -> None:
    """Ids that begin with the text come first; an entry has its chains."""
    ids = [each["id"] for each in served.get("/v1/entries?contains=B&limit=3").json()["entries"]]
    assert len(ids) == 3
    assert all("b" in each.lower() for each in ids)
    entry = served.get("/v1/entries/1bpi_A").json()
    assert entry["chains"] == [{"name": "A", "sequence": library.store.sequence("1bpi_A")[0]}]
    assert (entry["length"], entry["has_sequence"], entry["has_structure"]) == (58, True, True)


def test_structures_come_out_of_the_store(served: TestClient) -> None:
    """Backbones are PDB or mmCIF text; on another entry, they lie where the alignment says."""
    plain = served.get("/v1/entries/1fan_A/structure").text
    assert plain.count("ATOM  ") == 4 * 58
    mmcif = served.get("/v1/entries/1fan_A/structure?format=mmcif")
    assert mmcif.text.startswith("data_")
    assert mmcif.headers["content-type"] == "chemical/x-mmcif"
    moved = served.get("/v1/entries/1fan_A/structure?on=1bpi_A").text

    def atoms(text: str) -> np.ndarray:
        lines = [line for line in text.splitlines() if line.startswith("ATOM  ")]
        return np.array([[float(line[at : at + 8]) for at in (30, 38, 46)] for line in lines])

    on = atoms(served.get("/v1/entries/1bpi_A/structure").text)
    assert np.abs(atoms(moved) - on).mean() < 1.5 < np.abs(atoms(plain) - on).mean()


def test_the_map_places_queries_and_hits(served: TestClient, library: Library) -> None:
    """The map has both vectors of each entry; an entry as a query lies on its own point."""
    points = served.get("/v1/map").json()["points"]
    assert len(points) == 80
    spread = np.array([[point["x"], point["y"]] for point in points]).std(axis=0)
    assert spread[0] >= spread[1] > 0
    placed = served.post("/v1/map", json={"ids": ["1bpi_A"], "hits": ["1a2p_A", "1b5m_A"]}).json()
    by_key = {(point["id"], point["modality"]): point for point in points}
    assert placed["queries"] == [by_key["1bpi_A", "sequence"]]
    assert placed["hits"] == [by_key["1a2p_A", "structure"], by_key["1b5m_A", "structure"]]
    alike = {"ids": ["1bpi_A"], "hits": ["1a2p_A"], "against": "sequence"}
    assert served.post("/v1/map", json=alike).json()["hits"] == [by_key["1a2p_A", "sequence"]]


def test_info_names_what_is_served_and_no_path(served: TestClient, library: Library) -> None:
    """Hashes, counts and every limit; nothing of this machine's folders."""
    info = served.get("/info").json()
    assert info["model"]["sha256"] == library.searcher.model.weights_sha256
    assert info["vectors"] == {"n": 40, "sequences": 40, "structures": 40, "dim": 128}
    assert (info["limits"]["queries"], info["limits"]["residues"]) == (4, 1500)
    assert info["auth"] is False
    assert str(library.store.path) not in json.dumps(info)


def test_records_of_a_file_are_read_as_the_command_reads_them(
    served: TestClient, fasta: Path
) -> None:
    """A FASTA file that is uploaded as a file gives its records."""
    answer = served.post("/v1/search", files=[("fasta", ("q.fasta", fasta.read_bytes()))])
    ids = [protein.id for protein in read_fasta(fasta)]
    assert [query["id"] for query in answer.json()["queries"]] == ids
