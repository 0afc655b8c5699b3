"""Sources to proteins: one file, or many in parallel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from protalign.core.errors import Failure, InputError
from protalign.core.protein import Protein
from protalign.reading.content import display_path, file_sha256, read_file, unpack
from protalign.reading.fasta import read_fasta
from protalign.reading.options import ReadOptions
from protalign.reading.processes import available_processors, one_by_one, ordered_map, process_map
from protalign.reading.sources import SourceFile
from protalign.reading.structures import read_structure

#: Proteins of a FASTA file that are handed on at once.
FASTA_BLOCK = 10_000
#: Below this many structure files starting worker processes costs more than it saves.
FEWEST_FOR_PROCESSES = 32
_FILES_PER_TASK = 8
_HASHES_AT_ONCE = 8

#: Whether a source with this SHA-256 is known already and need not be read.
Skip = Callable[[SourceFile, bytes], bool]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What came out of a source, or out of a block of a FASTA file's records.

    Attributes
    ----------
    source : the file.
    sha256 : of the file's bytes as they are on disk (32 bytes); empty where it cannot be opened, or
        was not read for lack of memory.
    proteins, failures : in the order of the file.
    skipped : the caller's ``skip`` said that the file is known: nothing was read but its hash.
    last : no further result comes for this source.
    """

    source: SourceFile
    sha256: bytes
    proteins: list[Protein] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: bool = False
    last: bool = True


def read_source(source: SourceFile, options: ReadOptions | None = None) -> SourceResult:
    """Read one file whole. Content of whatever kind never raises: it makes Failures."""
    options = options or ReadOptions()
    if source.kind == "fasta":
        blocks = list(_read_fasta_blocks(source))
        proteins = [protein for block in blocks for protein in block.proteins]
        failures = [failure for block in blocks for failure in block.failures]
        return SourceResult(source, blocks[-1].sha256, proteins, failures)
    sha256 = b""
    try:
        data = read_file(source.path)
        sha256 = hashlib.sha256(data).digest()
        content = unpack(data, source.path.name)
        return SourceResult(source, sha256, read_structure(source, content, options))
    except InputError as error:
        return _failed(source, sha256, error.reason, error.advice)
    except MemoryError:
        # Without its hash: another machine, or a quieter moment, may have the memory.
        return _failed(source, b"", "too large for this machine's memory", "split it")


def read_sources(
    sources: Sequence[SourceFile],
    options: ReadOptions | None = None,
    *,
    processes: int | None = None,
    skip: Skip | None = None,
) -> Iterator[SourceResult]:
    """Read many files, in parallel.

    Results come in the sources' order, structure files first, FASTA files after; those in
    blocks of at most ``FASTA_BLOCK`` proteins, streamed. Only a bounded number of results
    waits, whatever the number of files. A protein whose id an earlier one has becomes a
    Failure that names the earlier one's file (ids of skipped sources are not known here).

    Parameters
    ----------
    processes : worker processes; by default one for each processor, and none for few files.
    skip : called in this process with each source and its SHA-256; where it returns True, the
        source is not read.
    """
    options = options or ReadOptions()
    structures = [source for source in sources if source.kind != "fasta"]
    fastas = [source for source in sources if source.kind == "fasta"]
    if processes is None:
        processes = available_processors() if len(structures) >= FEWEST_FOR_PROCESSES else 1
    results = _read_structures(structures, options, processes, skip)
    first_of: dict[str, str] = {}
    for result in results:
        yield _without_duplicates(result, first_of)
    for source in fastas:
        for result in _read_fasta_blocks(source, skip):
            yield _without_duplicates(result, first_of)


def _read_structures(
    sources: list[SourceFile], options: ReadOptions, processes: int, skip: Skip | None
) -> Iterator[SourceResult]:
    tasks: Iterable[_Task] = ((source, b"") for source in sources)
    if skip is not None:
        tasks = _hashed(sources, skip)
    read = partial(_read_task, options)
    if processes == 1:
        yield from map(read, tasks)
        return
    chunks = process_map(
        partial(_read_tasks, options),
        lambda chunk: list(one_by_one(read, _killed, chunk)),
        _chunks(tasks, _FILES_PER_TASK),
        processes,
    )
    for chunk in chunks:
        yield from chunk


#: A source, and its SHA-256 where it is to be skipped (else empty).
_Task = tuple[SourceFile, bytes]


def _hashed(sources: list[SourceFile], skip: Skip) -> Iterator[_Task]:
    with ThreadPoolExecutor(_HASHES_AT_ONCE) as threads:
        hashes = ordered_map(threads, _sha256_or_empty, sources, 4 * _HASHES_AT_ONCE)
        for source, sha256 in zip(sources, hashes, strict=True):
            yield source, sha256 if sha256 and skip(source, sha256) else b""


def _sha256_or_empty(source: SourceFile) -> bytes:
    try:
        return file_sha256(source.path)
    except InputError:
        return b""


def _read_task(options: ReadOptions, task: _Task) -> SourceResult:
    source, known = task
    if known:
        return SourceResult(source, known, skipped=True)
    return read_source(source, options)


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


def _read_fasta_blocks(source: SourceFile, skip: Skip | None = None) -> Iterator[SourceResult]:
    """At least one result; the last one, and only that, has ``last``."""
    sha256 = _sha256_or_empty(source)
    if skip is not None and sha256 and skip(source, sha256):
        yield SourceResult(source, sha256, skipped=True)
        return
    block = SourceResult(source, sha256, last=False)
    for record in read_fasta(source.path):
        if isinstance(record, Failure):
            block.failures.append(record)
        else:
            block.proteins.append(record)
        if len(block.proteins) + len(block.failures) >= FASTA_BLOCK:
            yield block
            block = SourceResult(source, sha256, last=False)
    yield replace(block, last=True)


def _failed(source: SourceFile, sha256: bytes, reason: str, advice: str) -> SourceResult:
    failure = Failure(source.id, display_path(source.path), reason, advice)
    return SourceResult(source, sha256, failures=[failure])


def _without_duplicates(result: SourceResult, first_of: dict[str, str]) -> SourceResult:
    proteins, failures = [], list(result.failures)
    for protein in result.proteins:
        first = first_of.get(protein.id)
        if first is None:
            first_of[protein.id] = protein.source
            proteins.append(protein)
        else:
            reason = f"the id {protein.id} is taken by {first}"
            advice = "rename one of the two, or leave one out"
            failures.append(Failure(protein.id, protein.source, reason, advice))
    return replace(result, proteins=proteins, failures=failures)
