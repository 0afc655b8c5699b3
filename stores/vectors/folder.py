"""A folder of vectors: what ``vectors.json`` says of it, checked before it is believed.

Beside that document it has Parquet files, which every program reads as one table, and flat arrays
of the same rows, which are memory-mapped and searched in place. The names of all files follow from
the document's counts; no name in it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protalign.core.digests import json_digest, sealed, unsealed
from protalign.core.errors import InputError
from protalign.core.files import json_text
from protalign.core.protein import MODALITIES, Modality
from protalign.core.untrusted import read_json, whole_number
from protalign.stores.vectors.flat import AGAIN, damaged

DOCUMENT, SCHEMA = "vectors.json", "protalign-vectors/1"
#: The columns of texts: ids, and the annotations but the taxid.
ID, TEXTS = "id", ("description", "organism", "accession")
#: Entries, bytes of texts, and numbers of a vector, at most: no folder has as many.
_MOST_ENTRIES, _MOST_BYTES, _MOST_NUMBERS = 1 << 36, 1 << 48, 1 << 16
#: What a document with wrong or missing parts raises.
_MISFITS = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class VectorFolder:
    """The contents of a folder of vectors.

    Attributes
    ----------
    entries : int
        Rows.
    dim : int
        Width of the aligned vectors.
    present : mapping
        Modality -> entries that have it. One that none has is left out, and so are its arrays.
    mean_dims : mapping
        Modality -> width of its mean embeddings, if they were exported.
    has_lengths : bool
        Whether all lengths are known.
    annotated : bool
        Whether there are columns for the entries' annotations.
    text_bytes : mapping
        Column of texts -> bytes of all of them.
    parts : tuple of (int, int)
        Rows and bytes of each Parquet file.
    checksums : mapping
        Name of an array -> CRC-32C of its numbers.
    metadata : mapping
        The provenance, as in a Parquet file of vectors.
    """

    entries: int
    dim: int
    present: Mapping[Modality, int]
    mean_dims: Mapping[Modality, int]
    has_lengths: bool
    annotated: bool
    text_bytes: Mapping[str, int]
    parts: tuple[tuple[int, int], ...]
    checksums: Mapping[str, int]
    metadata: Mapping[str, Any]

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of texts."""
        return (ID, *TEXTS) if self.annotated else (ID,)

    @property
    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of each array, by its name without the ending ``.npy``."""
        n = self.entries
        arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
        for modality in self.present:
            arrays[modality] = "<f4", (n, self.dim)
            arrays[f"{modality}_present"] = "|b1", (n,)
        for modality, width in self.mean_dims.items():
            arrays[f"{modality}_mean"] = "<f4", (n, width)
        for name in self.texts:
            arrays[name] = "|u1", (self.text_bytes[name],)
            arrays[f"{name}_offsets"] = "<i8", (n + 1,)
        arrays |= {"id_hash": ("<u8", (n,)), "id_row": ("<i8", (n,)), "length": ("<i4", (n,))}
        if self.annotated:
            arrays["taxid"] = "<i4", (n,)
        return arrays

    def text(self) -> str:
        """Return the text of the document."""
        return json_text(sealed({"schema": SCHEMA, **vars(self)}))

    def digest(self, modality: Modality) -> str:
        """Return a hex digest of the entries' ids and their vectors of a modality."""
        names = (modality, f"{modality}_present", ID, f"{ID}_offsets")
        return vectors_digest(self.entries, self.dim, [self.checksums[name] for name in names])


def vectors_digest(entries: int, dim: int, checksums: list[int]) -> str:
    """Return a hex digest of ids and vectors.

    Parameters
    ----------
    entries, dim : int
        The shape of the vectors.
    checksums : list of int
        CRC-32C of the vectors (rows of NaN if missing), of which are present, of the bytes of the
        ids, and of where each begins.
    """
    return json_digest({"entries": entries, "dim": dim, "checksums": checksums})


def part_name(number: int) -> str:
    """Return the name of a folder's Parquet file."""
    return f"part-{number:05}.parquet"


def is_vector_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder has the document of a folder of vectors."""
    return (Path(path) / DOCUMENT).is_file()


def read_folder(path: Path) -> VectorFolder:
    """Read and check a folder's document; raise InputError if it is missing or damaged."""
    if not is_vector_folder(path):
        raise InputError(
            f"{path}: it is not a folder of vectors", "name one that `protalign export` wrote"
        )
    value = read_json(path / DOCUMENT, AGAIN, links=False)
    schema = str(value.get("schema") if isinstance(value, dict) else None)[:60]
    if schema != SCHEMA:
        raise InputError(
            f"{path}: a folder of vectors of the schema {schema}, this version reads {SCHEMA}",
            "use the version of ProtAlign that wrote it, or export it again",
        )
    content = unsealed(value)
    if content is None:
        raise damaged(path, f"{DOCUMENT} was changed since it was written")
    try:
        return _folder(content)
    except _MISFITS as error:
        raise damaged(path, f"{DOCUMENT}: {' '.join(str(error).split())[:200]}") from None


def _folder(value: Mapping[str, Any]) -> VectorFolder:
    entries = whole_number(value["entries"], 0, _MOST_ENTRIES)
    parts = tuple(
        (whole_number(rows, 0, entries), whole_number(size, 1, _MOST_BYTES))
        for rows, size in value["parts"]
    )
    if sum(rows for rows, _ in parts) != entries:
        raise ValueError("its files have not as many rows as it has entries")
    folder = VectorFolder(
        entries,
        whole_number(value["dim"], 1, _MOST_NUMBERS),
        {m: whole_number(value["present"][m], 1, entries) for m in _modalities(value["present"])},
        {
            m: whole_number(value["mean_dims"][m], 1, 1 << 16)
            for m in _modalities(value["mean_dims"])
        },
        _bool(value["has_lengths"]),
        _bool(value["annotated"]),
        {name: whole_number(n, 0, _MOST_BYTES) for name, n in value["text_bytes"].items()},
        parts,
        {name: whole_number(each, 0, 2**32 - 1) for name, each in value["checksums"].items()},
        dict(value["metadata"]),
    )
    if folder.arrays.keys() != folder.checksums.keys():
        raise ValueError("its checksums are not those of its arrays")
    return folder


def _modalities(names: Mapping[str, Any]) -> list[Modality]:
    if not set(names) <= set(MODALITIES):
        raise ValueError("a modality is unknown")
    return [modality for modality in MODALITIES if modality in names]


def _bool(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{str(value)[:60]} is not true or false")
    return value
