"""An index with several blocks of lists in each segment, which are read in several pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pytest

from protalign.core.arrays import Float32, Int64, Words
from protalign.core.digests import sealed
from protalign.core.errors import InputError
from protalign.core.files import json_text
from protalign.residues import word_lists
from protalign.residues.word_scan import WordScan
from protalign.residues.words import ResidueWords
from protalign.search import WordIndex, word_index, word_parts
from protalign.search.word_files import new_index, new_segment, read_manifest
from protalign.search.word_index import verify_index
from protalign.search.word_parts import PartWriter
from tests.search.words import MADE_WITH

K, COUNT = 60, 900
#: Columns of a block: about 130 entries.
COLUMNS = 9000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few columns, pieces of one or two blocks, and checksums of two blocks."""
    monkeypatch.setattr(word_lists, "MOST_COLUMNS", COLUMNS)
    monkeypatch.setattr(word_index, "_WORDS_AT_ONCE", 40_000)
    monkeypatch.setattr(word_parts, "LISTS", 2)


@pytest.fixture(scope="module")
def words() -> ResidueWords:
    """Words whose centroids are apart."""
    rng = np.random.default_rng(0)
    return ResidueWords({"structure": rng.normal(scale=0.6, size=(K, 80)).astype(np.float32)})


@pytest.fixture(scope="module")
def targets() -> tuple[Words, Int64]:
    """Entries by chance, each eight residues of one word; one is too long for lists."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(20, 90, COUNT)
    lengths[300] = 8 * COLUMNS
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    groups = [rng.integers(0, K, -(-length // 8)) for length in lengths]
    parts = [np.repeat(each, 8)[:n] for each, n in zip(groups, lengths, strict=True)]
    return np.concatenate(parts).astype(np.uint16), offsets


@pytest.fixture
def path(tmp_path: Path, words: ResidueWords, targets: tuple[Words, Int64]) -> Path:
    """An index of two segments, the first of which was written some entries at a time."""
    every, offsets = targets

    def add(writer: PartWriter, first: int, last: int) -> None:
        rows = COUNT - 1 - np.arange(first, last)  # rows fall, so they are no places
        residues = every[offsets[first] : offsets[last]]
        writer.add(rows, np.diff(offsets[first : last + 1]), residues)

    with (
        new_index(tmp_path / "index", MADE_WITH, words) as (segment, parts),
        PartWriter(segment, "structure", words) as writer,
    ):
        for first in range(0, 600, 40):
            add(writer, first, first + 40)
        parts["structure"] = writer.finish([f"{number}" for number in range(600)], [])
    manifest = read_manifest(tmp_path / "index")
    with (
        new_segment(tmp_path / "index", manifest) as (segment, parts),
        PartWriter(segment, "structure", words) as writer,
    ):
        add(writer, 600, COUNT)
        parts["structure"] = writer.finish([f"{number}" for number in range(600, COUNT)], [])
    return tmp_path / "index"


def query_of(words: ResidueWords, own: Words) -> Float32:
    """Rows that fit some words well, and others badly."""
    inverse = np.linalg.pinv(words.centroids["structure"].T)
    wanted = np.where(own[:, None] == np.arange(K), 5.0, -3.0)
    rows: Float32 = (wanted @ inverse).astype(np.float32)
    return rows


def test_lists_are_those_of_all_entries(
    path: Path, words: ResidueWords, targets: tuple[Words, Int64]
) -> None:
    """However many entries are added at a time."""
    every, offsets = targets
    lists = words.listed("structure", every[: offsets[600]], offsets[:601])
    assert len(lists.starts) > 4
    part = path / "segment-0" / "structure"
    assert part.with_suffix(".starts").read_bytes() == lists.starts.tobytes()
    assert part.with_suffix(".places").read_bytes() == lists.places.tobytes()
    assert verify_index(path) == []


@pytest.mark.parametrize("own", [5, 299, 301, 450, 599, 600, 890])
def test_an_entry_of_any_block_is_found(
    path: Path, words: ResidueWords, targets: tuple[Words, Int64], own: int
) -> None:
    """By its own row, with the score that it has among all; and not if it is not wanted."""
    every, offsets = targets
    query = query_of(words, every[offsets[own] : offsets[own + 1]])
    index = WordIndex(path)
    [(rows, scores)] = index.nearest("structure", [query], 2)
    scan = WordScan(words, "structure", [query])
    [(known, expected)] = scan.scores(words.listed("structure", every, offsets), COUNT)
    assert COUNT - 1 - rows[0] == own
    assert scores[0] == expected[known == own][0]
    kept = np.ones(COUNT, dtype=np.bool_)
    kept[own] = False
    [(others, _)] = index.nearest("structure", [query], 2, kept)
    assert COUNT - 1 - own not in others
    assert rows[1] in others


def rewritten(path: Path, change: Any) -> None:
    """Change what the manifest says of the first segment, with its digest."""
    value = json.loads((path / "index.json").read_text())
    del value["sha256"]
    change(value["segments"]["segment-0"]["structure"])
    (path / "index.json").write_text(json_text(sealed(value)))


def searched(path: Path, words: ResidueWords) -> None:
    """Search as far as the last block."""
    WordIndex(path).nearest("structure", [query_of(words, np.arange(20, dtype=np.uint16))], 2)


@pytest.mark.parametrize("kind", ["starts", "places"])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 600])
def test_another_number_of_checksums_is_refused(
    path: Path, words: ResidueWords, kind: str, count: int
) -> None:
    """There is one for each two blocks."""
    known = read_manifest(path).segments["segment-0"]["structure"].starts
    assert len(known) in (3, 4)
    rewritten(path, lambda part: part.update({kind: (part[kind] * 200)[:count]}))
    (problem,) = verify_index(path)
    assert "damaged" in problem
    rewritten(path, lambda part: part.update(starts=part[kind], places=part[kind]))
    with pytest.raises(InputError, match="damaged"):
        searched(path, words)


@pytest.mark.parametrize("kind", ["starts", "places"])
def test_a_changed_byte_of_a_later_block_is_found(
    path: Path, words: ResidueWords, kind: str
) -> None:
    """A search reads it, though it does not read it first."""
    file = path / "segment-0" / f"structure.{kind}"
    data = bytearray(file.read_bytes())
    data[-4] ^= 1
    file.write_bytes(data)
    problem = rf"block [23] of segment-0/structure\.{kind} is not as written"
    with pytest.raises(InputError, match=problem):
        searched(path, words)
    assert len(verify_index(path)) == 1


@pytest.mark.parametrize("number", [COLUMNS - 1, COLUMNS, 2**16 - 1])
def test_a_place_outside_of_a_later_block_is_refused(
    path: Path, words: ResidueWords, number: int
) -> None:
    """Checksums are right, but the loops would write there."""

    def forge(starts: npt.NDArray[Any], places: npt.NDArray[Any]) -> None:
        places[-1] = number

    forged(path, forge)
    with pytest.raises(InputError, match="places leads out of a block"):
        searched(path, words)


@pytest.mark.parametrize("number", [1, 2**31, 2**32 - 1])
def test_starts_of_a_later_block_that_lead_elsewhere_are_refused(
    path: Path, words: ResidueWords, number: int
) -> None:
    """Checksums are right, but the loops would read there."""
    for place in (0, K // 2, K):

        def forge(starts: npt.NDArray[Any], places: npt.NDArray[Any], place: int = place) -> None:
            starts[-1, place] = number

        forged(path, forge)
        with pytest.raises(InputError, match="starts does not ascend to its places"):
            searched(path, words)


def test_lists_of_other_words_in_a_later_block_are_found(path: Path) -> None:
    """Nothing leads out of the block, but a search would choose wrongly."""

    def forge(starts: npt.NDArray[Any], places: npt.NDArray[Any]) -> None:
        places[-2:] = places[-2:][::-1].copy()

    forged(path, forge)
    (problem,) = verify_index(path)
    assert "of segment-0/structure are not of its words" in problem


def test_an_index_of_entries_that_are_too_long_for_lists(
    tmp_path: Path, words: ResidueWords
) -> None:
    """There are no places, and all are scored."""
    rng = np.random.default_rng(3)
    every = rng.integers(0, K, (3, 8 * COLUMNS)).astype(np.uint16)
    with (
        new_index(tmp_path / "long", MADE_WITH, words) as (segment, parts),
        PartWriter(segment, "structure", words) as writer,
    ):
        writer.add(np.arange(3), np.full(3, 8 * COLUMNS), every.reshape(-1))
        parts["structure"] = writer.finish(["a", "b", "c"], [])
    assert (tmp_path / "long/segment-0/structure.places").read_bytes() == b""
    assert verify_index(tmp_path / "long") == []
    query = query_of(words, every[1, 500:700])
    [(rows, _)] = WordIndex(tmp_path / "long").nearest("structure", [query], 1)
    assert rows.tolist() == [1]


def forged(path: Path, change: Any) -> None:
    """Change the lists of the first segment, with their checksums."""
    part = path / "segment-0" / "structure"
    starts = np.frombuffer(part.with_suffix(".starts").read_bytes(), "<u4").reshape(-1, K + 1)
    places = np.frombuffer(part.with_suffix(".places").read_bytes(), "<u2")
    lengths = np.diff(np.frombuffer(part.with_suffix(".offsets").read_bytes(), "<i8"))
    starts, places = starts.copy(), places.copy()
    change(starts, places)
    part.with_suffix(".starts").write_bytes(starts.tobytes())
    part.with_suffix(".places").write_bytes(places.tobytes())
    ends = word_lists.ListBlocks.of(lengths).begins
    pieces = range(0, len(starts), 2)
    of_starts = [google_crc32c.value(starts[first : first + 2].tobytes()) for first in pieces]
    of_places = [
        google_crc32c.value(places[ends[first] : ends[min(first + 2, len(starts))]].tobytes())
        for first in pieces
    ]
    rewritten(path, lambda value: value.update(starts=of_starts, places=of_places))
