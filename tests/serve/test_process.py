"""The server as a process: its signals, its sockets and its command."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from protalign.searching import Targets
from protalign.serve import run as running
from protalign.serve.app import make_app
from protalign.serve.library import Library
from protalign.serve.run import bound_socket, make_server
from protalign.serve.settings import Limits, Settings
from tests.helpers.commands import run
from tests.serve.helpers import over_http

GOOD = "RPDFCLEPPYTGPCKARIIRYFYNAKAG"


@contextmanager
def signals_kept() -> Iterator[None]:
    """Let this process live when the server gives SIGTERM on to it."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def beside(work: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    """Start a thread; what it raises is kept, and ends the server."""
    problems: list[BaseException] = []

    def kept() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=kept)
    thread.start()
    return thread, problems


def wait_for(what: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_sigterm_finishes_what_runs_and_refuses_the_rest(
    targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search under way gets its answer; a connection after the signal gets none, or a 503."""
    library = Library(targets.searcher(device="cpu"), targets.name)
    searching, may_end = threading.Event(), threading.Event()
    find = library.searcher.find

    def slow(*args: Any, **more: Any) -> Any:
        searching.set()
        may_end.wait(20)
        return find(*args, **more)

    monkeypatch.setattr(library.searcher, "find", slow)
    gate = make_app(lambda: library, threads=1)
    server = make_server(gate, Settings())
    bound = bound_socket("127.0.0.1", 0)
    address = f"http://127.0.0.1:{bound.getsockname()[1]}"
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{address}/v1/search", json={"fasta": GOOD}, timeout=30))

    def work() -> None:
        wait_for(lambda: server.started)
        asking = threading.Thread(target=ask)
        asking.start()
        assert searching.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: gate.ending)
        try:
            refused = httpx.get(f"{address}/v1/entries", timeout=5).status_code == 503
        except httpx.TransportError:
            refused = True
        may_end.set()
        asking.join()
        assert refused

    with signals_kept():
        thread, problems = beside(work)
        server.run(sockets=[bound])
        thread.join()
    bound.close()
    assert problems == []
    assert [answer.status_code for answer in answers] == [200]
    assert answers[0].json()["hits"][0]["query"] == "query_1"


def test_the_command_serves_and_takes_up_what_grew(
    finished: Path, targets: Targets, tmp_path: Path
) -> None:
    """It says its address once it is ready; SIGHUP reads the vectors again; SIGTERM ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    vectors = tmp_path / "vectors.parquet"
    vectors.write_bytes((finished / "vectors.parquet").read_bytes())

    def ready() -> bool:
        try:
            return httpx.get(f"{address}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def reloads(end: str) -> bool:
        return f'protalign_reloads_total{{end="{end}"}}' in httpx.get(f"{address}/metrics").text

    def work() -> None:
        wait_for(ready)
        info = httpx.get(f"{address}/info").json()
        assert (info["vectors"]["n"], info["model"]["name"]) == (40, "model")
        assert httpx.get(f"{address}/info", headers={"Host": "a.example"}).status_code == 400
        good = vectors.read_bytes()
        vectors.write_bytes(b"PAR1 no more")
        os.kill(os.getpid(), signal.SIGHUP)
        wait_for(lambda: reloads("failed"))
        body = {"fasta": GOOD, "k": 1}
        assert httpx.post(f"{address}/v1/search", json=body, timeout=30).status_code == 200
        vectors.write_bytes(good)
        os.kill(os.getpid(), signal.SIGHUP)
        wait_for(lambda: '{end="done"} 2.0' in httpx.get(f"{address}/metrics").text)

    with signals_kept():
        thread, problems = beside(work)
        done = run(
            "serve",
            finished / "store.zarr",
            "--model",
            finished / "model",
            "--vectors",
            vectors,
            "--port",
            port,
            "--threads",
            "1",
            "--device",
            "cpu",
        )
        thread.join()
    assert problems == []
    assert done.stdout == f"protalign serves 40 entries at {address}\n"


def test_mistakes_of_the_command_are_one_line(finished: Path, tmp_path: Path) -> None:
    """No key for other machines, no such store, a model that did not make the vectors."""
    store = finished / "store.zarr"
    done = run("serve", store, "--host", "0.0.0.0", code=2)
    assert done.stderr.startswith("protalign: 0.0.0.0: other machines would reach it")
    done = run("serve", store, "--api-key-file", tmp_path / "none", code=2)
    assert "cannot be read" in done.stderr
    done = run("serve", tmp_path / "none", "--port", "0", code=2)
    assert done.stderr.splitlines()[-1].endswith("none: it does not exist; check the path")
    vectors = finished / "vectors.parquet"
    done = run("serve", store, "--vectors", vectors, "--port", "0", "--device", "cpu", code=2)
    assert "another model made them" in done.stderr.splitlines()[-1]


def test_what_is_not_http_or_slow_is_cut_off(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is no request is a 400; a head that does not come ends the connection."""
    monkeypatch.setattr(running, "HEAD_SECONDS", 0.3)
    with over_http(make_app(lambda: library, threads=1)) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as odd:
            odd.sendall(b"\x16\x03\x01 hello\r\n\r\n")
            answer = odd.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b'"code":"malformed"' in answer
        with socket.create_connection((host, int(port)), 10) as slow:
            slow.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")
            start = time.monotonic()
            assert slow.recv(100) == b""
            assert time.monotonic() - start < 5
        with socket.create_connection((host, int(port)), 10) as kept:
            for _ in range(2):  # a connection that is used is kept
                kept.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                answer = b""
                while not answer.endswith(b"}"):
                    answer += kept.recv(10_000)
                assert answer.startswith(b"HTTP/1.1 200")
                time.sleep(0.4)
        assert httpx.get(f"{address}/health").status_code == 200


def test_too_many_connections_are_refused_politely(library: Library) -> None:
    """The first ones are served on; the others get a 503 with words, and may come again."""
    settings = Settings(Limits(connections=3))
    with over_http(make_app(lambda: library, settings, threads=1), settings) as address:
        host, port = address.removeprefix("http://").split(":")
        several = [socket.create_connection((host, int(port)), 10) for _ in range(3)]
        time.sleep(0.1)
        answer = httpx.get(f"{address}/health")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"] == "unavailable"
        several[0].sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert several[0].recv(10_000).startswith(b"HTTP/1.1 200")
        for each in several:
            each.close()
        wait_for(lambda: httpx.get(f"{address}/health").status_code == 200)


def test_a_body_without_a_length_is_refused_while_it_comes(library: Library) -> None:
    """A chunked body that does not end is answered at the limit, and the connection is closed."""
    settings = Settings(Limits(sequence_bytes=1000, structure_bytes=1000))
    with over_http(make_app(lambda: library, settings, threads=1), settings) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as endless:
            endless.sendall(
                b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            sent, chunk = 0, b"10000\r\n" + b"A" * 0x10000 + b"\r\n"
            answer = b""
            try:
                while sent < 100 * len(chunk):
                    endless.sendall(chunk)
                    sent += len(chunk)
            except (ConnectionError, TimeoutError):
                pass
            try:
                answer = endless.recv(10_000)
            except ConnectionError:
                answer = b"(reset)"
        assert sent < 100 * len(chunk)
        assert answer.startswith(b"HTTP/1.1 413") or answer == b"(reset)"
        assert httpx.get(f"{address}/health").status_code == 200
