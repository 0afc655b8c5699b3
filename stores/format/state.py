"""The root group's attributes: what is committed, and everything that is not an array."""

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
    record : provenance.
    chunk_rows : rows of a chunk of its values.
    tasks_done : that many tasks, from the first, are known to be done; later ones are done if
        their chunk of ``done`` is there.
    failed : items that it could not embed, ascending, with reason and advice.
    """

    record: EncoderRecord
    chunk_rows: int
    tasks_done: int = 0
    failed: tuple[tuple[int, str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self.record),
            "chunk_rows": self.chunk_rows,
            "tasks_done": self.tasks_done,
            "failed": [list(row) for row in self.failed],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EncoderState:
        value = dict(value)
        chunk_rows, tasks_done = value.pop("chunk_rows"), value.pop("tasks_done")
        failed = tuple((item, reason, advice) for item, reason, advice in value.pop("failed"))
        return cls(EncoderRecord(**value), chunk_rows, tasks_done, failed)


@dataclass(frozen=True, slots=True)
class StoreState:
    """One committed state of a store.

    Attributes
    ----------
    options : how its files were read.
    committed : rows of each array that count; what lies beyond is debris of a broken run.
    open_sources : rows of ``sources`` whose entries are not all in.
    encoders : by name.
    """

    options: Mapping[str, Option]
    committed: Mapping[str, int] = field(default_factory=dict)
    open_sources: tuple[int, ...] = ()
    encoders: Mapping[str, EncoderState] = field(default_factory=dict)

    def rows(self, array: str) -> int:
        """Committed rows of an array."""
        return self.committed.get(array, 0)

    def arrays(self) -> dict[str, ArraySpec]:
        """Every array that this state speaks of."""
        specs = dict(ARRAYS)
        for name, encoder in self.encoders.items():
            record = encoder.record
            specs |= encoder_arrays(name, record.dim, record.dtype, encoder.chunk_rows)
        return specs

    def attributes(self) -> dict[str, Any]:
        """The root group's attributes."""
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
        """Read it back; raises StoreError if it is another format, or damaged."""
        value = attributes.get(ATTRIBUTE)
        if not isinstance(value, dict):
            raise StoreError(
                f"{path} is a Zarr group but not a ProtAlign store; name one that "
                "`protalign embed` made"
            )
        _check_format(value.get("format"), path)
        if attributes.get(CHECKSUM_ATTRIBUTE) != _checksum(value):
            raise StoreError(
                f"{path}: the root attributes (zarr.json) do not match their checksum: the file "
                "is damaged; restore it from a copy"
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


def _check_format(found: object, path: str) -> None:
    if found == FORMAT_VERSION:
        return
    try:
        version = tuple(int(part) for part in str(found).split("."))
    except ValueError:
        raise StoreError(f"{path}: its format version {found!r} is not one") from None
    if version > tuple(int(part) for part in FORMAT_VERSION.split(".")):
        what = f"is newer than this ProtAlign reads ({FORMAT_VERSION}); upgrade protalign"
    else:
        what = f"is older than this ProtAlign reads ({FORMAT_VERSION}); embed the files again"
    raise StoreError(f"{path}: store format {found} {what}")


def load_state(path: Path) -> StoreState:
    """The committed state of a local store; raises StoreError if it is none."""
    try:
        text = (path / "zarr.json").read_bytes()
    except FileNotFoundError:
        what = "is not a ProtAlign store" if path.exists() else "does not exist"
        raise StoreError(f"{path} {what}; name one that `protalign embed` made") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    try:
        attributes = json.loads(text)["attributes"]
        if not isinstance(attributes, dict):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise StoreError(
            f"{path}: zarr.json cannot be read: it is damaged, or no Zarr v3 group"
        ) from None
    return StoreState.parse(attributes, str(path))
