"""Read a whole store against its checksums and its manifest, and name what is damaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protalign.core.errors import StoreError
from protalign.stores.checking.consistency import index_faults
from protalign.stores.checking.trace import DamageTrace
from protalign.stores.format.arrays import LocalArrays, check_array_json, check_chunk
from protalign.stores.format.layout import ArraySpec
from protalign.stores.format.state import load_state

#: Ids shown in a line of the report; all of them are in the report itself.
IDS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Damage:
    """Something wrong in a store.

    Attributes
    ----------
    array : name of the array, e.g. "encoders/esm2_t6_8M_UR50D/values".
    chunk : its chunk's file name, "" where the fault is not in one chunk.
    reason : what is wrong.
    ids : live entries that it concerns.
    """

    array: str
    chunk: str
    reason: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What ``verify`` found.

    Attributes
    ----------
    path : the store.
    chunks, bytes : read.
    damages : what is wrong; empty if the store is whole.
    unfinished : tasks not done of each encoder that has such; no damage.
    """

    path: str
    chunks: int
    bytes: int
    damages: list[Damage] = field(default_factory=list)
    unfinished: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Nothing is damaged."""
        return not self.damages

    @property
    def damaged_ids(self) -> tuple[str, ...]:
        """Every id concerned, once."""
        return tuple(dict.fromkeys(i for damage in self.damages for i in damage.ids))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ok": self.ok, "damaged_ids": list(self.damaged_ids)}

    def lines(self) -> Iterator[str]:
        """A line for each damage, and for each encoder that is not finished."""
        for damage in self.damages:
            where = f"{damage.array} {damage.chunk}".rstrip()
            more = (
                f" and {len(damage.ids) - IDS_SHOWN:,} more" if len(damage.ids) > IDS_SHOWN else ""
            )
            ids = f"; ids: {', '.join(damage.ids[:IDS_SHOWN])}{more}" if damage.ids else ""
            yield f"{where}: {damage.reason}{ids}"
        for encoder, tasks in self.unfinished.items():
            yield f"{encoder}: {tasks:,} tasks are not done; run `protalign embed` again"


def verify(
    path: str | os.PathLike[str], on_progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Read every chunk that a local store must have against its checksum.

    Holds one chunk at a time, and the index of entries. ``on_progress`` is called with the chunks
    read so far and in all. Raises StoreError if there is no store, or its root attributes are
    damaged: then nothing tells what should be there.
    """
    folder = Path(path).absolute()
    if "://" in str(path):
        raise StoreError(f"{path}: only a local store can be verified; copy it, or verify it there")
    arrays = LocalArrays(folder, load_state(folder))
    report = VerifyReport(str(folder), 0, 0)
    trace = DamageTrace(arrays)
    expected = list(_expected_chunks(arrays, report))
    read_bytes = 0
    for done, (name, index) in enumerate(expected, start=1):
        spec = arrays.spec(name)
        reason, size = _chunk_fault(folder / name / spec.chunk_key(index), spec)
        read_bytes += size
        if reason:
            begin, end = index * spec.chunk_rows, (index + 1) * spec.chunk_rows
            ids = trace.ids(name, begin, min(end, arrays.rows(name)))
            report.damages.append(Damage(name, spec.chunk_key(index), reason, ids))
        if on_progress is not None:
            on_progress(done, len(expected))
    if report.ok:
        # Only an index whose every byte is as written can be judged for sense.
        report.damages.extend(Damage(name, "", fault, ()) for name, fault in index_faults(arrays))
    return VerifyReport(report.path, len(expected), read_bytes, report.damages, report.unfinished)


def _expected_chunks(arrays: LocalArrays, report: VerifyReport) -> Iterator[tuple[str, int]]:
    """Every chunk that must be there; faults of arrays' own files go into the report."""
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
    """Chunks of the tasks that are done."""
    group = f"encoders/{encoder}"
    try:
        done = np.flatnonzero(_marked_done(arrays, encoder))
        first = arrays.read(f"{group}/plan/row") // arrays.spec(f"{group}/values").chunk_rows
    except StoreError:
        return  # the plan is damaged: its own chunks are in the report
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


def _marked_done(arrays: LocalArrays, encoder: str) -> npt.NDArray[np.bool_]:
    """(tasks,) bool: done as far as the root knows, or a chunk of ``done`` is there."""
    array = f"encoders/{encoder}/done"
    marked = np.zeros(arrays.rows(array), dtype=np.bool_)
    marked[: arrays.state.encoders[encoder].tasks_done] = True
    for file in (Path(arrays.path) / array).glob("c.*"):
        task = file.name[2:]
        if task.isdecimal() and int(task) < len(marked):
            marked[int(task)] = True
    return marked


def _chunk_fault(file: Path, spec: ArraySpec) -> tuple[str, int]:
    """(what is wrong with a chunk file or "", bytes read)."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return "is missing", 0
    except OSError as error:
        return f"cannot be read ({error.strerror})", 0
    return check_chunk(data, spec), len(data)
