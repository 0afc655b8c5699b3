"""What the tests of the server share."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from protalign.searching import Targets
from protalign.serve.access import Gate
from protalign.serve.errors import KINDS
from protalign.serve.library import Library
from protalign.serve.run import bound_socket, make_server
from protalign.serve.settings import Settings

#: Limits that tests reach quickly.
SMALL: dict[str, Any] = {
    "queries": 4,
    "sequence_bytes": 20_000,
    "structure_bytes": 400_000,
    "unpacked_bytes": 1_000_000,
    "residues": 1500,
    "hits": 50,
    "rerank": 40,
    "inputs": 4,
}


def client(gate: Gate) -> TestClient:
    """Return a client that calls the server by a name of this machine."""
    return TestClient(gate, base_url="http://127.0.0.1", raise_server_exceptions=False)


def check_error(answer: Any, status: int, *words: str, param: str | None = None) -> None:
    """Check that an answer is an error in the documented form, in one line with these words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert set(document) == {"error"}
    error = document["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert (error["type"], error["code"]) == KINDS[status]
    message = error["message"]
    assert ": " in message.split("; ")[0], message
    assert "; " in message, message
    assert "\n" not in message
    assert len(message) <= 500
    for word in words:
        assert word in message, message
    if param is not None:
        assert error["param"] == param


def by_chain(targets: Targets) -> Library:
    """Return a library that takes each chain of an uploaded file as a query."""
    searcher = targets.searcher(device="cpu")
    searcher.__dict__["reading"] = replace(searcher.reading, per="chain")
    return Library(searcher, targets.name, targets.line)


def two_chains(sample: Path) -> bytes:
    """Return a PDB file of the chains I (63 residues) and A (108)."""
    files = [sample / name for name in ("1acb_I.pdb.gz", "1a2p_A.pdb.gz")]
    return b"".join(gzip.decompress(file.read_bytes()).split(b"END")[0] for file in files)


@contextmanager
def over_http(gate: Gate, settings: Settings | None = None) -> Iterator[str]:
    """Serve on a free port, in a thread of this process; give the address."""
    server = make_server(gate, settings or Settings())
    bound = bound_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
