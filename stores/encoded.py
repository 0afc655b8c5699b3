"""The embeddings of each encoder, as a reader sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64
from protalign.core.encoder_record import EncoderRecord
from protalign.core.errors import StoreError
from protalign.core.protein import Modality
from protalign.stores.filling.plan import PlanReader
from protalign.stores.format.arrays import Arrays


@dataclass(frozen=True, kw_only=True)
class EncoderInfo(EncoderRecord):
    """An encoder in a store.

    Attributes
    ----------
    name : str
        Its name in the store.
    n_items : int
        Items that are embedded.
    n_items_total : int
        Unique items of its modality in the store.

    The others are those of ``EncoderRecord``.

    Examples
    --------
    >>> info = EncoderInfo(
    ...     model="esm2_t6_8M_UR50D", modality="sequence", dim=320, weights_sha256="ab" * 32,
    ...     name="esm2", n_items=90, n_items_total=120,
    ... )
    >>> f"{info.name}: {info.n_items} of {info.n_items_total} items"
    'esm2: 90 of 120 items'
    """

    name: str
    n_items: int
    n_items_total: int


class EncodedItems(ABC):
    """An encoder's rows of each item, as readers see them: of one store or of several.

    Attributes
    ----------
    record : EncoderRecord
        Its provenance.
    """

    record: EncoderRecord

    @abstractmethod
    def starts(self, items: Int64) -> Int64:
        """Return (n,) int64: the first row of some items, -1 if it is not embedded."""

    @abstractmethod
    def gather(self, start: Int64, length: Int64) -> npt.NDArray[Any]:
        """Return (R, D): the rows of n ranges, one after another, in the stored dtype."""

    @abstractmethod
    def chunks(self, rows: Int64) -> Int64:
        """Return (n,) int64: equal for rows of one chunk, and ascending as the rows do."""

    @property
    @abstractmethod
    def info(self) -> EncoderInfo:
        """The encoder's record and its counts."""


class EncodedRows(EncodedItems):
    """The place of an encoder's rows of each item of one store.

    Parameters
    ----------
    arrays : Arrays
        The store's arrays.
    name : str
        The encoder's name in the store.

    Attributes
    ----------
    record : EncoderRecord
        Its provenance.
    """

    def __init__(self, arrays: Arrays, name: str) -> None:
        self._arrays = arrays
        self.name = name
        self.record: EncoderRecord = arrays.state.encoders[name].record

    @cached_property
    def n_items_total(self) -> int:
        """Unique items of its modality in the store."""
        return self._arrays.backed_rows(f"{self.record.modality}s/hash")

    @cached_property
    def start(self) -> Int64:
        """(items,) int64: the first row of each item, -1 if it is not embedded."""
        group = f"encoders/{self.name}"
        start = np.full(self.n_items_total, -1, dtype=np.int64)
        planned = self._arrays.read(f"{group}/start")
        if len(planned) > len(start):
            raise self._arrays.inconsistent(f"{group} has more items than the store")
        start[: len(planned)] = planned
        start[self._waiting_items()] = -1
        start[[item for item, _, _ in self._arrays.state.encoders[self.name].failed]] = -1
        return start

    @cached_property
    def length(self) -> Int64:
        """(items,) int64: the rows of each item, 0 if it is not planned."""
        length = np.zeros(self.n_items_total, dtype=np.int64)
        planned = self._arrays.read(f"encoders/{self.name}/length")
        if len(planned) > len(length):
            raise self._arrays.inconsistent(f"encoders/{self.name} has more items than the store")
        length[: len(planned)] = planned
        return length

    def _waiting_items(self) -> Int64:
        """Return the items of tasks that are not done."""
        done = self._arrays.done_tasks(self.name)
        if done.all():
            return np.empty(0, dtype=np.int64)
        plan = PlanReader(self._arrays, self.name)
        waiting: Int64 = plan.item[np.repeat(~plan.done, plan.task_items)]
        return waiting

    def starts(self, items: Int64) -> Int64:
        """Return (n,) int64: the first row of some items, -1 if it is not embedded."""
        return self.start[items]

    def gather(self, start: Int64, length: Int64) -> npt.NDArray[Any]:
        """Return (R, D): the rows of n ranges, one after another, in the stored dtype."""
        return self._arrays.gather(f"encoders/{self.name}/values", start, length)

    def chunks(self, rows: Int64) -> Int64:
        """Return (n,) int64: the chunk of each row."""
        return rows // self._arrays.spec(f"encoders/{self.name}/values").chunk_rows

    @cached_property
    def info(self) -> EncoderInfo:
        """The encoder's record and its counts."""
        return EncoderInfo(
            **vars(self.record),
            name=self.name,
            n_items=int(np.count_nonzero(self.start >= 0)),
            n_items_total=self.n_items_total,
        )


class EncoderMap(Mapping[str, EncoderInfo]):
    """The encoders of a store, by name; the error for an unknown name lists the known ones."""

    def __init__(self, rows: Mapping[str, EncodedItems]) -> None:
        self._rows = dict(rows)

    def rows(self, name: str) -> EncodedItems:
        """Return the rows of a named encoder; raise StoreError for an unknown name."""
        if name not in self._rows:
            known = ", ".join(self._rows) or "none yet"
            raise StoreError(f"encoder {name!r}: not in the store; it has: {known}")
        return self._rows[name]

    def __getitem__(self, name: str) -> EncoderInfo:
        return self.rows(name).info

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def choose(self, modality: Modality, name: str | None = None) -> EncoderInfo:
        """Return the named encoder, or the only one of the modality: ``Entries.encoder_for``."""
        if name is not None:
            info = self[name]
            if info.modality != modality:
                raise StoreError(
                    f"encoder {name!r}: it embeds the {info.modality}, not the {modality}; name "
                    "another"
                )
            return info
        names = [key for key, rows in self._rows.items() if rows.record.modality == modality]
        if not names:
            raise StoreError(
                f"the store has no {modality} embeddings; make them with `protalign embed`"
            )
        if len(names) > 1:
            raise StoreError(
                f"the store has several {modality} encoders; name one of {', '.join(names)}"
            )
        return self[names[0]]
