"""What an estimator may be given as X, brought to one form: entries with rows per modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.core.errors import InputError, ModelError, StoreError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.stores import EncoderInfo, Entries


class Inputs(ABC):
    """n entries, each with rows of one modality or of both.

    Attributes
    ----------
    dims : width of a row, by modality.
    encoders : which encoder made the rows, by modality; empty where X does not say.
    """

    dims: dict[Modality, int]
    encoders: dict[Modality, EncoderInfo]

    @abstractmethod
    def __len__(self) -> int:
        """n."""

    @abstractmethod
    def items(self, modality: Modality) -> Int64:
        """(n,) int64, equal for entries that share one embedding, -1 where there is none."""

    @abstractmethod
    def lengths(self, modality: Modality) -> Int64:
        """(n,) int64 rows of each entry, 0 where there are none."""

    @abstractmethod
    def dtype(self, modality: Modality) -> np.dtype[Any]:
        """float16 or float32: what holds the rows of all entries without loss."""

    @abstractmethod
    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        """The rows of some entries that have them, packed, float16 or float32."""

    def name(self, position: int) -> str:
        """What an error calls an entry."""
        return f"entry {position}"

    def named(self, positions: Int64) -> str:
        """The first few entries by name, and how many more."""
        shown = ", ".join(self.name(int(position)) for position in positions[:3])
        return shown + (f" and {len(positions) - 3:,} more" if len(positions) > 3 else "")

    def blocks(
        self, modality: Modality, positions: Int64, elements: int = 1 << 24
    ) -> Iterator[Ragged]:
        """The rows of many entries, in order, about ``elements`` values at a time."""
        ends = np.cumsum(self.lengths(modality)[positions]) * self.dims[modality]
        first = 0
        while first < len(positions):
            before = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + elements, side="right")))
            yield self.rows(modality, positions[first:last])
            first = last


class StoreInputs(Inputs):
    """Entries of a store, or of a view of one; entries not embedded count as lacking a modality."""

    def __init__(self, entries: Entries, encoders: dict[Modality, EncoderInfo]) -> None:
        self.entries = entries
        self.encoders = encoders
        self.dims = {modality: info.dim for modality, info in encoders.items()}
        self._lengths = {
            modality: entries.rows(info.name)[1] for modality, info in encoders.items()
        }

    def __len__(self) -> int:
        return len(self.entries)

    def items(self, modality: Modality) -> Int64:
        if modality not in self.encoders:
            return np.full(len(self), -1, dtype=np.int64)
        return np.where(self._lengths[modality] > 0, self.entries.items(modality), -1)

    def lengths(self, modality: Modality) -> Int64:
        return self._lengths[modality]

    def dtype(self, modality: Modality) -> np.dtype[Any]:
        return np.dtype(self.encoders[modality].dtype)

    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        return self.entries.embeddings(self.encoders[modality].name, positions)

    def name(self, position: int) -> str:
        return str(self.entries.ids[position])


class PairInputs(Inputs):
    """A list of (sequence embeddings, structure embeddings), (L, D_P) and (L', D_S), or None."""

    def __init__(self, pairs: Sequence[Sequence[Any]]) -> None:
        for index, pair in enumerate(pairs):
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise InputError(
                    f"entry {index} of the list is no pair",
                    "give (sequence embeddings, structure embeddings), None for what is missing",
                )
        columns = {
            modality: [_rows(pair[column], index, modality) for index, pair in enumerate(pairs)]
            for column, modality in enumerate(MODALITIES)
        }
        self._arrays = columns
        self.encoders = {}
        self.dims = {}
        for modality, arrays in columns.items():
            widths = {array.shape[1] for array in arrays if array is not None}
            if len(widths) > 1:
                raise InputError(
                    f"{modality} embeddings of different widths {sorted(widths)}",
                    "embed all entries with one encoder",
                )
            if widths:
                self.dims[modality] = widths.pop()

    def __len__(self) -> int:
        return len(self._arrays["sequence"])

    def items(self, modality: Modality) -> Int64:
        return np.where(self.lengths(modality) > 0, np.arange(len(self)), -1)

    def lengths(self, modality: Modality) -> Int64:
        arrays = self._arrays[modality]
        return np.array([0 if array is None else len(array) for array in arrays], dtype=np.int64)

    def dtype(self, modality: Modality) -> np.dtype[Any]:
        arrays = self._arrays[modality]
        return np.result_type(np.float16, *{a.dtype for a in arrays if a is not None})

    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        arrays = [self._arrays[modality][position] for position in positions]
        return Ragged.pack([array for array in arrays if array is not None])


def _rows(value: Any, index: int, modality: Modality) -> npt.NDArray[Any] | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise InputError(
            f"entry {index}: {modality} embeddings of shape {array.shape} and type {array.dtype}",
            "give a float array of (residues, dim), or None where there is none",
        )
    if array.dtype != np.float16:
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(
            f"entry {index}: {modality} embeddings with NaN or infinity", "leave it out"
        )
    return array


class ArrayInputs(Inputs):
    """A 2-D array: the first ceil(d / 2) columns are one row of sequence, the rest of structure."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values.astype(np.float32, copy=False)
        middle = (values.shape[1] + 1) // 2
        self._columns = {"sequence": slice(0, middle), "structure": slice(middle, None)}
        self.encoders = {}
        self.dims = {"sequence": middle, "structure": values.shape[1] - middle}

    def __len__(self) -> int:
        return len(self._values)

    def items(self, modality: Modality) -> Int64:
        return np.arange(len(self))

    def lengths(self, modality: Modality) -> Int64:
        return np.ones(len(self), dtype=np.int64)

    def dtype(self, modality: Modality) -> np.dtype[Any]:
        return self._values.dtype

    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        values = self._values[positions, self._columns[modality]]
        return Ragged(np.ascontiguousarray(values), np.arange(len(positions) + 1))


def is_pairs(X: Any) -> bool:
    """Whether X is a list of (sequence embeddings, structure embeddings), not of plain rows."""
    if not isinstance(X, (list, tuple)) or len(X) == 0:
        return False
    first = X[0]
    if not isinstance(first, (list, tuple)) or len(first) != 2:
        return False
    return any(part is None or np.ndim(part) == 2 for part in first)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The unique (sequence item, structure item) pairs of X's entries that have both.

    Attributes
    ----------
    inputs : where the rows are.
    positions : (k,) int64 first entry of each pair, ascending.
    items : (k, 2) int64, the pair's sequence and structure, numbered from 0 within these pairs.
    n_skipped : entries that lack a modality.
    """

    inputs: Inputs
    positions: Int64
    items: Int64
    n_skipped: int

    @classmethod
    def of(cls, inputs: Inputs) -> Pairs:
        """The pairs of X; raises InputError if there is none."""
        if len(inputs) == 0:
            raise InputError("X holds no entries", "choose some that are in the store")
        both = np.stack([inputs.items(modality) for modality in MODALITIES], axis=1)
        complete = np.flatnonzero((both >= 0).all(axis=1))
        if len(complete) == 0:
            lacking = [m for m, items in zip(MODALITIES, both.T, strict=True) if (items < 0).all()]
            reason = f"all lack the {lacking[0]}" if lacking else "each has one of the two"
            raise InputError(
                f"no entry has both sequence and structure embeddings: {reason}",
                "embed structures (PDB or mmCIF files) with both encoders",
            )
        _, first = np.unique(both[complete], axis=0, return_index=True)
        positions = complete[np.sort(first)]
        items = np.stack(
            [np.unique(both[positions, column], return_inverse=True)[1] for column in (0, 1)],
            axis=1,
        )
        return cls(inputs, positions, items, len(inputs) - len(complete))

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, indices: Int64) -> Pairs:
        """Some of the pairs."""
        items = np.stack(
            [np.unique(column, return_inverse=True)[1] for column in self.items[indices].T], axis=1
        )
        return Pairs(self.inputs, self.positions[indices], items, self.n_skipped)

    def positions_of_items(self, column: int) -> Int64:
        """The first entry of each unique sequence (column 0) or structure (column 1)."""
        return self.positions[np.unique(self.items[:, column], return_index=True)[1]]


def choose_encoder(
    entries: Entries, modality: Modality, name: str | None, fitted: EncoderInfo | None
) -> EncoderInfo | None:
    """The encoder to read: the named one, the one fitted on, or the modality's only one.

    None where the store has no encoder of the modality. Raises StoreError where several are there
    and neither name nor fit says which.
    """
    encoders = entries.store.encoders
    of_modality = [info for info in encoders.values() if info.modality == modality]
    if name is None and not of_modality:
        return None
    if name is None and fitted is not None:
        same = [info for info in of_modality if not fitted.differences(info, precision=False)]
        if same:
            return next((info for info in same if info.name == fitted.name), same[0])
    try:
        return entries.encoder_for(modality, name)
    except StoreError as error:
        if name is None:
            raise StoreError(f"{error}: set {modality}_encoder") from None
        raise


def check_fits(
    inputs: Inputs,
    modalities: Sequence[Modality],
    dims: Mapping[Modality, int],
    encoders: Mapping[Modality, EncoderInfo],
) -> None:
    """Raise ModelError, saying why, where X's embeddings are not of the kind a model is fitted on.

    ``dims`` and ``encoders`` are the model's; where either side names no encoder, widths decide.
    """
    for modality in modalities:
        if modality not in inputs.dims:
            continue
        ours, theirs = encoders.get(modality), inputs.encoders.get(modality)
        if ours is not None and theirs is not None:
            differences = ours.differences(theirs, precision=False)
            if differences:
                raise ModelError(
                    f"the model is fitted on other {modality} embeddings than the store has: "
                    f"{'; '.join(differences)}; embed with the model's encoder, or fit a new model"
                )
        if dims[modality] != inputs.dims[modality]:
            raise ModelError(
                f"the model is fitted on {modality} embeddings {dims[modality]} wide, these are "
                f"{inputs.dims[modality]} wide: give embeddings of the model's encoder"
            )
