"""The parts of several stores that are read as one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from protalign.core.checks import first_few
from protalign.core.errors import Failure, StoreError
from protalign.core.paths import path_text
from protalign.core.protein import MODALITIES
from protalign.stores.contents import Contents, StoreContents
from protalign.stores.encoded import EncoderMap
from protalign.stores.format.arrays import Arrays
from protalign.stores.format.open import open_several
from protalign.stores.items import items_of
from protalign.stores.union.items import UnionItems
from protalign.stores.union.log import UnionLog
from protalign.stores.union.numbering import Numbering
from protalign.stores.union.paths import stores_of


def open_union(paths: Sequence[str]) -> Contents:
    """Open all stores that absolute paths, URLs and patterns name, as one.

    Raise StoreError if one of them cannot be opened or does not fit the others.
    """
    return union_of(stores_of(paths), tuple(paths))


def union_of(members: Sequence[str], paths: tuple[str, ...]) -> Contents:
    """Open some stores as one, which ``paths`` stood for."""
    opened = open_several(members)
    for fault in (*unfinished(opened), *misfits(opened)):
        raise StoreError(fault)
    return UnionContents([StoreContents(arrays) for arrays in opened], paths)


def unfinished(opened: Sequence[Arrays]) -> list[str]:
    """Return a line that names the stores whose embedding is not finished; none if all are."""
    waiting = {arrays.path: why for arrays in opened if (why := _waiting(arrays))}
    if not waiting:
        return []
    (path, why), others = next(iter(waiting.items())), list(map(path_text, waiting))[1:]
    more = f"; nor are {first_few(others)}" if others else ""
    return [
        f"{path_text(path)}: it is not finished ({why}){more}; run its `protalign embed` again, or "
        "leave it out"
    ]


def misfits(opened: Sequence[Arrays]) -> list[str]:
    """Return a line for each store that differs from the first one in encoders or options.

    One of which nothing is embedded yet is left out: it is not finished.
    """
    begun = [arrays for arrays in opened if arrays.state.encoders]
    first, lines = (begun or opened)[0], []
    for arrays in begun:
        if differences := _differences(arrays, first):
            lines.append(
                f"{path_text(arrays.path)}: it differs from {path_text(first.path)} in "
                f"{first_few(differences)}; embed its files again as the others were, or leave it "
                "out"
            )
    return lines


def _waiting(arrays: Arrays) -> str:
    """Return what of a store's embedding is still to be done, "" if nothing is."""
    state = arrays.state
    if state.open_sources:
        return "files of it were not read to the end"
    if not state.encoders:
        return "nothing of it is embedded"
    for name, encoder in state.encoders.items():
        items = state.rows(f"{encoder.record.modality}s/hash")
        if state.rows(f"encoders/{name}/start") < items:
            return f"{name} was not planned to the end"
        tasks = state.rows(f"encoders/{name}/plan/row")
        if encoder.tasks_done < tasks:
            left = tasks - int(np.count_nonzero(arrays.done_tasks(name)))
            if left:
                return f"{left:,} of {tasks:,} tasks of {name} are not done"
    return ""


def _differences(arrays: Arrays, first: Arrays) -> list[str]:
    """Return in words how a store's encoders and options differ from the first one's."""
    ours, theirs = arrays.state, first.state
    found = [
        f"--{name.replace('_', '-')} {ours.options.get(name)}, not {theirs.options.get(name)}"
        for name in sorted({*ours.options, *theirs.options})
        if ours.options.get(name) != theirs.options.get(name)
    ]
    for name in sorted({*ours.encoders, *theirs.encoders}):
        if name not in theirs.encoders:
            found.append(f"encoder {name}, which only it has")
        elif name not in ours.encoders:
            found.append(f"encoder {name}, which it lacks")
        else:
            record, other = ours.encoders[name].record, theirs.encoders[name].record
            found += [f"{name}: {each}" for each in record.differences(other)]
    return found


class UnionContents(Contents):
    """Several stores, one after another.

    Parameters
    ----------
    stores : sequence of StoreContents
        The stores, which fit one another.
    paths : tuple of str
        What they were opened by.
    """

    def __init__(self, stores: Sequence[StoreContents], paths: tuple[str, ...]) -> None:
        self._stores = stores
        self.paths = paths
        self.path = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        self.members = tuple(store.path for store in stores)
        self.options = stores[0].options

    @cached_property
    def log(self) -> UnionLog:
        """Its log of entries."""
        return UnionLog(self._stores)

    @cached_property
    def encoders(self) -> EncoderMap:
        """Its encoders, by name."""
        rows = {}
        for name, encoder in self._stores[0].arrays.state.encoders.items():
            counts = [each.arrays.rows(f"encoders/{name}/values") for each in self._stores]
            members = [each.encoders.rows(name) for each in self._stores]
            items = self.log.items[encoder.record.modality]
            rows[name] = UnionItems(members, items, Numbering(counts))
        return EncoderMap(rows)

    @cached_property
    def failures(self) -> list[Failure]:
        """Files and entries that could not be read or embedded, and still cannot."""
        return [failure for store in self._stores for failure in store.failures]

    def facts(self) -> dict[str, Any]:
        """Return its formats, counts of unique items and residues, and bytes, for JSON."""
        each = [store.facts() for store in self._stores]
        sizes = [facts["bytes"] for facts in each]
        counts: dict[str, int] = {}
        for modality in MODALITIES:
            firsts = self.log.firsts(modality)
            unique = np.flatnonzero(firsts == np.arange(len(firsts)))
            counts[f"unique_{modality}s"] = len(unique)
            counts[f"{modality}_residues"] = sum(
                int(items_of(self._stores[store].arrays, modality).rows()[numbers].sum())
                for store, _, numbers in self.log.items[modality].parts(unique)
            )
        return {
            "format": ", ".join(sorted({facts["format"] for facts in each})),
            "unique_sequences": counts["unique_sequences"],
            "unique_structures": counts["unique_structures"],
            "sequence_residues": counts["sequence_residues"],
            "structure_residues": counts["structure_residues"],
            "bytes": None if None in sizes else sum(sizes),
        }

    def inconsistent(self, fault: str) -> StoreError:
        """Return the error for an index whose parts contradict each other."""
        return StoreError(
            f"{path_text(self.path)}: an index is inconsistent, {fault}; run `protalign verify`"
        )

    def is_current(self) -> bool:
        """Return whether nothing was committed since it was opened."""
        return all(store.is_current() for store in self._stores)
