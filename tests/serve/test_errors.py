"""Every refusal has one form, one line, and its own code."""

from __future__ import annotations

import gzip
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from protalign.core.errors import InputError
from protalign.search.searcher import Searcher
from protalign.searching import Targets, ready_targets
from protalign.serve.app import make_app
from protalign.serve.library import Library
from protalign.serve.settings import Limits, Settings
from tests.serve.helpers import SMALL, check_error, client

GOOD = "RPDFCLEPPYTGPCKARIIRYFYNAKAG"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not valid JSON"),
        (b'{"k": NaN}', 400, "not valid JSON"),
        (b"[" * 100_000, 400, "nested"),
        (b"[1]", 400, "not a JSON object"),
        (b'{"fasta": "\\ud800"}', 400, "not valid JSON"),
        (b"\xff\xfe{}", 400, "not valid JSON"),
        (b"{}", 422, "it has no query"),
        (b'{"fasta": 1}', 422, "fasta: "),
        (b'{"fasta": "AC1"}', 422, "query_1: 1 at position 3"),
        (b'{"fasta": "ACDE", "k": 0}', 422, "k: it must be greater than or equal to 1"),
        (b'{"fasta": "ACDE", "k": 51}', 422, "k=51: more than 50"),
        (b'{"fasta": "ACDE", "k": "5"}', 422, "k: "),
        (b'{"fasta": "ACDE", "rerank": 41}', 422, "rerank=41: more than 40"),
        (b'{"fasta": "ACDE", "rank": 1}', 422, "rank: no such field"),
        (b'{"fasta": "ACDE", "against": "both"}', 422, "against: it must be 'other', "),
        (b'{"fasta": "ACDE", "columns": "evalue"}', 422, "evalue: only a search that compares"),
        (b'{"fasta": "ACDE", "columns": "evalu"}', 422, "not a column of hits"),
        (b'{"fasta": "ACDE", "length_term": 2}', 422, "length_term=2: "),
        (b'{"fasta": "ACDE", "columns": "qtmscore"}', 422, "no coordinates"),
        (b'{"fasta": "ACDE", "rerank": 5, "against": "sequence"}', 422, "residue by residue"),
        (b'{"ids": ["nobody"]}', 404, "'nobody': not an entry"),
        (b'{"ids": ["../../etc/passwd"]}', 404, "not an entry"),
    ],
)
def test_a_wrong_search_is_refused(
    served: TestClient, body: bytes, status: int, words: str
) -> None:
    """Malformed: 400; an unknown id: 404; what is wrong with which record or field: 422."""
    check_error(served.post("/v1/search", content=body, headers=JSON), status, words)


@pytest.mark.parametrize(
    ("option", "param"),
    [
        ('"mode": "global"', "mode"),
        ('"mode": "best"', "mode"),
        ('"length_term": 2', "length_term"),
        ('"tm_score": true', "tm_score"),
        ('"min_tm": 0.5', "min_tm"),
        ('"min_tm": 0.5, "columns": "query,rmsd"', "columns"),
        ('"max_evalue": 1', "max_evalue"),
        ('"min_prob": 0.5', "min_prob"),
        ('"rerank": 5, "min_prob": 50', "min_prob"),
        ('"columns": "query,qaln,evalue"', "columns"),
        ('"columns": "query,nothing"', "columns"),
        ('"columns": "query,mode"', "columns"),
        ('"rerank": 5, "against": "sequence"', "rerank"),
    ],
)
def test_the_field_at_fault_is_named(served: TestClient, option: str, param: str) -> None:
    """As the request calls it."""
    body = f'{{"fasta": "ACDEFGHIKLMNPQ", {option}}}'.encode()
    answer = served.post("/v1/search", content=body, headers=JSON)
    check_error(answer, 422, param=param)


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ([("a.pdb", b"nothing")], 422, "a.pdb"),
        ([("a.txt", b"nothing")], 422, "its suffix is unknown"),
        ([("a.fasta", b">a\nACDE")], 422, "its suffix is unknown"),
        ([("a.pdb.gz", b"nothing")], 422, "not gzip data"),
        ([("a.pdb.gz", gzip.compress(bytes(50_000_000)))], 413, "1,000,000 bytes once"),
        ([("a.cif", b"#" * 400_001)], 413, "structures: they have 400,001 bytes"),
        ([(f"{n}.pdb", b"x") for n in range(6)], 422, "more than 4 queries"),
    ],
)
def test_a_wrong_file_is_refused(
    served: TestClient, files: list[tuple[str, bytes]], status: int, words: str
) -> None:
    """Files that are no structures, a gzip bomb, too many bytes, too many files."""
    answer = served.post("/v1/search", files=[("structures", each) for each in files])
    check_error(answer, status, words)


@pytest.mark.parametrize("route", ["", "/structure"])
def test_an_id_may_hold_a_slash(served: TestClient, route: str) -> None:
    """Ids such as Pfam's O95631/1-100 reach their routes, plain and encoded."""
    for written in ("O95631/1-100", "O95631%2F1-100"):
        answer = served.get(f"/v1/entries/{written}{route}")
        check_error(answer, 404, "'O95631/1-100': not an entry", param="O95631/1-100")


def test_an_id_may_end_as_a_route_does(tmp_path: Path) -> None:
    """The path of an entry a/structure is its own, not that of the structure of a."""
    file = tmp_path / "ids.fasta"
    file.write_text(f">a/structure\n{GOOD}\n")
    targets = ready_targets(file, cache=tmp_path)
    library = Library(targets.searcher(device="cpu"), targets.name, targets.line)
    with client(make_app(lambda: library, Settings(), threads=1)) as asking:
        entry = asking.get("/v1/entries/a/structure").json()
        assert (entry["id"], entry["chains"][0]["sequence"]) == ("a/structure", GOOD)
        answer = asking.get("/v1/entries/a/structure/structure")
        check_error(answer, 422, "a/structure: it has no structure")


def test_other_refusals(served: TestClient) -> None:
    """Routes, methods, media types and sizes have their codes."""
    check_error(served.get("/v2/search"), 404, "/v2/search: no such route")
    check_error(served.get("/v1/search"), 405, "does not take GET")
    check_error(served.get("/v1/entries/nobody"), 404, "'nobody'", param="nobody")
    check_error(served.get("/v1/entries/nobody/structure"), 404, "'nobody'")
    check_error(served.get("/v1/entries/1bpi_A/structure?on=nobody"), 404, "'nobody'")
    check_error(served.get("/v1/entries/1bpi_A/structure?format=xyz"), 422, "format: ")
    check_error(served.get("/v1/entries?limit=0"), 422, "limit: ", param="limit")
    check_error(served.get("/static/../../pyproject.toml"), 404)
    check_error(served.get("/static/%2e%2e%2f%2e%2e%2fapp.py"), 404)
    ask = served.post
    text = {"Content-Type": "text/plain"}
    check_error(ask("/v1/search", content=b"ACDE", headers=text), 415, "text/plain")
    check_error(ask("/v1/search", content=b"{}"), 415, "no content type")
    zipped = {**JSON, "Content-Encoding": "gzip"}
    check_error(ask("/v1/search", content=gzip.compress(b"{}"), headers=zipped), 415, "compressed")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    check_error(ask("/v1/search", content=b"--y", headers=form), 400, "the form")
    plain = {"Content-Type": "multipart/form-data"}
    check_error(ask("/v1/search", content=b"--y", headers=plain), 400, "the form")
    image = {"Accept": "image/png"}
    check_error(ask("/v1/search", json={"fasta": GOOD}, headers=image), 406, "Accept")
    check_error(ask("/v1/search", json={"fasta": "A" * 20_001}), 413, "20,001 bytes")
    sent = {"fasta": (None, "A" * 20_003)}
    check_error(ask("/v1/search", files=sent), 413, "20,000 bytes")
    check_error(ask("/v1/search", data={"fasta": GOOD}), 415, "x-www-form-urlencoded")
    long = f">long\n{'A' * 1501}"
    check_error(ask("/v1/search", json={"fasta": long}), 422, "1,501 residues", param="long")
    many = "".join(f">q{n}\n{GOOD}\n" for n in range(5))
    check_error(ask("/v1/search", json={"fasta": many}), 422, "more than 4 queries")
    twice = f">a\n{GOOD}\n>a\n{GOOD}\n"
    assert ask("/v1/search", json={"fasta": twice}).json()["failures"][0]["id"] == "a"
    two = {"ids": ["1bpi_A", "1a2p_A"], "target": "1bpi_A"}
    check_error(ask("/v1/align", json=two), 422, "2 queries")
    check_error(ask("/v1/align", json={"ids": ["1bpi_A"]}), 422, "target: the field is missing")
    check_error(ask("/v1/align", json={"ids": ["1bpi_A"], "target": "x"}), 404, "'x'")
    check_error(ask("/v1/map", json={"ids": ["1bpi_A"], "hits": ["x"]}), 404, "'x'")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "input: the field is missing"),
        ({"input": []}, 422, "input: 0 sequences"),
        ({"input": ["ACDE"] * 5}, 422, "input: 5 sequences"),
        ({"input": ["ACDE", "AC-E"]}, 422, "input 1: - at position 3"),
        ({"input": [[1, 2]]}, 422, "input: "),
        ({"input": "ACDE", "model": "text-embedding-3-small"}, 404, "does not have it"),
        ({"input": "ACDE", "dimensions": 3}, 422, "dimensions=3"),
        ({"input": "A" * 20_001}, 413, "20,001 letters"),
        ({"input": "A" * 1501}, 422, "1,501 residues"),
    ],
)
def test_wrong_embeddings_are_refused(
    served: TestClient, body: dict[str, Any], status: int, words: str
) -> None:
    """OpenAI's form of request gets OpenAI's form of error."""
    check_error(served.post("/v1/embeddings", json=body), status, words)


def test_a_body_is_refused_while_it_is_sent(served: TestClient) -> None:
    """Without a length the server stops reading at its limit, and with one it reads nothing."""
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while read < 500:
            read += 1
            yield b'{"fasta": "' + b"A" * 100_000

    most = Limits(**SMALL).body_bytes
    check_error(served.post("/v1/search", content=endless(), headers=JSON), 413, f"{most:,}")
    assert read <= 500
    answer = served.post(
        "/v1/search", content=b"", headers={**JSON, "Content-Length": str(most + 1)}
    )
    check_error(answer, 413, f"{most:,}")


def test_a_full_queue_says_when_to_come_again(library: Library) -> None:
    """More queries than may wait are a 429 with Retry-After; fewer are answered."""
    settings = Settings(Limits(**{**SMALL, "waiting": 2}))
    with client(make_app(lambda: library, settings, threads=1)) as asking:
        many = "".join(f">q{n}\n{'WYM' * 5}{'A' * n}\n" for n in range(3))
        answer = asking.post("/v1/search", json={"fasta": many})
        check_error(answer, 429, "queue is full")
        assert int(answer.headers["retry-after"]) >= 1
        assert asking.post("/v1/search", json={"fasta": GOOD}).status_code == 200


def test_a_request_has_a_time_limit(library: Library) -> None:
    """A request that takes too long is a 504, and the server goes on."""
    settings = Settings(Limits(**{**SMALL, "seconds": 1e-6}))
    with client(make_app(lambda: library, settings, threads=1)) as asking:
        check_error(asking.post("/v1/search", json={"fasta": GOOD}), 504, "took more than")
        assert asking.get("/health").status_code == 200


def test_a_server_that_opens_or_ends_refuses(library: Library) -> None:
    """503 until the library is open, and again once the server ends; it is alive all the time."""
    may_open = threading.Event()

    def slowly() -> Library:
        may_open.wait(20)
        return library

    failures: list[BaseException] = []
    gate = make_app(slowly, threads=1, failed=failures.append)
    with client(gate) as asking:
        assert asking.get("/health").json() == {"status": "ok"}
        for path in ("/ready", "/info", "/v1/entries", "/v1/models"):
            answer = asking.get(path)
            check_error(answer, 503, "not ready")
            assert int(answer.headers["retry-after"]) >= 1
        may_open.set()
        for _ in range(1000):
            if asking.get("/ready").status_code == 200:
                break
        assert asking.get("/ready").json() == {"status": "ready"}
        gate.ending = True
        check_error(asking.get("/v1/entries"), 503, "shutting down")
        check_error(asking.get("/ready"), 503, "shutting down")
        assert asking.get("/health").status_code == 200
    assert failures == []


def test_a_defect_is_one_line_without_its_details(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw is a 500 in the same form, and says nothing of the inside."""

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"secret {GOOD}")

    with client(make_app(lambda: library, threads=1)) as asking:
        monkeypatch.setattr(library.searcher, "find", broken)
        answer = asking.post("/v1/search", json={"fasta": GOOD})
        check_error(answer, 500, "nobody foresaw")
        assert "secret" not in answer.text
        monkeypatch.undo()
        assert asking.post("/v1/search", json={"fasta": GOOD}).status_code == 200


@pytest.mark.slow
def test_a_store_that_goes_away_is_the_server_s_trouble(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients hear a 500 that names no path of its; the log has the path; a reload tells why."""
    store = shutil.copytree(finished / "store.zarr", tmp_path / "store.zarr")
    targets = ready_targets(store, cache=tmp_path / "cache", model=finished / "model")
    library = Library(targets.searcher(device="cpu"), targets.name, targets.line)

    def again() -> Library:
        ready_targets(store, cache=tmp_path / "cache", model=finished / "model")
        return library

    asked = Settings(reloads=True)
    with client(make_app(lambda: again() if not store.exists() else library, asked)) as asking:
        assert str(tmp_path) not in asking.get("/info").text
        shutil.rmtree(store)
        for answer in (
            asking.get("/v1/entries/1bpi_A"),
            asking.post("/v1/search", json={"ids": ["1bpi_A"], "rerank": 5}),
        ):
            check_error(answer, 500, "cannot read what it serves")
            assert str(tmp_path) not in answer.text
        assert f"{store}: " in caplog.text
        check_error(asking.post("/v1/reload"), 422, "store.zarr")
        assert asking.post("/v1/search", json={"ids": ["1bpi_A"]}).status_code == 200


def test_a_reload_is_whole_or_nothing(library: Library, targets: Any) -> None:
    """Vectors that grew are taken up at once; what cannot be opened leaves the old in use."""
    few = targets.side.vectors.select(targets.side.vectors.ids[:10])
    small = Library(
        Searcher(few, model=targets.model, store=targets.side.store, device="cpu"), "small"
    )
    next_ones: list[Library | Exception] = [
        small,
        InputError("x.parquet: it is damaged", "export"),
        library,
    ]

    def opens() -> Library:
        each = next_ones.pop(0)
        if isinstance(each, Exception):
            raise each
        return each

    with client(make_app(opens, threads=1)) as asking:
        assert asking.get("/info").json()["vectors"]["n"] == 10
        check_error(asking.post("/v1/reload"), 422, "x.parquet: it is damaged")
        assert asking.get("/info").json()["vectors"]["n"] == 10
        assert asking.post("/v1/reload").json()["vectors"]["n"] == 40
        assert asking.get("/info").json()["vectors"]["n"] == 40


def test_a_reload_says_what_store_and_vectors_lack(
    targets: Targets, caplog: pytest.LogCaptureFixture
) -> None:
    """Entries without vectors, vectors without an entry; of another store they are refused."""
    side, model = targets.side, targets.model

    def opened(names: dict[int, str]) -> Library:
        few = side.vectors.select(side.vectors.ids[:10])
        ids = np.array([names.get(row, name) for row, name in enumerate(few.ids)], dtype=object)
        searcher = Searcher(replace(few, ids=ids), model=model, store=side.store, device="cpu")
        return Library(searcher, "some")

    library = opened({0: "a", 1: "b", 2: "c", 3: "d"})
    assert (library.without_vectors, library.without_entry) == (34, 4)
    with client(make_app(lambda: library, Settings(reloads=True), threads=1)) as asking:
        answer = asking.post("/v1/reload").json()
    assert (answer["without_vectors"], answer["without_entry"]) == (34, 4)
    assert (
        "34 entries of the store without vectors and 4 vectors without an entry in the store"
        in caplog.text
    )
    with pytest.raises(InputError, match="the vectors: the store has none of their entries"):
        opened({row: f"other{row}" for row in range(10)})


def test_an_entry_and_a_record_of_one_id_are_told_apart(served: TestClient) -> None:
    """The second is a failure: hits of the two would have one name."""
    answer = served.post("/v1/search", json={"ids": ["1bpi_A"], "fasta": f">1bpi_A\n{GOOD}\n"})
    document = answer.json()
    assert [each["id"] for each in document["queries"]] == ["1bpi_A"]
    (failure,) = document["failures"]
    assert "the id 1bpi_A is taken by a query of ids" in failure["reason"]


def test_no_file_of_the_machine_is_read(served: TestClient, tmp_path: Path) -> None:
    """A path that exists, as an id or as text, is not opened."""
    path = tmp_path / "query.fasta"
    path.write_text(f">q\n{GOOD}\n")
    check_error(served.post("/v1/search", json={"ids": [str(path)]}), 404, "not an entry")
    check_error(served.post("/v1/search", json={"fasta": str(path)}), 422, "not an amino acid")
