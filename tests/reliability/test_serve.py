"""Clients that send rubbish, too much, too slowly or too often: the server stays up and correct."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from protalign.search.hit import Hit
from protalign.search.search_options import SearchOptions
from protalign.search.searcher import Searcher
from tests.helpers.commands import run
from tests.helpers.poisoned import POISON
from tests.helpers.served import (
    SEQUENCE,
    Served,
    check_error,
    received,
    served,
    status_of,
)
from tests.reliability import times

pytest.importorskip("uvicorn")

Record = Callable[[str, object], None]

#: Bodies of each kind of rubbish, of which there are about twenty.
EACH = times(2, 55)
SLOW = times(20, 500)
UPLOADS = times(2, 10)
UPLOAD_BYTES = times(40, 200) * 1_000_000
CONNECTIONS, OPEN_FILES = times(600, 10_000), times(400, 12_000)
JSON = "application/json"
ROUTES = ("/v1/search", "/v1/align", "/v1/embeddings", "/v1/map")
#: Exceptions of an encoder: an ordinary one, one of memory, and one that ends a thread or a loop.
ENDS = "KeyError,MemoryError,SystemExit"
GRIEF = times(1, 10)
GOOD = [SEQUENCE[place:] for place in range(12)]
#: What a request may leave behind in memory: buffers, caches, arenas of the allocator.
SLACK = 150_000_000
#: Zeros: more come out of it than a structure file may have.
BOMB = gzip.compress(bytes(1000) * times(80_000, 400_000), 1)


@pytest.fixture(scope="module")
def server(finished: Path) -> Iterator[Served]:
    """A server with its usual limits, but a short time limit."""
    with served(finished, "--time-limit", 3) as running:
        yield running


def rubbish(sample: Path) -> Iterator[tuple[str, str, bytes, str]]:
    """Bodies that are wrong: their kind, route, bytes and content type."""
    rng = random.Random(0)
    good = json.dumps({"fasta": f">q\n{SEQUENCE}\n", "k": 3, "target": "1bpi_A"}).encode()
    pdb = (sample / "1vqb_A.pdb.gz").read_bytes()
    cif = (sample / "1bpi_A.cif").read_bytes()

    def form(name: str, data: bytes, field: str = "structures") -> bytes:
        head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        return head.encode("utf-8", "surrogatepass") + data + b"\r\n--b--\r\n"

    multipart = "multipart/form-data; boundary=b"
    values = (
        *("null", "[]", "{}", '""', "NaN", "-1", "0", "1e999", "true", '"\\u0000"', '"\\ud800"'),
        *('"../../etc/passwd"', '"=cmd()"', "99999999999999999999", '["a"]', '{"a": 1}'),
    )
    fields = ("fasta", "ids", "k", "against", "rerank", "mode", "min_tm", "columns", "target")
    for step in range(EACH):
        route = ROUTES[step % len(ROUTES)]
        at = rng.randrange(1, len(good) - 1)
        noise = rng.randbytes(rng.choice([1, 10, 1000]))
        yield "cut", route, good[:at], JSON
        yield "noise", route, good[:at] + noise + good[at:], JSON
        yield "only noise", route, noise, JSON
        yield "deep", route, b'{"ids":' + b"[" * 10**5, JSON
        yield "deep array", route, b"[" * (step + 2000) + b"]" * (step + 2000), JSON
        name, value = rng.choice(fields), rng.choice(values)
        yield "value", route, f'{{"fasta": ">q\\n{SEQUENCE}\\n", "{name}": {value}}}'.encode(), JSON
        yield "input", "/v1/embeddings", f'{{"input": {value}}}'.encode(), JSON
        yield "utf-16", route, good.decode().encode("utf-16"), JSON
        yield "no type", route, good, rng.choice(["", "text/html", "a/b; c", "application/"])
        yield "twice", route, good[:-1] + b', "k": "x", "k": [] }', JSON
        yield "number", route, b'{"fasta": ">q\\nMKV\\n", "k": ' + b"9" * 10**4 + b"}", JSON
        yield (
            "sequence",
            route,
            json.dumps({"fasta": ">q\n" + noise.decode("latin-1")}).encode(),
            JSON,
        )
        yield "records", route, json.dumps({"fasta": ">\n" * 1000}).encode(), JSON
        cut = rng.randrange(len(pdb))
        yield "cut gz", "/v1/search", form("a.pdb.gz", pdb[:cut]), multipart
        yield "noisy gz", "/v1/search", form("a.pdb.gz", pdb[:cut] + noise + pdb[cut:]), multipart
        at = rng.randrange(len(cif))
        yield "noisy cif", "/v1/search", form("a.cif", cif[:at] + noise + cif[at:]), multipart
        yield "bcif", "/v1/search", form("a.bcif", b"\x85" + noise), multipart
        yield "bomb", "/v1/search", form("a.pdb.gz", BOMB), multipart
        odd = rng.choice(["../../../tmp/x.pdb", "/etc/passwd", "a\0b.pdb", "a" * 5000, "", "x.exe"])
        yield "name", "/v1/search", form(odd, b"ATOM"), multipart
        yield "no end", "/v1/search", form("a.pdb", b"x")[:-7], multipart
        yield "boundary", "/v1/search", form("a.pdb", b"x"), "multipart/form-data; boundary=c"
        yield "no boundary", "/v1/search", form("a.pdb", b"x"), "multipart/form-data"
        yield "parts", "/v1/search", form("a.pdb", b"x", "k")[:-7] * 3000 + b"--b--\r\n", multipart


def test_malformed_bodies(server: Served, sample: Path, record_property: Record) -> None:
    """Each is refused in the one form of errors, or was right after all; no answer is above 499.

    Noise may leave a file readable, and a value may be the default.
    """
    bodies = list(rubbish(sample))
    before = server.memory()
    seen: dict[int, int] = {}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for kind, route, body, content_type in bodies:
            answer = client.post(route, content=body, headers={"Content-Type": content_type})
            assert answer.status_code < 500, (kind, route, body[:300], answer.text)
            if answer.status_code != 200:
                assert answer.status_code in (400, 404, 413, 415, 422), (kind, answer.status_code)
                check_error(answer)
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    record_property("malformed bodies", len(bodies))
    record_property("refused in one line", len(bodies) - seen.get(200, 0))
    assert server.memory() - before < SLACK
    server.check()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"A: b\r\n" * 400_000 + b"\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 5000000000000\r\n\r\n{",
        b"GET /v1/entries/%00%ff..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /static/..%2f..%2f..%2f__init__.py HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /static/../../__init__.py HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        bytes(range(256)) * 500,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_no_http(server: Served, data: bytes) -> None:
    """What is no request, or asks for what is not there, is refused or its connection is closed."""
    assert status_of(server.send(data)) in (0, 400, 404, 413, 431)
    server.check()


def request(head: str, length: int) -> bytes:
    """The head of a request with a body."""
    return (
        f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {head}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_slow_clients(server: Served, record_property: Record) -> None:
    """Clients that send a byte now and then hold nobody up, and are sent away after a while.

    A third never sends a byte, a third never ends the head of its request, a third its body.
    """
    begins = (b"", b"POST /v1/search HTTP/1.1\r\nA: ", request(JSON, 1000))
    stop = threading.Event()

    def drip(connections: list[socket.socket]) -> None:
        while not stop.wait(0.25):
            for connection in connections:
                with suppress(OSError):
                    connection.send(b" ")

    with ExitStack() as stack:
        connections = []
        for place in range(SLOW):
            connection = socket.create_connection(server.address, timeout=60)
            connections.append(stack.enter_context(connection))
            connection.sendall(begins[place % 3])
        begun = time.monotonic()
        sending = [each for place, each in enumerate(connections) if place % 3]
        dripping = threading.Thread(target=drip, args=(sending,))
        dripping.start()
        stack.callback(dripping.join)
        stack.callback(stop.set)
        server.check()
        assert time.monotonic() - begun < 10
        statuses = [status_of(received(connection)) for connection in connections]
        assert time.monotonic() - begun < 40  # 10 s for a head, 3 for a body, on a busy machine
    assert set(statuses[::3]) | set(statuses[1::3]) <= {0, 400, 408}
    assert set(statuses[2::3]) == {504}
    record_property("slow clients", SLOW)
    server.check()


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
@pytest.mark.parametrize("kind", [JSON, "multipart/form-data; boundary=b"], ids=["json", "form"])
def test_large_uploads(server: Served, announced: bool, kind: str, record_property: Record) -> None:
    """They are refused before they are read, and neither memory nor the disk holds them."""
    before = server.memory()
    block = b" " * (1 << 20)
    start = (
        b""
        if kind == JSON
        else (b'--b\r\nContent-Disposition: form-data; name="structures"; filename="a.pdb"\r\n\r\n')
    )
    most = 0
    for _ in range(UPLOADS):
        head = request(kind, UPLOAD_BYTES)
        if not announced:
            head = head.replace(
                f"Content-Length: {UPLOAD_BYTES}".encode(), b"Transfer-Encoding: chunked"
            )
        sent = 0
        with socket.create_connection(server.address, timeout=30) as connection:
            try:
                connection.sendall(head)
                for data in (start, *[block] * (UPLOAD_BYTES // len(block))):
                    if data:
                        chunk = data if announced else b"%x\r\n%b\r\n" % (len(data), data)
                        connection.sendall(chunk)
                    sent += len(data)
            except OSError:
                pass
            most = max(most, sent)
            answer = received(connection)
        # A client that goes on sending may lose the answer when the connection is closed.
        assert status_of(answer) in (0, 413), answer
    record_property("large uploads", UPLOADS)
    assert most < UPLOAD_BYTES
    assert server.memory() - before < SLACK
    server.check()


def test_a_client_that_reads_hears_413(server: Served) -> None:
    """One that announces its body, and looks before it sends more."""
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(request(JSON, UPLOAD_BYTES))
        head = connection.recv(100)
    assert status_of(head) == 413, head


def test_no_room_for_uploads(finished: Path, sample: Path, record_property: Record) -> None:
    """On a full disk an upload is answered right or refused; the server stays up.

    The system's limit on a file's size stands for the disk: each write of a byte fails.
    """
    structure = gzip.decompress((sample / "1vqb_A.pdb.gz").read_bytes())
    large = structure.replace(b"END", b"REMARK 500 " + b"x" * 60 + b"\nEND", 1)
    large += b"REMARK 500 a line of many\n" * 200_000
    seen = []
    with (
        served(finished, room=0) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for data in (structure, gzip.compress(structure), large):
            files = {"structures": ("a.pdb", data)}
            answer = client.post("/v1/search", files=files)
            seen.append(answer.status_code)
            if answer.status_code != 200:
                check_error(answer)
            assert answer.status_code in (200, 413, 422, 503, 507), answer.text
            server.check()
    record_property("uploads to a full disk", len(seen))


def test_connections_without_end(finished: Path, record_property: Record) -> None:
    """Those above the limit are refused politely; when they have gone, the server answers again.

    A process that may open few files has a lower limit.
    """
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with served(finished, open_files=min(OPEN_FILES, most)) as server, ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # ours
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (least, most))
        taken = httpx.get(f"{server.url}/info").json()["limits"]["connections"]
        assert 0 < taken < OPEN_FILES
        with ExitStack() as opened:
            connections = [
                opened.enter_context(socket.create_connection(server.address, timeout=60))
                for _ in range(min(CONNECTIONS, most - 100))
            ]
            refused = connections[taken:]
            assert {status_of(received(connection)) for connection in refused} == {503}
            assert httpx.get(f"{server.url}/health").status_code == 503
        for _ in range(100):  # until it has seen that they have gone
            if httpx.get(f"{server.url}/health").status_code == 200:
                break
            time.sleep(0.1)
        server.check()
    record_property("connections refused", len(refused))


@pytest.fixture(scope="module")
def poisonable(
    plugin: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[list[Hit]]]:
    """A folder as ``finished`` is, with another package's sequence encoder; hits of GOOD."""
    folder = tmp_path_factory.mktemp("poisonable")
    store, model = folder / "store.zarr", folder / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(plugin)
        patch.setenv("POISON", "KeyError")
        files = sorted(sample.glob("*.pdb.gz"))[:12]
        run("embed", *files, "--out", store, "--quiet", "--sequence-encoder", "poisoned")
        run("fit", store, "--out", model, "--max-epochs", 2, "--embed-dim", 16, "--quiet")
        run("export", store, "--model", model, "--out", folder / "vectors.parquet")
        searcher = Searcher(folder / "vectors.parquet", model=model)
        hits = [list(searcher.search([each], SearchOptions(k=3))) for each in GOOD]
    return folder, hits


def test_threads_that_come_to_grief(
    poisonable: tuple[Path, list[list[Hit]]], plugin: Path, record_property: Record
) -> None:
    """Whatever the encoder raises in a thread, the requests encoded with it are answered right.

    The request itself is refused, and the threads go on.
    """
    folder, expected = poisonable
    path = os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "POISON": ENDS}
    with (
        served(folder, environment=environment, tracebacks=True) as server,
        ThreadPoolExecutor(2 * len(GOOD)) as clients,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):

        def ask(sequence: str) -> httpx.Response:
            return client.post("/v1/search", json={"fasta": f">q\n{sequence}\n", "k": 3})

        for turn in range(GRIEF):
            # Each turn has poison of its own: none was seen before.
            mixed = [each for good in GOOD for each in (good, f"{good[turn:]}{POISON}")]
            for place, answer in enumerate(clients.map(ask, mixed)):
                if place % 2:
                    assert answer.status_code in (422, 500, 503), answer.text
                    check_error(answer)
                    continue
                assert answer.status_code == 200, answer.text
                found, right = answer.json()["hits"], expected[place // 2]
                assert [hit["target"] for hit in found] == [hit.id for hit in right]
                cosines = [hit["cosine"] for hit in found]
                assert cosines == pytest.approx([hit.cosine for hit in right], abs=1e-5)
        server.check()
    record_property("queries that fail in a thread", GRIEF * len(GOOD))
