"""All that an opened store shows: of one store here, of several in ``stores/union``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from protalign.core.errors import Failure, StoreError
from protalign.stores.encoded import EncodedRows, EncoderMap
from protalign.stores.entries import EntryLog, FailureLog
from protalign.stores.format.arrays import Arrays
from protalign.stores.format.disk import walk
from protalign.stores.format.open import open_arrays
from protalign.stores.format.state import Option
from protalign.stores.items import SequenceItems, StructureItems
from protalign.stores.log import Log


class Contents(ABC):
    """The parts of an opened store.

    Attributes
    ----------
    path : str
        Its name in messages: an absolute folder, a URL, or what several stores were opened by.
    paths : tuple of str
        Absolute folders, URLs and patterns that open it again.
    members : tuple of str
        The stores: absolute folders or URLs.
    options : mapping
        How its files were read.
    """

    path: str
    paths: tuple[str, ...]
    members: tuple[str, ...]
    options: Mapping[str, Option]

    @property
    @abstractmethod
    def log(self) -> Log:
        """Its log of entries."""

    @property
    @abstractmethod
    def encoders(self) -> EncoderMap:
        """Its encoders, by name."""

    @property
    @abstractmethod
    def failures(self) -> list[Failure]:
        """Files and entries that could not be read or embedded, and still cannot."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return its format, counts of unique items and residues, and bytes, for JSON."""

    @abstractmethod
    def inconsistent(self, fault: str) -> StoreError:
        """Return the error for an index whose parts contradict each other."""

    @abstractmethod
    def is_current(self) -> bool:
        """Return whether nothing was committed since it was opened."""


class StoreContents(Contents):
    """The parts of one store, each read when it is first used.

    Parameters
    ----------
    arrays : Arrays
        Its arrays.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.path = arrays.path
        self.paths = self.members = (arrays.path,)
        self.options = arrays.state.options

    @cached_property
    def log(self) -> EntryLog:
        """Its log of entries."""
        return EntryLog(self.arrays)

    @cached_property
    def encoders(self) -> EncoderMap:
        """Its encoders, by name."""
        names = self.arrays.state.encoders
        return EncoderMap({name: EncodedRows(self.arrays, name) for name in names})

    @cached_property
    def failures(self) -> list[Failure]:
        """Files and entries that could not be read or embedded, and still cannot."""
        return FailureLog(self.arrays, self.log).live

    def facts(self) -> dict[str, Any]:
        """Return its format, counts of unique items and residues, and bytes, for JSON."""
        sequences, structures = SequenceItems(self.arrays), StructureItems(self.arrays)
        return {
            "format": self.arrays.state.format,
            "unique_sequences": len(sequences),
            "unique_structures": len(structures),
            "sequence_residues": int(sequences.rows().sum()),
            "structure_residues": int(structures.rows().sum()),
            "bytes": None if "://" in self.path else _size(Path(self.path)),
        }

    def inconsistent(self, fault: str) -> StoreError:
        """Return the error for an index whose parts contradict each other."""
        return self.arrays.inconsistent(fault)

    def is_current(self) -> bool:
        """Return whether nothing was committed since it was opened."""
        return self.arrays.state == open_arrays(self.path).state


def _size(folder: Path) -> int:
    """Return the bytes of the files below a folder, by their lengths."""
    size = 0
    for entry in walk(folder):
        with suppress(OSError):  # a writer beside this reader may have renamed it
            if entry.is_file(follow_symlinks=False):
                size += entry.stat(follow_symlinks=False).st_size
    return size
