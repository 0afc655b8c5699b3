"""Foldcomp databases: compressed structures one after another, found by an index."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from protalign.core.errors import Failure, InputError
from protalign.core.paths import path_text
from protalign.core.printing import printable
from protalign.reading.archives import Member
from protalign.reading.content import FETCH_AGAIN, open_file, system_problem
from protalign.reading.foldcomp import MOST_BYTES
from protalign.reading.single import room_for
from protalign.reading.sources import SourceFile, is_id, split_name

#: The type of a database in its .dbtype: "generic", in the low half; the high half has flags.
_GENERIC = 12
#: Most bytes of a line of the index or of the names.
_LONGEST_LINE = 4096


def database_sha256(path: Path) -> bytes:
    """Return one SHA-256 (32 bytes) for a database's data, index and names.

    Raises
    ------
    InputError or OSError
        One of them cannot be read.
    """
    digest = hashlib.sha256()
    for suffix in ("", ".index", ".lookup"):
        with open_file(_part(path, suffix)) as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.digest()


def read_entries(source: SourceFile) -> Iterator[Member | Failure]:
    """Yield the entries of a database, in the order of its index.

    An entry's id is its name in the .lookup file without suffixes and folders.

    Parameters
    ----------
    source : SourceFile
        The database's data; its other files lie beside it.

    Yields
    ------
    Member or Failure
        A Failure without an id is about the database. Those of entries whose names are not
        ids have their keys or lines as ids, so that a store keeps all of them.
    """
    file = path_text(source.path)
    try:
        _check_type(source.local)
        names = _names(source.local)
        with open_file(source.local) as data, open_file(_part(source.local, ".index")) as index:
            size = os.fstat(data.fileno()).st_size
            for number, line in enumerate(_lines(index), start=1):
                entry = _entry(source, data, size, names, number, line)
                if entry is not None:
                    yield entry
    except InputError as error:
        yield Failure("", file, error.reason, error.advice)
    except OSError as error:
        reason = f"it cannot be read: {system_problem(error)}"
        yield Failure("", file, reason, "check the disk and the file")


def _part(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _check_type(path: Path) -> None:
    """Raise InputError if the database is another program's; an old one may not say it."""
    try:
        with open_file(_part(path, ".dbtype")) as handle:
            kind = handle.read(5)
    except InputError:
        return
    if kind != struct.pack("<i", _GENERIC):
        raise InputError("it is a database of another kind", "give one that Foldcomp made")


def _names(path: Path) -> dict[int, bytes]:
    """Return the entries' names by their keys; raise InputError if they are too many."""
    try:
        lookup = open_file(_part(path, ".lookup"))
    except InputError as error:
        advice = "put it beside the database; it names the entries"
        raise InputError(f"its .lookup file: {error.reason}", advice) from None
    with lookup as handle:
        if os.fstat(handle.fileno()).st_size > room_for("database"):
            raise InputError(
                "its names are too many for this machine's memory", "split the database"
            )
        names = {}
        for number, line in enumerate(_lines(handle), start=1):
            fields = line.split(b"\t")
            if len(fields) < 2 or not _is_number(fields[0]):
                raise InputError(f"its .lookup is damaged in line {number:,}", FETCH_AGAIN)
            names[int(fields[0])] = fields[1]
        return names


def _lines(handle: io.BufferedReader) -> Iterator[bytes]:
    while line := handle.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise InputError("its index or .lookup has a line that is too long", FETCH_AGAIN)
        if line := line.rstrip(b"\r\n\0"):
            yield line


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) < 19


def _entry(
    source: SourceFile,
    data: io.BufferedReader,
    size: int,
    names: dict[int, bytes],
    number: int,
    line: bytes,
) -> Member | Failure | None:
    """Read the entry of a line of the index; None if it belongs to another part."""
    file, fields = path_text(source.path), line.split(b"\t")
    if len(fields) != 3 or not all(map(_is_number, fields)):
        reason = f"its index is damaged in line {number:,}"
        return Failure(f"line {number} of the index", file, reason, FETCH_AGAIN)
    key, offset, length = map(int, fields)
    name = names.get(key, b"").decode("utf-8", "backslashreplace")
    id = split_name(PurePosixPath(name).name)[0]
    if not is_id(id):
        shown = f"its name {printable(name)[:60]} cannot be an id" if name else "it has no name"
        reason = f"entry {key} in it: {shown}"
        return Failure(f"entry {key}", file, reason, "name it in the .lookup file")
    if not source.deals_out(id):
        return None
    if length > MOST_BYTES + 1 or offset + length > size:
        problem = "is too large" if length > MOST_BYTES + 1 else "lies beyond the end of the data"
        return Failure(id, file, f"{id} in it {problem}", FETCH_AGAIN)
    data.seek(offset)
    content = data.read(length).removesuffix(b"\0")
    return Member(SourceFile(source.path, id, "foldcomp"), f"{id}.fcz", content)
