"""Check a whole store against its checksums and its index, and name the damage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.arrays import Bool
from protalign.core.checks import first_few
from protalign.core.errors import StoreError
from protalign.stores.checking.consistency import check_index
from protalign.stores.checking.trace import EntryTrace
from protalign.stores.format.arrays import LocalArrays, check_array_json, check_chunk
from protalign.stores.format.layout import ArraySpec
from protalign.stores.format.state import load_state

#: Ids in a line of the report; the report itself has all of them.
IDS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage in a store.

    Attributes
    ----------
    array : str
        Name of the array, such as "encoders/esm2_t6_8M_UR50D/values".
    chunk : str
        The chunk's file name, "" if the damage is not in one chunk.
    reason : str
        The fault.
    ids : tuple of str
        The live entries that it affects.

    Examples
    --------
    >>> Damage("proteins/letters", "c.0", "the checksum does not match", ("1a30", "3ebp")).ids
    ('1a30', '3ebp')
    """

    array: str
    chunk: str
    reason: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of ``verify``.

    Attributes
    ----------
    path : str
        The store.
    chunks, bytes : int
        Chunks and bytes that were read.
    damages : list of Damage
        Empty if the store is whole.
    unfinished : dict of str to int
        Tasks that are not done, by encoder. They are not damage.

    Examples
    --------
    >>> VerifyReport("store.zarr", chunks=55, bytes=8_600_000, damages=[], unfinished={}).ok
    True
    """

    path: str
    chunks: int
    bytes: int
    damages: list[Damage] = field(default_factory=list)
    unfinished: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages

    @property
    def damaged_ids(self) -> tuple[str, ...]:
        """Every affected id, once."""
        return tuple(dict.fromkeys(i for damage in self.damages for i in damage.ids))

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "ok": self.ok, "damaged_ids": list(self.damaged_ids)}

    def lines(self) -> Iterator[str]:
        """Yield a line for each damage, and for each encoder that is not finished."""
        for damage in self.damages:
            place = f"{damage.array} {damage.chunk}".rstrip()
            ids = f"; ids: {first_few(damage.ids, IDS_SHOWN)}" if damage.ids else ""
            yield f"{place}: {damage.reason}{ids}"
        for encoder, tasks in self.unfinished.items():
            yield f"{encoder}: {tasks:,} tasks are not done; run `protalign embed` again"


def verify(
    path: str | os.PathLike[str], on_progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check every chunk that a local store must have against its checksum.

    Only one chunk and the index of entries are in memory at a time.

    Parameters
    ----------
    path : str or path
        The store's folder.
    on_progress : callable, optional
        Called with the chunks read so far, and all chunks.

    Returns
    -------
    VerifyReport
        Every damage, with the ids that it affects.

    Raises
    ------
    StoreError
        The store is missing, or its root attributes are damaged, which say what it must hold.

    Examples
    --------
    >>> import tempfile
    >>> from protalign.stores import StoreWriter, verify
    >>> path = tempfile.mkdtemp() + "/store.zarr"
    >>> with StoreWriter(path, {}):
    ...     pass
    >>> verify(path).ok
    True
    """
    folder = Path(path).absolute()
    if "://" in str(path):
        raise StoreError(f"{path}: only a local store can be checked; copy it, or check it there")
    arrays = LocalArrays(folder, load_state(folder))
    report = VerifyReport(str(folder), 0, 0)
    trace = EntryTrace(arrays)
    expected = list(_expected_chunks(arrays, report))
    read_bytes = 0
    for done, (name, index) in enumerate(expected, start=1):
        spec = arrays.spec(name)
        reason, size = _chunk_fault(folder / name / spec.chunk_key(index), spec)
        read_bytes += size
        if reason:
            begin, end = index * spec.chunk_rows, (index + 1) * spec.chunk_rows
            ids = trace.affected_ids(name, begin, min(end, arrays.rows(name)))
            report.damages.append(Damage(name, spec.chunk_key(index), reason, ids))
        if on_progress is not None:
            on_progress(done, len(expected))
    if report.ok:
        # The sense of an index is checked only if every byte of it is as it was written.
        report.damages.extend(Damage(name, "", fault, ()) for name, fault in check_index(arrays))
    return VerifyReport(report.path, len(expected), read_bytes, report.damages, report.unfinished)


def _expected_chunks(arrays: LocalArrays, report: VerifyReport) -> Iterator[tuple[str, int]]:
    """Yield every chunk that must exist; report the faults of arrays' zarr.json."""
    for name, spec in arrays.state.arrays().items():
        rows = arrays.rows(name)
        try:
            text = (Path(arrays.path) / name / "zarr.json").read_bytes()
        except OSError:
            text = b""
        fault = check_array_json(text, spec, rows) if rows else ""
        if fault:
            report.damages.append(Damage(name, "zarr.json", fault, ()))
        if name.startswith("encoders/") and name.endswith(("/values", "/done")):
            continue
        yield from ((name, index) for index in range(spec.chunks(rows)))
    for encoder in arrays.state.encoders:
        yield from _encoded_chunks(arrays, encoder, report)


def _encoded_chunks(
    arrays: LocalArrays, encoder: str, report: VerifyReport
) -> Iterator[tuple[str, int]]:
    """Yield the chunks of tasks that are done."""
    group = f"encoders/{encoder}"
    try:
        done = np.flatnonzero(_marked_done(arrays, encoder))
        first = arrays.read(f"{group}/plan/row") // arrays.spec(f"{group}/values").chunk_rows
    except StoreError:
        return  # the plan is damaged, which its own chunks report
    ends = np.append(
        first[1:], arrays.spec(f"{group}/values").chunks(arrays.rows(f"{group}/values"))
    )
    for task in done.tolist():
        yield f"{group}/done", task
        yield from (
            (f"{group}/values", chunk) for chunk in range(int(first[task]), int(ends[task]))
        )
    if len(done) < len(first):
        report.unfinished[encoder] = len(first) - len(done)


def _marked_done(arrays: LocalArrays, encoder: str) -> Bool:
    """Return (tasks,) bool: done as the root group says, or a chunk of ``done`` exists."""
    array = f"encoders/{encoder}/done"
    marked = np.zeros(arrays.rows(array), dtype=np.bool_)
    marked[: arrays.state.encoders[encoder].tasks_done] = True
    for file in (Path(arrays.path) / array).glob("c.*"):
        task = file.name[2:]
        if task.isdecimal() and int(task) < len(marked):
            marked[int(task)] = True
    return marked


def _chunk_fault(file: Path, spec: ArraySpec) -> tuple[str, int]:
    """Return the fault of a chunk file, or "", and the bytes read."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return "is missing", 0
    except OSError as error:
        return f"cannot be read ({error.strerror})", 0
    return check_chunk(data, spec), len(data)
