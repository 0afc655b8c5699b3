"""Record the checksums of a store's chunks where there are none: format 1.0 becomes 1.1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from protalign.stores.filling.plan import PlanReader
from protalign.stores.filling.record import TaskChecksums
from protalign.stores.format.append import change_state, prepare_arrays
from protalign.stores.format.arrays import LocalArrays
from protalign.stores.format.checksums import ChunkChecksums, crc32c, stored_checksum
from protalign.stores.format.layout import FORMAT_VERSION
from protalign.stores.format.lock import StoreLock
from protalign.stores.format.state import StoreState, is_filled_by_tasks, load_state


def upgrade_store(path: Path) -> None:
    """Record every checksum that is missing; the store is whole, and its chunks stay as they are.

    Raise StoreError if another process writes to it.
    """
    with StoreLock(path):
        state = load_state(path)
        prepare_arrays(path, state)
        arrays = LocalArrays(path, state)
        # The checksums count only once the root says so: an upgrade that is cut off did nothing.
        upgraded = replace(state, format=FORMAT_VERSION, last_chunks=_last_chunks(arrays))
        for name in state.arrays():
            if not is_filled_by_tasks(name):
                _record_full_chunks(path, arrays, name)
        bound = LocalArrays(path, upgraded)
        for encoder in upgraded.encoders:
            plan = PlanReader(arrays, encoder)
            TaskChecksums(path, bound, encoder, plan).record_missing()
        change_state(path, lambda _: upgraded)


def _last_chunks(arrays: LocalArrays) -> dict[str, int]:
    """Return the crc32c of the rows in each last chunk that is partly filled."""
    checksums = {}
    state: StoreState = arrays.state
    for name, spec in state.arrays().items():
        rows = arrays.rows(name)
        if rows % spec.chunk_rows and not is_filled_by_tasks(name):
            begin = rows // spec.chunk_rows * spec.chunk_rows
            checksums[name] = crc32c(np.ascontiguousarray(arrays.read(name, begin, rows)))
    return checksums


def _record_full_chunks(path: Path, arrays: LocalArrays, name: str) -> None:
    spec, recorded = arrays.spec(name), ChunkChecksums(path, name)
    for index in range(arrays.rows(name) // spec.chunk_rows):
        if not recorded.is_recorded(index):
            recorded.record(index, [stored_checksum(path, name, spec, index)])
