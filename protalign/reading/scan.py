"""Reading of many files in parallel, and of files with many entries, into proteins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from typing import TypeVar

from protalign.core.errors import Failure, InputError
from protalign.core.machine import core_count
from protalign.core.paths import path_text
from protalign.core.protein import Protein
from protalign.core.urls import Url
from protalign.reading.archives import Member, read_members
from protalign.reading.content import (
    MAX_BYTES,
    TooLargeError,
    open_file,
)
from protalign.reading.databases import database_sha256, read_entries
from protalign.reading.fasta import read_fasta
from protalign.reading.fetching import fetched
from protalign.reading.foldcomp import check_library
from protalign.reading.options import ReadOptions
from protalign.reading.processes import one_by_one, ordered_map, process_map
from protalign.reading.single import (
    SourceResult,
    failed,
    is_small,
    parsed,
    read_structure_file,
    room_for,
    unexpected,
)
from protalign.reading.sources import (
    CONTAINERS,
    IN_OWN_PROCESS,
    SourceFile,
    taken,
)

#: Records of a FASTA file that are handed on at once.
FASTA_BLOCK = 10_000
#: Files of an archive that are handed on at once: their coordinates are in memory.
ARCHIVE_BLOCK = 1_000
#: With fewer structure files, starting worker processes costs more than it saves.
FEWEST_FOR_PROCESSES = 32
_FILES_PER_TASK = 8
_HASHES_AT_ONCE = 8
#: Larger files are read by a process of their own, which the system can stop without an end of all.
MOST_IN_THIS_PROCESS = 64 << 20
#: Returns True if a source with this SHA-256 (32 bytes) is known already and need not be read.
Skip = Callable[[SourceFile, bytes], bool]
T = TypeVar("T")


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
    options = options or ReadOptions()
    apart = isinstance(source.path, Url) or source.kind in IN_OWN_PROCESS
    if source.kind not in CONTAINERS and not apart:
        return read_structure_file(source, options)
    blocks = list(read_sources([source], options, processes=1))
    records = [record for block in blocks for record in block.records]
    return SourceResult(source, blocks[-1].sha256, records)


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
        Most records of a FASTA file, or files of an archive, in one result.

    Yields
    ------
    SourceResult
        In the sources' order, structure files first, then FASTA files and archives, which are
        streamed. Then what is behind addresses, some at once: those that cannot be fetched first.

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
    remote = [source for source in sources if isinstance(source.path, Url)]
    local = [source for source in sources if not isinstance(source.path, Url)]
    first_of: dict[str, str] = {}
    for result in _read_local(local, options, processes, skip, block):
        yield _without_duplicates(result, first_of)
    for part in fetched(remote):
        yield from (each for each in part if isinstance(each, SourceResult))
        copies = [each for each in part if isinstance(each, SourceFile)]
        for result in _read_local(copies, options, processes, skip, block):
            yield _without_duplicates(result, first_of)


def _read_local(
    sources: Sequence[SourceFile],
    options: ReadOptions,
    processes: int | None,
    skip: Skip | None,
    block: int,
) -> Iterator[SourceResult]:
    """Yield the results of files that are at hand, structure files first."""
    structures = [source for source in sources if source.kind not in CONTAINERS]
    cores = core_count() if processes is None else processes
    if processes is None:
        processes = cores if len(structures) >= FEWEST_FOR_PROCESSES else 1
    plain = [source for source in structures if source.kind not in IN_OWN_PROCESS]
    yield from _read_structures(plain, options, processes, skip)
    yield from _read_apart(
        [source for source in structures if source.kind in IN_OWN_PROCESS], options, processes, skip
    )
    for source in sources:
        if source.kind in CONTAINERS:
            yield from _read_blocks(source, options, block, cores, skip)


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
    yield from _read_in_processes(tasks, options, processes)


def _read_apart(
    sources: list[SourceFile], options: ReadOptions, processes: int, skip: Skip | None
) -> Iterator[SourceResult]:
    """Yield the results of files that this process does not read, however few they are."""
    tasks: Iterable[_Task] = ((source, b"") for source in sources)
    if skip is not None:
        tasks = _hashed(sources, skip)
    # Those that are known need no process.
    for known, group in groupby(tasks, key=lambda task: task[1] != b""):
        if known:
            yield from (_read_task(options, task) for task in group)
        else:
            yield from _read_in_processes(group, options, processes)


def _read_in_processes(
    tasks: Iterable[_Task], options: ReadOptions, processes: int
) -> Iterator[SourceResult]:
    read = partial(_read_task, options)
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
    """Return a file's hash; of a part it is another one, since one part read is not the rest."""
    try:
        if source.kind == "database":
            sha256 = database_sha256(source.local)
        else:
            with open_file(source.local) as handle:
                sha256 = hashlib.file_digest(handle, "sha256").digest()
        if source.part is None:
            return sha256
        return hashlib.sha256(sha256 + b"%d/%d" % source.part).digest()
    except (InputError, OSError):  # reading the file gives the failure
        return b""


def _read_task(options: ReadOptions, task: _Task, most: int = MAX_BYTES) -> SourceResult:
    source, known = task
    if known:
        return SourceResult(source, known, skipped=True)
    return read_structure_file(source, options, most)


def _read_tasks(options: ReadOptions, tasks: list[_Task]) -> list[SourceResult]:
    return [_read_task(options, task) for task in tasks]


def _killed(task: _Task) -> SourceResult:
    source = task[0]
    reason = "the process that read it died: too little memory, or damage that stops the parser"
    return failed(source, b"", reason, "check the file, or leave it out")


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _read_blocks(
    source: SourceFile, options: ReadOptions, size: int, processes: int, skip: Skip | None
) -> Iterator[SourceResult]:
    """Yield at least one result; the last one, and only that, has ``last``."""
    sha256 = _sha256_or_empty(source)
    if skip is not None and sha256 and skip(source, sha256):
        yield SourceResult(source, sha256, skipped=True)
        return
    if source.kind == "database":
        try:
            check_library()
        except InputError as error:  # Without a hash, so that it is read again later.
            yield failed(source, b"", error.reason, error.advice)
            return
    block = SourceResult(source, sha256, last=False)
    if source.kind != "fasta":
        records, size = _members_of(source, options, processes), min(size, ARCHIVE_BLOCK)
    else:
        records = _records_of(source)
    for record in records:
        block.records.append(record)
        if len(block.records) >= size:
            yield block
            block = SourceResult(source, sha256, last=False)
    yield replace(block, last=True)


def _records_of(source: SourceFile) -> Iterator[Protein | Failure]:
    """Yield a FASTA file's records, and a failure of the file if reading ends in an error."""
    file = path_text(source.path)
    try:
        yield from read_fasta(source.local, shown=source.path)
    except MemoryError:
        yield Failure("", file, "too large for this machine's memory", "split the file")
    except Exception as error:
        yield Failure("", file, *unexpected(error))


def _members_of(
    source: SourceFile, options: ReadOptions, processes: int
) -> Iterator[Protein | Failure]:
    """Yield the proteins of an archive's or database's entries, and a failure for each bad one."""
    if source.kind == "database":
        members: Iterator[Member | Failure] = read_entries(source)
    else:
        members = read_members(source, room_for(source.kind))
    tasks = _chunks(members, _FILES_PER_TASK)
    parse = partial(_parse_members, options)
    if source.kind == "tar" and is_small(source):
        chunks = _parsed_here(tasks, parse)
    else:
        chunks = process_map(parse, partial(_parsed_apart, parse), tasks, processes)
    for chunk in chunks:
        yield from chunk


#: What ``_parse_members`` does once it has its options.
_Parse = Callable[[Sequence[Member | Failure]], list[Protein | Failure]]


def _parsed_here(
    tasks: Iterable[list[Member | Failure]], parse: _Parse
) -> Iterator[list[Protein | Failure]]:
    """Yield what is in a small archive; only what may end a process is read by another one."""
    for chunk in tasks:
        apart = any(
            isinstance(each, Member) and each.source.kind in IN_OWN_PROCESS for each in chunk
        )
        yield _parsed_apart(parse, chunk) if apart else parse(chunk)


def _parsed_apart(parse: _Parse, chunk: list[Member | Failure]) -> list[Protein | Failure]:
    """Return what is in some files of an archive, each read by itself in another process."""
    return [each for part in one_by_one(parse, _died, zip(chunk)) for each in part]


def _parse_members(
    options: ReadOptions, members: Sequence[Member | Failure]
) -> list[Protein | Failure]:
    """Parse some files of an archive."""
    read: list[Protein | Failure] = []
    for member in members:
        if isinstance(member, Failure):
            read.append(member)
            continue
        result = parsed(member.source, member.name, member.data, b"", options)
        read += result.records
    return read


def _died(member: tuple[Member | Failure]) -> list[Protein | Failure]:
    """Return the failure of a file of an archive that ended the process."""
    (given,) = member
    return [given] if isinstance(given, Failure) else list(_killed((given.source, b"")).failures)


def _without_duplicates(result: SourceResult, first_of: dict[str, str]) -> SourceResult:
    records: list[Protein | Failure] = []
    for record in result.records:
        if isinstance(record, Protein) and record.id in first_of:
            records.append(taken(record.id, record.source, first_of[record.id]))
            continue
        if isinstance(record, Protein):
            first_of[record.id] = record.source
        records.append(record)
    return replace(result, records=records)
