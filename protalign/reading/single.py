"""Reading of one structure file, or of its bytes, into proteins: the boundary around it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from protalign.core.errors import Failure, InputError, show_traceback
from protalign.core.machine import free_memory
from protalign.core.paths import path_text
from protalign.core.printing import one_line
from protalign.core.protein import Protein
from protalign.reading.content import MAX_BYTES, TooLargeError, read_file, unpack
from protalign.reading.foldcomp import check_library
from protalign.reading.options import ReadOptions
from protalign.reading.sources import (
    CONTAINERS,
    IN_OWN_PROCESS,
    STRUCTURE_SUFFIXES,
    Kind,
    SourceFile,
    is_id,
    split_name,
)
from protalign.reading.structures import read_structure

#: Files of this size on disk need no look at the memory: gzip makes 270 MB of them at most.
_NEVER_TOO_LARGE = 256 << 10
#: Most memory that a byte of a decompressed file takes while it is read: 5 were measured for usual
#: PDB and mmCIF, 16 are possible for mmCIF of one-letter values, 48 for packed columns. Foldcomp's
#: bytes become some 25 each of PDB, and those of a database are of its file of names.
_MEMORY_PER_BYTE = {"pdb": 16, "mmcif": 16, "bcif": 48, "foldcomp": 400, "tar": 48, "database": 16}
#: Files of this size are read whatever the memory is said to be.
_LEAST_ROOM = 16 << 20

#: Most letters of an unexpected error in a failure.
_MOST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class SourceResult:
    """The proteins and failures of a source, or of a block of a FASTA file's records.

    Attributes
    ----------
    source : SourceFile
    sha256 : bytes
        SHA-256 (32 bytes) of the file as it is on disk; empty if the file cannot be opened, or if
        memory did not suffice to read it.
    records : list of Protein or Failure
        In the order of the file.
    skipped : bool
        The caller's ``skip`` accepted the file: nothing was read but its hash.
    last : bool
        No further result comes for this source.

    Examples
    --------
    >>> from pathlib import Path
    >>> from protalign.reading import read_source
    >>> source = SourceFile(Path("examples/sample/1bpi_A.cif"), id="1bpi_A", kind="mmcif")
    >>> result = read_source(source)
    >>> [len(protein) for protein in result.proteins], result.failures
    ([58], [])
    """

    source: SourceFile
    sha256: bytes
    records: list[Protein | Failure] = field(default_factory=list)
    skipped: bool = False
    last: bool = True

    @property
    def proteins(self) -> list[Protein]:
        """The proteins, in the order of the file."""
        return [record for record in self.records if isinstance(record, Protein)]

    @property
    def failures(self) -> list[Failure]:
        """The failures, in the order of the file."""
        return [record for record in self.records if isinstance(record, Failure)]


def read_structure_file(
    source: SourceFile, options: ReadOptions, most: int = MAX_BYTES
) -> SourceResult:
    """Read one file; raise TooLargeError above ``most`` bytes, unless that is the limit for all.

    This is the boundary around one file: whatever goes wrong here is that file's failure.
    """
    sha256, room = b"", MAX_BYTES
    try:
        if source.kind == "foldcomp":
            check_library()  # Before the file has a hash, so that it is read again later.
        room = MAX_BYTES if is_small(source) else room_for(source.kind)
        data = read_file(source.local, min(most, room))
        sha256 = hashlib.sha256(data).digest()
        content = unpack(data, source.path.name, min(most, room))
        del data
        return SourceResult(source, sha256, [*read_structure(source, content, options)])
    except TooLargeError as error:
        if error.limit < room:
            raise
        if room < MAX_BYTES:
            return too_little_memory(source)
        return failed(source, sha256, error.reason, error.advice)
    except InputError as error:
        return failed(source, sha256, error.reason, error.advice)
    except MemoryError:
        return too_little_memory(source)
    except Exception as error:
        return failed(source, sha256, *unexpected(error))


def read_content(
    name: str, data: bytes, options: ReadOptions | None = None, most: int = MAX_BYTES
) -> SourceResult:
    """Read a structure file's bytes, which lie in memory; no path is looked at.

    Parameters
    ----------
    name : str
        The file's name: its suffixes tell the format, and the rest is the id. Foldcomp's format
        is not read here.
    data : bytes
        The bytes; compressed if the name ends in .gz.
    options : ReadOptions, optional
    most : int
        Bytes that it may have once it is decompressed.

    Returns
    -------
    SourceResult
        Content that cannot be used makes failures and never raises.

    Examples
    --------
    >>> from pathlib import Path
    >>> data = Path("examples/sample/1bpi_A.cif").read_bytes()
    >>> [protein.id for protein in read_content("1bpi_A.cif", data).proteins]
    ['1bpi_A']
    >>> read_content("notes.txt", b"").failures[0].reason
    'its suffix is unknown'
    """
    name = PurePosixPath(name.replace("\\", "/")).name
    id, kind = split_name(name)
    if kind is None or kind in CONTAINERS or kind in IN_OWN_PROCESS:
        failure = Failure("", name, "its suffix is unknown", STRUCTURE_SUFFIXES)
        return SourceResult(SourceFile(Path(name), id, "pdb"), b"", [failure])
    source = SourceFile(Path(name), id, kind)
    if not is_id(id):
        reason = "its name cannot be an id: it is empty, or has white space"
        return SourceResult(source, b"", [Failure("", name, reason, "rename the file")])
    return parsed(source, name, data, hashlib.sha256(data).digest(), options, most)


def parsed(
    source: SourceFile,
    name: str,
    data: bytes,
    sha256: bytes,
    options: ReadOptions | None,
    most: int = MAX_BYTES,
) -> SourceResult:
    """Parse bytes in memory: the boundary around them, as ``read_structure_file`` is."""
    try:
        content = unpack(data, name, min(most, room_for(source.kind)))
        return SourceResult(
            source, sha256, [*read_structure(source, content, options or ReadOptions())]
        )
    except TooLargeError as error:
        if error.limit < most:
            return too_little_memory(source)
        reason = f"it has more than {most / 1e6:,.0f} MB once decompressed"
        return failed(source, sha256, reason, "leave other molecules out")
    except InputError as error:
        return failed(source, sha256, error.reason, error.advice)
    except MemoryError:
        return too_little_memory(source)
    except Exception as error:
        return failed(source, sha256, *unexpected(error))


def room_for(kind: Kind) -> int:
    """Return the most bytes of a decompressed file that fit into memory while they are read."""
    fits = free_memory() / _MEMORY_PER_BYTE[kind]
    return int(max(_LEAST_ROOM, min(MAX_BYTES, fits)))


def is_small(source: SourceFile) -> bool:
    """Return whether a file needs no look at the memory; True if reading it gives a failure."""
    with suppress(OSError, ValueError):
        return source.local.stat().st_size <= _NEVER_TOO_LARGE
    return True


def too_little_memory(source: SourceFile) -> SourceResult:
    """Return the failure without a hash: another machine may have the memory, and reads it."""
    return failed(source, b"", "too large for this machine's memory", "split the file")


def unexpected(error: Exception) -> tuple[str, str]:
    """Return reason and advice for an error that nobody foresaw; its traceback is for --debug."""
    show_traceback(error)
    text = f"{type(error).__name__}: {one_line(error, _MOST_SHOWN)}"
    return f"reading it failed ({text})", "check the file, or leave it out; --debug shows more"


def failed(source: SourceFile, sha256: bytes, reason: str, advice: str) -> SourceResult:
    """Return the result of a file that cannot be used."""
    failure = Failure(source.id, path_text(source.path), reason, advice)
    return SourceResult(source, sha256, [failure])
