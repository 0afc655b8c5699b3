"""Checksums by place: a whole chunk where another one was committed is found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from protalign.core.errors import StoreError, WriteError
from protalign.core.protein import Protein
from protalign.stores import EmbeddingStore, StoreWriter, verify
from protalign.stores.filling.encode import Progress, encode_pending
from protalign.stores.filling.plan import PlanReader
from protalign.stores.filling.record import TaskChecksums
from protalign.stores.format.append import write_chunks
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.checksums import ENTRY_BYTES, ChunkChecksums, DamagedEntryError
from protalign.stores.format.disk import truncate
from tests.helpers.one_hot import load_one_hot, load_refusing
from tests.helpers.stores import BATCH_ROWS, CHUNK_ROWS, ONE_HOT, OPTIONS, build, tree

VALUES = "encoders/one_hot/values"


@pytest.fixture
def path(tmp_path: Path, filled: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "store.zarr"))


def exchange(first: Path, second: Path) -> None:
    """Put two files in each other's place."""
    contents = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(contents)


def test_an_entry_is_of_one_chunk_of_one_array(tmp_path: Path) -> None:
    """It is read at its place alone; empty, cut and foreign entries are told apart."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ours = ChunkChecksums(tmp_path, "a")
    assert ours.get(0) is None
    ours.record(2, [7, 2**32 - 1, 0])
    assert [ours.get(index) for index in range(6)] == [None, None, 7, 2**32 - 1, 0, None]
    assert ours.count() == 5
    ours.forget([2, 9])
    assert ours.get(2) is None
    entries = ours.file.read_bytes()
    for moved in (entries[ENTRY_BYTES:], entries[:-3]):
        ours.file.write_bytes(moved)
        with pytest.raises(DamagedEntryError):
            [ours.get(index) for index in range(5)]
    ours.file.write_bytes(entries)
    shutil.copyfile(ours.file, tmp_path / "b" / "crc32c")
    with pytest.raises(DamagedEntryError):
        ChunkChecksums(tmp_path, "b").get(3)
    ours.cut(4)
    assert [ours.get(3), ours.get(4)] == [2**32 - 1, None]
    ours.cut(0)
    assert not ours.file.exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_in_place_of_recorded_checksums(
    make: Callable[[Path], None], path: Path
) -> None:
    """A writer neither waits nor ends in a traceback, and says what it cannot write."""
    recorded = ChunkChecksums(path, VALUES)
    recorded.file.unlink()
    make(recorded.file)
    with pytest.raises(WriteError, match=r"crc32c: it cannot be written \(.+\); check"):
        recorded.record(0, [7])
    with pytest.raises(WriteError, match="crc32c: it cannot be written"):
        truncate(recorded.file, 8)


def test_a_damaged_entry_is_written_anew_with_its_chunk(path: Path) -> None:
    """Items that are tried again meet it first; where it is read, it is one line."""
    recorded = ChunkChecksums(path, VALUES)
    entries = bytearray(recorded.file.read_bytes())
    entries[3] ^= 1
    recorded.file.write_bytes(entries)
    with pytest.raises(StoreError, match="chunk 0 cannot be told from another, since"):
        recorded.is_recorded(0)
    recorded.forget([0])
    assert not recorded.is_recorded(0)
    assert recorded.is_recorded(1)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_exchanged_chunks_are_refused(scheme: str, path: Path) -> None:
    """Two chunks of embeddings in each other's place: read as an error, and both are named."""
    whole = EmbeddingStore.open(path)
    start, length = whole.rows("one_hot")
    exchange(path / VALUES / "c.0.0", path / VALUES / "c.1.0")
    hurt = EmbeddingStore.open(scheme + str(path))
    with pytest.raises(StoreError, match="not the one that was committed at its place"):
        hurt[:1].embeddings("one_hot")
    report = verify(path)
    assert [damage.chunk for damage in report.damages] == ["c.0.0", "c.1.0"]
    assert set(report.damaged_ids) == set(whole.ids[(start < 512) & (start + length > 0)])


def test_partly_filled_chunks_are_bound_too(path: Path) -> None:
    """The last chunks of two columns, of equal size, in each other's place."""
    exchange(path / "entries/sequence_item/c.0", path / "entries/structure_offset/c.0")
    with pytest.raises(StoreError, match="not the one that was committed at its place"):
        EmbeddingStore.open(path)
    found = [damage.array for damage in verify(path).damages]
    assert found == ["entries/sequence_item", "entries/structure_offset"]


def test_chunks_of_an_interrupted_run_are_bound(path: Path) -> None:
    """Tasks that were done before a run was stopped are protected before it is finished."""
    _plan_again(path)

    def interrupt(progress: Progress) -> None:
        if progress.tasks_done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_pending(path, "again", load_one_hot, on_progress=interrupt)
    assert verify(path).ok
    values = path / "encoders" / "again" / "values"
    exchange(values / "c.0.0", values / "c.1.0")
    assert [damage.chunk for damage in verify(path).damages] == ["c.0.0", "c.1.0"]
    with pytest.raises(StoreError, match="not the one that was committed at its place"):
        EmbeddingStore.open(path)[:1].embeddings("again")


def _plan_again(path: Path) -> None:
    with StoreWriter(path, OPTIONS) as writer:
        writer.plan("again", ONE_HOT, BATCH_ROWS, CHUNK_ROWS)


def test_a_task_tried_again_is_no_damage_at_any_moment(
    path: Path, tmp_path: Path, proteins: list[Protein]
) -> None:
    """Killed before its chunk was written, or after: readers read on, and it ends the same."""
    _plan_again(path)
    at_once = Path(shutil.copytree(path, tmp_path / "at_once.zarr"))
    encode_pending(at_once, "again", load_one_hot)
    load = partial(load_refusing, unwanted=proteins[5].sequences[0][:40])
    encode_pending(path, "again", load)
    arrays = LocalArrays(path)
    plan = PlanReader(arrays, "again")
    (first, *_) = np.flatnonzero(plan.pending).tolist()
    TaskChecksums(path, arrays, "again", plan).forget([first])
    name = "encoders/again/values"
    chunk = int(plan.row[first]) // arrays.spec(name).chunk_rows
    rows = LocalArrays(at_once).chunk(name, chunk)
    for step in (lambda: None, lambda: write_chunks(path, name, arrays.spec(name), chunk, rows)):
        step()
        assert verify(path).ok
        store = EmbeddingStore.open(path)
        store[store.rows("again")[0] >= 0].embeddings("again")
    encode_pending(path, "again", load_one_hot)
    assert tree(path) == tree(at_once)


def test_a_reader_that_opened_before_a_commit_reads_on(
    tmp_path: Path, proteins: list[Protein]
) -> None:
    """Its last chunk has more rows now; the rows that it knows are the same."""
    path = build(tmp_path / "store.zarr", proteins[:4])
    store = EmbeddingStore.open(path)
    build(path, proteins[:7])
    assert store.structure(store.ids[3]).content_hash == proteins[3].structure.content_hash
    assert [store.notes(entry) for entry in store.ids] == [p.notes for p in proteins[:4]]
