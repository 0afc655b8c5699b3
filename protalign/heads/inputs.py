"""Everything that a model takes, brought to one form: entries with residue rows per modality."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64
from protalign.core.checks import first_few
from protalign.core.encoder_record import EncoderRecord
from protalign.core.errors import InputError, ModelError, StoreError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.heads.kernels.batch import mean_rows
from protalign.heads.kernels.packed import PackedBatch
from protalign.stores import EncoderInfo, Entries

#: Values of rows that are read at once: 32 MB of float16. And of those that several copies are made
#: of: 8 MB.
ELEMENTS, FEW_ELEMENTS = 1 << 24, 1 << 22


class Inputs(ABC):
    """n entries, each with rows of one modality or of both.

    Attributes
    ----------
    dims : dict
        Modality -> width of a row.
    encoders : dict
        Modality -> record of the encoder that made the rows; empty if X does not say.
    """

    dims: dict[Modality, int]
    encoders: dict[Modality, EncoderRecord]

    @abstractmethod
    def __len__(self) -> int:
        """Return n."""

    @abstractmethod
    def items(self, modality: Modality) -> Int64:
        """Return (n,) int64: equal for entries that share one embedding, -1 if it is missing."""

    @abstractmethod
    def lengths(self, modality: Modality) -> Int64:
        """Return (n,) int64, the rows of each entry; 0 if they are missing."""

    @abstractmethod
    def dtype(self, modality: Modality) -> np.dtype[Any]:
        """Return float16 or float32, which holds the rows of all entries without loss."""

    @abstractmethod
    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        """Return the rows of some entries that have them, packed, float16 or float32."""

    def places(self, modality: Modality, positions: Int64) -> tuple[Int64, Int64] | None:
        """Return where on a disk the rows of some entries that have them are.

        Returns
        -------
        first_row, chunk : (k,) int64
            The place of each entry's first row among all, and the chunk that it is in: entries of
            one chunk are read together at the cost of one. None if all rows are in memory.
        """
        return None

    def sequence_rows(self, positions: Int64) -> Sequence[Int64 | None]:
        """Return, for each structure row of some entries with both, its residue's sequence row.

        None for an entry of which nobody knows which rows belong together.
        """
        return [None] * len(positions)

    def paired_residues(self, positions: Int64) -> Iterator[PairedResidues]:
        """Yield the residues of entries with both modalities, block by block; none is read yet."""
        for entries in self._cut(positions, ("structure",)):
            yield PairedResidues(self, entries)

    def name(self, position: int) -> str:
        """Return the name of an entry for an error."""
        return f"entry {position}"

    def names(self, positions: Int64) -> str:
        """Return the names of the first few entries, and how many more there are."""
        shown = [self.name(int(position)) for position in positions[:3]]
        return first_few([*shown, *[""] * (len(positions) - len(shown))])

    def unique_items(self, modality: Modality, positions: Int64) -> tuple[Int64, Int64, Int64]:
        """Find the unique items among some entries.

        Returns
        -------
        present : (p,) int64
            Indices into ``positions`` of the entries that have the modality.
        first : (u,) int64
            Positions of one entry of each unique item.
        item : (p,) int64
            Index into ``first`` for each present entry.
        """
        items = self.items(modality)[positions]
        present = np.flatnonzero(items >= 0)
        _, first, item = np.unique(items[present], return_index=True, return_inverse=True)
        return present, positions[present[first]], item

    def blocks(
        self, modality: Modality, positions: Int64, elements: int = ELEMENTS
    ) -> Iterator[Ragged]:
        """Yield the rows of many entries, in order, about ``elements`` values at a time."""
        for entries in self._cut(positions, (modality,), elements):
            yield self.rows(modality, entries)

    def _cut(
        self, positions: Int64, modalities: Sequence[Modality], elements: int = ELEMENTS
    ) -> Iterator[Int64]:
        """Cut entries, in order, into parts whose rows have about ``elements`` values."""
        values = sum(self.lengths(m)[positions] * self.dims[m] for m in modalities)
        ends = np.cumsum(values)
        first = 0
        while first < len(positions):
            before = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + elements, side="right")))
            yield positions[first:last]
            first = last


@dataclass(frozen=True, eq=False)
class PairedResidues:
    """The residues of some entries that have both modalities, read anew in each iteration.

    Iterating yields (R, D_P) rows of the sequence and (R, D_S) rows of the structure, a few entries
    at a time, however many rows either modality has; row i of one belongs to row i of the other.
    Entries of which nobody knows which rows belong together are left out.

    Attributes
    ----------
    inputs : Inputs
        All entries.
    positions : (n,) int64
        These entries, which have both modalities.
    """

    inputs: Inputs
    positions: Int64

    def __iter__(self) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        for sequence, structure, rows in self.proteins():
            if len(rows) < len(sequence.values):
                yield sequence.values[rows], structure.values
            else:  # all of them
                yield sequence.values, structure.values

    def proteins(self) -> Iterator[tuple[Ragged, Ragged, Int64]]:
        """Yield some entries at a time, whole: as rows of each, and what is paired.

        Yields
        ------
        sequence, structure : Ragged
            The rows of some entries.
        rows : (R,) int64
            For each of the structures' R rows the sequences' row that it belongs to.
        """
        for entries in self.inputs._cut(self.positions, MODALITIES, FEW_ELEMENTS):
            index = self.inputs.sequence_rows(entries)
            known = [i for i, rows in enumerate(index) if rows is not None]
            if not known:
                continue
            sequence, structure = (self.inputs.rows(m, entries[known]) for m in MODALITIES)
            paired = [rows for rows in index if rows is not None]
            counts = [len(rows) for rows in paired]
            within = np.concatenate(paired)
            if (within >= np.repeat(sequence.lengths, counts)).any():
                raise InputError(
                    f"{self.inputs.names(entries)}: a structure has residues that its sequence has "
                    "not",
                    "check the store with `protalign verify`",
                )
            yield sequence, structure, within + np.repeat(sequence.offsets[:-1], counts)


class StoreInputs(Inputs):
    """Entries of a store or of a view; a modality counts as missing until it is embedded."""

    def __init__(self, entries: Entries, encoders: Mapping[Modality, EncoderInfo]) -> None:
        self.entries = entries
        self.encoders = dict(encoders)
        self._names = {modality: info.name for modality, info in encoders.items()}
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
        return self.entries.embeddings(self._names[modality], positions)

    def places(self, modality: Modality, positions: Int64) -> tuple[Int64, Int64]:
        encoded = self.entries.store.encoders.rows(self._names[modality])
        first_row = self.entries[positions].rows(self._names[modality])[0]
        return first_row, encoded.chunks(first_row)

    def sequence_rows(self, positions: Int64) -> Sequence[Int64 | None]:
        return self.entries.store.sequence_rows(self.entries.entry_rows[positions])

    def name(self, position: int) -> str:
        return str(self.entries.ids[position])


class PairInputs(Inputs):
    """A list of (sequence embeddings, structure embeddings), (L, D_P) and (L', D_S), or None."""

    def __init__(self, pairs: Sequence[Sequence[Any]]) -> None:
        for index, pair in enumerate(pairs):
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise InputError(
                    f"entry {index} of the list: not a pair",
                    "give (sequence embeddings, structure embeddings), None for a missing one",
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
                    f"{modality} embeddings: different widths {sorted(widths)}",
                    "embed all entries with one encoder",
                )
            if widths:
                self.dims[modality] = widths.pop()
        self._lengths = {
            modality: np.array([0 if array is None else len(array) for array in arrays], np.int64)
            for modality, arrays in columns.items()
        }

    def __len__(self) -> int:
        return len(self._arrays["sequence"])

    def items(self, modality: Modality) -> Int64:
        return np.where(self.lengths(modality) > 0, np.arange(len(self)), -1)

    def lengths(self, modality: Modality) -> Int64:
        return self._lengths[modality]

    def dtype(self, modality: Modality) -> np.dtype[Any]:
        arrays = self._arrays[modality]
        return np.result_type(np.float16, *{a.dtype for a in arrays if a is not None})

    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        arrays = [self._arrays[modality][position] for position in positions]
        return Ragged.pack([array for array in arrays if array is not None])

    def sequence_rows(self, positions: Int64) -> Sequence[Int64 | None]:
        # Nothing says which rows belong together, unless there are as many of both.
        lengths = zip(*(self.lengths(m)[positions].tolist() for m in MODALITIES), strict=True)
        return [np.arange(n) if n == m else None for n, m in lengths]


def _rows(value: Any, index: int, modality: Modality) -> npt.NDArray[Any] | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise InputError(
            f"entry {index}: {modality} embeddings of shape {array.shape} and dtype {array.dtype}",
            "give a float array of (residues, dim), or None if it is missing",
        )
    if array.dtype != np.float16:
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(
            f"entry {index}: {modality} embeddings hold NaN or infinity", "leave it out"
        )
    return array


class ArrayInputs(Inputs):
    """A 2-D array: its first columns are a row of sequence, the rest of structure.

    Parameters
    ----------
    values : (n, d) array
        The array.
    sequence_columns : int, optional
        How many columns are the sequence's; default: ceil(d / 2).
    """

    def __init__(self, values: npt.NDArray[Any], sequence_columns: int | None = None) -> None:
        self._values = values.astype(np.float32, copy=False)
        middle = sequence_columns or (values.shape[1] + 1) // 2
        middle = min(middle, values.shape[1])
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


class MeanInputs(Inputs):
    """Other inputs with each item's rows replaced by their mean, one row, taken once.

    The embeddings are frozen, and so are their means: training on these reads no residue again.
    All means are held in memory, 4 bytes a value.

    Attributes
    ----------
    inputs : Inputs
        The others.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.dims, self.encoders = inputs.dims, inputs.encoders
        self._index: dict[Modality, Int64] = {}
        self._means: dict[Modality, Float32] = {}
        for modality in inputs.dims:
            present, first, item = inputs.unique_items(modality, np.arange(len(inputs)))
            self._index[modality] = np.full(len(inputs), -1, dtype=np.int64)
            self._index[modality][present] = item
            self._means[modality] = _means(inputs, modality, first)

    def __len__(self) -> int:
        return len(self.inputs)

    def items(self, modality: Modality) -> Int64:
        return self.inputs.items(modality)

    def lengths(self, modality: Modality) -> Int64:
        return (self.inputs.items(modality) >= 0).astype(np.int64)

    def dtype(self, modality: Modality) -> np.dtype[Any]:
        return self._means[modality].dtype

    def rows(self, modality: Modality, positions: Int64) -> Ragged:
        means = self._means[modality][self._index[modality][positions]]
        return Ragged(means, np.arange(len(positions) + 1))

    def name(self, position: int) -> str:
        return self.inputs.name(position)


def means_of(inputs: Inputs, modality: Modality, positions: Int64) -> Float32:
    """Return the (k, D) mean residue embedding of some entries; NaN if the modality is missing.

    Entries that share an embedding are averaged once.
    """
    present, first, item = inputs.unique_items(modality, positions)
    means = np.full((len(positions), inputs.dims[modality]), np.nan, dtype=np.float32)
    means[present] = _means(inputs, modality, first)[item]
    return means


def _means(inputs: Inputs, modality: Modality, positions: Int64) -> Float32:
    """Return the (k, D) means of entries that have the modality."""
    means, done = np.empty((len(positions), inputs.dims[modality]), dtype=np.float32), 0
    for rows in inputs.blocks(modality, positions):
        means[done : done + len(rows)] = mean_rows(PackedBatch.from_ragged(rows)).numpy()
        done += len(rows)
    return means


def read_inputs(
    X: Any,
    modalities: Sequence[Modality] = MODALITIES,
    *,
    names: Mapping[Modality, str | None] | None = None,
    encoders: Mapping[Modality, EncoderRecord] | None = None,
    sequence_columns: int | None = None,
) -> Inputs:
    """Bring X to its common form.

    Parameters
    ----------
    X : EmbeddingStore, StoreView, list of pairs, 2-D array, or Inputs
        The entries.
    modalities : sequence of str
        The modalities to read.
    names : mapping, optional
        Modality -> name of the encoder to read, if a store has several.
    encoders : mapping, optional
        Modality -> record of the encoder to look for in a store, if no name is given.
    sequence_columns : int, optional
        As for ``ArrayInputs``.

    Raises
    ------
    InputError
        X is of another kind.
    StoreError
        A store has several encoders of a modality, and neither argument says which to read.
    """
    if isinstance(X, Inputs):
        return X
    if isinstance(X, (str, os.PathLike)):
        raise InputError(
            f"X={str(X)[:60]!r}: a text or a path", "EmbeddingStore.open(path) opens a store"
        )
    if isinstance(X, Entries):
        infos = {
            m: choose_encoder(X, m, (names or {}).get(m), (encoders or {}).get(m))
            for m in modalities
        }
        return StoreInputs(X, {m: info for m, info in infos.items() if info is not None})
    if is_pairs(X):
        return PairInputs(X)
    values = np.asarray(X)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InputError(
            f"X: a {type(X).__name__}, not a store, a list of pairs or a 2-D array",
            "give one of these",
        )
    return ArrayInputs(values, sequence_columns)


def is_pairs(X: Any) -> bool:
    """Return whether X is a list of (sequence embeddings, structure embeddings) pairs."""
    if not isinstance(X, (list, tuple)) or len(X) == 0:
        return False
    first = X[0]
    if not isinstance(first, (list, tuple)) or len(first) != 2:
        return False
    return any(part is None or np.ndim(part) == 2 for part in first)


def choose_encoder(
    entries: Entries, modality: Modality, name: str | None, fitted: EncoderRecord | None
) -> EncoderInfo | None:
    """Return the encoder to read: the named one, the one fitted on, or the modality's only one.

    None if the store has no encoder of the modality. Raise StoreError if it has several, and
    neither the name nor the fit says which.
    """
    encoders = entries.store.encoders
    of_modality = [info for info in encoders.values() if info.modality == modality]
    if name is None and not of_modality:
        return None
    if name is None and fitted is not None:
        same = [info for info in of_modality if not fitted.differences(info, precision=False)]
        if same:
            return min(same, key=lambda info: len(fitted.differences(info)))
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
    encoders: Mapping[Modality, EncoderRecord],
) -> None:
    """Raise ModelError if the embeddings are of another kind than a model was fitted on.

    ``dims`` and ``encoders`` are the model's. If either side names no encoder, widths decide.
    """
    for modality in modalities:
        if modality not in inputs.dims:
            continue
        fitted, given = encoders.get(modality), inputs.encoders.get(modality)
        if fitted is not None and given is not None:
            differences = fitted.differences(given, precision=False)
            if differences:
                raise ModelError(
                    f"the model was fitted on other {modality} embeddings than the store has: "
                    f"{'; '.join(differences)}; embed with the model's encoder, or fit a new model"
                )
        if dims[modality] != inputs.dims[modality]:
            raise ModelError(
                f"the model was fitted on {modality} embeddings of width {dims[modality]}, these "
                f"have width {inputs.dims[modality]}; give embeddings of the model's encoder"
            )
