"""Ids and their aligned vectors, as they are searched and looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from protalign.core.annotation import Annotation
from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.checks import did_you_mean, first_few, plain_index
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.stores.format.text import encode_texts
from protalign.stores.vectors.annotations import Annotations
from protalign.stores.vectors.flat import checksum_of
from protalign.stores.vectors.folder import vectors_digest
from protalign.stores.vectors.unit import odd_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class AlignedVectors:
    """Ids and their aligned vectors, of unit length.

    Attributes
    ----------
    ids : (n,) object array of str
        Ids of the entries.
    sequence, structure : (n, dim) float32
        The vectors; a row of NaN if the entry does not have the modality. They are read-only views
        of Arrow's memory, unless rows are missing.
    has_sequence, has_structure : (n,) bool
        Whether each entry has a vector of the modality.
    metadata : mapping
        The provenance: the model that made them, and the store.
    lengths : (n,) int64, optional
        Residues of each entry; None in a file of an earlier version.
    sequence_mean, structure_mean : (n, D) float32, optional
        Means of each entry's residue embeddings; None unless they were exported
        (``features=("aligned", "mean")``).
    annotations : Annotations, optional
        Name, organism, taxid and accession of each entry; None in a file of an earlier version.

    Examples
    --------
    >>> vectors = AlignedVectors(
    ...     ids=np.array(["a", "b"], dtype=object),
    ...     sequence=np.eye(2, dtype=np.float32),
    ...     structure=np.eye(2, dtype=np.float32),
    ...     has_sequence=np.ones(2, dtype=bool),
    ...     has_structure=np.ones(2, dtype=bool),
    ... )
    >>> vectors.select(["b"]).sequence
    array([[0., 1.]], dtype=float32)
    """

    ids: npt.NDArray[np.object_]
    sequence: Float32
    structure: Float32
    has_sequence: Bool
    has_structure: Bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    lengths: Int64 | None = None
    sequence_mean: Float32 | None = None
    structure_mean: Float32 | None = None
    annotations: Annotations | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, entry_id: object) -> bool:
        return isinstance(entry_id, str) and int(self.rows_of([entry_id])[0]) >= 0

    def __repr__(self) -> str:
        sequences, structures = (int(np.count_nonzero(self.present(m))) for m in MODALITIES)
        return (
            f"{type(self).__name__}({len(self):,} ids, {self.dim} numbers each: "
            f"{sequences:,} sequences, {structures:,} structures)"
        )

    @property
    def dim(self) -> int:
        """Numbers of an aligned vector."""
        return int(self.sequence.shape[1])

    def __getitem__(self, ids: str | Sequence[str] | npt.NDArray[Any]) -> AlignedVectors:
        """Return the rows of an id or of several, as ``select`` does."""
        return self.select([ids] if isinstance(ids, str) else ids)

    def to_pandas(self) -> pd.DataFrame:
        """Return a DataFrame with a row for each id, its index.

        Its columns are those of the exported Parquet file: ``length``, ``sequence_vector`` and
        ``structure_vector`` (a float32 array each, None if the modality is missing), the means and
        the annotations if there are some.

        Examples
        --------
        >>> eye, every = np.eye(2, dtype=np.float32), np.ones(2, dtype=np.bool_)
        >>> ids = np.array(["a", "b"], dtype=object)
        >>> frame = AlignedVectors(ids, eye, eye, every, every).to_pandas()
        >>> frame.loc["b", "sequence_vector"]
        array([0., 1.], dtype=float32)
        """
        import pandas as pd

        columns: dict[str, Any] = {} if self.lengths is None else {"length": self.lengths}
        for modality in MODALITIES:
            columns[f"{modality}_vector"] = _rows(*self.candidates(modality))
        for modality, means in (
            ("sequence", self.sequence_mean),
            ("structure", self.structure_mean),
        ):
            if means is not None:
                columns[f"{modality}_mean"] = _rows(
                    means, np.asarray(np.isfinite(means).all(axis=1))
                )
        frame = pd.DataFrame(columns, index=pd.Index(self.ids, name="id"))
        if self.annotations is not None:
            frame = frame.join(self.annotations.to_pandas().set_axis(frame.index))
        return frame

    @cached_property
    def _row(self) -> dict[str, int]:
        return {entry_id: row for row, entry_id in enumerate(self.ids.tolist())}

    def select(self, ids: Sequence[str] | npt.NDArray[Any]) -> AlignedVectors:
        """Return the rows of these ids, in their order; raise InputError for unknown ids.

        A mask, (n,) bool, gives the rows where it is true. InputError also names a row whose
        vector is damaged.
        """
        index = plain_index(np.atleast_1d(np.asarray(ids)))
        if index.dtype.kind == "b":
            if index.shape != (len(self),):
                raise InputError(
                    f"a mask of shape {index.shape}: there are {len(self):,} vectors",
                    "give one for each",
                )
            return self._at(np.flatnonzero(index))
        wanted = [str(entry_id) for entry_id in index]
        rows = self.rows_of(wanted)
        unknown = [entry_id for entry_id, row in zip(wanted, rows.tolist(), strict=True) if row < 0]
        if unknown:
            raise InputError(
                f"the vectors have no entry {first_few([repr(entry_id) for entry_id in unknown])}",
                self.similar_id(unknown[0]) or "export them first",
            )
        return self._at(rows)

    def rows_of(self, ids: Sequence[str]) -> Int64:
        """Return (n,) int64: the row of each id, -1 for unknown ones."""
        return np.fromiter((self._row.get(i, -1) for i in ids), dtype=np.int64, count=len(ids))

    def similar_id(self, name: str) -> str:
        """Return "did you mean …?" with the id that is most like a name; "" if none is."""
        return did_you_mean(name, self._row)

    def ids_at(self, rows: Int64) -> npt.NDArray[np.object_]:
        """Return (n,) object array of str: the ids of some rows."""
        return self.ids[rows]

    def lengths_at(self, rows: Int64) -> list[int | None]:
        """Return the residues of some rows' entries; None if they are not recorded."""
        return [None] * len(rows) if self.lengths is None else self.lengths[rows].tolist()

    def vectors_at(self, modality: Modality, rows: Int64) -> Float32:
        """Return (n, dim) float32: a modality's vectors of some rows, NaN if missing.

        Raise InputError if one has not unit length: the vectors are damaged.
        """
        vectors, present = self.candidates(modality)
        values: Float32 = np.asarray(vectors[rows])
        odd = odd_rows(values, present[rows])
        if odd.any():
            raise self.odd_vector(modality, int(np.asarray(rows)[odd][0]))
        return values

    def odd_vector(self, modality: Modality, row: int) -> InputError:
        """Return the error of a row whose vector has not unit length, or is not finite."""
        name = self.ids_at(np.array([row]))[0]
        return self._damaged(f"the {modality} vector of {name} has not unit length")

    def _damaged(self, problem: str) -> InputError:
        return InputError(f"the vectors: they are damaged ({problem})", "export them again")

    def present(self, modality: Modality) -> Bool:
        """Return (n,) bool: the entries that have a vector of the modality."""
        return self.candidates(modality)[1]

    def digest(self, modality: Modality) -> str:
        """Return a hex digest of the ids and a modality's vectors: an index is of these."""
        values, present = self.candidates(modality)
        same_nan = (
            values if present.all() else np.where(present[:, None], values, np.float32("nan"))
        )
        texts, lengths = encode_texts(self.ids.tolist())
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        checksums = [checksum_of(each) for each in (same_nan, present, texts, offsets)]
        return vectors_digest(len(self), self.dim, checksums)

    def id_column(self) -> pa.Array:
        """Return the ids as an Arrow array of large_string, (n,)."""
        return pa.array(self.ids, pa.large_string())

    def _at(self, rows: Int64) -> AlignedVectors:
        """Return some rows."""
        columns = {
            column.name: getattr(self, column.name)
            for column in fields(self)
            if column.name != "metadata"
        }
        selected: dict[str, Any] = {
            name: None if values is None else values[rows] for name, values in columns.items()
        }
        selected |= {modality: self.vectors_at(modality, rows) for modality in MODALITIES}
        return AlignedVectors(**selected, metadata=self.metadata)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out cached values: a copy computes its own."""
        return {column.name: getattr(self, column.name) for column in fields(self)}

    def annotations_at(self, rows: Sequence[int]) -> list[Annotation]:
        """Return the annotations of some rows; unknown ones for a file without them.

        A row below 0 stands for none.
        """
        if self.annotations is None or not len(self):
            return [Annotation()] * len(rows)
        return list(self.annotations[np.maximum(np.array(rows, dtype=np.int64), 0)])

    def candidates(self, against: Modality) -> tuple[Float32, Bool]:
        """Return a modality's vectors, (n, dim) float32, and (n,) bool: the present rows."""
        if against == "sequence":
            return self.sequence, self.has_sequence
        return self.structure, self.has_structure


def _rows(values: Float32, present: Bool) -> list[Float32 | None]:
    """Return each row, None for those that are not present."""
    return [row if here else None for row, here in zip(values, present.tolist(), strict=True)]
