"""Errors of object storage that need no service: each is one line that says what to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from protalign import EmbeddingStore, embed
from protalign.core.errors import StoreError
from tests.helpers.commands import run, run_process
from tests.helpers.object_server import ENVIRONMENT

pytest.importorskip("obstore", reason="obstore is not installed")

URL = "s3://lab/store.zarr"
#: A service's answer to a wrong key.
REFUSAL = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature that we calculated does not
match.</Message><Resource>/lab/store.zarr</Resource></Error>"""


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", str(len(REFUSAL)))
        self.end_headers()
        self.wfile.write(REFUSAL)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a service that takes nobody's key."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield address
        server.shutdown()
        thread.join()


def test_wrong_credentials_are_named(refusing: str, tmp_path: Path) -> None:
    """By all that reads, a pattern too; and by a writer. The service's page is not printed."""
    fasta = tmp_path / "one.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n")
    for path in (URL, "s3://lab/*.zarr"):
        with pytest.raises(StoreError, match=r"SignatureDoesNotMatch\); check the cred") as caught:
            EmbeddingStore.open(path)
        assert "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)" in str(caught.value)
        assert "<" not in str(caught.value)
        assert "was committed" not in str(caught.value)
    with pytest.raises(StoreError, match=r"check the credentials \(AWS_ACCESS_KEY_ID"):
        embed(fasta, URL, ["protalign_t6_2M"])


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
@pytest.mark.parametrize("value", ["localhost:9000", "http:/localhost", "s3.lab.org"])
def test_an_endpoint_without_a_scheme_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's library would end with a trace of its own."""
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=f"variable {name} is not an address; begin it with http"):
        EmbeddingStore.open(URL)


def test_an_endpoint_without_a_scheme_is_one_line() -> None:
    """Nothing else is printed, also by the library."""
    env = ENVIRONMENT | {"AWS_ENDPOINT_URL": "localhost:9000"}
    printed = run_process("info", URL, code=2, env=env).stderr
    assert printed.count("\n") == 1
    assert "panicked" not in printed


@pytest.mark.parametrize("url", ["az://lab/store.zarr", "s3://"])
def test_an_address_that_cannot_be_opened_has_advice(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an account is missing, or the address is none."""
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError, match=r"cannot be opened \(.*\); check the (cred|addr)"):
        EmbeddingStore.open(url)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_no_store_is_made_that_is_a_pattern(scheme: str, tmp_path: Path) -> None:
    """Such a store could not be opened again by its name."""
    fasta = tmp_path / "one.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n")
    words = ("embed", fasta, "--structure-encoder", "none", "--out", f"{scheme}://lab/*.zarr")
    for more in ((), ("--sequence-encoder", "protalign_t6_2M")):
        printed = run(*words, *more, code=2).stderr
        assert "a pattern of stores can only be read; name one store to write to" in printed
