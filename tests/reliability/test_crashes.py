"""A writer that dies at any step leaves a whole store, and the same command finishes it."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from protalign.core.errors import ProtAlignError, WriteError
from protalign.core.protein import Protein
from protalign.stores import EmbeddingStore, verify
from protalign.stores.format import disk
from tests.helpers.stores import build, tree

#: Of the writes of a run every so many-th is tried; 1 tries them all, and takes minutes.
STRIDE = 19


class _KilledError(Exception):
    """Stands for the end of the process."""


@contextmanager
def death_at(step: int) -> Iterator[list[str]]:
    """Let the process "die" in its ``step``-th file write, half of which reaches the disk.

    Every later write fails too, as a dead process writes nothing. Yields the list of files written.
    """
    written: list[str] = []
    put, put_at = disk._put, disk._put_at

    def dying_put(path: Path, parts: tuple[Any, ...], **options: bool) -> None:
        if len(written) >= step:
            data = b"".join(bytes(part) for part in parts)
            if len(written) == step and path.parent.is_dir():
                path.with_suffix(".dead.partial").write_bytes(data[: len(data) // 2])
            written.append(str(path))
            raise _KilledError
        written.append(str(path))
        put(path, parts, **options)

    def dying_put_at(path: Path, offset: int, data: bytes) -> None:
        if len(written) >= step:
            if len(written) == step:
                put_at(path, offset, data[: len(data) // 2])
            written.append(str(path))
            raise _KilledError
        written.append(str(path))
        put_at(path, offset, data)

    disk._put, disk._put_at = dying_put, dying_put_at
    try:
        yield written
    finally:
        disk._put, disk._put_at = put, put_at


def _steps(action: Any) -> int:
    with death_at(10**9) as written:
        action()
    return len(written)


def _check_after_death(path: Path, states: list[int]) -> None:
    """What a reader finds is one of the committed states, and nothing in it is damaged."""
    if 0 in states and not (path / "zarr.json").exists():
        return
    store = EmbeddingStore.open(path)
    assert len(store) in states
    for entry_id in store.ids:
        store.sequence(entry_id)
    assert verify(path).damages == []


@pytest.fixture(scope="module")
def ends(
    tmp_path_factory: pytest.TempPathFactory, proteins: list[Protein]
) -> tuple[Path, dict[str, bytes]]:
    """A store of four proteins, and the bytes of the same with six, never interrupted."""
    folder = tmp_path_factory.mktemp("ends")
    base = build(folder / "base.zarr", proteins[:4])
    whole = build(shutil.copytree(base, folder / "whole.zarr"), proteins[:6])
    return base, tree(whole)


def test_death_while_adding(
    tmp_path: Path, ends: tuple[Path, dict[str, bytes]], proteins: list[Protein]
) -> None:
    """At writes all through a run that adds, plans and fills: a whole store, and the same end."""
    base, expected = ends
    steps = _steps(lambda: build(shutil.copytree(base, tmp_path / "count.zarr"), proteins[:6]))
    for step in range(0, steps, STRIDE):
        path = shutil.copytree(base, tmp_path / f"{step}.zarr")
        with death_at(step), pytest.raises((_KilledError, ProtAlignError)):
            build(path, proteins[:6])
        _check_after_death(path, [4, 6])
        assert tree(build(path, proteins[:6])) == expected, f"killed at write {step}"
        shutil.rmtree(path)


def test_death_while_making(tmp_path: Path, proteins: list[Protein]) -> None:
    """At writes all through a first run, in two commits: never a folder that it then refuses."""
    expected = tree(build(tmp_path / "whole.zarr", proteins[:4], per_commit=2))
    steps = _steps(lambda: build(tmp_path / "count.zarr", proteins[:4], per_commit=2))
    for step in [0, 1, 2, *range(50, steps, 3 * STRIDE)]:
        path = tmp_path / f"{step}.zarr"
        with death_at(step), pytest.raises((_KilledError, ProtAlignError)):
            build(path, proteins[:4], per_commit=2)
        _check_after_death(path, [0, 2, 4])
        assert tree(build(path, proteins[:4], per_commit=2)) == expected, f"killed at write {step}"


def test_death_while_repairing(
    tmp_path: Path, ends: tuple[Path, dict[str, bytes]], proteins: list[Protein]
) -> None:
    """A second death, while the first one's debris is cleared away, does no harm either."""
    base, expected = ends
    for first in (60, 90):
        broken = shutil.copytree(base, tmp_path / f"broken-{first}.zarr")
        with death_at(first), pytest.raises((_KilledError, ProtAlignError)):
            build(broken, proteins[:6])
        for second in (0, 2, 20):
            path = shutil.copytree(broken, tmp_path / f"{first}-{second}.zarr")
            with death_at(second), pytest.raises((_KilledError, ProtAlignError)):
                build(path, proteins[:6])
            _check_after_death(path, [4, 6])
            assert tree(build(path, proteins[:6])) == expected
            shutil.rmtree(path)


def test_debris_of_other_input_is_cleared(
    tmp_path: Path, ends: tuple[Path, dict[str, bytes]], proteins: list[Protein]
) -> None:
    """What a dead run left of proteins that are not there any more does not stay in the chunks."""
    base, expected = ends
    path = shutil.copytree(base, tmp_path / "store.zarr")
    steps = _steps(lambda: build(shutil.copytree(base, tmp_path / "count.zarr"), proteins[6:20]))
    with death_at(steps // 3), pytest.raises((_KilledError, ProtAlignError)):
        build(path, proteins[6:20])
    build(path, proteins[:6])
    assert tree(path) == expected


def test_kill_nine(
    tmp_path: Path, ends: tuple[Path, dict[str, bytes]], proteins: list[Protein]
) -> None:
    """A real process, really killed in the middle of a real write."""
    base, expected = ends
    path = shutil.copytree(base, tmp_path / "store.zarr")
    names = [protein.source for protein in proteins[:6]]
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from protalign.stores.format import disk
from tests.helpers.stores import build, read_protein
whole, left = disk._put, [70]
def put(path, parts, **options):
    left[0] -= 1
    if not left[0]:
        path.with_suffix(".x.partial").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, parts, **options)
disk._put = put
build(Path({str(path)!r}), [read_protein(Path(name)) for name in {names!r}])
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert process.returncode == -signal.SIGKILL
    assert list(path.rglob("*.partial"))
    _check_after_death(path, [4, 6])
    assert tree(build(path, proteins[:6])) == expected


def test_what_counts_is_on_the_disk(
    tmp_path: Path, proteins: list[Protein], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is waited for before the root that makes it count is renamed into its place."""
    waited: set[Path] = set()
    late: list[str] = []
    flush, put = disk.flush, disk._put

    def flush_noted(path: Path) -> None:
        waited.add(path)
        flush(path)

    def put_checked(path: Path, parts: tuple[Any, ...], **options: bool) -> None:
        put(path, parts, **options)
        waited.discard(path)
        if options.get("flushed"):
            others = set(path.parent.rglob("c.*")) - waited
            late.extend(map(str, others))

    monkeypatch.setattr(disk, "flush", flush_noted)
    monkeypatch.setattr(disk, "_put", put_checked)
    path = build(tmp_path / "store.zarr", proteins[:6], per_commit=2)
    assert late == []
    assert any(file.name == "c.0" for file in waited)
    assert verify(path).ok


def test_a_disk_that_tells_late_that_it_is_full(
    tmp_path: Path,
    ends: tuple[Path, dict[str, bytes]],
    proteins: list[Protein],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What fails when it is waited for is one line, and counts for nothing; then the same end."""
    base, expected = ends
    path = shutil.copytree(base, tmp_path / "store.zarr")

    def full(waited: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(waited))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "flush", full)
        with pytest.raises(WriteError, match="make some room"):
            build(path, proteins[:6])
    _check_after_death(path, [4])
    assert tree(build(path, proteins[:6])) == expected


def test_no_room(
    tmp_path: Path, ends: tuple[Path, dict[str, bytes]], proteins: list[Protein]
) -> None:
    """A chunk that does not fit is one line; with room the same command ends the same."""
    base, expected = ends
    path = Path(shutil.copytree(base, tmp_path / "store.zarr"))
    names = [protein.source for protein in proteins[:6]]
    script = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from protalign.core.errors import WriteError
from tests.helpers.stores import build, read_protein
proteins = [read_protein(Path(name)) for name in {names!r}]
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
try:
    build(Path({str(path)!r}), proteins)
except WriteError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith(str(path))
    assert "it cannot be written (File too large); make some room, then run" in line
    _check_after_death(path, [4])
    assert tree(build(path, proteins[:6])) == expected
