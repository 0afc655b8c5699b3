"""Check a whole store against its checksums and its index, and name the damage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.arrays import Int64
from protalign.core.checks import first_few
from protalign.core.errors import InputError, StoreError
from protalign.core.spread import Here, Spread
from protalign.core.untrusted import JSON_BYTES, folder_inside, read_bytes
from protalign.stores.checking.chunks import NOT_RECORDED, ChunkCheck, ChunkRange, Fetched
from protalign.stores.checking.consistency import check_index
from protalign.stores.checking.trace import EntryTrace
from protalign.stores.checking.upgrade import upgrade_store
from protalign.stores.format.advice import RESTORE
from protalign.stores.format.checksums import (
    CHECKSUM_FILE,
    ENTRY_BYTES,
    ChunkChecksums,
)
from protalign.stores.format.disk import PARTIAL, chunks_present, commit_begun, walk
from protalign.stores.format.layout import ANNOTATIONS, ArraySpec, is_annotation
from protalign.stores.format.lock import LOCK_FILE
from protalign.stores.format.metadata import (
    METADATA_BYTES,
    array_fault,
    array_json,
    group_json,
    groups_of,
    json_bytes,
    rows_described,
)
from protalign.stores.format.state import StoreState, is_filled_by_tasks, load_root, load_state
from protalign.stores.objects.client import is_object_url, shown
from protalign.stores.objects.copy import copied
from protalign.stores.union.contents import unfinished

#: Ids in a line of the report; the report itself has all of them.
IDS_SHOWN = 10
#: Chunks that are looked at in one task.
CHUNKS_PER_TASK = 16


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
    remarks : list of str
        What this store's format cannot tell, and traces of an interrupted run. They are not damage.
    finished : bool
        Whether all files were read and all items embedded, as far as a damaged store tells.

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
    remarks: list[str] = field(default_factory=list)
    finished: bool = True

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
        """Yield a line for each damage, each encoder that is not finished, and each remark."""
        for damage in self.damages:
            place = f"{damage.array} {damage.chunk}".strip()
            ids = f"; ids: {first_few(damage.ids, IDS_SHOWN)}" if damage.ids else ""
            yield f"{place}: {damage.reason}{ids}" if place else f"{damage.reason}{ids}"
        if any(";" not in damage.reason for damage in self.damages):  # which no advice follows
            yield f"what is damaged: {RESTORE}"
        for encoder, tasks in self.unfinished.items():
            yield f"{encoder}: {tasks:,} tasks are not done; run `protalign embed` again"
        yield from self.remarks


def verify_store(
    path: str | os.PathLike[str],
    on_progress: Callable[[int, int], None] | None = None,
    *,
    upgrade: bool = False,
    spread: Spread | None = None,
) -> VerifyReport:
    """Check one store, as ``protalign.stores.verify`` does; arguments and errors are its own.

    ``spread`` looks at the chunks; default: this process.

    Examples
    --------
    >>> import tempfile
    >>> from protalign.stores import StoreWriter
    >>> path = tempfile.mkdtemp() + "/store.zarr"
    >>> with StoreWriter(path, {}):
    ...     pass
    >>> verify_store(path).ok
    True
    """
    if is_object_url(str(path)):
        if upgrade:
            raise StoreError(
                f"{shown(str(path))}: only a local store can be upgraded; copy it, upgrade the "
                "copy, and copy that back"
            )
        return _verify_objects(str(path), on_progress)
    if "://" in str(path):
        raise StoreError(f"{path}: only a local store can be checked; copy it, or check it there")
    folder = Path(path).absolute()
    spread = spread or Here()
    report = _Check(folder, on_progress, spread).run()
    if upgrade and all(damage.reason == NOT_RECORDED for damage in report.damages):
        upgrade_store(folder)
        report = _Check(folder, on_progress, spread).run()
    return report


def _verify_objects(url: str, on_progress: Callable[[int, int], None] | None) -> VerifyReport:
    """Check a store in object storage: its index is copied, its embeddings come chunk by chunk."""
    with copied(url) as copy:
        report = _Check(copy.folder, on_progress, Here(), copy.fetched).run()
    return replace(report, path=shown(url))


class _Check:
    """One check of a store."""

    def __init__(
        self,
        folder: Path,
        on_progress: Callable[[int, int], None] | None,
        spread: Spread,
        fetched: Fetched | None = None,
    ) -> None:
        self._folder = folder
        self._spread = spread
        self._on_progress = on_progress
        self._document = load_root(folder)
        state = StoreState.parse(self._document["attributes"], str(folder))
        self._chunks = ChunkCheck(folder, state, fetched)
        self._arrays = self._chunks.arrays
        self._state = self._arrays.state
        self._damages: list[Damage] = []
        self._remarks: list[str] = []
        self._unfinished: dict[str, int] = {}
        self._trace = EntryTrace(self._arrays)
        #: Arrays whose chunks cannot be looked at, since their folder is not one inside the store.
        self._outside: set[str] = set()

    def run(self) -> VerifyReport:
        """Look at every file, then at the sense of the index."""
        self._check_tree()
        self._check_root()
        self._check_metadata()
        ranges = self._expected_chunks()
        total = sum(len(present) for _, present in ranges)
        done = read = 0
        results = self._spread.map(self._chunks, _tasks(ranges))
        for (name, chunks), found in zip(_tasks(ranges), results, strict=True):
            for index, fault in found.faults:
                key = self._arrays.spec(name).chunk_key(index)
                self._add(name, key, fault, self._ids(name, index, index + 1))
            read += found.bytes
            done += len(chunks)
            if self._on_progress is not None:
                self._on_progress(done, total)
        if not self._damages:
            # The sense of an index is checked only if every byte of it is as it was written.
            for name, fault in check_index(self._arrays):
                self._add(name, "", fault)
        if not self._state.bound:
            self._remarks.append(
                f"format {self._state.format}: no checksums are recorded by place, so chunks that "
                "were exchanged with one another, or put back from an older copy, cannot be found; "
                "`protalign verify --upgrade` records them"
            )
        waiting = bool(self._unfinished) if self._damages else bool(unfinished([self._arrays]))
        return VerifyReport(
            str(self._folder),
            total,
            read,
            self._damages,
            self._unfinished,
            self._remarks,
            not waiting,
        )

    def _add(self, name: str, chunk: str, reason: str, ids: tuple[str, ...] = ()) -> None:
        self._damages.append(Damage(name, chunk, reason, ids))

    def _under_way(self) -> bool:
        """Return whether arrays may have more rows than are committed.

        That is so after an interrupted commit, beside a writer, and before format 1.1.
        """
        if not self._state.bound or commit_begun(self._folder):
            return True
        try:
            return load_state(self._folder) != self._state
        except StoreError:
            return False

    def _check_tree(self) -> None:
        """Report what is neither file nor folder, and folders that pass for unfinished files."""
        root = len(os.fspath(self._folder)) + 1
        for entry in walk(self._folder):
            name = entry.path[root:]
            if entry.is_dir(follow_symlinks=False):
                if entry.name.endswith(PARTIAL):
                    self._add(name, "", "is a folder that no writer made; move it elsewhere")
                elif self._is_unnamed_encoder(name) and not self._under_way():
                    self._add(
                        name,
                        "",
                        "is not named by zarr.json of the store, which may be of an older commit; "
                        f"{RESTORE}",
                    )
            elif not entry.is_file(follow_symlinks=False) and entry.name != LOCK_FILE:
                kind = "a link" if entry.is_symlink() else "neither a file nor a folder"
                self._add(name, "", f"is {kind}, which a store has not; replace it by a copy")
        if commit_begun(self._folder):
            self._remarks.append(
                "the last commit was interrupted, or is under way; `protalign embed` clears away "
                "what it left"
            )

    def _is_unnamed_encoder(self, name: str) -> bool:
        group, _, encoder = name.partition("/")
        return (
            group == "encoders"
            and "/" not in encoder
            and encoder not in ("", *self._state.encoders)
        )

    def _check_root(self) -> None:
        if not self._state.bound:
            return
        expected = {**self._document, "zarr_format": 3, "node_type": "group"}
        keys = {"attributes", "zarr_format", "node_type"}
        text = _text(self._folder / "zarr.json", most=JSON_BYTES)
        changed = set(self._document) != keys or text not in (json_bytes(expected), None)
        # A writer may have replaced it meanwhile.
        if changed and load_root(self._folder) == self._document:
            self._add("", "zarr.json", f"is not as it was written; {RESTORE}")

    def _check_metadata(self) -> None:
        """Check the zarr.json of every array and group, and the length of the checksum files."""
        specs = self._state.arrays()
        for name in groups_of(specs):
            if self._not_made_yet(name):
                continue
            if not folder_inside(self._folder, *name.split("/")):
                self._add(name, "", "is not a folder inside the store")
            elif _text(self._folder / name / "zarr.json") != group_json():
                self._add(name, "zarr.json", "is not as it was written; `protalign embed` mends it")
        for name, spec in specs.items():
            if not self._state.rows(name) and self._not_made_yet(name):
                continue
            if not folder_inside(self._folder, *name.split("/")):
                self._outside.add(name)
                self._add(name, "", "is not a folder inside the store", self._ids(name))
                continue
            self._check_array(name, spec)

    def _not_made_yet(self, name: str) -> bool:
        """Return whether a run that makes a group or an empty array was cut off before it.

        Stores of earlier versions lack the table of annotations.
        """
        if (self._folder / name / "zarr.json").exists():
            return False
        unused = is_annotation(name) and not self._state.rows(f"{ANNOTATIONS}/entry")
        return unused or self._under_way()

    def _check_array(self, name: str, spec: ArraySpec) -> None:
        rows = self._state.rows(name)
        text = _text(self._folder / name / "zarr.json") or b""
        fault = array_fault(text, spec, rows)
        if not fault and self._state.bound:
            described = rows_described(text)
            if text != array_json(spec, described):
                fault = "its zarr.json is not as it was written"
            elif described != rows and not self._under_way():
                fault = f"its zarr.json has {described} rows, but {rows} are committed"
        if fault:
            self._add(name, "zarr.json", f"{fault}; `protalign embed` mends it")
        if self._state.bound:
            size = ChunkChecksums(self._folder, name).bytes
            full = rows // spec.chunk_rows
            if size > full * ENTRY_BYTES and not self._under_way():
                self._add(
                    name,
                    CHECKSUM_FILE,
                    f"has {size} bytes instead of {full * ENTRY_BYTES}; the root's zarr.json may "
                    f"be of an older commit; {RESTORE}",
                )

    def _expected_chunks(self) -> list[tuple[str, Int64]]:
        """Return (array, its chunks that exist and must); report those that are missing."""
        expected = []
        for name, spec in self._state.arrays().items():
            if name in self._outside or is_filled_by_tasks(name):
                continue
            must = np.array([[0, spec.chunks(self._state.rows(name))]], np.int64)
            expected.append((name, self._present(name, spec, must)))
        for encoder in self._state.encoders:
            expected.extend(self._encoded_chunks(encoder))
        return expected

    def _encoded_chunks(self, encoder: str) -> Iterator[tuple[str, Int64]]:
        """Yield the chunks of tasks that are done."""
        group = f"encoders/{encoder}"
        if self._outside & {f"{group}/values", f"{group}/done"}:
            return
        plan = self._chunks.plan(encoder)
        if plan is None:  # it is damaged, which its own chunks report
            for name in (f"{group}/values", f"{group}/done"):
                chunks = self._arrays.spec(name).chunks(self._state.rows(name))
                present = chunks_present(self._folder / name)
                yield name, present[present < chunks]
            return
        values = self._arrays.spec(f"{group}/values")
        first = plan.row // values.chunk_rows
        ends = np.append(first[1:], values.chunks(self._state.rows(f"{group}/values")))
        known = self._state.encoders[encoder].tasks_done
        marks = np.array([[0, known]], np.int64)
        done = self._arrays.spec(f"{group}/done")
        present = chunks_present(self._folder / group / "done")
        later = present[(present >= known) & (present < len(plan))]
        yield f"{group}/done", np.append(self._present(f"{group}/done", done, marks), later)
        finished = np.flatnonzero(plan.done)
        must = np.stack([first[finished], ends[finished]], axis=1)
        yield f"{group}/values", self._present(f"{group}/values", values, must)
        if len(finished) < len(plan):
            self._unfinished[encoder] = len(plan) - len(finished)

    def _present(self, name: str, spec: ArraySpec, must: Int64) -> Int64:
        """Return the chunks within ranges (n, 2) that exist; report the gaps between them."""
        present = chunks_present(self._folder / name)
        kept: list[Int64] = []
        for begin, end in must.tolist():
            inside = present[np.searchsorted(present, begin) : np.searchsorted(present, end)]
            kept.append(inside)
            if len(inside) < end - begin:
                for first, stop in _gaps(inside, begin, end):
                    key = spec.chunk_key(first)
                    many = f", and all others to {spec.chunk_key(stop - 1)}"
                    reason = f"is missing{many if stop - first > 1 else ''}"
                    self._add(name, key, reason, self._ids(name, first, stop))
        return np.concatenate(kept) if kept else np.empty(0, np.int64)

    def _ids(self, name: str, first: int = 0, stop: int | None = None) -> tuple[str, ...]:
        """Return the ids that some chunks of an array affect; default: the whole array."""
        spec, rows = self._arrays.spec(name), self._state.rows(name)
        end = rows if stop is None else min(stop * spec.chunk_rows, rows)
        return self._trace.affected_ids(name, first * spec.chunk_rows, end)


def _tasks(ranges: Sequence[tuple[str, Int64]]) -> Iterator[ChunkRange]:
    """Yield each array's chunks, some at a time."""
    for name, present in ranges:
        for start in range(0, len(present), CHUNKS_PER_TASK):
            yield ChunkRange(name, present[start : start + CHUNKS_PER_TASK])


def _gaps(present: Int64, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (first, stop) of the numbers from begin to end that are not among the present ones."""
    before = np.concatenate([[begin - 1], present])
    after = np.append(present, end)
    for index in np.flatnonzero(after - before > 1).tolist():
        yield int(before[index]) + 1, int(after[index])


def _text(file: Path, most: int = METADATA_BYTES) -> bytes | None:
    """Return a zarr.json's bytes, None if it cannot be read."""
    try:
        return read_bytes(file, "", most=most, links=False)
    except InputError:
        return None
