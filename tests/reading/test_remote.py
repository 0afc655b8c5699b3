"""Files behind addresses: fetched through fsspec from a server that does all that servers do."""

from __future__ import annotations

import gzip
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from protalign.reading import SourceResult, fetching, find_given, find_sources, read_sources
from tests.reading.test_archives import pack

pytest.importorskip("aiohttp")


class Server(ThreadingHTTPServer):
    """Serves files by name; other names misbehave."""

    daemon_threads = True
    files: dict[str, bytes]
    asked: Counter[str]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        name = self.path.lstrip("/").partition("?")[0]
        self.server.asked[name] += 1
        data = self.server.files.get(name, b"")
        if name.startswith("redirect"):
            target = {"redirect.cif": "/1bpi_A.cif", "redirect.pdb": "file:///etc/hostname"}
            self.answer(302, b"", Location=target.get(name, f"/{name}"))
        elif name.startswith("busy") and self.server.asked[name] < 3:
            self.answer(503, b"busy")
        elif name.startswith("broken"):
            self.answer(500, b"secret")
        elif name.startswith("silent"):
            time.sleep(1.5)
        elif name.startswith("short"):
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"data_x\n")
            self.close_connection = True
        elif name.startswith("packed"):
            self.answer(200, gzip.compress(data), Content_Encoding="gzip")
        elif name.startswith("bomb"):
            self.answer(200, gzip.compress(bytes(8 << 20)), Content_Encoding="gzip")
        elif name.startswith("part"):
            self.answer(206, data[:1000], Content_Range="bytes 0-999/9999")
        elif name.startswith("unchanged"):
            self.answer(304, b"")
        elif name.startswith("endless"):
            self.endless()
        elif name in self.server.files:
            # A server that packs what it may, and names a packed file as if it had done that.
            packed = "gzip" in self.headers.get("Accept-Encoding", "")
            more = {"Content-Encoding": "gzip"} if packed or name.endswith(".gz") else {}
            self.answer(200, gzip.compress(data) if packed else data, **more)
        else:
            self.answer(404, b"no")

    def answer(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            pass


@pytest.fixture
def server(sample: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server with three structures of the sample; waits are short, copies lie in tmp_path."""
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    monkeypatch.setattr(fetching, "_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(fetching, "_SILENCE", 0.3)
    server = Server(("127.0.0.1", 0), Handler)
    names = ("1bpi_A.cif", "107l_A.pdb.gz", "1b5m_A.pdb.gz")
    server.files = {name: (sample / name).read_bytes() for name in names}
    server.asked = Counter()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
    assert list((tmp_path / "copies").iterdir()) == [], "copies are removed"


def read(*addresses: str, **options: object) -> list[SourceResult]:
    given = find_given(addresses)
    assert given.failures == []
    return list(read_sources(given.sources, processes=1, **options))  # type: ignore[arg-type]


def test_an_address_is_read_as_its_file_is(server: Server, sample: Path) -> None:
    """The same proteins and hash; a .gz file comes as it is, whatever the server calls it."""
    results = read(*(server.url(f"{name}?key=secret") for name in server.files))
    expected = list(
        read_sources(find_sources([sample / name for name in server.files])[0], processes=1)
    )
    assert [each.failures for each in results] == [[], [], []]
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.sha256 == theirs.sha256
        assert [p.id for p in ours.proteins] == [p.id for p in theirs.proteins]
        assert [p.sequences for p in ours.proteins] == [p.sequences for p in theirs.proteins]
        [protein] = ours.proteins
        assert protein.source == server.url(Path(theirs.proteins[0].source).name)


def test_an_id_belongs_to_a_file_here_before_a_record_behind_an_address(
    server: Server, sample: Path
) -> None:
    """Files that are at hand are read first; the record is a failure that names the file."""
    server.files["more.fasta"] = b">one\nMKVLAG\n>1bpi_A\nMKVLAG\n"
    results = read(server.url("more.fasta"), str(sample / "1bpi_A.cif"))
    assert [p.id for result in results for p in result.proteins] == ["1bpi_A", "one"]
    [failure] = [failure for result in results for failure in result.failures]
    assert (failure.id, failure.file) == ("1bpi_A", server.url("more.fasta"))
    assert failure.reason == f"the id 1bpi_A is taken by {sample / '1bpi_A.cif'}"


def test_containers_are_fetched_whole(server: Server, tmp_path: Path) -> None:
    """An archive and a FASTA file behind an address; entries name the address."""
    archive = pack(tmp_path / "a.tar", dict(server.files)).read_bytes()
    fasta = gzip.compress(b">one\nMKVLAG\n>two\nMKVL1\n")
    server.files = {"all.tar": archive, "two.fasta.gz": fasta}
    results = read(server.url("all.tar"), server.url("two.fasta.gz"))
    proteins = [protein for result in results for protein in result.proteins]
    assert [protein.id for protein in proteins] == ["1bpi_A", "107l_A", "1b5m_A", "one"]
    assert proteins[0].source == server.url("all.tar")
    [failure] = [failure for result in results for failure in result.failures]
    assert (failure.id, failure.file) == ("two", server.url("two.fasta.gz"))


def test_known_content_is_not_read(server: Server) -> None:
    """Its bytes are fetched and hashed."""
    [result] = read(server.url("1bpi_A.cif"), skip=lambda source, sha256: len(sha256) == 32)
    assert result.skipped
    assert result.proteins == []


def test_an_error_that_passes_is_tried_again(server: Server) -> None:
    """Twice 503, then the file."""
    server.files["busy.cif"] = server.files["1bpi_A.cif"]
    [result] = read(server.url("busy.cif"))
    assert [protein.id for protein in result.proteins] == ["busy"]
    assert server.asked["busy.cif"] == 3


@pytest.mark.parametrize(
    ("name", "words", "times"),
    [
        ("part.fasta", "the server answered with status 206", 1),
        ("unchanged.cif", "the server answered with status 304", 1),
        ("missing.cif", "it does not exist there", 1),
        ("broken.cif", "the server answered with error 500", 3),
        ("silent.cif", "the server does not answer in time", 3),
        ("short.cif", "the connection ended before the file did", 3),
        ("redirect.pdb", "the server leads to something that is no web address", 1),
        ("redirect-loop.cif", "the server leads to something that is no web address", None),
    ],
)
def test_what_cannot_be_fetched_is_one_failure(
    name: str, words: str, times: int | None, server: Server
) -> None:
    """Without a hash, so that it is tried again; without a secret; the others are read."""
    address = server.url(name).replace("//", "//me:pass@") + "?key=secret"
    bad, good = sorted(read(address, server.url("1bpi_A.cif")), key=lambda r: len(r.proteins))
    [failure] = bad.failures
    assert failure.reason == words
    assert failure.file == server.url(name)
    assert bad.sha256 == b""
    assert len(good.proteins) == 1
    assert times is None or server.asked[name] == times


def test_a_redirect_to_another_web_address_is_followed(server: Server) -> None:
    """The entry keeps the address that was given, and its name."""
    [result] = read(server.url("redirect.cif"))
    assert [protein.id for protein in result.proteins] == ["redirect"]


def test_a_file_that_comes_packed_is_unpacked(
    server: Server, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As object storage gives what was kept packed; its size is limited as that of any file."""
    server.files["packed.cif"] = server.files["1bpi_A.cif"]
    [packed], [plain] = read(server.url("packed.cif")), read(server.url("1bpi_A.cif"))
    assert packed.failures == []
    assert packed.sha256 == plain.sha256
    monkeypatch.setattr(fetching, "MAX_BYTES", 1 << 20)
    [bomb] = read(server.url("bomb.cif"))
    assert "larger than" in bomb.failures[0].reason


def test_what_is_too_large_ends_early(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends without end is left at the limit, for files and for containers."""
    monkeypatch.setattr(fetching, "MAX_BYTES", 1 << 20)
    [result] = read(server.url("endless.cif"))
    assert "larger than" in result.failures[0].reason
    monkeypatch.setattr(fetching, "_SHARE_ALONE", 1e-6)
    [result] = read(server.url("endless.tar"))
    assert result.failures[0].reason == "the disk has too little room for its copy"


def test_what_comes_too_slowly_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer bytes a second than a limit."""
    monkeypatch.setattr(fetching, "_PATIENCE", 0.0)
    monkeypatch.setattr(fetching, "_SLOWEST", 1e12)
    [result] = read(server.url("1bpi_A.cif"))
    assert result.failures[0].reason == "it comes too slowly"


def test_a_server_that_is_gone(server: Server) -> None:
    """Nobody listens at that port."""
    unused = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = unused.server_address[1]
    unused.server_close()
    [result] = read(f"http://127.0.0.1:{port}/a.cif")
    assert result.failures[0].reason == "the server cannot be reached"


def test_other_schemes(sample: Path) -> None:
    """Each that fsspec has; one whose library is missing says which."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/1bpi_A.cif", (sample / "1bpi_A.cif").read_bytes())
    missing, unknown, good = read(
        "memory://bucket/1bpi_A.cif", "memory://bucket/none.cif", "oss://bucket/x.cif"
    )
    assert [protein.id for protein in good.proteins] == ["1bpi_A"]
    assert missing.failures[0].reason == "it does not exist there"
    assert "oss:// is not installed" in unknown.failures[0].reason
    assert "ossfs" in unknown.failures[0].advice
    memory.rm("/bucket", recursive=True)
