"""Reading of one source, or of many in parallel, into proteins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from protalign.core.errors import Failure, InputError
from protalign.core.files import sha256 as file_sha256
from protalign.core.machine import core_count
from protalign.core.protein import Protein
from protalign.reading.content import display_path, read_file, unpack
from protalign.reading.fasta import read_fasta
from protalign.reading.options import ReadOptions
from protalign.reading.processes import one_by_one, ordered_map, process_map
from protalign.reading.sources import SourceFile, taken
from protalign.reading.structures import read_structure

#: Records of a FASTA file that are handed on at once.
FASTA_BLOCK = 10_000
#: With fewer structure files, starting worker processes costs more than it saves.
FEWEST_FOR_PROCESSES = 32
_FILES_PER_TASK = 8
_HASHES_AT_ONCE = 8

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
    options = options or ReadOptions()
    if source.kind == "fasta":
        blocks = list(_read_fasta_blocks(source, FASTA_BLOCK))
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
        # Without its hash, so that it is read again: another machine may have the memory.
        return _failed(source, b"", "too large for this machine's memory", "split the file")


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


#: A source, and its SHA-256 if it is to be skipped (else empty).
_Task = tuple[SourceFile, bytes]


def _hashed(sources: list[SourceFile], skip: Skip) -> Iterator[_Task]:
    with ThreadPoolExecutor(_HASHES_AT_ONCE) as threads:
        hashes = ordered_map(threads, _sha256_or_empty, sources, 4 * _HASHES_AT_ONCE)
        for source, sha256 in zip(sources, hashes, strict=True):
            yield source, sha256 if sha256 and skip(source, sha256) else b""


def _sha256_or_empty(source: SourceFile) -> bytes:
    try:  # only regular files: opening a pipe would wait for somebody to write into it
        return file_sha256(source.path) if source.path.is_file() else b""
    except OSError:  # reading the file gives the failure
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


def _read_fasta_blocks(
    source: SourceFile, size: int, skip: Skip | None = None
) -> Iterator[SourceResult]:
    """Yield at least one result; the last one, and only that, has ``last``."""
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
        if len(block.proteins) + len(block.failures) >= size:
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
            failures.append(taken(protein.id, protein.source, first))
    return replace(result, proteins=proteins, failures=failures)
