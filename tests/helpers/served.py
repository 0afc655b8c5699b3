"""A server in a process of its own, and clients that do not keep to the rules."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

PROGRAM = "from protalign.cli import main; main()"
#: A chain of the sample, 1bpi_A, without its first residues: a query of no entry.
SEQUENCE = "DFCLEPPYTGPCKARIIRYFYNAKAGLCQTFVYGGCRAKRNNFKSAEDCMRTCGGA"


@dataclass
class Served:
    """A server that runs.

    Attributes
    ----------
    url : str
        Its address.
    process : psutil.Process
        Its process.
    log : Path
        The file that it writes to.
    """

    url: str
    process: psutil.Process
    log: Path
    _right: list[Any] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def search(self, timeout: float = 60) -> list[Any]:
        """The ids and cosines of the hits of a right request."""
        body = {"fasta": f">query\n{SEQUENCE}\n", "k": 5}
        answer = httpx.post(f"{self.url}/v1/search", json=body, timeout=timeout)
        assert answer.status_code == 200, answer.text
        return [(hit["target"], round(hit["cosine"], 4)) for hit in answer.json()["hits"]]

    def check(self) -> None:
        """Check that it is up, ready, and answers as it did at the start."""
        assert self.process.is_running(), tail(self.log)
        assert self.process.status() != psutil.STATUS_ZOMBIE, tail(self.log)
        assert httpx.get(f"{self.url}/ready", timeout=60).status_code == 200
        assert self.search() == self._right

    def learn(self) -> None:
        """Keep the right answer."""
        self._right = self.search()
        assert len(self._right) == 5

    def memory(self) -> int:
        """Bytes that it has in memory."""
        rss: int = self.process.memory_info().rss
        return rss

    def send(self, data: bytes, timeout: float = 30) -> bytes:
        """Send bytes over a connection of their own; what comes back until its end."""
        with socket.create_connection(self.address, timeout=timeout) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has answered and closed already
            return received(connection)


def received(connection: socket.socket) -> bytes:
    """Everything that comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    """The status of a raw answer; 0 for a connection that was closed without one."""
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(found[1]) if found else 0


def check_error(answer: httpx.Response) -> None:
    """Check that an error has the one form, and tells nothing of this machine."""
    document = answer.json()
    assert document.keys() == {"error"}, document
    error = document["error"]
    assert error.keys() == {"message", "type", "code", "param"}, document
    assert error["message"], document
    assert "\n" not in error["message"], document
    for secret in ("Traceback", "/tmp/", "site-packages", 'File "'):
        assert secret not in json.dumps(document), document


@contextmanager
def served(
    folder: Path,
    *words: object,
    environment: dict[str, str] | None = None,
    open_files: int | None = None,
    room: int | None = None,
    tracebacks: bool = False,
) -> Iterator[Served]:
    """Serve what the fixture ``finished`` made.

    ``open_files`` and ``room`` limit the files that the process may open, and the bytes of a file.
    It must end on SIGTERM as programs do, and, unless ``tracebacks`` may come, must not have
    written one.
    """

    def limit() -> None:
        if open_files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
        if room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    own = ["--model", folder / "model", "--vectors", folder / "vectors.parquet", "--port", 0]
    command = ["serve", folder / "store.zarr", *own, *words]
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        with (
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *map(str, command)],
                # A pipe, since a file would have the limit too.
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
                preexec_fn=limit,
            ) as process,
            log.open("wb") as file,
        ):
            assert process.stdout is not None
            copying = subprocess.Popen(["cat"], stdin=process.stdout, stdout=file)
            try:
                server = Served(_address(process, log), psutil.Process(process.pid), log)
                _wait_until_ready(server)
                server.learn()
                yield server
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) in (0, -signal.SIGTERM), tail(log)
            finally:
                process.kill()
                process.wait()
                copying.wait()
            assert tracebacks or "Traceback" not in log.read_text(), tail(log)


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text()[-2000:]


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(1200):
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found[0]
        assert process.poll() is None, tail(log)
        time.sleep(0.1)
    raise AssertionError(tail(log))


def _wait_until_ready(server: Served) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{server.url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(tail(server.log))
