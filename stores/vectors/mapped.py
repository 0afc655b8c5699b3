"""Aligned vectors in a folder, used where they lie: nothing is loaded before it is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from protalign.core.annotation import Annotation
from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.checks import did_you_mean
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.stores.format.text import encode_texts
from protalign.stores.id_hashes import text_hashes
from protalign.stores.log import MOST_SUGGESTED
from protalign.stores.vectors.annotations import COLUMNS, Annotations
from protalign.stores.vectors.flat import Array, FlatTexts, damaged, map_array
from protalign.stores.vectors.folder import ID, VectorFolder, read_folder
from protalign.stores.vectors.vectors import AlignedVectors


class MappedVectors(AlignedVectors):
    """The vectors of a folder that ``protalign export`` wrote, memory-mapped.

    It is ``AlignedVectors`` whose arrays lie on the disk: the system reads the pages that are used
    and drops them if memory is short. ``ids``, ``lengths`` and ``annotations`` load a column of all
    entries; ``ids_at``, ``lengths_at``, ``annotations_at``, ``vectors_at`` and ``select`` read some
    rows only.

    Sizes and kinds of all files are checked when it is opened, and so are the numbers by which
    texts and rows are found when they are used. Checksums are compared by ``verify_vectors``.

    Parameters
    ----------
    path : str or path
        The folder.

    Attributes
    ----------
    path : Path
        The folder.
    folder : VectorFolder
        What its document says.

    Raises
    ------
    InputError
        The folder is not one of vectors, or a file of it is missing, is a link, or is of another
        size than was written.

    Examples
    --------
    >>> import tempfile
    >>> from protalign.stores import VectorBatch, write_vectors
    >>> path = tempfile.mkdtemp() + "/vectors"
    >>> eye = np.eye(2, dtype=np.float32)
    >>> write_vectors(path, [VectorBatch(["a", "b"], eye, eye)], dim=2, metadata={})
    2
    >>> vectors = MappedVectors(path)
    >>> vectors.select(["b"]).sequence
    array([[0., 1.]], dtype=float32)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.folder: VectorFolder = read_folder(self.path)
        self.arrays: dict[str, Array] = {
            name: map_array(self.path, f"{name}.npy", dtype, shape)
            for name, (dtype, shape) in self.folder.arrays.items()
        }
        self._texts = {
            name: FlatTexts(self.path, name, self.arrays[name], self.arrays[f"{name}_offsets"])
            for name in self.folder.texts
        }
        for modality, count in self.folder.present.items():
            flags = self.arrays[f"{modality}_present"]
            bytes_ = flags.view(np.uint8)
            if bytes_.max(initial=0) > 1 or np.count_nonzero(bytes_) != count:
                raise damaged(self.path, f"{modality}_present.npy is not as it was written")

    def __len__(self) -> int:
        return self.folder.entries

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedVectors, (str(self.path.absolute()),)

    @property
    def dim(self) -> int:
        """Numbers of an aligned vector."""
        return self.folder.dim

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The provenance."""
        return self.folder.metadata

    @property
    def sequence(self) -> Float32:
        """(n, dim) float32, mapped: the sequences' vectors, NaN if missing."""
        return self.candidates("sequence")[0]

    @property
    def structure(self) -> Float32:
        """(n, dim) float32, mapped: the structures' vectors, NaN if missing."""
        return self.candidates("structure")[0]

    @property
    def has_sequence(self) -> Bool:
        """(n,) bool, mapped: the entries with a sequence's vector."""
        return self.candidates("sequence")[1]

    @property
    def has_structure(self) -> Bool:
        """(n,) bool, mapped: the entries with a structure's vector."""
        return self.candidates("structure")[1]

    @property
    def sequence_mean(self) -> Float32 | None:
        """(n, D) float32, mapped: the sequences' means; None unless they were exported."""
        return self.arrays.get("sequence_mean")

    @property
    def structure_mean(self) -> Float32 | None:
        """(n, D) float32, mapped: the structures' means; None unless they were exported."""
        return self.arrays.get("structure_mean")

    @cached_property
    def ids(self) -> npt.NDArray[np.object_]:
        """(n,) object array of str: all ids, loaded."""
        return self.ids_at(np.arange(len(self)))

    @property
    def lengths(self) -> Int64 | None:
        """(n,) int64: residues of all entries, loaded; None if some are not known."""
        return self.arrays["length"].astype(np.int64) if self.folder.has_lengths else None

    @property
    def annotations(self) -> Annotations | None:
        """Annotations of all entries, loaded; None if there are none."""
        return self._annotations_at(np.arange(len(self))) if self.folder.annotated else None

    def candidates(self, against: Modality) -> tuple[Float32, Bool]:
        """Return a modality's vectors, (n, dim) float32, and (n,) bool: the present rows.

        Both are mapped, and only to be read.
        """
        if against in self.folder.present:
            return self.arrays[against], self.arrays[f"{against}_present"]
        shape = len(self), self.dim
        return np.broadcast_to(np.float32(np.nan), shape), np.broadcast_to(np.False_, shape[:1])

    def rows_of(self, ids: Sequence[str]) -> Int64:
        """Return (n,) int64: the row of each id, -1 for unknown ones."""
        hashes, rows = self.arrays["id_hash"], self.arrays["id_row"]
        wanted = text_hashes(*encode_texts(ids))
        first = np.searchsorted(hashes, wanted, side="left").tolist()
        last = np.searchsorted(hashes, wanted, side="right").tolist()
        found = np.full(len(ids), -1, dtype=np.int64)
        for place, entry_id in enumerate(ids):
            candidates = rows[first[place] : last[place]]
            if len(candidates) and not 0 <= candidates.min() <= candidates.max() < len(self):
                raise damaged(self.path, "id_row.npy points outside its entries")
            equal = self.ids_at(candidates) == entry_id
            if equal.any():
                found[place] = candidates[equal][0]
        return found

    def similar_id(self, name: str) -> str:
        """Return "did you mean …?" with the id that is most like a name; "" among many ids."""
        return did_you_mean(name, self.ids.tolist()) if len(self) <= MOST_SUGGESTED else ""

    def ids_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the ids of some rows; only theirs are read."""
        return self._texts[ID].at(rows)

    def lengths_at(self, rows: Int64) -> list[int | None]:
        """Return the residues of some rows' entries; None if some are not recorded."""
        if not self.folder.has_lengths:
            return [None] * len(rows)
        lengths: list[int | None] = self.arrays["length"][rows].tolist()
        return lengths

    def annotations_at(self, rows: Sequence[int]) -> list[Annotation]:
        """Return the annotations of some rows; only theirs are read.

        A row below 0 stands for none.
        """
        if not self.folder.annotated or not len(self):
            return [Annotation()] * len(rows)
        return list(self._annotations_at(np.maximum(np.array(rows, dtype=np.int64), 0)))

    def digest(self, modality: Modality) -> str:
        """Return a hex digest of the ids and a modality's vectors, from the recorded checksums."""
        if modality in self.folder.present:
            return self.folder.digest(modality)
        return super().digest(modality)

    def id_column(self) -> pa.Array:
        """Return the ids as an Arrow array of large_string, (n,), which is mapped too.

        All of them are read, since Arrow trusts where texts begin.
        """
        texts = self._texts[ID]
        texts.check()
        buffers = [None, pa.py_buffer(texts.offsets), pa.py_buffer(texts.values)]
        column = pa.Array.from_buffers(pa.large_string(), len(self), buffers)
        try:
            column.validate(full=True)
        except pa.ArrowException:
            raise damaged(self.path, "an id is not UTF-8") from None
        return column

    def text_column(self, name: str) -> FlatTexts:
        """Return a column of texts: the ids, or an annotation of all entries."""
        return self._texts[name]

    def _damaged(self, problem: str) -> InputError:
        return damaged(self.path, problem)

    def _annotations_at(self, rows: Int64) -> Annotations:
        values: dict[str, npt.NDArray[Any]] = {
            name: self._texts[name].at(rows) if name in self._texts else self.arrays[name][rows]
            for name in COLUMNS
        }
        return Annotations.placed(values, np.arange(len(rows)), len(rows))

    def _at(self, rows: Int64) -> AlignedVectors:
        """Return some rows, loaded."""
        lengths = self.arrays["length"][rows].astype(np.int64) if self.folder.has_lengths else None
        means = {m: self.arrays.get(f"{m}_mean") for m in MODALITIES}
        sequence_mean, structure_mean = (
            None if values is None else values[rows] for values in means.values()
        )
        return AlignedVectors(
            self.ids_at(rows),
            self.vectors_at("sequence", rows),
            self.vectors_at("structure", rows),
            np.asarray(self.present("sequence")[rows]),
            np.asarray(self.present("structure")[rows]),
            self.metadata,
            lengths,
            sequence_mean,
            structure_mean,
            self._annotations_at(rows) if self.folder.annotated else None,
        )
