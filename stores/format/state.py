"""The root group's attributes: committed counts, and everything that is not an array."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c

from protalign.core.encoder_record import EncoderRecord
from protalign.core.errors import StoreError
from protalign.stores.format.layout import (
    ARRAYS,
    ATTRIBUTE,
    CHECKSUM_ATTRIBUTE,
    FORMAT_VERSION,
    ArraySpec,
    encoder_arrays,
)

Option = str | float | bool | None


@dataclass(frozen=True, slots=True)
class EncoderState:
    """An encoder in the store.

    Attributes
    ----------
    record : EncoderRecord
        Its provenance.
    chunk_rows : int
        Rows of a chunk of its values.
    tasks_done : int
        The first ``tasks_done`` tasks are known to be done. A later one is done if its chunk of
        ``done`` exists.
    failed : tuple of (item, reason, advice)
        Items that it could not embed, ascending.
    """

    record: EncoderRecord
    chunk_rows: int
    tasks_done: int = 0
    failed: tuple[tuple[int, str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            **asdict(self.record),
            "chunk_rows": self.chunk_rows,
            "tasks_done": self.tasks_done,
            "failed": [list(row) for row in self.failed],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EncoderState:
        """Return the state that ``as_json`` described."""
        value = dict(value)
        chunk_rows, tasks_done = value.pop("chunk_rows"), value.pop("tasks_done")
        failed = tuple((item, reason, advice) for item, reason, advice in value.pop("failed"))
        return cls(EncoderRecord(**value), chunk_rows, tasks_done, failed)


@dataclass(frozen=True, slots=True)
class StoreState:
    """One committed state of a store.

    Attributes
    ----------
    options : mapping
        How its files were read.
    committed : mapping of str to int
        Rows of each array that count. Rows beyond them are debris of an interrupted run.
    open_sources : tuple of int
        Rows of ``sources`` with entries still to come.
    encoders : mapping of str to EncoderState
        Encoders by name.
    """

    options: Mapping[str, Option]
    committed: Mapping[str, int] = field(default_factory=dict)
    open_sources: tuple[int, ...] = ()
    encoders: Mapping[str, EncoderState] = field(default_factory=dict)

    def rows(self, array: str) -> int:
        """Return the committed rows of an array."""
        return self.committed.get(array, 0)

    def arrays(self) -> dict[str, ArraySpec]:
        """Return every array that this state speaks of."""
        specs = dict(ARRAYS)
        for name, encoder in self.encoders.items():
            record = encoder.record
            specs |= encoder_arrays(name, record.dim, record.dtype, encoder.chunk_rows)
        return specs

    def attributes(self) -> dict[str, Any]:
        """Return the root group's attributes."""
        value = {
            "format": FORMAT_VERSION,
            "options": dict(sorted(self.options.items())),
            "committed": dict(sorted(self.committed.items())),
            "open_sources": list(self.open_sources),
            "encoders": {name: self.encoders[name].as_json() for name in sorted(self.encoders)},
        }
        return {ATTRIBUTE: value, CHECKSUM_ATTRIBUTE: _checksum(value)}

    @classmethod
    def parse(cls, attributes: Mapping[str, Any], path: str) -> StoreState:
        """Return the state in some attributes; raise StoreError if they are damaged or unknown."""
        value = attributes.get(ATTRIBUTE)
        if not isinstance(value, dict):
            raise StoreError(
                f"{path}: it is a Zarr group but not a ProtAlign store; name one that "
                "`protalign embed` made"
            )
        _check_format(value.get("format"), path)
        if attributes.get(CHECKSUM_ATTRIBUTE) != _checksum(value):
            raise StoreError(
                f"{path}: the store is damaged, its root attributes (zarr.json) do not match "
                "their checksum; restore the file from a copy"
            )
        return cls(
            options=value["options"],
            committed=value["committed"],
            open_sources=tuple(value["open_sources"]),
            encoders={n: EncoderState.from_json(e) for n, e in value["encoders"].items()},
        )


def _checksum(value: dict[str, Any]) -> int:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return int(google_crc32c.value(text.encode("ascii")))


def _check_format(stored: object, path: str) -> None:
    if stored == FORMAT_VERSION:
        return
    try:
        version = tuple(int(part) for part in str(stored).split("."))
    except ValueError:
        raise StoreError(
            f"{path}: its format version {stored!r} is not one; name a store that "
            "`protalign embed` made"
        ) from None
    if version > tuple(int(part) for part in FORMAT_VERSION.split(".")):
        fault = f"is newer than this ProtAlign reads ({FORMAT_VERSION}); upgrade protalign"
    else:
        fault = f"is older than this ProtAlign reads ({FORMAT_VERSION}); embed the files again"
    raise StoreError(f"{path}: its store format {stored} {fault}")


def load_state(path: Path) -> StoreState:
    """Return the committed state of a local store; raise StoreError if it is not a store."""
    try:
        text = (path / "zarr.json").read_bytes()
    except FileNotFoundError:
        fault = "it is not a ProtAlign store" if path.exists() else "it does not exist"
        raise StoreError(f"{path}: {fault}; name one that `protalign embed` made") from None
    except OSError as error:
        raise StoreError(
            f"{path}: it cannot be read ({error.strerror}); check its permissions"
        ) from None
    try:
        attributes = json.loads(text)["attributes"]
        if not isinstance(attributes, dict):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise StoreError(
            f"{path}: its zarr.json is damaged, or not that of a Zarr v3 group; restore it from a "
            "copy"
        ) from None
    return StoreState.parse(attributes, str(path))
