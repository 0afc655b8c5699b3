"""Reading of one source, or of many in parallel, into proteins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

from protalign.core.errors import Failure, InputError, show_traceback
from protalign.core.machine import core_count, free_memory
from protalign.core.paths import path_text
from protalign.core.printing import one_line
from protalign.core.protein import Protein
from protalign.reading.content import (
    MAX_BYTES,
    TooLargeError,
    open_file,
    read_file,
    unpack,
)
from protalign.reading.fasta import read_fasta
from protalign.reading.options import ReadOptions
from protalign.reading.processes import one_by_one, ordered_map, process_map
from protalign.reading.sources import (
    STRUCTURE_SUFFIXES,
    Kind,
    SourceFile,
    is_id,
    split_name,
    taken,
)
from protalign.reading.structures import read_structure

#: Records of a FASTA file that are handed on at once.
FASTA_BLOCK = 10_000
#: With fewer structure files, starting worker processes costs more than it saves.
FEWEST_FOR_PROCESSES = 32
_FILES_PER_TASK = 8
_HASHES_AT_ONCE = 8
#: Larger files are read by a process of their own, which the system can stop without an end of all.
MOST_IN_THIS_PROCESS = 64 << 20
#: Files of this size on disk need no look at the memory: gzip makes 270 MB of them at most.
_NEVER_TOO_LARGE = 256 << 10
#: Most memory that a byte of a decompressed file takes while it is read: 5 were measured for usual
#: PDB and mmCIF, 16 are possible for mmCIF of one-letter values, 48 for packed columns.
_MEMORY_PER_BYTE = {"pdb": 16, "mmcif": 16, "bcif": 48}
#: Files of this size are read whatever the memory is said to be.
_LEAST_ROOM = 16 << 20

#: Most letters of an unexpected error in a failure.
_MOST_SHOWN = 120

#: Returns True if a source with this SHA-256 (32 bytes) is known already and need not be read.
Skip = Callable[[SourceFile, bytes], bool]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SourceResult:
    """The proteins and failures of a source, or of a block of a FASTA file's records.

    Attributes
    ----------
    source : SourceFile
    sha256 : bytes
        SHA-256 (32 bytes) of the file as it is on disk; empty if the file cannot be opened, or if
        memory did not suffice to read it.
    proteins : list of Protein
        In the order of the file.
    failures : list of Failure
        In the order of the file.
    skipped : bool
        The caller's ``skip`` accepted the file: nothing was read but its hash.
    last : bool
        No further result comes for this source.

    Examples
    --------
    >>> from pathlib import Path
    >>> source = SourceFile(Path("examples/sample/1bpi_A.cif"), id="1bpi_A", kind="mmcif")
    >>> result = read_source(source)
    >>> [len(protein) for protein in result.proteins], result.failures
    ([58], [])
    """

    source: SourceFile
    sha256: bytes
    proteins: list[Protein] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: bool = False
    last: bool = True


def read_source(source: SourceFile, options: ReadOptions | None = None) -> SourceResult:
    """Read one file whole; content that cannot be used makes Failures and never raises.

    Parameters
    ----------
    source : SourceFile
        As ``find_sources`` returns it.
    options : ReadOptions, optional

    Returns
    -------
    SourceResult

    Examples
    --------
    >>> from pathlib import Path
    >>> from protalign.reading import find_sources, read_source
    >>> [source], _ = find_sources([Path("examples/sample/1bpi_A.cif")])
    >>> [protein] = read_source(source).proteins
    >>> protein.id, len(protein), protein.sequences[0][:10]
    ('1bpi_A', 58, 'RPDFCLEPPY')
    """
    return _read(source, options or ReadOptions(), MAX_BYTES)


def _read(source: SourceFile, options: ReadOptions, most: int) -> SourceResult:
    """Read one file; raise TooLargeError above ``most`` bytes, unless that is the limit for all.

    This is the boundary around one file: whatever goes wrong here is that file's failure.
    """
    if source.kind == "fasta":
        blocks = list(_read_fasta_blocks(source, FASTA_BLOCK))
        proteins = [protein for block in blocks for protein in block.proteins]
        failures = [failure for block in blocks for failure in block.failures]
        return SourceResult(source, blocks[-1].sha256, proteins, failures)
    sha256, room = b"", MAX_BYTES
    try:
        room = _room(source)
        data = read_file(source.path, min(most, room))
        sha256 = hashlib.sha256(data).digest()
        content = unpack(data, source.path.name, min(most, room))
        del data
        return SourceResult(source, sha256, read_structure(source, content, options))
    except TooLargeError as error:
        if error.limit < room:
            raise
        if room < MAX_BYTES:
            return _too_little_memory(source)
        return _failed(source, sha256, error.reason, error.advice)
    except InputError as error:
        return _failed(source, sha256, error.reason, error.advice)
    except MemoryError:
        return _too_little_memory(source)
    except Exception as error:
        return _failed(source, sha256, *_unexpected(error))


def read_content(
    name: str, data: bytes, options: ReadOptions | None = None, most: int = MAX_BYTES
) -> SourceResult:
    """Read a structure file's bytes, which lie in memory; no path is looked at.

    Parameters
    ----------
    name : str
        The file's name: its suffixes tell the format, and the rest is the id.
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
    if kind is None or kind == "fasta":
        failure = Failure("", name, "its suffix is unknown", STRUCTURE_SUFFIXES)
        return SourceResult(SourceFile(Path(name), id, "pdb"), b"", failures=[failure])
    source = SourceFile(Path(name), id, kind)
    if not is_id(id):
        reason = "its name cannot be an id: it is empty, or has white space"
        return SourceResult(source, b"", failures=[Failure("", name, reason, "rename the file")])
    sha256 = hashlib.sha256(data).digest()
    try:
        content = unpack(data, name, min(most, _fitting(kind)))
        return SourceResult(
            source, sha256, read_structure(source, content, options or ReadOptions())
        )
    except TooLargeError as error:
        if error.limit < most:
            return _too_little_memory(source)
        reason = f"it has more than {most / 1e6:,.0f} MB once decompressed"
        return _failed(source, sha256, reason, "leave other molecules out")
    except InputError as error:
        return _failed(source, sha256, error.reason, error.advice)
    except MemoryError:
        return _too_little_memory(source)
    except Exception as error:
        return _failed(source, sha256, *_unexpected(error))


def _room(source: SourceFile) -> int:
    """Return the most bytes of a decompressed file that fit into memory while they are read."""
    with suppress(OSError, ValueError):  # reading the file gives the failure
        if source.path.stat().st_size <= _NEVER_TOO_LARGE:
            return MAX_BYTES
    return _fitting(source.kind)


def _fitting(kind: Kind) -> int:
    """Return the most bytes of a decompressed file for which memory is free."""
    fits = free_memory() / _MEMORY_PER_BYTE[kind]
    return int(max(_LEAST_ROOM, min(MAX_BYTES, fits)))


def _too_little_memory(source: SourceFile) -> SourceResult:
    """Return the failure without a hash: another machine may have the memory, and reads it."""
    return _failed(source, b"", "too large for this machine's memory", "split the file")


def _unexpected(error: Exception) -> tuple[str, str]:
    """Return reason and advice for an error that nobody foresaw; its traceback is for --debug."""
    show_traceback(error)
    text = f"{type(error).__name__}: {one_line(error, _MOST_SHOWN)}"
    return f"reading it failed ({text})", "check the file, or leave it out; --debug shows more"


def read_sources(
    sources: Sequence[SourceFile],
    options: ReadOptions | None = None,
    *,
    processes: int | None = None,
    skip: Skip | None = None,
    block: int = FASTA_BLOCK,
) -> Iterator[SourceResult]:
    """Read many files in parallel.

    Only a bounded number of results waits, whatever the number of files. If an earlier protein
    has the id of a later one, the later one becomes a Failure that names the earlier one's file
    (ids of skipped sources are not known here).

    Parameters
    ----------
    sources : sequence of SourceFile
        As ``find_sources`` returns them.
    options : ReadOptions, optional
    processes : int, optional
        Worker processes; by default one for each core, and none for few files.
    skip : callable, optional
        Is called in this process with each source and its SHA-256. If it returns True, the source
        is not read.
    block : int
        Most records of a FASTA file in one result.

    Yields
    ------
    SourceResult
        In the sources' order, structure files first, then FASTA files, which are streamed.

    Examples
    --------
    >>> from pathlib import Path
    >>> from protalign.reading import find_sources, read_sources
    >>> sources, _ = find_sources([Path("examples/sample")])
    >>> results = list(read_sources(sources[:3], processes=1))
    >>> [protein.id for result in results for protein in result.proteins]
    ['107l_A', '108l_A', '109l_A']
    """
    options = options or ReadOptions()
    structures = [source for source in sources if source.kind != "fasta"]
    fastas = [source for source in sources if source.kind == "fasta"]
    if processes is None:
        processes = core_count() if len(structures) >= FEWEST_FOR_PROCESSES else 1
    results = _read_structures(structures, options, processes, skip)
    first_of: dict[str, str] = {}
    for result in results:
        yield _without_duplicates(result, first_of)
    for source in fastas:
        for result in _read_fasta_blocks(source, block, skip):
            yield _without_duplicates(result, first_of)


def _read_structures(
    sources: list[SourceFile], options: ReadOptions, processes: int, skip: Skip | None
) -> Iterator[SourceResult]:
    tasks: Iterable[_Task] = ((source, b"") for source in sources)
    if skip is not None:
        tasks = _hashed(sources, skip)
    read = partial(_read_task, options)
    if processes == 1:
        for task in tasks:
            try:
                yield _read_task(options, task, MOST_IN_THIS_PROCESS)
            except TooLargeError:
                yield from one_by_one(read, _killed, [task])
        return
    chunks = process_map(
        partial(_read_tasks, options),
        lambda chunk: list(one_by_one(read, _killed, chunk)),
        _chunks(tasks, _FILES_PER_TASK),
        processes,
    )
    for chunk in chunks:
        yield from chunk


#: A source, and its SHA-256 if it is to be skipped (else empty).
_Task = tuple[SourceFile, bytes]


def _hashed(sources: list[SourceFile], skip: Skip) -> Iterator[_Task]:
    with ThreadPoolExecutor(_HASHES_AT_ONCE) as threads:
        hashes = ordered_map(threads, _sha256_or_empty, sources, 4 * _HASHES_AT_ONCE)
        for source, sha256 in zip(sources, hashes, strict=True):
            yield source, sha256 if sha256 and skip(source, sha256) else b""


def _sha256_or_empty(source: SourceFile) -> bytes:
    try:
        with open_file(source.path) as handle:
            return hashlib.file_digest(handle, "sha256").digest()
    except (InputError, OSError):  # reading the file gives the failure
        return b""


def _read_task(options: ReadOptions, task: _Task, most: int = MAX_BYTES) -> SourceResult:
    source, known = task
    if known:
        return SourceResult(source, known, skipped=True)
    return _read(source, options, most)


def _read_tasks(options: ReadOptions, tasks: list[_Task]) -> list[SourceResult]:
    return [_read_task(options, task) for task in tasks]


def _killed(task: _Task) -> SourceResult:
    source = task[0]
    reason = "the process that read it died: too little memory, or damage that stops the parser"
    return _failed(source, b"", reason, "check the file, or leave it out")


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _read_fasta_blocks(
    source: SourceFile, size: int, skip: Skip | None = None
) -> Iterator[SourceResult]:
    """Yield at least one result; the last one, and only that, has ``last``."""
    sha256 = _sha256_or_empty(source)
    if skip is not None and sha256 and skip(source, sha256):
        yield SourceResult(source, sha256, skipped=True)
        return
    block = SourceResult(source, sha256, last=False)
    for record in _records_of(source):
        if isinstance(record, Failure):
            block.failures.append(record)
        else:
            block.proteins.append(record)
        if len(block.proteins) + len(block.failures) >= size:
            yield block
            block = SourceResult(source, sha256, last=False)
    yield replace(block, last=True)


def _records_of(source: SourceFile) -> Iterator[Protein | Failure]:
    """Yield a FASTA file's records, and a failure of the file if reading ends in an error."""
    file = path_text(source.path)
    try:
        yield from read_fasta(source.path)
    except MemoryError:
        yield Failure("", file, "too large for this machine's memory", "split the file")
    except Exception as error:
        yield Failure("", file, *_unexpected(error))


def _failed(source: SourceFile, sha256: bytes, reason: str, advice: str) -> SourceResult:
    failure = Failure(source.id, path_text(source.path), reason, advice)
    return SourceResult(source, sha256, failures=[failure])


def _without_duplicates(result: SourceResult, first_of: dict[str, str]) -> SourceResult:
    proteins, failures = [], list(result.failures)
    for protein in result.proteins:
        first = first_of.get(protein.id)
        if first is None:
            first_of[protein.id] = protein.source
            proteins.append(protein)
        else:
            failures.append(taken(protein.id, protein.source, first))
    return replace(result, proteins=proteins, failures=failures)
