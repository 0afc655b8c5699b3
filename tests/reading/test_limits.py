"""Hostile and unlucky files: memory is bounded, and each fails alone."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest

from protalign.core.errors import InputError
from protalign.reading import (
    ReadOptions,
    SourceFile,
    find_sources,
    read_fasta,
    read_source,
    read_sources,
    scan,
    single,
)
from protalign.reading.binary_cif import unpacked_blocks
from protalign.reading.content import TooLargeError
from protalign.reading.mmcif import read_bcif
from tests.helpers.reading_files import DATA

SAMPLE = Path(__file__).parents[2] / "examples" / "sample"
BCIF = gzip.decompress((DATA / "3jqh.bcif.gz").read_bytes())


def changed(change: Callable[[dict[str, Any]], None], category: str = "_atom_site") -> bytes:
    """3JQH's BinaryCIF with another category."""
    content = msgpack.unpackb(BCIF)
    [found] = [c for c in content["dataBlocks"][0]["categories"] if c["name"] == category]
    change(found)
    packed: bytes = msgpack.packb(content)
    return packed


def column(category: dict[str, Any], name: str) -> Any:
    [found] = [c for c in category["columns"] if c["name"] == name]
    return found


def claim_rows(category: dict[str, Any]) -> None:
    category["rowCount"] = 10**8


def claim_some_rows(category: dict[str, Any]) -> None:
    category["rowCount"] = len(BCIF) // 2


def long_run(category: dict[str, Any]) -> None:
    run = [1, 10**8]
    column(category, "Cartn_x")["data"] = {
        "data": b"".join(n.to_bytes(4, "little") for n in run),
        "encoding": [
            {"kind": "RunLength", "srcType": 3, "srcSize": 10**8},
            {"kind": "ByteArray", "type": 3},
        ],
    }


def runs_of_runs(category: dict[str, Any]) -> None:
    long_run(category)
    steps = column(category, "Cartn_x")["data"]["encoding"]
    steps.insert(0, {"kind": "RunLength", "srcType": 3, "srcSize": 10**9})


def many_steps(category: dict[str, Any]) -> None:
    steps = column(category, "Cartn_x")["data"]["encoding"]
    steps[:0] = [{"kind": "Delta", "origin": 0, "srcType": 3}] * 10_000


def packed_size(category: dict[str, Any]) -> None:
    column(category, "Cartn_x")["data"]["encoding"].append(
        {"kind": "IntegerPacking", "byteCount": 1, "isUnsigned": False, "srcSize": 2 * 10**9}
    )


def long_text(category: dict[str, Any]) -> None:
    data = column(category, "label_atom_id")["data"]
    [step] = [step for step in data["encoding"] if step["kind"] == "StringArray"]
    count = 4_000_000
    step["stringData"] = "N" * count
    step["offsets"] = b"".join(n.to_bytes(4, "little") for n in [0, count, *[count] * 300])
    step["offsetEncoding"] = [{"kind": "ByteArray", "type": 3}]


def deep(category: dict[str, Any]) -> None:
    nested: Any = []
    for _ in range(400):
        nested = [nested]
    column(category, "Cartn_x")["data"]["encoding"] = nested


def objects(category: dict[str, Any]) -> None:
    column(category, "Cartn_x")["more"] = [[{}] * 9_999] * 25


@pytest.mark.parametrize("runs", [[1, 3], [1, 10**8], [1, -1, 1, 5]])
def test_runs_of_another_length_are_damage(runs: list[int]) -> None:
    """The decoder would fill a column with zeros, or forget values."""

    def change(category: dict[str, Any]) -> None:
        total = category["rowCount"]
        data = b"".join(n.to_bytes(4, "little", signed=True) for n in [*runs, 1, 0])
        steps = [{"kind": "RunLength", "srcType": 3, "srcSize": total}]
        encoding = [*steps, {"kind": "ByteArray", "type": 3}]
        column(category, "auth_seq_id")["data"] = {"data": data, "encoding": encoding}

    with pytest.raises(InputError, match="truncated or damaged"):
        read_bcif(changed(change))


@pytest.mark.parametrize(
    "change",
    [
        claim_rows,
        claim_some_rows,
        long_run,
        runs_of_runs,
        many_steps,
        packed_size,
        long_text,
        deep,
        objects,
    ],
)
def test_binarycif_that_would_fill_the_memory(change: Callable[[dict[str, Any]], None]) -> None:
    """Claimed sizes are compared with the file's before anything is decoded."""
    import tracemalloc

    data = changed(change)
    read_bcif(BCIF)  # biotite is imported
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="damaged"):
            read_bcif(data)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_undamaged_binarycif_passes_every_limit() -> None:
    """As a check of the checks."""
    assert [name for name, _ in unpacked_blocks(BCIF)] == ["3JQH"]


def test_gzip_bomb_costs_its_limit_at_most(tmp_path: Path) -> None:
    """In this process 64 MB are unpacked; the rest is for a process of its own."""
    path = tmp_path / "bomb.pdb.gz"
    path.write_bytes(gzip.compress(bytes(200 << 20), 9))
    source = SourceFile(path, "bomb", "pdb")
    with pytest.raises(TooLargeError):
        single.read_structure_file(source, ReadOptions(), scan.MOST_IN_THIS_PROCESS)
    good = SourceFile(SAMPLE / "1bpi_A.cif", "1bpi_A", "mmcif")
    first, second = read_sources([source, good], processes=1)
    assert "binary data" in first.failures[0].reason
    assert [protein.id for protein in second.proteins] == ["1bpi_A"]


def test_file_that_does_not_fit_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its hash, so that a machine with more memory reads it."""
    monkeypatch.setattr(single, "free_memory", lambda: 1e5)
    monkeypatch.setattr(single, "_LEAST_ROOM", 1 << 10)
    monkeypatch.setattr(single, "_NEVER_TOO_LARGE", 1 << 10)
    result = read_source(SourceFile(SAMPLE / "1bpi_A.cif", "1bpi_A", "mmcif"))
    assert result.failures[0].reason == "too large for this machine's memory"
    assert result.sha256 == b""


def test_any_exception_is_the_files_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever a library raises; the traceback is shown if it is asked for."""

    def broken(*_: object) -> list[object]:
        raise IndexError("in a\nlibrary")

    monkeypatch.setattr(single, "read_structure", broken)
    source = SourceFile(SAMPLE / "1bpi_A.cif", "1bpi_A", "mmcif")
    [failure] = read_source(source).failures
    assert failure.reason == "reading it failed (IndexError: in a library)"
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("PROTALIGN_DEBUG", "1")
    read_source(source)
    assert "Traceback" in capfd.readouterr().err

    def interrupted(*_: object) -> list[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(single, "read_structure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_source(source)


def test_exceptions_while_fasta_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records before stay; the file has a failure."""
    path = tmp_path / "a.fasta"
    path.write_text(">a\nMKV\n")

    def broken(_: Path, shown: Path) -> object:
        yield from real(path)
        raise RuntimeError("in a library")

    real = read_fasta
    monkeypatch.setattr(scan, "read_fasta", broken)
    result = read_source(SourceFile(path, "a", "fasta"))
    assert [protein.id for protein in result.proteins] == ["a"]
    assert "RuntimeError" in result.failures[0].reason


def test_disk_error_names_the_file() -> None:
    """A file that opens and cannot be read."""
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("only Linux has a file that cannot be read")
    for kind in ("pdb", "fasta"):
        [failure] = read_source(SourceFile(memory, "mem", kind)).failures
        assert failure.file == str(memory)
        assert "it cannot be read: input/output error" in failure.reason


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """Pipes, sockets and devices, by name or in a folder, make nobody wait."""
    os.mkfifo(tmp_path / "pipe.pdb")
    os.mkfifo(tmp_path / "pipe.fasta")
    (tmp_path / "zero.cif").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        folder = Path.cwd()
        os.chdir(tmp_path)  # a socket's path may not be long
        try:
            server.bind("s.bcif")
        finally:
            os.chdir(folder)
        for name in ("pipe.pdb", "pipe.fasta", "zero.cif", "s.bcif"):
            [source], failures = find_sources([tmp_path / name])
            assert failures == []
            assert read_source(source).failures[0].reason == "it is not a regular file"
        assert find_sources([tmp_path])[0] == []


def test_loops_of_links_are_failures(tmp_path: Path) -> None:
    """A file that is a link to itself, a folder that is one: the others are read."""
    (tmp_path / "loop.pdb").symlink_to("loop.pdb")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "good.cif").write_bytes((SAMPLE / "1bpi_A.cif").read_bytes())
    sources, failures = find_sources([tmp_path, tmp_path / "a"])
    assert [source.path.name for source in sources] == ["good.cif", "loop.pdb"]
    assert [failure.reason for failure in failures] == [
        "it cannot be read: too many levels of symbolic links"
    ]
    good, loop = read_sources(sources)
    assert len(good.proteins) == 1
    assert "too many levels of symbolic links" in loop.failures[0].reason


def test_paths_that_no_system_has(tmp_path: Path) -> None:
    """A name that is too long, a null character: failures."""
    for name in ("x" * 300 + ".pdb", "a\0b.pdb"):
        sources, [failure] = find_sources([tmp_path / name])
        assert sources == []
        assert failure.reason.startswith("it cannot be read: ")


def test_deep_folders_are_searched(tmp_path: Path) -> None:
    """Deeper than Python may call itself."""
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("1bpi_A.cif").write_bytes(b"")
        os.chdir(here)
        assert len(find_sources([tmp_path])[0]) == 1
    finally:
        os.chdir(here)
        # shutil.rmtree, which cleans up after the tests, calls itself for each folder.
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


@pytest.mark.parametrize("moment", ["at work", "at their start"])
def test_readers_end_with_a_killed_parent(moment: str) -> None:
    """After ``kill -9`` of the program no process of it is left."""
    program = (
        "import os, time\n"
        "from protalign.reading.processes import process_map\n"
        "def work(seconds):\n"
        "    time.sleep(seconds)\n"
        "    return os.getpid()\n"
        "for pid in process_map(work, work, [0, 0, 60, 60], 2):\n"
        "    print(pid, flush=True)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    program_itself = psutil.Process(running.pid)
    if moment == "at work":
        running.stdout.readline()
    while not (children := [p for p in program_itself.children() if "--pipe" in p.cmdline()]):
        time.sleep(0.001)
    if moment == "at their start":
        time.sleep(0.1)  # they have what they need from their parent, and import
    running.kill()
    running.wait()
    end = time.monotonic() + 10
    while alive := [child for child in children if _lives(child)]:
        if time.monotonic() > end:
            for child in alive:
                child.kill()
            pytest.fail("a reader outlived its parent")
        time.sleep(0.1)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
