"""The annotations of many entries, as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from protalign.core.annotation import Annotation

#: The columns, and their types in memory: texts with 64-bit offsets, since they are many.
COLUMNS: dict[str, pa.DataType] = {
    "description": pa.large_string(),
    "organism": pa.large_string(),
    "taxid": pa.int32(),
    "accession": pa.large_string(),
}


class Annotations(Sequence[Annotation]):
    """Annotations of n entries, in order.

    An integer gives one ``Annotation``; a slice or an array of positions gives ``Annotations``.

    Parameters
    ----------
    columns : mapping of str to Arrow array
        ``description``, ``organism`` and ``accession`` (texts) and ``taxid`` (int32), n values
        each; null if unknown.

    Examples
    --------
    >>> both = Annotations.of([Annotation("Insulin", "Homo sapiens", 9606), Annotation()])
    >>> both[0].taxid, both["organism"]
    (9606, ['Homo sapiens', None])
    >>> both.to_pandas().columns.tolist()
    ['description', 'organism', 'taxid', 'accession']
    """

    def __init__(self, columns: dict[str, pa.Array]) -> None:
        self._columns = columns

    @classmethod
    def of(cls, annotations: Sequence[Annotation]) -> Annotations:
        """Return the columns of some annotations."""
        return cls(
            {
                name: pa.array([getattr(each, name) for each in annotations], kind)
                for name, kind in COLUMNS.items()
            }
        )

    @classmethod
    def unknown(cls, count: int) -> Annotations:
        """Return as many annotations without any facts."""
        return cls({name: pa.nulls(count, kind) for name, kind in COLUMNS.items()})

    @classmethod
    def joined(cls, parts: Sequence[Annotations]) -> Annotations:
        """Return the annotations of several parts, one after another."""
        return cls(
            {
                name: pa.concat_arrays([part.column(name) for part in parts or [cls.unknown(0)]])
                for name in COLUMNS
            }
        )

    @classmethod
    def placed(
        cls, values: Mapping[str, npt.NDArray[Any]], positions: npt.NDArray[Any], count: int
    ) -> Annotations:
        """Return ``count`` annotations; the values, "" or 0 if unknown, are at the positions."""
        columns = {}
        for name, kind in COLUMNS.items():
            column = np.full(count, None, dtype=object)
            column[positions] = values[name]
            column[positions[values[name] == ("" if name != "taxid" else 0)]] = None
            columns[name] = pa.array(column, kind)
        return cls(columns)

    def __len__(self) -> int:
        return len(self._columns["taxid"])

    @overload
    def __getitem__(self, index: int) -> Annotation: ...
    @overload
    def __getitem__(self, index: str) -> list[Any]: ...
    @overload
    def __getitem__(self, index: slice | npt.NDArray[np.integer[Any]]) -> Annotations: ...
    def __getitem__(
        self, index: int | str | slice | npt.NDArray[np.integer[Any]]
    ) -> Annotation | list[Any] | Annotations:
        if isinstance(index, str):
            values: list[Any] = self._columns[index].to_pylist()
            return values
        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        if isinstance(index, np.ndarray) and index.ndim:
            rows = pa.array(index.astype(np.int64))
            return Annotations({name: pc.take(c, rows) for name, c in self._columns.items()})
        row = range(len(self))[int(index)]
        return Annotation(**{name: column[row].as_py() for name, column in self._columns.items()})

    def __iter__(self) -> Iterator[Annotation]:
        columns = (self._columns[name].to_pylist() for name in COLUMNS)
        return (Annotation(*row) for row in zip(*columns, strict=True))

    def __repr__(self) -> str:
        known = len(self) - pc.sum(pc.is_null(self._columns["description"])).as_py() if self else 0
        return f"<Annotations of {len(self):,} entries, {known:,} with a description>"

    def column(self, name: str) -> pa.Array:
        """Return a column as an Arrow array, (n,)."""
        return self._columns[name]

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame with a row for each entry; needs pandas."""
        import pandas as pd

        return pa.table(self._columns).to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get)
