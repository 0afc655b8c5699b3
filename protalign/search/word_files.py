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
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32
from protalign.core.digests import sealed, unsealed
from protalign.core.errors import InputError
from protalign.core.files import json_text, new_folder, write_text
from protalign.core.protein import MODALITIES, Modality
from protalign.core.unfinished import clear_left_behind
from protalign.core.untrusted import (
    folder_inside,
    open_regular,
    read_bytes,
    read_json,
    whole_number,
)
from protalign.residues.words import MOST_WORDS, ResidueWords

FORMAT, FORMAT_VERSION = "protalign-index", "2.0"
MANIFEST = "index.json"
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
        CRC-32C of each ``word_parts.BLOCK`` words.
    starts, places : tuple of int
        CRC-32C of the arrays of each ``word_parts.LISTS`` blocks of inverted lists.
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


def read_centroids(path: Path, manifest: IndexManifest) -> ResidueWords:
    """Read the words of an index; raise InputError if they are missing or damaged."""
    centroids: dict[Modality, Float32] = {}
    for modality, (count, width, checksum) in manifest.centroids.items():
        data = checked_bytes(path, f"{modality}.centroids", 4 * count * width, checksum)
        values = np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(count, width)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.square(values).sum(axis=1)  # else products were not finite
        if not np.isfinite(squares).all():
            raise damaged(path, f"{modality}.centroids has numbers that are not finite, or huge")
        centroids[modality] = values
    return ResidueWords(centroids)


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


def checked_bytes(index: Path, name: str, size: int, checksum: int) -> bytes:
    """Return a file's bytes; raise InputError if they are not those that were written."""
    _check_folder(index, name)
    try:
        data = read_bytes(index / name, AGAIN, most=size, links=False)
    except InputError as error:
        raise damaged(index, error.reason.removeprefix(f"{index}{os.sep}")) from None
    if len(data) != size or google_crc32c.value(data) != checksum:
        raise damaged(index, f"{name} is not as it was written")
    return data


def mapped_numbers(index: Path, name: str, dtype: str, *shape: int) -> npt.NDArray[Any]:
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
