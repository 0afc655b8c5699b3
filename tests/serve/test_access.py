"""Keys, names of the server, headers, other sites' pages, logs and numbers."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from protalign.core.errors import InputError
from protalign.serve.access import POLICY, read_key
from protalign.serve.app import make_app
from protalign.serve.library import Library
from protalign.serve.run import bound_socket, check_exposure
from protalign.serve.settings import LOOPBACK, Settings
from tests.serve.helpers import check_error, client

KEY = "0123456789abcdef0123"
GOOD = "RPDFCLEPPYTGPCKARIIRYFYNAKAG"


def test_a_key_is_asked_for_wherever_something_is_served(library: Library) -> None:
    """Without the key 401; with it, as a bearer's or by its own header, the answer."""
    with client(make_app(lambda: library, Settings(key=KEY), threads=1)) as asking:
        for path in ("/health", "/ready", "/", "/openapi.json", "/docs", "/static/page.js"):
            assert asking.get(path).status_code == 200, path
        for path in ("/info", "/metrics", "/v1/entries", "/v1/models", "/v1/map", "/nowhere"):
            check_error(asking.get(path), 401, "the key: ")
            for header in (
                {"Authorization": f"Bearer {KEY}x"},
                {"X-API-Key": ""},
                {"Authorization": f"Basic {KEY}"},
                {"Authorization": KEY},
            ):
                assert asking.get(path, headers=header).status_code == 401
        for path in ("/v1/search", "/v1/reload"):
            check_error(asking.post(path, json={"fasta": GOOD}), 401)
        for header in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
            assert asking.get("/info", headers=header).json()["auth"] is True
            assert asking.post("/v1/reload", headers=header).status_code == 200


def test_a_key_file_has_a_key(tmp_path: Path) -> None:
    """The first line is the key; one that is short, missing or unprintable is refused."""
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n# of the lab\n")
    assert read_key(path) == KEY
    for wrong in (b"", b"short\n", b"\n" + KEY.encode(), KEY.encode() + b"\x00", b"a b" * 9):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="it has no key"):
            read_key(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_key(tmp_path / "missing")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "lab.example"])
def test_no_server_without_a_key_is_reached_from_outside(host: str) -> None:
    """Another address than this machine's own needs a key, or the words --no-auth."""
    with pytest.raises(InputError, match=r"without a key; give --api-key-file, or write --no-auth"):
        check_exposure(host, Settings(), no_auth=False)
    check_exposure(host, Settings(key=KEY), no_auth=False)
    check_exposure(host, Settings(), no_auth=True)


def test_a_taken_address_is_one_line() -> None:
    """A port that is taken and a name that is nobody's are mistakes."""
    bound = bound_socket("127.0.0.1", 0)
    try:
        with pytest.raises(InputError, match="it cannot be served"):
            bound_socket("127.0.0.1", bound.getsockname()[1])
    finally:
        bound.close()
    with pytest.raises(InputError, match="it cannot be served"):
        bound_socket("name.invalid", 0)


def test_only_names_of_this_machine_are_answered(library: Library) -> None:
    """A page of another site that names this machine as its own gets nothing."""
    with client(make_app(lambda: library, Settings(hosts=LOOPBACK), threads=1)) as asking:
        for host in ("127.0.0.1:8080", "localhost", "[::1]:8080", "LOCALHOST:1"):
            assert asking.get("/info", headers={"Host": host}).status_code == 200, host
        for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::2]:80"):
            check_error(asking.get("/info", headers={"Host": host}), 400, "Host")


@pytest.mark.parametrize("path", ["/", "/health", "/info", "/v1/entries", "/nowhere"])
def test_a_head_is_answered_as_a_get_without_its_body(served: TestClient, path: str) -> None:
    """Monitors of a service ask for the head alone."""
    head, whole = served.head(path), served.get(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert served.head("/v1/search").status_code == 405


def test_every_answer_has_its_headers(served: TestClient) -> None:
    """A strict policy, no sniffing, no frames, no storing: also on errors and files."""
    for path in ("/", "/docs", "/static/page.js", "/info", "/v1/entries", "/nowhere"):
        headers = served.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert not re.search("unsafe|http", POLICY)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_hold_to_their_policy(served: TestClient, path: str) -> None:
    """No inline script or style, no address of another machine; every file of theirs is here."""
    text = served.get(path).text
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    named = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert all("//" not in name for name in named), named
    static = [name for name in named if name.startswith("static/")]
    assert static
    for name in static:
        assert served.get(f"/{name}").status_code == 200, name


def test_other_sites_are_let_in_by_name(library: Library) -> None:
    """CORS is for the origins that are named, and a browser may ask first without the key."""
    settings = Settings(key=KEY, origins=("https://lab.example",))
    with client(make_app(lambda: library, settings, threads=1)) as asking:
        asks = {
            "Origin": "https://lab.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        first = asking.options("/v1/search", headers=asks)
        assert first.headers["access-control-allow-origin"] == "https://lab.example"
        key = {"Authorization": f"Bearer {KEY}"}
        answer = asking.get("/info", headers={**key, "Origin": "https://lab.example"})
        assert answer.headers["access-control-allow-origin"] == "https://lab.example"
        other = asking.get("/info", headers={**key, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        check_error(asking.get("/info", headers={"Origin": "https://lab.example"}), 401)


@pytest.mark.parametrize("origin", ["*", "foo", "https://lab.example/", "https://Lab.example", ""])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    """It would let nobody in."""
    with pytest.raises(InputError, match="it is not an origin"):
        check_exposure("127.0.0.1", Settings(origins=(origin,)), no_auth=False)
    named = ("https://lab.example", "http://localhost:8080", "http://[::1]:80")
    check_exposure("127.0.0.1", Settings(origins=named), no_auth=False)


def test_pages_of_other_sites_cost_nothing(library: Library) -> None:
    """A browser sends what they ask, without a key too; it is refused before any work is done."""
    opened = []

    def opens() -> Library:
        opened.append(library)
        return library

    with client(make_app(opens, Settings(reloads=True), threads=1)) as asking:
        own = f"http://{asking.base_url.netloc.decode()}"
        for origin in ("https://evil.example", "null", f"{own}.evil.example"):
            for path in ("/v1/reload", "/v1/search"):
                answer = asking.post(path, headers={"Origin": origin})
                check_error(answer, 403, "--origin")
        assert len(opened) == 1
        assert asking.post("/v1/reload", headers={"Origin": own}).status_code == 200
        # Behind a proxy that has another name, the browser itself says whose page it is.
        proxied = {"Origin": "https://lab.example", "Sec-Fetch-Site": "same-origin"}
        assert asking.post("/v1/reload", headers=proxied).status_code == 200
        assert len(opened) == 3


def test_logs_hold_no_sequences(served: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """A line has the method, the route, the status and the time; nothing that a client wrote."""
    with caplog.at_level(logging.DEBUG):
        served.post("/v1/search", json={"fasta": GOOD})
        served.get(f"/v1/entries?contains={GOOD}")
        served.get(f"/v1/entries/{GOOD}")
        served.get(f"/{GOOD}")
        served.request(GOOD, "/")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("protal")]
    assert len(lines) == 5
    assert re.fullmatch(r"POST /v1/search 200 \d+ ms", lines[0])
    assert lines[2].startswith("GET /v1/entries/{id} 404")
    assert not any(GOOD in line for line in lines)


def test_numbers_are_for_prometheus(served: TestClient) -> None:
    """Requests, stages, the queue, batches and residues are counted, by routes alone."""
    served.post("/v1/search", json={"fasta": f"{GOOD}W"})
    served.get(f"/v1/entries/{GOOD}")
    answer = served.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for words in (
        'protalign_requests_total{route="/v1/search",status="200"}',
        'protalign_request_seconds_bucket{le="0.5",route="/v1/search"}',
        'protalign_stage_seconds_count{stage="encode"}',
        "protalign_queue_proteins 0.0",
        "protalign_batch_proteins_count",
        'protalign_encoded_residues_total{modality="sequence"}',
    ):
        assert words in answer.text, words
    assert GOOD not in answer.text
