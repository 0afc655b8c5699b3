"""Read protein sequences and turn them into ESM-2 tokens."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import esm
import numpy as np
from numpy.typing import NDArray

from protalign.core.protein import AMINO_ACIDS

ALPHABET = esm.data.Alphabet.from_architecture("ESM-1b")
STANDARD_TOKENS = np.array([ALPHABET.get_idx(aa) for aa in AMINO_ACIDS], dtype=np.int64)

Tokens = NDArray[np.uint8]


class Record(NamedTuple):
    """One FASTA entry: the first word of its header and its residues."""

    id: str
    sequence: str


def _letter_table() -> NDArray[np.uint8]:
    """Return the token of every byte; a letter missing from the alphabet is unknown, X."""
    table = np.full(256, ALPHABET.get_idx("X"), dtype=np.uint8)
    for letter in ALPHABET.standard_toks:
        if letter.isalpha():
            table[ord(letter)] = ALPHABET.get_idx(letter)
    return table


_TOKEN_OF_BYTE = _letter_table()


def tokenize(sequence: str) -> Tokens:
    """Return a sequence's tokens with start and end marks: (residues + 2,) uint8."""
    letters = np.frombuffer(sequence.upper().encode("ascii", "replace"), dtype=np.uint8)
    marks = [ALPHABET.cls_idx], [ALPHABET.eos_idx]
    return np.concatenate([marks[0], _TOKEN_OF_BYTE[letters], marks[1]]).astype(np.uint8)


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="ascii")
    return path.open(encoding="ascii")


def read_fasta(path: Path) -> Iterator[Record]:
    """Yield the entries of a FASTA file, plain or gzip-compressed, in the file's order."""
    identifier, parts = "", list[str]()
    with _open_text(path) as handle:
        for line in handle:
            if line.startswith(">"):
                if parts:
                    yield Record(identifier, "".join(parts))
                identifier, parts = (line[1:].split() or [""])[0], []
            else:
                parts.append(line.strip())
    if parts:
        yield Record(identifier, "".join(parts))
