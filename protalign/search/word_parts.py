"""The entries of one modality in a segment of an index: writing them, and reading them checked.

Words, inverted lists, and what they are of. ``word_files`` has the folder and its manifest.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64, Words
from protalign.core.errors import InputError
from protalign.core.protein import Modality
from protalign.core.ragged import ascend
from protalign.residues.word_lists import ListBlocks, ListedWords, listable
from protalign.residues.words import ResidueWords
from protalign.search.word_files import (
    MANIFEST,
    StoredPart,
    checked_bytes,
    contents_digest,
    damaged,
    ids_digest,
    mapped_numbers,
)

#: Words with one checksum: 8 MB, which are checked when they are first read.
BLOCK = 1 << 22
#: Blocks of inverted lists with one checksum of their starts, and one of their places.
LISTS = 64
#: Words that are checked at once: 256 kB.
_IN_CACHE = 1 << 17


class PartReader:
    """The entries of one modality in a segment, read and checked when they are wanted.

    Parameters
    ----------
    index : Path
        The index's folder.
    segment : str
        The segment's name.
    modality : "sequence" or "structure"
        The modality.
    part : StoredPart
        What the manifest says of it.
    n_words : int
        Words of the modality.

    Raises
    ------
    InputError
        The manifest has fewer or more checksums than the part has blocks of words, or not as many
        of its places as of its starts.
    """

    def __init__(
        self, index: Path, segment: str, modality: Modality, part: StoredPart, n_words: int
    ) -> None:
        self.part = part
        self._index, self._n_words = index, n_words
        self._name = f"{segment}/{modality}"
        if len(part.words) != -(-part.residues // BLOCK) or len(part.starts) != len(part.places):
            problem = f"{MANIFEST}: the checksums of {self._name} are not those of its residues"
            raise damaged(index, problem)
        self._rows: Int64 | None = None
        self._offsets: Int64 | None = None
        self._words: Words | None = None
        self._checked = np.zeros(len(part.words), dtype=np.bool_)
        self._lists: _MappedLists | None = None
        self._lists_checked = np.zeros(len(part.starts), dtype=np.bool_)

    @property
    def rows(self) -> Int64:
        """(n,) int64: rows of the entries in the store's log of entries."""
        if self._rows is None:
            rows = self._numbers("rows", self.part.entries, self.part.rows)
            differ = ascend(rows, strictly=True) or ascend(np.sort(rows), strictly=True)
            if rows.min() < 0 or not differ:
                raise damaged(self._index, f"{self._name}.rows names an entry twice")
            self._rows = rows
        return self._rows

    @property
    def offsets(self) -> Int64:
        """(n + 1,) int64: words before each entry, and of all."""
        if self._offsets is None:
            offsets = self._numbers("offsets", self.part.entries + 1, self.part.offsets)
            ends = (int(offsets[0]), int(offsets[-1]))
            if ends != (0, self.part.residues) or not ascend(offsets, strictly=True):
                raise damaged(self._index, f"{self._name}.offsets does not ascend to its words")
            self._offsets = offsets
        return self._offsets

    def words(self, first: int = 0, last: int | None = None) -> Words:
        """Return (R,) uint16, memory-mapped: all words, checked from first to last - 1."""
        if self._words is None:
            self._words = mapped_numbers(
                self._index, f"{self._name}.words", "<u2", self.part.residues
            )
        end = self.part.residues if last is None else last
        for block in range(first // BLOCK, -(-end // BLOCK)):
            if not self._checked[block]:
                self._check(block, self._words[block * BLOCK : (block + 1) * BLOCK])
                self._checked[block] = True
        return self._words

    @property
    def blocks(self) -> Int64:
        """(b + 1,) int64: the first entry of each block of lists, and the entries of all."""
        return self._mapped_lists.cut.targets

    def listed(self, first: int, last: int) -> ListedWords:
        """Return the words and the lists of the entries of some blocks of lists, checked."""
        mapped = self._mapped_lists
        for number in range(first // LISTS, -(-last // LISTS)):
            if not self._lists_checked[number]:
                self._check_lists(number, mapped)
                self._lists_checked[number] = True
        targets, begins = (
            each[first : last + 1] for each in (mapped.cut.targets, mapped.cut.begins)
        )
        offsets = self.offsets[targets[0] : targets[-1] + 1]
        places = mapped.places[begins[0] : begins[-1]]
        words = self.words(int(offsets[0]), int(offsets[-1]))
        return ListedWords(words, offsets, targets - targets[0], mapped.starts[first:last], places)

    def problems(self, words: ResidueWords, modality: Modality) -> list[str]:
        """Read everything; return what is wrong, one line each.

        Parameters
        ----------
        words, modality
            The words of the index, and the modality of the part.
        """
        try:
            _, every = self.rows, self.words()
            for block, (first, last) in enumerate(pairwise(self.blocks.tolist())):
                lists = words.lists(modality, every, self.offsets[first : last + 1])
                read = self.listed(block, block + 1)
                same_starts = np.array_equal(lists.starts, read.starts[0])
                if not (same_starts and np.array_equal(lists.places, read.places)):
                    problem = f"the lists of block {block} of {self._name} are not of its words"
                    raise damaged(self._index, problem)
        except InputError as error:
            return [str(error)]
        return []

    def _check(self, block: int, words: Words) -> None:
        checksum, most = 0, 0
        for first in range(0, len(words), _IN_CACHE):  # so that both read it from a cache
            part = words[first : first + _IN_CACHE]
            checksum = google_crc32c.extend(checksum, part.view(np.uint8))
            most = max(most, int(part.max()))
        if checksum != self.part.words[block]:
            raise damaged(self._index, f"block {block} of {self._name}.words is not as written")
        if most >= self._n_words:
            raise damaged(self._index, f"{self._name}.words has words that the index has not")

    @property
    def _mapped_lists(self) -> _MappedLists:
        if self._lists is None:
            cut = ListBlocks.of(np.diff(self.offsets))
            count = len(cut.columns)
            if -(-count // LISTS) != len(self.part.starts):
                raise damaged(self._index, f"{self._name}.starts has not the blocks of its entries")
            self._lists = _MappedLists(
                cut,
                mapped_numbers(
                    self._index, f"{self._name}.starts", "<u4", count, self._n_words + 1
                ),
                mapped_numbers(self._index, f"{self._name}.places", "<u2", int(cut.begins[-1])),
            )
        return self._lists

    def _check_lists(self, number: int, mapped: _MappedLists) -> None:
        """Check the blocks of lists with one checksum: nothing in them leads out of a block."""
        blocks = slice(number * LISTS, (number + 1) * LISTS)
        begins, starts = mapped.cut.begins[blocks.start : blocks.stop + 1], mapped.starts[blocks]
        places = mapped.places[begins[0] : begins[-1]]
        for kind, array in (("starts", starts), ("places", places)):
            checksum = google_crc32c.value(array.view(np.uint8).reshape(-1))
            if checksum != getattr(self.part, kind)[number]:
                problem = f"block {number} of {self._name}.{kind} is not as written"
                raise damaged(self._index, problem)
        ends = np.diff(begins)
        rise = (starts[:, 1:] >= starts[:, :-1]).all()
        if starts[:, 0].any() or (starts[:, -1] != ends).any() or not rise:
            raise damaged(self._index, f"{self._name}.starts does not ascend to its places")
        listed = ends > 0
        most = np.maximum.reduceat(places, begins[:-1][listed] - begins[0]) if len(places) else 0
        if (most >= mapped.cut.columns[blocks][listed]).any():
            raise damaged(self._index, f"{self._name}.places leads out of a block")

    def _numbers(self, kind: str, count: int, checksum: int) -> Int64:
        data = checked_bytes(self._index, f"{self._name}.{kind}", 8 * count, checksum)
        return np.frombuffer(data, dtype="<i8").astype(np.int64, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class _MappedLists:
    """The inverted lists of a part, memory-mapped."""

    cut: ListBlocks
    starts: npt.NDArray[Any]
    places: npt.NDArray[Any]


class PartWriter:
    """Writes the entries of one modality into a segment's folder, block by block.

    Parameters
    ----------
    folder : Path
        The segment's folder.
    modality : "sequence" or "structure"
        The modality.
    words : ResidueWords
        The words of the index.
    """

    def __init__(self, folder: Path, modality: Modality, words: ResidueWords) -> None:
        self._folder, self._modality, self._of_index = folder, modality, words
        self._rows: list[Int64] = []
        self._lengths: list[Int64] = []
        self._checksums: list[int] = []
        self._open, self._filled = 0, 0
        #: Of the entries whose lists are not written yet: their residues, and their words.
        self._unlisted = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint16)
        self._lists: dict[str, list[int]] = {"starts": [], "places": []}
        self._n_listed = 0

    def __enter__(self) -> PartWriter:
        with ExitStack() as files:
            self._words, self._starts, self._places = (
                files.enter_context((self._folder / f"{self._modality}.{kind}").open("xb"))
                for kind in ("words", "starts", "places")
            )
            self._files = files.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, rows: Int64, lengths: Int64, words: Words) -> None:
        """Add some entries: their rows in the store's log, their residues, and their words."""
        self._rows.append(rows)
        self._lengths.append(lengths)
        data = np.ascontiguousarray(words, dtype="<u2")
        self._words.write(data.data)
        kept, more = self._unlisted, listable(lengths, data)
        self._unlisted = np.concatenate([kept[0], more[0]]), np.concatenate([kept[1], more[1]])
        self._write_lists(finish=False)
        while len(data):
            part = data[: BLOCK - self._filled]
            self._open = google_crc32c.extend(self._open, part.view(np.uint8))
            self._filled += len(part)
            if self._filled == BLOCK:
                self._close_block()
            data = data[len(part) :]

    def finish(self, ids: Iterable[str], contents: Iterable[bytes]) -> StoredPart:
        """Write all that is left; return what the manifest says of the part.

        ``ids`` and ``contents`` (``Log.each_content``) are the entries', in order. It is called
        before the files are closed.
        """
        if self._filled:
            self._close_block()
        self._write_lists(finish=True)
        rows = np.concatenate(self._rows)
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))])
        checksum = {
            kind: _write_numbers(self._folder / f"{self._modality}.{kind}", values)
            for kind, values in (("rows", rows), ("offsets", offsets))
        }
        return StoredPart(
            entries=len(rows),
            residues=int(offsets[-1]),
            ids_sha256=ids_digest(ids),
            **checksum,
            words=tuple(self._checksums),
            starts=tuple(self._lists["starts"]),
            places=tuple(self._lists["places"]),
            contents_sha256=contents_digest(contents),
        )

    def _write_lists(self, *, finish: bool) -> None:
        """Write the inverted lists of the entries that have none yet: of whole blocks, or all."""
        lengths, words = self._unlisted
        targets = ListBlocks.of(lengths).targets
        targets = targets if finish else targets[:-1]  # more may come into the last
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        files = {"starts": self._starts, "places": self._places}
        for first, last in pairwise(targets.tolist()):
            lists = self._of_index.lists(self._modality, words, offsets[first : last + 1])
            arrays = {"starts": lists.starts.astype("<u4"), "places": lists.places.astype("<u2")}
            for kind, checksums in self._lists.items():
                data = arrays[kind].tobytes()
                files[kind].write(data)
                if self._n_listed % LISTS == 0:
                    checksums.append(0)
                checksums[-1] = google_crc32c.extend(checksums[-1], data)
            self._n_listed += 1
        done = targets[-1] if len(targets) else 0
        self._unlisted = lengths[done:], words[offsets[done] :]

    def _close_block(self) -> None:
        self._checksums.append(self._open)
        self._open, self._filled = 0, 0


def _write_numbers(path: Path, values: Int64) -> int:
    data = values.astype("<i8").tobytes()
    path.write_bytes(data)
    return int(google_crc32c.value(data))
