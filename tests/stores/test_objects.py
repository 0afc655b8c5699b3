"""Stores in object storage, on a real S3-compatible server, with requests that go wrong."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from protalign import EmbeddingStore, ProtAlignEstimator, embed
from protalign.core.errors import InputError, StoreError, StoreInUseError
from protalign.searching import easy_search
from protalign.stores import verify
from protalign.stores.objects.client import Objects, Timeouts
from protalign.stores.objects.lease import Lease
from protalign.stores.objects.spool import spooled
from tests.helpers.commands import run
from tests.helpers.object_server import ENVIRONMENT, Proxy, object_server

pytestmark = pytest.mark.slow  # a server starts, and stores go through it

ENCODER = "protalign_t6_2M"
_number = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the server."""
    with object_server(tmp_path_factory.mktemp("objects") / "server") as port:
        yield port


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """The way to the server, for this process and its children."""
    proxy = Proxy(server)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("PROTALIGN_SPOOL", str(tmp_path / "uploads"))
    yield proxy
    proxy.close()


@pytest.fixture
def url() -> str:
    """A new address."""
    return f"s3://tests/{os.getpid()}-{next(_number)}/store.zarr"


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few sequences."""
    file = tmp_path_factory.mktemp("proteins") / "a.fasta"
    file.write_text(">a\nMKVLAGIVGA\n>b\nGIVEQCCTSICSLYQLENYCN\n")
    return file


@pytest.fixture(scope="module")
def more(fasta: Path) -> Path:
    """Some more."""
    file = fasta.with_name("b.fasta")
    file.write_text(">c\nFVNQHLCGSHLVEALYLVCGERGFFYTPKT\n")
    return file


@pytest.fixture(scope="module")
def local(fasta: Path, more: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The files of the local stores of the same commands: after the first, and after both."""
    folder = fasta.parent / "local.zarr"
    embed(fasta, folder, [ENCODER])
    first = files_of(folder)
    embed(more, folder, [ENCODER])
    return first, files_of(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a local store, by their paths in it, but for the lock."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def objects_of(url: str) -> dict[str, bytes]:
    """All objects of a store, by their keys, but for the lock."""
    objects = Objects(url)
    return {key: objects.get(key)[0] for key, _ in objects.sizes() if key != ".lock"}


def test_store_is_the_local_one_object_by_object(
    proxy: Proxy,
    url: str,
    fasta: Path,
    more: Path,
    local: tuple[dict[str, bytes], dict[str, bytes]],
) -> None:
    """Embedded and added to, it has the files of the local store, and is read like it."""
    embed(fasta, url, [ENCODER])
    assert objects_of(url) == local[0]
    assert embed(more, url, [ENCODER]).files_read == 1
    assert objects_of(url) == local[1]
    here = EmbeddingStore.open(fasta.parent / "local.zarr")
    there = EmbeddingStore.open(url)
    assert there.ids.tolist() == here.ids.tolist() == ["a", "b", "c"]
    assert np.array_equal(there.embeddings(ENCODER).values, here.embeddings(ENCODER).values)
    spool = Path(os.environ["PROTALIGN_SPOOL"])
    assert [*spool.iterdir()] == []  # nothing is left here


def test_readers_of_an_older_commit_go_on(proxy: Proxy, url: str, fasta: Path, more: Path) -> None:
    """A reader that opened the store before a commit reads what it saw, from rewritten chunks."""
    embed(fasta, url, [ENCODER])
    opened = EmbeddingStore.open(url)
    embed(more, url, [ENCODER])
    assert opened.ids.tolist() == ["a", "b"]
    assert opened.sequence("b") == ("GIVEQCCTSICSLYQLENYCN",)
    assert opened.embeddings(ENCODER).values.shape == (31, 160)


@pytest.mark.parametrize("fault", ["fail", "lost", "twice"])
def test_requests_that_go_wrong_change_nothing(
    proxy: Proxy,
    url: str,
    fasta: Path,
    local: tuple[dict[str, bytes], dict[str, bytes]],
    fault: str,
) -> None:
    """Requests that fail, whose answers are lost, or that arrive twice give the same store."""
    numbers = itertools.count()
    proxy.fault = lambda method, path: fault if next(numbers) % 7 == 0 else ""
    embed(fasta, url, [ENCODER])
    proxy.fault = lambda method, path: ""
    assert objects_of(url) == local[0]


@pytest.mark.parametrize("fault", ["late", "cut"])
def test_writes_without_an_answer_are_made_again(
    proxy: Proxy,
    url: str,
    fasta: Path,
    local: tuple[dict[str, bytes], dict[str, bytes]],
    fault: str,
) -> None:
    """A write whose answer comes too late, or never, is not lost and not doubled."""
    chosen = {"store.zarr/.lock", "store.zarr/zarr.json", "/values/c.0.0"}
    met: set[str] = set()

    def once(method: str, path: str) -> str:
        new = {end for end in chosen - met if method == "PUT" and path.endswith(end)}
        met.update(new)
        return fault if new else ""

    proxy.fault = once
    with spooled(url, Timeouts(one=1, all=20)) as folder:
        embed(fasta, folder, [ENCODER])
    proxy.fault = lambda method, path: ""
    assert met == chosen
    assert objects_of(url) == local[0]


@pytest.mark.parametrize("left", ["nothing", "an expired lease"])
def test_of_writers_at_the_same_moment_one_wins(proxy: Proxy, url: str, left: str) -> None:
    """Writers that ask for the lease at once: one has it, all others are told so."""
    if left != "nothing":
        Objects(url).put(".lock", b'{"host": "h", "until": 0}', None)
    writers = [Lease(Objects(url)) for _ in range(8)]
    start = threading.Barrier(len(writers))

    def acquire(lease: Lease) -> bool:
        start.wait()
        try:
            lease.acquire()
        except StoreInUseError:
            return False
        return True

    with ThreadPoolExecutor(len(writers)) as pool:
        won = list(pool.map(acquire, writers))
    assert sum(won) == 1
    writers[won.index(True)].release(remove=True)
    assert [*Objects(url).sizes()] == []


def test_release_leaves_the_lease_of_another(proxy: Proxy, url: str) -> None:
    """A writer that made nothing, and whose lease another one took, removes nothing of it."""
    first, second = Lease(Objects(url)), Lease(Objects(url))
    first.acquire()
    expire(url)
    second.acquire()
    first.release(remove=True)
    assert [key for key, _ in Objects(url).sizes()] == [".lock"]
    second.release(remove=True)


def test_spool_is_private_and_emptied(proxy: Proxy, url: str, fasta: Path, tmp_path: Path) -> None:
    """Others cannot read it, a failed run leaves no data in it, a link in its place is refused."""

    def fail() -> None:
        with spooled(url) as folder:
            embed(fasta, folder, [ENCODER])
            assert [each.stat().st_mode & 0o777 for each in (folder, folder.parent)] == [0o700] * 2
            raise InputError("stop")

    with pytest.raises(InputError, match="stop"):
        fail()
    (folder,) = Path(os.environ["PROTALIGN_SPOOL"]).glob("*/store.zarr")
    assert [*folder.iterdir()] == []
    mine = write(tmp_path / "mine" / "file", "kept")
    folder.rmdir()
    folder.symlink_to(mine.parent)
    with pytest.raises(StoreError, match="it is a link"), spooled(url):
        pass
    assert mine.read_text() == "kept"


def test_service_without_conditional_requests_is_refused(
    proxy: Proxy, url: str, fasta: Path
) -> None:
    """A service that ignores conditions would let two writers damage the store."""
    proxy.fault = lambda method, path: "ignore"
    with pytest.raises(StoreError, match="does not honour conditional requests"):
        embed(fasta, url, [ENCODER])
    assert objects_of(url) == {}


def test_second_writer_is_refused(
    proxy: Proxy, url: str, fasta: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A store has one writer; the message names it, on this machine and on others."""
    with spooled(url):
        with pytest.raises(StoreInUseError, match=f"process {os.getpid()} on"):
            embed(fasta, url, [ENCODER])
        monkeypatch.setenv("PROTALIGN_SPOOL", str(tmp_path / "other machine"))
        with pytest.raises(StoreInUseError, match=rf"process {os.getpid()} on .*until .* UTC"):
            embed(fasta, url, [ENCODER])
    embed(fasta, url, [ENCODER])


def test_lost_lease_changes_nothing(
    proxy: Proxy,
    url: str,
    fasta: Path,
    more: Path,
    local: tuple[dict[str, bytes], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A writer whose lease expired unnoticed overwrites nothing of the one that came after it."""
    embed(fasta, url, [ENCODER])
    late = write(tmp_path / "d.fasta", ">d\nMKTAYIAKQR\n")
    with spooled(url) as folder:
        expire(url)
        with monkeypatch.context() as other:
            other.setenv("PROTALIGN_SPOOL", str(tmp_path / "other machine"))
            embed(more, url, [ENCODER])
        with pytest.raises(StoreError, match="another process"):
            embed(late, folder, [ENCODER])
    left = objects_of(url)
    left.pop(".commit.partial", None)  # says that a commit was begun; the next run removes it
    assert left == local[1]
    embed(more, url, [ENCODER])
    assert objects_of(url) == local[1]


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def expire(url: str) -> None:
    """Let the lease of a writer end, as if it had not answered for long."""
    objects = Objects(url)
    text, version = objects.get(".lock")
    objects.put(".lock", json.dumps({**json.loads(text), "until": 0}).encode(), version)


def test_killed_run_leaves_the_last_commit_and_goes_on(
    proxy: Proxy,
    url: str,
    fasta: Path,
    more: Path,
    local: tuple[dict[str, bytes], dict[str, bytes]],
) -> None:
    """A run that is killed at any request leaves what was committed; the next one finishes."""
    code = "import sys; from protalign import embed; embed(sys.argv[1], sys.argv[2], [sys.argv[3]])"
    embed(fasta, url, [ENCODER])
    for kill_at in (12, 40, 75):
        puts = itertools.count()
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(more), url, ENCODER],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def kill(
            method: str,
            path: str,
            *,
            puts: Iterator[int] = puts,
            kill_at: int = kill_at,
            child: subprocess.Popen[bytes] = child,
        ) -> str:
            if method == "PUT" and next(puts) == kill_at:
                child.send_signal(signal.SIGKILL)
            return ""

        proxy.fault = kill
        child.wait(60)
        proxy.fault = lambda method, path: ""
        time.sleep(0.2)  # for requests under way
        ids = EmbeddingStore.open(url).ids.tolist()
        assert ids[:2] == ["a", "b"]
        assert EmbeddingStore.open(url)[["a", "b"]].embeddings(ENCODER).values.shape == (31, 160)
        expire(url)
    embed(more, url, [ENCODER])
    assert objects_of(url) == local[1]


def test_damage_is_found(
    proxy: Proxy, url: str, fasta: Path, local: tuple[dict[str, bytes], dict[str, bytes]]
) -> None:
    """``verify`` reads a store behind a URL, and names what is damaged."""
    embed(fasta, url, [ENCODER])
    assert verify(url).ok
    of_chunks = [len(content) for key, content in local[0].items() if "/c." in key]
    assert verify(url).chunks == len(of_chunks)
    assert verify(url).bytes == sum(of_chunks)
    objects, key = Objects(url), f"encoders/{ENCODER}/values/c.0.0"
    content, version = objects.get(key)
    objects.put(key, content[:40] + bytes([content[40] ^ 1]) + content[41:], version)
    report = verify(url)
    assert [(damage.chunk, damage.ids) for damage in report.damages] == [("c.0.0", ("a", "b"))]
    with pytest.raises(StoreError, match="the store is damaged"):
        EmbeddingStore.open(url).embeddings(ENCODER)
    objects.delete(key)
    assert [damage.reason for damage in verify(url).damages] == ["is missing"]


def test_patterns_and_several_stores(proxy: Proxy, url: str, fasta: Path, more: Path) -> None:
    """Stores behind URLs are read as one, by a list or by a pattern; 9 comes before 10."""
    shards = [f"{url.rpartition('/')[0]}/shards/{number}.zarr" for number in (9, 10)]
    for file, shard in zip((fasta, more), shards, strict=True):
        embed(file, shard, [ENCODER])
    pattern = f"{url.rpartition('/')[0]}/shards/*.zarr"
    for paths in (shards, pattern):
        store = EmbeddingStore.open(paths)
        assert store.ids.tolist() == ["a", "b", "c"]
        assert store.embeddings(ENCODER).values.shape == (61, 160)
    assert verify(pattern).ok
    with pytest.raises(StoreError, match="no store matches"):
        EmbeddingStore.open(pattern.replace("shards", "missing"))


def test_requests_of_each_step_are_counted(proxy: Proxy, url: str, fasta: Path, more: Path) -> None:
    """docs/store-format.md says what a request costs: as many as these, at most."""
    embed(fasta, url, [ENCODER])
    made, proxy.counts = proxy.counts, type(proxy.counts)()
    EmbeddingStore.open(url)
    opened, proxy.counts = proxy.counts, type(proxy.counts)()
    EmbeddingStore.open(url).embeddings(ENCODER)
    read, proxy.counts = proxy.counts, type(proxy.counts)()
    embed(more, url, [ENCODER])
    added = proxy.counts
    assert made["PUT"] <= 150
    assert made["GET"] <= 10
    assert opened == {"GET": opened["GET"]}
    assert opened["GET"] <= 35
    assert read == {"GET": read["GET"]}
    assert read["GET"] <= 45
    assert added["PUT"] <= 80
    assert added["GET"] <= 140


def test_a_list_is_read_into_object_storage(proxy: Proxy, url: str, fasta: Path) -> None:
    """As into a folder: a list, and nothing else."""
    named = write(fasta.parent / "paths.txt", f"{fasta}\n")
    assert embed([], url, [ENCODER], lists=[named]).files == 1
    assert EmbeddingStore.open(url).ids.tolist() == ["a", "b"]


def test_a_signed_address_is_refused(proxy: Proxy, url: str, fasta: Path) -> None:
    """It is of one object. No error shows the signature, and nothing is written or kept of it."""
    embed(fasta, url, [ENCODER])
    before, proxy.counts = objects_of(url), type(proxy.counts)()
    for query in (
        "X-Amz-Credential=SECRET&X-Amz-Signature=SECRET",
        "sv=2024&sig=SECRET",
        "SECRET" * 8,
    ):
        signed = f"{url}?{query}"
        for use in (
            lambda signed=signed: EmbeddingStore.open(signed),
            lambda signed=signed: EmbeddingStore.open([signed, url]),
            lambda signed=signed: verify(signed),
            lambda signed=signed: embed(fasta, signed, [ENCODER]),
        ):
            with pytest.raises(StoreError, match=f"^{url}: a store has no address with") as caught:
                use()
            assert "SECRET" not in str(caught.value)
    assert not proxy.counts
    assert objects_of(url) == before


#: docs/store-format.md, "What requests cost": the sample's steps, and (PUT, GET and LIST, DELETE).
_ROW = re.compile(r"^\| `(\w+)`([^|]*)\| *([0-9,]+) \| *([0-9,]+) \| *([0-9,]+) \|$", re.MULTILINE)
#: Requests more or less that other versions of Zarr and obstore may make.
_SHARE, _FEW = 0.1, 3


def test_the_table_of_requests_is_true(
    proxy: Proxy, url: str, sample: Path, tmp_path: Path
) -> None:
    """What docs/store-format.md says that requests cost is what these steps make."""
    model, vectors = tmp_path / "model", tmp_path / "vectors.parquet"
    encoders = ["protalign_t6_2M", "proteinmpnn_v_48_020"]

    def fit() -> None:
        ProtAlignEstimator(max_epochs=3).fit(EmbeddingStore.open(url)).save(model)

    steps: list[tuple[str, Callable[[], object]]] = [
        ("embed", lambda: embed(sample, url, encoders)),
        ("embed", lambda: embed(sample, url, encoders)),
        ("info", lambda: run("info", url)),
        ("fit", fit),
        ("export", lambda: run("export", url, "--model", model, "--out", vectors)),
        ("verify", lambda: verify(url)),
    ]
    made = []
    for name, step in steps:
        proxy.counts.clear()
        step()
        counts = proxy.counts
        deleted = counts["POST"] + counts["DELETE"]
        made.append((name, counts["PUT"], counts["GET"] + counts["HEAD"], deleted))
    text = (Path(__file__).parents[2] / "docs" / "store-format.md").read_text(encoding="utf-8")
    rows = [(row[1], *map(int, row.groups()[2:])) for row in _ROW.finditer(text)]
    print(made)
    assert [name for name, *_ in rows] == [name for name, *_ in made]
    for (name, *said), (_, *counted) in zip(rows, made, strict=True):
        assert np.allclose(said, counted, rtol=_SHARE, atol=_FEW), (name, said, counted)


def test_wrong_use_is_one_line(proxy: Proxy, url: str, fasta: Path) -> None:
    """Passwords in URLs, a scheduler, and other files at the address are refused."""
    with pytest.raises(StoreError) as caught:
        embed(fasta, "s3://me:secret@tests/store.zarr", [ENCODER])
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="--scheduler"):
        embed(fasta, url, [ENCODER], scheduler="tcp://127.0.0.1:9")
    with pytest.raises(StoreError, match="nothing is there"):
        EmbeddingStore.open(url)
    with pytest.raises(StoreError, match=r"://h/x\.zarr") as caught:
        EmbeddingStore.open("foo://me:secr@et@h/x.zarr")
    assert "et@" not in str(caught.value)
    with pytest.raises(InputError, match="it is a URL"):
        easy_search(fasta, url)
    Objects(url).put("notes.txt", b"mine", None)
    with pytest.raises(StoreError, match="is not a store"):
        embed(fasta, url, [ENCODER])
    assert objects_of(url) == {"notes.txt": b"mine"}
