"""Many files at once."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joblib.externals import loky

from protalign.core.files import sha256 as file_sha256
from protalign.reading import (
    ReadOptions,
    SourceFile,
    SourceResult,
    find_sources,
    read_source,
    read_sources,
    scan,
)
from protalign.reading.processes import one_by_one, process_map, stop_workers
from tests.helpers.workers import double_or_die


def content(results: list[SourceResult]) -> list[object]:
    return [
        (
            result.source.id,
            result.sha256,
            [
                (p.id, p.sequences, p.structure and p.structure.content_hash)
                for p in result.proteins
            ],
            result.failures,
        )
        for result in results
    ]


@pytest.fixture(scope="module")
def mixed(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> list[SourceFile]:
    """The sample, a FASTA file, and files that fail."""
    folder = tmp_path_factory.mktemp("mixed")
    for path in sample.glob("*.*"):
        shutil.copy(path, folder)
    (folder / "0.fasta").write_text(">one\nMKVL\n>two\nMK-L\n>1vqb_A\nMKVI\n")
    (folder / "broken.pdb").write_text("<html>")
    (folder / "empty.cif").write_text("")
    return find_sources([folder])[0]


@pytest.fixture(scope="module")
def results(mixed: list[SourceFile]) -> list[SourceResult]:
    """All of it, read by two processes."""
    return list(read_sources(mixed, processes=2))


def test_results_are_the_same_with_any_number_of_processes(
    mixed: list[SourceFile], results: list[SourceResult]
) -> None:
    """Order and content: structure files in order, then FASTA files."""
    alone = content(list(read_sources(mixed, processes=1)))
    assert content(results) == alone
    assert [entry[0] for entry in alone] == [*sorted(s.id for s in mixed if s.kind != "fasta"), "0"]


def test_many_files_are_read_by_other_processes(
    mixed: list[SourceFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default; starting them for a few files would cost more than it saves."""
    read_here: list[str] = []

    def noted(source: SourceFile, *rest: Any) -> SourceResult:
        read_here.append(source.id)
        return real(source, *rest)

    real = scan.read_structure_file
    monkeypatch.setattr(scan, "read_structure_file", noted)
    monkeypatch.setattr(scan, "core_count", lambda: 2)
    files = [source for source in mixed if source.kind != "fasta"][: scan.FEWEST_FOR_PROCESSES]
    few, many = files[:-1], files
    for sources, here in ((few, [source.id for source in few]), (many, [])):
        read_here.clear()
        assert [result.source.id for result in read_sources(sources)] == [s.id for s in sources]
        assert read_here == here


def test_bad_files_stop_nothing(results: list[SourceResult]) -> None:
    """Forty proteins and one record come out, and a failure for each that cannot."""
    failures = {f.id: f.reason for result in results for f in result.failures}
    assert sum(len(result.proteins) for result in results) == 41
    assert set(failures) == {"broken", "empty", "two", "1vqb_A"}


def test_record_with_a_structures_id_fails_and_names_its_file(
    results: list[SourceResult],
) -> None:
    """An id belongs to the first that has it, whatever kind of file it is in."""
    [failure] = [f for result in results for f in result.failures if f.id == "1vqb_A"]
    assert failure.file.endswith("0.fasta")
    assert failure.reason.startswith("the id 1vqb_A is taken by ")
    assert failure.reason.endswith("1vqb_A.pdb.gz")


def test_failures_of_a_fasta_file_are_in_its_order(tmp_path: Path) -> None:
    """Records that fail by themselves, without an id, and with an id that an earlier file has."""
    (tmp_path / "a.fasta").write_text(">x1\nMKVL\n>x2\nMKVL\n")
    (tmp_path / "b.fasta").write_text(
        ">\nMKVL\n>x1\nMKVL\n>b2\nMK2V\n>good\nMKVI\n>x2\nMKVL\n>b3\nM\n>\nMKVL\n>good\nMK\n"
    )
    sources, _ = find_sources([tmp_path])
    expected = ["record 1", "x1", "b2", "x2", "b3", "record 7", "good"]
    for block in (2, 100):
        results = list(read_sources(sources, block=block))
        failures = [failure for result in results for failure in result.failures]
        assert [failure.id for failure in failures] == expected
        assert [p.id for result in results for p in result.proteins] == ["x1", "x2", "good"]


@pytest.mark.parametrize("processes", [1, 2])
def test_known_files_are_hashed_and_not_read(
    mixed: list[SourceFile], processes: int, tmp_path: Path
) -> None:
    """``skip`` sees every file's hash; what it accepts comes back empty and marked.

    It is not asked about a file that cannot be opened, and so has no hash.
    """
    loop = tmp_path / "loop.pdb"
    loop.symlink_to(loop)
    known = {file_sha256(source.path) for source in mixed if source.id.startswith("1v")}
    known.add(file_sha256(next(s.path for s in mixed if s.kind == "fasta")))
    asked = []

    def skip(source: SourceFile, sha256: bytes) -> bool:
        asked.append(source.id)
        return sha256 in known

    unreadable = SourceFile(loop, "loop", "pdb")
    failed, *results = read_sources([unreadable, *mixed], processes=processes, skip=skip)
    assert (len(failed.failures), failed.skipped) == (1, False)
    assert sorted(asked) == sorted(source.id for source in mixed)
    for result in results:
        assert result.skipped == (result.sha256 in known)
        assert result.last
        assert bool(result.proteins or result.failures) != result.skipped


def test_hash_is_of_the_file_as_it_is_on_disk(sample: Path) -> None:
    """Of the compressed bytes; a copy under another name has the same."""
    [source], _ = find_sources([sample / "1vqb_A.pdb.gz"])
    expected = hashlib.sha256(source.path.read_bytes()).digest()
    assert read_source(source).sha256 == file_sha256(source.path) == expected


def test_reading_twice_gives_equal_content(sample: Path) -> None:
    """Nothing depends on anything but the file and the options."""
    sources, _ = find_sources([sample])
    options = ReadOptions(per="chain", sequence="deposited")
    first, second = (content(list(read_sources(sources, options, processes=1))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("slow", [None, 6, 7])
def test_killed_worker_costs_its_own_item_only(slow: int | None) -> None:
    """Items under way when a worker dies are done again, each at its place.

    So are those that come after its death, before it was noticed (``slow``: waits for that).
    """
    recovered: list[int] = []

    def recover(number: int) -> int:
        recovered.append(number)
        return -number

    def numbers() -> Iterator[int]:
        for number in range(12):
            if number == slow:
                time.sleep(0.5)
            yield number

    results = list(process_map(double_or_die, recover, numbers(), processes=2))
    assert results == [-n if n in recovered else 2 * n for n in range(12)]
    assert 5 in recovered
    assert len(recovered) <= 4  # two for each process


def test_one_by_one_finds_the_item_that_kills() -> None:
    """The items before and after it are done, by a new worker."""
    assert list(one_by_one(double_or_die, lambda _: -1, [4, 5, 6])) == [8, -1, 12]


@pytest.mark.parametrize(
    "way", ["process_map(held, held, range(8), 2)", "one_by_one(held, held, range(2))"]
)
def test_a_worker_never_sees_ctrl_c(way: str) -> None:
    """Not even while it starts, when Python would show a traceback; this process sees it still."""
    program = (
        "import signal\n"
        "from protalign.reading.processes import one_by_one, process_map, stop_workers\n"
        "def held(_):\n"
        "    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())\n"
        f"print({{*{way}}}, held(0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout, done.stderr) == ("{True} False\n", "")


def test_script_without_a_main_guard_can_read_in_parallel(sample: Path, tmp_path: Path) -> None:
    """Worker processes do not run the caller's script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from protalign.reading import find_sources, read_sources\n"
        f"sources, _ = find_sources([Path({str(sample)!r})])\n"
        "print(sum(len(r.proteins) for r in read_sources(sources, processes=2)))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "40", "")


def test_iteration_can_be_left_early(sample: Path) -> None:
    """Closing the generator ends its workers."""
    sources, _ = find_sources([sample])
    results = read_sources(sources, processes=2)
    assert next(results).proteins
    results.close()  # type: ignore[attr-defined]


def test_stopping_workers_with_tasks_that_wait_prints_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tasks that no worker was given are dropped, and no thread of the pool ends in an error."""
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    for _ in range(3):
        executor = loky.ProcessPoolExecutor(max_workers=1)
        for _ in range(20):
            executor.submit(time.sleep, 60)
        stop_workers(executor)
    assert errors == []
