"""FASTA records to proteins without a structure, one at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from protalign.core.errors import Failure, InputError
from protalign.core.protein import SEQUENCE_LETTERS, Chain, Protein
from protalign.reading.content import (
    BlockReader,
    check_content,
    display_path,
    gunzip_blocks,
    open_file,
)
from protalign.reading.sources import is_id

#: Longest record taken, in characters: the longest known protein has 45,000 residues or so.
MAX_RECORD = 16 << 20
_FROM = str.maketrans("J", "X")


def read_fasta(path: Path) -> Iterator[Protein | Failure]:
    """Each record of a FASTA file (.gz: compressed), as a Protein or as its Failure, in order.

    The id is the header's first word. Lower case is read as upper case, a final "*" is dropped,
    J is read as X; a record with any other character, with fewer than two residues, or with an
    id that an earlier one has, is a Failure. The file is streamed: its size does not matter. Of a
    .gz file that is damaged anywhere nothing is taken, so it is read through once before.
    """
    file = display_path(path)
    try:
        if path.name.lower().endswith(".gz"):
            with open_file(path) as handle:
                for _ in gunzip_blocks(handle):
                    pass
        with _open_text(path) as text:
            yield from _records(text, file)
    except InputError as error:
        yield Failure(error.record, file, error.reason, error.advice)
    except OSError as error:
        reason = f"cannot be read: {(error.strerror or str(error)).lower()}"
        yield Failure("", file, reason, "check the disk and the file")


def _records(text: io.TextIOBase, file: str) -> Iterator[Protein | Failure]:
    from biotite.sequence.io.fasta import FastaFile

    seen: set[str] = set()
    count = 0
    for count, (header, letters) in enumerate(FastaFile.read_iter(text), start=1):
        id = header.split(maxsplit=1)[0] if header.strip() else ""
        try:
            if not is_id(id):
                raise InputError(
                    f"record {count} has no usable id", "begin its header with a printable word"
                )
            if id in seen:
                raise InputError("its id is in this file twice", "give each record its own id")
            seen.add(id)
            chain = Chain.from_sequence(parse_sequence(letters))
        except InputError as error:
            yield Failure(id if is_id(id) else "", file, error.reason, error.advice)
        else:
            yield Protein(id, file, (chain,))
    if count == 0:
        raise InputError("no FASTA record", "give a file whose records begin with >")


def parse_sequence(text: str) -> str:
    """One-letter codes out of ``SEQUENCE_LETTERS``; raises InputError for anything else."""
    letters = "".join(text.split()).upper().removesuffix("*").translate(_FROM)
    unknown = sorted(set(letters) - SEQUENCE_LETTERS)
    if unknown:
        place = min(map(letters.index, unknown))
        shown = letters[place] if letters[place].isprintable() else f"{letters[place]!a}"
        raise InputError(
            f"{shown} at position {place + 1} is no amino acid", "remove it, or write X"
        )
    if len(letters) < 2:
        what = "one residue only" if letters else "the record is empty"
        raise InputError(what, "leave it out")
    return letters


class _CheckedLines(io.TextIOBase):
    """The lines of a FASTA file: the first that counts is a header, and no record is endless."""

    def __init__(self, text: io.TextIOBase) -> None:
        self._text = text
        self._size = -1

    def __next__(self) -> str:  # type: ignore[override]  # typeshed: bytes, also for text
        line = self._text.readline(MAX_RECORD)
        if not line:
            raise StopIteration
        if line.startswith(">"):
            self._size = 0
        elif self._size >= 0:
            self._size += len(line)
        elif line.strip() and not line.startswith(";"):
            raise InputError("it does not begin with >", "give a FASTA file")
        if max(self._size, len(line)) >= MAX_RECORD:
            raise InputError(
                f"a record has more than {MAX_RECORD:,} characters", "check that it is FASTA"
            )
        return line

    def close(self) -> None:
        self._text.close()
        super().close()


def _open_text(path: Path) -> _CheckedLines:
    handle = open_file(path)
    raw: io.BufferedReader = handle
    if path.name.lower().endswith(".gz"):
        raw = io.BufferedReader(BlockReader(gunzip_blocks(handle)))
    head = raw.peek(4096)[:4096]
    if not head:
        raise InputError("the file is empty", "download or copy it again")
    check_content(head, "fasta")
    # Bytes that are no UTF-8 become characters that are in no id and no sequence.
    return _CheckedLines(io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape"))
