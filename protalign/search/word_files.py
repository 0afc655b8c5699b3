"""The folder of an index of residue words: a manifest, the words, and segments of entries.

Every array is a file of little-endian numbers, whose size and checksums the manifest has. The
manifest is the only file that is ever replaced, in one atomic rename, after all that it names is
on the disk: an interrupted run leaves the index as it was. Nothing in it is believed before it is
checked, and no pickle is read.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64, Words
from protalign.core.digests import sealed, unsealed
from protalign.core.errors import InputError
from protalign.core.files import json_text, new_folder, write_text
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import ascend
from protalign.core.unfinished import clear_left_behind
from protalign.core.untrusted import (
    folder_inside,
    open_regular,
    read_bytes,
    read_json,
    whole_number,
)
from protalign.residues.word_lists import ListBlocks, ListedWords, listable
from protalign.residues.words import MOST_WORDS, ResidueWords

FORMAT, FORMAT_VERSION = "protalign-index", "2.0"
MANIFEST = "index.json"
#: Words with one checksum: 8 MB, which are checked when they are first read.
BLOCK = 1 << 22
#: Blocks of inverted lists with one checksum of their starts, and one of their places.
LISTS = 64
#: Numbers of a residue's row, at most.
_MOST_NUMBERS = 1 << 16
#: Entries and residues of a segment, at most: none holds as many.
_MOST_ENTRIES, _MOST_RESIDUES = 1 << 36, 1 << 48
AGAIN = "remove the folder and build the index again with `protalign index`"
_SEGMENT = re.compile(r"segment-(0|[1-9][0-9]{0,8})")
#: What a manifest with wrong or missing parts raises.
_MISFITS = (LookupError, TypeError, ValueError, AttributeError)

#: Ids that are joined at once for a digest.
_IDS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class StoredPart:
    """The entries of one modality in a segment, as the manifest describes them.

    Attributes
    ----------
    entries, residues : int
        How many.
    ids_sha256 : str
        Hex digest of the entries' ids, in order.
    rows, offsets : int
        CRC-32C of the entries' rows in the store's log, and of the words before each entry.
    words : tuple of int
        CRC-32C of each ``BLOCK`` words.
    starts, places : tuple of int
        CRC-32C of the arrays of each ``LISTS`` blocks of inverted lists.
    contents_sha256 : str
        Hex digest of what the store records of the entries' contents (``Log.each_content``), in
        order.
    """

    entries: int
    residues: int
    ids_sha256: str
    rows: int
    offsets: int
    words: tuple[int, ...]
    starts: tuple[int, ...]
    places: tuple[int, ...]
    contents_sha256: str

    @classmethod
    def of_dict(cls, value: Mapping[str, Any]) -> StoredPart:
        """Build it of a manifest's part; raise KeyError, TypeError or ValueError if damaged."""
        entries = whole_number(value["entries"], 1, _MOST_ENTRIES)
        residues = whole_number(value["residues"], entries, _MOST_RESIDUES)
        words, starts, places = (
            tuple(_checksum(number) for number in value[kind])
            for kind in ("words", "starts", "places")
        )
        if len(words) != -(-residues // BLOCK) or len(starts) != len(places):
            raise ValueError("its checksums are not those of its residues")
        digests = value["ids_sha256"], value["contents_sha256"]
        if not all(isinstance(digest, str) for digest in digests):
            raise TypeError("a digest is not text")
        checksums = _checksum(value["rows"]), _checksum(value["offsets"])
        return cls(entries, residues, digests[0], *checksums, words, starts, places, digests[1])

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        lists = {kind: list(getattr(self, kind)) for kind in ("words", "starts", "places")}
        return {**vars(self), **lists}


@dataclass(frozen=True)
class IndexManifest:
    """What an index is of, and its files.

    Attributes
    ----------
    provenance : mapping
        The model and the store that it was made with, as in a file of vectors; ``stage_sha256``,
        the digest of the model's residue stage; and ``n_words`` and ``seed``, as asked for.
    centroids : mapping
        Modality -> (K, width, CRC-32C) of its words.
    segments : mapping
        Name -> modality -> its part, in the order in which they were added.
    """

    provenance: Mapping[str, Any]
    centroids: Mapping[Modality, tuple[int, int, int]]
    segments: Mapping[str, Mapping[Modality, StoredPart]]

    def with_segment(self, name: str, parts: Mapping[Modality, StoredPart]) -> IndexManifest:
        """Return it with a segment more."""
        return IndexManifest(self.provenance, self.centroids, {**self.segments, name: dict(parts)})

    def with_store(self, store: object) -> IndexManifest:
        """Return it with another record of the store: its path, for one that was moved."""
        return replace(self, provenance={**self.provenance, "store": store})

    def text(self) -> str:
        """Return the text of the manifest's file."""
        value = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "provenance": dict(self.provenance),
            "centroids": {m: list(numbers) for m, numbers in self.centroids.items()},
            "segments": {
                name: {modality: part.as_dict() for modality, part in parts.items()}
                for name, parts in self.segments.items()
            },
        }
        return json_text(sealed(value))


def is_index(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder has an index's manifest."""
    return (Path(path) / MANIFEST).is_file()


def read_manifest(path: str | os.PathLike[str]) -> IndexManifest:
    """Read and check an index's manifest; raise InputError if it is missing or damaged."""
    folder = Path(path)
    if not is_index(folder):
        problem = "it is not an index of words" if folder.exists() else "it does not exist"
        raise InputError(f"{path}: {problem}", "name a folder that `protalign index` wrote")
    value = read_json(folder / MANIFEST, AGAIN, links=False)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise InputError(
            f"{path}: its {MANIFEST} is of another format",
            "name a folder that `protalign index` wrote",
        )
    version = value.get("format_version")
    if str(version).partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise InputError(
            f"{path}: it has index format {version}, and this version reads {FORMAT_VERSION}",
            f"use the version of ProtAlign that wrote it, or {AGAIN}",
        )
    content = unsealed(value)
    if content is None:
        raise damaged(path, f"{MANIFEST} was changed since it was written")
    try:
        return _manifest(content)
    except _MISFITS as error:
        raise damaged(path, f"{MANIFEST}: {' '.join(str(error).split())[:200]}") from None


def _manifest(value: Mapping[str, Any]) -> IndexManifest:
    centroids: dict[Modality, tuple[int, int, int]] = {}
    for modality, (count, width, checksum) in value["centroids"].items():
        numbers = whole_number(count, 1, MOST_WORDS), whole_number(width, 3, _MOST_NUMBERS)
        centroids[_modality(modality)] = *numbers, _checksum(checksum)
    segments: dict[str, dict[Modality, StoredPart]] = {}
    for name, parts in value["segments"].items():
        if not _SEGMENT.fullmatch(name):
            raise ValueError(f"a segment is called {name[:60]!r}")
        segments[name] = {_modality(m): StoredPart.of_dict(part) for m, part in parts.items()}
        if not segments[name].keys() <= centroids.keys():
            raise ValueError(f"{name} has a modality without words")
    provenance = value["provenance"]
    kinds = {"stage_sha256": str, "store": dict, "n_words": int, "seed": int}
    if not all(isinstance(provenance[name], kind) for name, kind in kinds.items()):
        raise TypeError("its provenance is incomplete")
    return IndexManifest(provenance, centroids, segments)


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
    """

    def __init__(
        self, index: Path, segment: str, modality: Modality, part: StoredPart, n_words: int
    ) -> None:
        self.part = part
        self._index, self._n_words = index, n_words
        self._name = f"{segment}/{modality}"
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
            if rows.min() < 0 or not ascend(np.sort(rows), strictly=True):
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
            self._words = _mapped(self._index, f"{self._name}.words", "<u2", self.part.residues)
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
        if google_crc32c.value(words.view(np.uint8)) != self.part.words[block]:
            raise damaged(self._index, f"block {block} of {self._name}.words is not as written")
        if words.max() >= self._n_words:
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
                _mapped(self._index, f"{self._name}.starts", "<u4", count, self._n_words + 1),
                _mapped(self._index, f"{self._name}.places", "<u2", int(cut.begins[-1])),
            )
        return self._lists

    def _check_lists(self, number: int, mapped: _MappedLists) -> None:
        """Check the blocks of lists with one checksum: nothing in them leads out of a block."""
        blocks = slice(number * LISTS, (number + 1) * LISTS)
        begins, starts = mapped.cut.begins[blocks.start : blocks.stop + 1], mapped.starts[blocks]
        places = mapped.places[begins[0] : begins[-1]]
        for kind, array in (("starts", starts), ("places", places)):
            checksum = google_crc32c.value(array.tobytes())
            if checksum != getattr(self.part, kind)[number]:
                problem = f"block {number} of {self._name}.{kind} is not as written"
                raise damaged(self._index, problem)
        ends = np.diff(begins)
        rise = (starts[:, 1:] >= starts[:, :-1]).all()
        if starts[:, 0].any() or (starts[:, -1] != ends).any() or not rise:
            raise damaged(self._index, f"{self._name}.starts does not ascend to its places")
        if (places >= np.repeat(mapped.cut.columns[blocks], ends)).any():
            raise damaged(self._index, f"{self._name}.places leads out of a block")

    def _numbers(self, kind: str, count: int, checksum: int) -> Int64:
        data = _checked_bytes(self._index, f"{self._name}.{kind}", 8 * count, checksum)
        return np.frombuffer(data, dtype="<i8").astype(np.int64, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class _MappedLists:
    """The inverted lists of a part, memory-mapped."""

    cut: ListBlocks
    starts: npt.NDArray[Any]
    places: npt.NDArray[Any]


def read_centroids(path: Path, manifest: IndexManifest) -> ResidueWords:
    """Read the words of an index; raise InputError if they are missing or damaged."""
    centroids: dict[Modality, Float32] = {}
    for modality, (count, width, checksum) in manifest.centroids.items():
        data = _checked_bytes(path, f"{modality}.centroids", 4 * count * width, checksum)
        values = np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(count, width)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.square(values).sum(axis=1)  # else products were not finite
        if not np.isfinite(squares).all():
            raise damaged(path, f"{modality}.centroids has numbers that are not finite, or huge")
        centroids[modality] = values
    return ResidueWords(centroids)


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
        data = words.astype("<u2", copy=False)
        self._words.write(data.tobytes())
        kept, more = self._unlisted, listable(lengths, data)
        self._unlisted = np.concatenate([kept[0], more[0]]), np.concatenate([kept[1], more[1]])
        self._write_lists(finish=False)
        while len(data):
            part = data[: BLOCK - self._filled]
            self._open = google_crc32c.extend(self._open, part.tobytes())
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


@contextmanager
def new_index(
    path: str | os.PathLike[str], provenance: Mapping[str, Any], words: ResidueWords
) -> Iterator[tuple[Path, dict[Modality, StoredPart]]]:
    """Make an index's folder, whole or not at all.

    Gives the folder of its first segment, and a mapping to put the segment's parts in.
    """
    parts: dict[Modality, StoredPart] = {}
    with new_folder(path) as unfinished:
        centroids: dict[Modality, tuple[int, int, int]] = {}
        for modality, values in words.centroids.items():
            data = values.astype("<f4").tobytes()
            (unfinished / f"{modality}.centroids").write_bytes(data)
            centroids[modality] = *values.shape, google_crc32c.value(data)
        name = "segment-0"
        (unfinished / name).mkdir()
        yield unfinished / name, parts
        manifest = IndexManifest(provenance, centroids, {name: parts})
        (unfinished / MANIFEST).write_text(manifest.text(), encoding="utf-8")


def clear_unfinished(path: Path, manifest: IndexManifest) -> None:
    """Remove what interrupted runs left in an index, and the place of one that had just made it.

    The caller keeps other writers away.
    """
    clear_left_behind(path)
    for left in path.glob("segment-*"):
        if not _SEGMENT.fullmatch(left.name) or left.name in manifest.segments:
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:  # a link would lead a new segment elsewhere
            left.unlink()
    for places in path.glob(".segment-*.partial"):
        name = places.name.removeprefix(".").removesuffix(".partial")
        if _SEGMENT.fullmatch(name):
            clear_left_behind(path / name)


@contextmanager
def new_segment(
    path: Path, manifest: IndexManifest
) -> Iterator[tuple[Path, dict[Modality, StoredPart]]]:
    """Add a segment to an index, whole or not at all; see ``new_index``.

    The caller keeps other writers away.
    """
    parts: dict[Modality, StoredPart] = {}
    numbers = [int(name.partition("-")[2]) for name in manifest.segments]
    name = f"segment-{max(numbers, default=-1) + 1}"
    with new_folder(path / name) as unfinished:
        yield unfinished, parts
    write_text(path / MANIFEST, manifest.with_segment(name, parts).text())


def ids_digest(ids: Iterable[str]) -> str:
    """Return the hex digest of ids in their order, of which some are in memory at a time."""
    digest, rest, between = hashlib.sha256(), iter(ids), ""
    while some := list(islice(rest, _IDS_AT_ONCE)):
        digest.update((between + "\n".join(some)).encode("utf-8"))
        between = "\n"
    return digest.hexdigest()


def contents_digest(contents: Iterable[bytes]) -> str:
    """Return the hex digest of entries' contents in their order (``Log.each_content``)."""
    digest = hashlib.sha256()
    for some in contents:
        digest.update(some)
    return digest.hexdigest()


def damaged(path: object, problem: str) -> InputError:
    """Return the error of an index that is not as it was written."""
    return InputError(f"{path}: damaged ({problem})", AGAIN)


def _modality(name: object) -> Modality:
    for modality in MODALITIES:
        if name == modality:
            return modality
    raise ValueError(f"a modality is called {str(name)[:60]!r}")


def _checksum(value: object) -> int:
    return whole_number(value, 0, 2**32 - 1)


def _write_numbers(path: Path, values: Int64) -> int:
    data = values.astype("<i8").tobytes()
    path.write_bytes(data)
    return int(google_crc32c.value(data))


def _checked_bytes(index: Path, name: str, size: int, checksum: int) -> bytes:
    """Return a file's bytes; raise InputError if they are not those that were written."""
    _check_folder(index, name)
    try:
        data = read_bytes(index / name, AGAIN, most=size, links=False)
    except InputError as error:
        raise damaged(index, error.reason.removeprefix(f"{index}{os.sep}")) from None
    if len(data) != size or google_crc32c.value(data) != checksum:
        raise damaged(index, f"{name} is not as it was written")
    return data


def _mapped(index: Path, name: str, dtype: str, *shape: int) -> npt.NDArray[Any]:
    """Return a file of numbers, memory-mapped."""
    _check_folder(index, name)
    size = np.dtype(dtype).itemsize * math.prod(shape)
    try:
        with open_regular(index / name, links=False) as handle:
            if os.fstat(handle).st_size != size:
                raise damaged(index, f"{name} has another size than was written")
            view = mmap.mmap(handle, size, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise damaged(index, f"{name}: cannot be read ({error.strerror or error})") from None
    return np.frombuffer(view, dtype=dtype).reshape(shape)


def _check_folder(index: Path, name: str) -> None:
    folders = name.split("/")[:-1]
    if not folder_inside(index, *folders):
        raise damaged(index, f"{'/'.join(folders)} is not a folder inside it")
