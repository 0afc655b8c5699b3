"""Reading of FASTA records, one at a time, into proteins without a structure."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from protalign.core.errors import Failure, InputError
from protalign.core.paths import path_text
from protalign.core.protein import SEQUENCE_LETTERS, Chain, Protein
from protalign.core.urls import Url
from protalign.core.words import counted
from protalign.reading.content import (
    FETCH_AGAIN,
    BlockReader,
    check_content,
    gunzip_blocks,
    open_file,
    system_problem,
)
from protalign.reading.fasta_headers import header_annotation
from protalign.reading.sources import is_id

#: Most characters of a record: the longest known protein has about 45,000 residues.
MAX_RECORD = 16 << 20
_FROM = str.maketrans("J", "X")
#: Bases, and the codes of several of them. All but a few are letters of amino acids as well.
_BASES, _BASES_CODES = frozenset("ACGTUN"), frozenset("ACGTUNRYSWKMBDHV")
#: A record of bases alone that is shorter may be a peptide; so may one with fewer kinds of them.
_FEWEST_BASES, _FEWEST_KINDS = 20, 3
#: Share of bases proper in a record with codes of several, and its least length.
_SHARE_OF_BASES, _FEWEST_WITH_CODES = 0.95, 100


def read_fasta(
    path: Path, max_record: int = MAX_RECORD, shown: Path | Url | None = None
) -> Iterator[Protein | Failure]:
    r"""Read a FASTA file, one record after another.

    The id is the header's first word; ``header_annotation`` reads the others. Lower case is read
    as upper case, a final "*" is dropped, and J is read as X, with a note. A record that looks like
    DNA or RNA has a note too. A record with any other character, with fewer than two residues, or
    with the id of an earlier one is a Failure. The file is streamed: its size does not matter. If a
    .gz file is damaged anywhere, none of it is taken, so it is read through once before.

    Parameters
    ----------
    path : Path
        Compressed if its name ends in .gz.
    max_record : int
        Most characters of a record; a longer one ends the reading with a Failure.
    shown : Path or Url, optional
        What stands for the file in the results, and tells by its name whether it is compressed.
        Default: the path.

    Yields
    ------
    Protein or Failure
        One for each record, in order. A Failure without an id is about the whole file; a record
        without an id is "record 3", by its place.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "two.fasta"
    >>> _ = path.write_text(">insulin chain A\nGIVEQCC\n>gap\nGI-EQ\n")
    >>> protein, failure = read_fasta(path)
    >>> protein.id, protein.sequences
    ('insulin', ('GIVEQCC',))
    >>> failure.reason
    '- at position 3 is not an amino acid'
    """
    shown = path if shown is None else shown
    file, packed = path_text(shown), shown.name.lower().endswith(".gz")
    try:
        if packed:
            with open_file(path) as handle:
                for _ in gunzip_blocks(handle):
                    pass
        with _open_text(path, max_record, packed) as text:
            yield from _records(text, file)
    except InputError as error:
        yield Failure(error.record, file, error.reason, error.advice)
    except OSError as error:
        reason = f"it cannot be read: {system_problem(error)}"
        yield Failure("", file, reason, "check the disk and the file")


def read_fasta_text(
    text: str, name: str = "", max_record: int = MAX_RECORD
) -> Iterator[Protein | Failure]:
    r"""Read FASTA records that lie in memory, as ``read_fasta`` reads those of a file.

    Parameters
    ----------
    text : str
        The records.
    name : str
        What takes the place of the file's name in failures.
    max_record : int
        Most characters of a record.

    Yields
    ------
    Protein or Failure
        One for each record, in order.

    Examples
    --------
    >>> [protein.id for protein in read_fasta_text(">insulin\nGIVEQCC\n")]
    ['insulin']
    """
    try:
        check_content(text[:4096].encode("utf-8", "surrogateescape"), "fasta")
        yield from _records(_CheckedLines(io.StringIO(text, newline=None), max_record), name)
    except InputError as error:
        yield Failure(error.record, name, error.reason, error.advice)


def _records(text: io.TextIOBase, file: str) -> Iterator[Protein | Failure]:
    from biotite.sequence.io.fasta import FastaFile

    seen: set[str] = set()
    count = 0
    for count, (header, letters) in enumerate(FastaFile.read_iter(text), start=1):
        id = header.split(maxsplit=1)[0] if header.strip() else ""
        try:
            if not is_id(id):
                raise InputError("it has no usable id", "begin its header with a printable word")
            if id in seen:
                raise InputError("its id is in this file twice", "give each record its own id")
            seen.add(id)
            chain = Chain.from_sequence(parse_sequence(letters))
        except InputError as error:
            named = id if is_id(id) else f"record {count}"  # which is not an id: it has a space
            yield Failure(named, file, error.reason, error.advice)
        else:
            notes = _notes(letters, chain.sequence)
            yield Protein(id, file, (chain,), notes=notes, annotation=header_annotation(header))
    if count == 0:
        raise InputError("no FASTA record", "give a file whose records begin with >")


def _notes(text: str, sequence: str) -> tuple[str, ...]:
    """Return remarks about a record that is read all the same."""
    notes = []
    if count := text.upper().count("J"):
        notes.append(f"{counted(count, 'J', 'J')} read as X")
    if _looks_like_bases(sequence):
        notes.append("it looks like DNA or RNA, and is read as a protein; translate it first")
    return tuple(notes)


def _looks_like_bases(sequence: str) -> bool:
    letters = set(sequence)
    if len(letters & _BASES) < _FEWEST_KINDS or not letters <= _BASES_CODES:
        return False
    if letters <= _BASES:
        return len(sequence) >= _FEWEST_BASES
    bases = sum(map(sequence.count, _BASES))
    return len(sequence) >= _FEWEST_WITH_CODES and bases >= _SHARE_OF_BASES * len(sequence)


def parse_sequence(text: str) -> str:
    """Return one-letter codes out of ``SEQUENCE_LETTERS``; raise InputError for anything else."""
    letters = "".join(text.split()).upper().removesuffix("*").translate(_FROM)
    unknown = sorted(set(letters) - SEQUENCE_LETTERS)
    if unknown:
        index = min(map(letters.index, unknown))
        letter = letters[index] if letters[index].isprintable() else f"{letters[index]!a}"
        raise InputError(
            f"{letter} at position {index + 1} is not an amino acid", "remove it, or write X"
        )
    if len(letters) < 2:
        problem = "it has only one residue" if letters else "the record is empty"
        raise InputError(problem, "leave it out")
    return letters


class _CheckedLines(io.TextIOBase):
    """The lines of a FASTA file, which must begin with a header and have no endless record."""

    def __init__(self, text: io.TextIOBase, max_record: int) -> None:
        self._text = text
        self._max_record = max_record
        self._size = -1  # of the record so far; -1 before the first

    def __next__(self) -> str:  # type: ignore[override]  # typeshed: bytes, also for text
        line = self._text.readline(self._max_record)
        if not line:
            raise StopIteration
        if "\x1a" in line:  # DOS programs end a file with it
            line = line.rstrip().rstrip("\x1a") + "\n"
        if line.startswith(">"):
            self._size = 0
        elif self._size >= 0:
            self._size += len(line)
        elif line.strip() and not line.startswith(";"):
            raise InputError("it does not begin with >", "give a FASTA file")
        if max(self._size, len(line)) >= self._max_record:
            raise InputError(
                f"a record has more than {self._max_record:,} characters", "check that it is FASTA"
            )
        return line

    def close(self) -> None:
        self._text.close()
        super().close()


def _open_text(path: Path, max_record: int, packed: bool) -> _CheckedLines:
    handle = open_file(path)
    raw: io.BufferedReader = handle
    if packed:
        raw = io.BufferedReader(BlockReader(gunzip_blocks(handle)))
    head = raw.peek(4096)[:4096]
    if not head:
        raise InputError("the file is empty", FETCH_AGAIN)
    check_content(head, "fasta")
    # Bytes that are not UTF-8 become characters that no id and no sequence may hold.
    text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape")
    return _CheckedLines(text, max_record)
