"""Rows of many ranges: as slices give them, and each chunk asked for once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protalign.core.errors import StoreError
from protalign.stores.format.append import Appender, create_store, prepare_arrays
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.pieces import pieces
from protalign.stores.format.state import StoreState


@pytest.mark.parametrize("longest", [1, 5, 90], ids=["rows", "short", "over several chunks"])
@pytest.mark.parametrize("chunk_rows", [1, 7, 40])
def test_ranges_are_what_slices_give(chunk_rows: int, longest: int) -> None:
    """In any order, empty, repeated and overlapping ones too."""
    rng = np.random.default_rng(chunk_rows + longest)
    for shape in ((), (2,)):
        rows = rng.integers(1000, size=(280, *shape))
        start = rng.integers(0, 280, 60)
        length = np.minimum(rng.integers(0, longest + 1, 60), 280 - start)
        out = np.full((length.sum(), *shape), -1)
        for some in pieces(start, length, chunk_rows):
            some.copy(rows[some.chunk * chunk_rows : (some.chunk + 1) * chunk_rows], out)
        wanted = [rows[first : first + count] for first, count in zip(start, length, strict=True)]
        assert np.array_equal(out, np.concatenate(wanted))


def test_a_chunk_is_asked_for_once_however_many_rows_are_wanted() -> None:
    """Rows in any order: the ids of a million entries are not a million requests."""
    rows = np.random.default_rng(0).permutation(1000)
    chunks = [some.chunk for some in pieces(rows, np.ones_like(rows), 100)]
    assert chunks == list(range(10))


def test_a_chunk_is_asked_for_once_if_ranges_overlap() -> None:
    """Also those of several chunks, such as a long text that many entries share."""
    start, length = np.array([8, 9, 8, 0, 8]), np.array([14, 1, 14, 3, 14])
    found = [(some.chunk, some.target.tolist()) for some in pieces(start, length, 10)]
    assert found == [(0, [0, 14, 15, 29, 32]), (1, [2, 17, 34]), (2, [12, 27, 44])]


def test_many_rows_of_a_chunk_are_copied_in_parts() -> None:
    """However often they are wanted: each takes a number for its place meanwhile."""
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(0, 200, 2), 1000))
    out = np.full(len(rows), -1)
    for some in pieces(rows, np.ones_like(rows), 200):
        assert len(some.begin) <= 8192
        some.copy(np.arange(200), out)
    assert (out == rows).all()


def test_rows_that_follow_one_another_are_one_piece() -> None:
    """A whole column is read in slices of chunks."""
    rows = np.arange(30, 90)
    found = [(some.chunk, some.count.tolist()) for some in pieces(rows, np.ones_like(rows), 50)]
    assert found == [(0, [20]), (1, [40])]


@pytest.mark.parametrize(
    ("values", "lengths", "valid"),
    [
        (b"a\xc3\xa9b", [1, 2, 1], True),
        (b"a\xc3\xa9b", [4, 0], True),
        (b"a\xc3\xa9b", [2, 2], False),
        (b"a\xe9b", [3], False),
        (b"ab\xc3", [3], False),
    ],
    ids=["texts", "an empty text", "cut within a character", "another encoding", "half a letter"],
)
def test_a_column_is_checked_as_it_is_read(
    tmp_path: Path, values: bytes, lengths: list[int], valid: bool
) -> None:
    """``check_texts`` makes no text, and refuses what ``texts`` refuses."""
    create_store(tmp_path, StoreState({}))
    prepare_arrays(tmp_path, StoreState({}))
    appender = Appender(tmp_path)
    for name in ("id", "file", "reason", "advice"):  # a table's columns have the same rows
        texts = np.frombuffer(values, np.uint8), np.array(lengths)
        appender.append_ragged(f"failures/{name}", *texts)
    appender.commit(lambda state: state)
    arrays = LocalArrays(tmp_path)
    if valid:
        assert len(arrays.texts("failures/id")) == len(lengths)
        arrays.check_texts("failures/id")
        return
    for read in (arrays.texts, arrays.check_texts):
        with pytest.raises(StoreError, match="failures/id/values is not UTF-8"):
            read("failures/id")
