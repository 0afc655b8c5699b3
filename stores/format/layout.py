"""The arrays of a store, format 1.1: names, dtypes, chunks. See docs/store-format.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

import numpy as np

from protalign.core.errors import StoreError

#: The format of new stores.
FORMAT_VERSION = "1.1"
#: The format before it, without recorded checksums; such stores are read and added to as they are.
EARLIER_VERSION = "1.0"
#: Key of the root group's attributes that holds the state of the store.
ATTRIBUTE = "protalign"
#: Key beside it, with the crc32c of that state as canonical JSON.
CHECKSUM_ATTRIBUTE = "protalign_crc32c"
#: Rows of an encoder's chunk, and of the task that fills it.
ENCODER_CHUNK_ROWS = 8192

_INDEX_CHUNK = 8192
_BYTES_CHUNK = 65536
_RESIDUE_CHUNK = 65536
_BACKBONE_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One flat array: ``dtype``, shape (rows, *row_shape), chunks (chunk_rows, *row_shape)."""

    dtype: np.dtype[np.generic]
    row_shape: tuple[int, ...]
    chunk_rows: int

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return (self.chunk_rows, *self.row_shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * prod(self.row_shape)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk without its checksum."""
        return self.row_bytes * self.chunk_rows

    def chunk_key(self, index: int) -> str:
        """Return the file name of a chunk, such as "c.3.0.0" if rows have two dimensions."""
        return ".".join(["c", str(index), *["0"] * len(self.row_shape)])

    def chunks(self, rows: int) -> int:
        """Return the number of chunks that hold ``rows`` rows."""
        return -(-rows // self.chunk_rows)


def _spec(dtype: str, *row_shape: int, chunk_rows: int = _INDEX_CHUNK) -> ArraySpec:
    return ArraySpec(np.dtype(dtype).newbyteorder("<"), row_shape, chunk_rows)


def _ragged(name: str, dtype: str, chunk_rows: int = _BYTES_CHUNK) -> dict[str, ArraySpec]:
    """Return a ragged column's arrays: row i is ``values[start[i]:start[i] + length[i]]``."""
    return {
        f"{name}/start": _spec("i8"),
        f"{name}/length": _spec("i4"),
        f"{name}/values": _spec(dtype, chunk_rows=chunk_rows),
    }


#: The table of annotations. Stores without any rows of it may lack its arrays, and those of format
#: 1.0 never have them.
ANNOTATIONS = "annotations"

#: The arrays of a store.
ARRAYS: dict[str, ArraySpec] = {
    **_ragged("sources/path", "u1"),
    "sources/sha256": _spec("u1", 32),
    **_ragged("entries/id", "u1"),
    **_ragged("entries/notes", "u1"),
    "entries/source": _spec("i8"),
    "entries/sequence_item": _spec("i8"),
    "entries/structure_item": _spec("i8"),
    "entries/structure_chain": _spec("i4"),
    "entries/structure_chains": _spec("i4"),
    "entries/structure_offset": _spec("i8"),
    "entries/structure_length": _spec("i4"),
    "sequences/hash": _spec("u1", 32),
    **_ragged("sequences/letters", "u1"),
    **_ragged("sequences/chain_length", "i4", _INDEX_CHUNK),
    "structures/hash": _spec("u1", 32),
    "structures/chain": _spec("i8"),
    "structures/chains": _spec("i4"),
    "structures/rows": _spec("i4"),
    "structures/context": _spec("i4"),
    **_ragged("chains/id", "u1"),
    "chains/kept": _spec("?"),
    "chains/residue": _spec("i8"),
    "chains/residues": _spec("i4"),
    "residues/letter": _spec("u1", chunk_rows=_RESIDUE_CHUNK),
    "residues/number": _spec("i4", chunk_rows=_RESIDUE_CHUNK),
    "residues/insertion_code": _spec("u1", chunk_rows=_RESIDUE_CHUNK),
    "residues/observed": _spec("?", chunk_rows=_RESIDUE_CHUNK),
    "residues/backbone": _spec("f4", 4, 3, chunk_rows=_BACKBONE_CHUNK),
    **_ragged("failures/id", "u1"),
    **_ragged("failures/file", "u1"),
    **_ragged("failures/reason", "u1"),
    **_ragged("failures/advice", "u1"),
    f"{ANNOTATIONS}/entry": _spec("i8"),
    **_ragged(f"{ANNOTATIONS}/description", "u1"),
    **_ragged(f"{ANNOTATIONS}/organism", "u1"),
    f"{ANNOTATIONS}/taxid": _spec("i4"),
    **_ragged(f"{ANNOTATIONS}/accession", "u1"),
}


def is_annotation(array: str) -> bool:
    """Return whether an array or a group is of the table of annotations."""
    return array.partition("/")[0] == ANNOTATIONS


def encoder_arrays(name: str, dim: int, dtype: str, chunk_rows: int) -> dict[str, ArraySpec]:
    """Return the arrays of one encoder."""
    group = f"encoders/{name}"
    return {
        f"{group}/values": _spec(dtype, dim, chunk_rows=chunk_rows),
        f"{group}/start": _spec("i8"),
        f"{group}/length": _spec("i4"),
        f"{group}/plan/item": _spec("i8"),
        f"{group}/plan/batch": _spec("i8"),
        f"{group}/plan/task": _spec("i8"),
        f"{group}/plan/row": _spec("i8"),
        f"{group}/done": _spec("u1", chunk_rows=1),
    }


def checked_encoder_name(name: str) -> str:
    """Return the name if it can be a folder's; raise StoreError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}", name):
        shown = name if len(name) < 100 else f"{name[:100]}…"
        raise StoreError(
            f"{shown!r}: it cannot be an encoder's name; use letters, digits and _ . + -, "
            "beginning with a letter, a digit or _"
        )
    return name
