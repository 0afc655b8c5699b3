"""The root group's attributes: committed counts, and everything that is not an array."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c

from protalign.core.encoder_record import EncoderRecord, are_settings, check_record, is_count
from protalign.core.errors import InputError, StoreError
from protalign.core.folders import kind_of
from protalign.core.printing import one_line
from protalign.core.untrusted import parse_json, read_json
from protalign.stores.format.advice import RESTORE
from protalign.stores.format.layout import (
    ARRAYS,
    ATTRIBUTE,
    CHECKSUM_ATTRIBUTE,
    EARLIER_VERSION,
    ENCODER_CHUNK_ROWS,
    FORMAT_VERSION,
    ArraySpec,
    checked_encoder_name,
    encoder_arrays,
    is_annotation,
)

Option = str | float | bool | None

#: Bytes of an array, and of one chunk, at most: offsets are 64-bit numbers, tasks hold a chunk.
_ARRAY_BYTES, _CHUNK_BYTES = 2**62, 2**32
#: Columns of an encoder that have equally many rows.
_EQUAL = (("start", "length", "plan/item"), ("done", "plan/row", "plan/task"))


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
    def from_json(cls, value: Any) -> EncoderState:
        """Return the state that ``as_json`` described; raise ValueError if it is not one."""
        names = [each.name for each in fields(EncoderRecord)]
        _require(
            isinstance(value, dict)
            and set(value) == {*names, "chunk_rows", "tasks_done", "failed"},
            "an encoder has other keys",
        )
        check_record(value)
        _require(is_count(value["chunk_rows"], 1), "an encoder's chunk_rows is not a count")
        _require(is_count(value["tasks_done"]), "an encoder's tasks_done is not a count")
        _require(
            isinstance(value["failed"], list) and all(_is_refusal(row) for row in value["failed"]),
            "an encoder's failed items are not rows of an item and two texts",
        )
        failed = tuple((item, reason, advice) for item, reason, advice in value["failed"])
        items = [item for item, _, _ in failed]
        _require(
            all(first < second for first, second in pairwise(items)),
            "an encoder's failed items are not ascending",
        )
        record = EncoderRecord(**{name: value[name] for name in names})
        return cls(record, value["chunk_rows"], value["tasks_done"], failed)


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
    last_chunks : mapping of str to int
        For each array with a last chunk that is partly filled: the crc32c of its committed rows.
    format : str
        The version of the format that it follows.
    """

    options: Mapping[str, Option]
    committed: Mapping[str, int] = field(default_factory=dict)
    open_sources: tuple[int, ...] = ()
    encoders: Mapping[str, EncoderState] = field(default_factory=dict)
    last_chunks: Mapping[str, int] = field(default_factory=dict)
    format: str = FORMAT_VERSION

    @property
    def bound(self) -> bool:
        """Whether checksums of chunks are recorded: since format 1.1."""
        return self.format != EARLIER_VERSION

    @property
    def keeps_annotations(self) -> bool:
        """Whether annotations of new entries are kept: since format 1.1."""
        return self.bound

    def rows(self, array: str) -> int:
        """Return the committed rows of an array."""
        return self.committed.get(array, 0)

    def arrays(self) -> dict[str, ArraySpec]:
        """Return every array that this state speaks of."""
        specs = {
            n: spec for n, spec in ARRAYS.items() if self.keeps_annotations or not is_annotation(n)
        }
        for name, encoder in self.encoders.items():
            record = encoder.record
            specs |= encoder_arrays(name, record.dim, record.dtype, encoder.chunk_rows)
        return specs

    def attributes(self) -> dict[str, Any]:
        """Return the root group's attributes."""
        value = {
            "format": self.format,
            "options": dict(sorted(self.options.items())),
            "committed": dict(sorted(self.committed.items())),
            **({"last_chunks": dict(sorted(self.last_chunks.items()))} if self.bound else {}),
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
        try:
            matches = attributes.get(CHECKSUM_ATTRIBUTE) == _checksum(value)
        except (RecursionError, ValueError):  # too deep, or of a type that JSON does not have
            matches = False
        if not matches:
            raise StoreError(
                f"{path}: the store is damaged, its root attributes (zarr.json) do not match "
                f"their checksum; {RESTORE}"
            )
        try:
            return cls._checked(value)
        except ValueError as error:
            raise StoreError(
                f"{path}: its root attributes (zarr.json) are not those of a store: {error}; name "
                "a store that `protalign embed` made"
            ) from None

    @classmethod
    def _checked(cls, value: dict[str, Any]) -> StoreState:
        """Return the state; raise ValueError if it contradicts the format or itself."""
        bound = value["format"] != EARLIER_VERSION
        keys = {"format", "options", "committed", "open_sources", "encoders"}
        _require(set(value) == (keys | {"last_chunks"} if bound else keys), "it has other keys")
        for key in keys - {"format", "open_sources"} | ({"last_chunks"} if bound else set()):
            _require(isinstance(value[key], dict), f"{key} is not an object")
        _require(are_settings(value["options"]), "options are not words and numbers")
        try:
            encoders = {
                checked_encoder_name(name): EncoderState.from_json(encoder)
                for name, encoder in value["encoders"].items()
            }
        except StoreError as error:
            raise ValueError(str(error).partition(";")[0]) from None
        sources = value["open_sources"]
        _require(
            isinstance(sources, list) and all(is_count(source) for source in sources),
            "open_sources are not rows",
        )
        state = cls(
            options=value["options"],
            committed=value["committed"],
            open_sources=tuple(sources),
            encoders=encoders,
            last_chunks=value.get("last_chunks", {}),
            format=value["format"],
        )
        state._check_counts()
        return state

    def _check_counts(self) -> None:
        specs = self.arrays()
        for name, rows in self.committed.items():
            _require(name in specs, "committed names an unknown array")
            _require(
                is_count(rows) and rows * specs[name].row_bytes < _ARRAY_BYTES,
                f"{name} cannot have as many rows",
            )
        for spec in specs.values():
            _require(spec.chunk_bytes <= _CHUNK_BYTES, "an encoder's chunks are too large")
        for arrays in _equally_long(self.encoders):
            counts = {self.rows(name) for name in arrays}
            _require(
                len(counts) == 1, f"{arrays[0]} and {arrays[-1]} have different numbers of rows"
            )
        for source in self.open_sources:
            _require(source < self.rows("sources/sha256"), "open_sources are not rows")
        for name, encoder in self.encoders.items():
            group = f"encoders/{name}"
            items = self.rows(f"{group}/start")
            _require(
                all(item < items for item, _, _ in encoder.failed), "a failed item is not planned"
            )
            _require(
                encoder.tasks_done <= self.rows(f"{group}/done"), "more tasks are done than planned"
            )
            _require(
                self.rows(f"{group}/values") % encoder.chunk_rows == 0,
                f"{group}/values does not end with a chunk",
            )
        if self.bound:
            partly = {
                name
                for name, rows in self.committed.items()
                if rows % specs[name].chunk_rows and not is_filled_by_tasks(name)
            }
            _require(
                set(self.last_chunks) == partly
                and all(is_count(v) and v < 2**32 for v in self.last_chunks.values()),
                "last_chunks does not fit the committed rows",
            )


def is_filled_by_tasks(array: str) -> bool:
    """Return whether an array is written by tasks, chunk by chunk in any order."""
    return array.startswith("encoders/") and array.endswith(("/values", "/done"))


def _equally_long(encoders: Mapping[str, EncoderState]) -> list[tuple[str, ...]]:
    """Return groups of arrays that have equally many rows."""
    tables: dict[str, list[str]] = {}
    for name in ARRAYS:
        if not name.endswith("/values"):
            tables.setdefault(name.partition("/")[0], []).append(name)
    of_encoders = [
        tuple(f"encoders/{name}/{column}" for column in group)
        for name in encoders
        for group in _EQUAL
    ]
    return [*map(tuple, tables.values()), *of_encoders]


def _require(condition: object, fault: str) -> None:
    if not condition:
        raise ValueError(fault)


def _is_refusal(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and is_count(row[0])
        and isinstance(row[1], str)
        and isinstance(row[2], str)
    )


def _checksum(value: dict[str, Any]) -> int:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return int(google_crc32c.value(text.encode("ascii")))


def _check_format(stored: object, path: str) -> None:
    if stored in (FORMAT_VERSION, EARLIER_VERSION):
        return
    match = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", stored) if isinstance(stored, str) else None
    if match is None:
        raise StoreError(
            f"{path}: its format version {str(stored)[:20]!r} is not one; name a store that "
            "`protalign embed` made"
        )
    newest = tuple(int(part) for part in FORMAT_VERSION.split("."))
    if (int(match[1]), int(match[2])) > newest:
        fault = f"is newer than this ProtAlign reads ({FORMAT_VERSION}); upgrade protalign"
    else:
        fault = f"is older than this ProtAlign reads ({EARLIER_VERSION}); embed the files again"
    raise StoreError(f"{path}: its store format {stored} {fault}")


def load_root(path: Path) -> dict[str, Any]:
    """Return the root group's zarr.json; raise StoreError if the folder is not a Zarr group."""
    root = path / "zarr.json"
    try:
        root.lstat()
    except FileNotFoundError:
        if kind := kind_of(path):
            fault = f"it is {kind}, not a store"
        else:
            fault = "it is not a ProtAlign store" if path.exists() else "it does not exist"
        raise StoreError(f"{path}: {fault}; name one that `protalign embed` made") from None
    except NotADirectoryError:
        raise StoreError(
            f"{path}: it is a file, not a store; name one that `protalign embed` made"
        ) from None
    except OSError as error:
        raise StoreError(
            f"{path}: it cannot be read ({error.strerror}); check its permissions"
        ) from None
    try:
        document = read_json(root, RESTORE, links=False)
    except InputError as error:
        raise StoreError(f"{path}: it is damaged, {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("attributes"), dict):
        raise StoreError(
            f"{path}: its zarr.json is damaged, or not that of a Zarr v3 group; {RESTORE}"
        )
    return document


def check_readable(text: bytes, state: StoreState, path: str) -> None:
    """Raise StoreError unless a root group's zarr.json says what it is to say.

    Encoders may be other people's. One whose settings no reader takes must not close the store.
    """
    try:
        value = parse_json(text, "", "")["attributes"][ATTRIBUTE]
        if StoreState._checked(value) == state:
            return
        fault = "a value of an encoder's record is no value of JSON"
    except ValueError as error:  # InputError too
        fault = one_line(error).strip(": ;")
    raise StoreError(
        f"{path}: it was not changed, since what was to be recorded could not be read again "
        f"({fault}); report this to the encoder's author"
    )


def check_storable(record: EncoderRecord) -> None:
    """Raise StoreError if a store cannot hold an encoder's record."""
    try:
        state = EncoderState(record, ENCODER_CHUNK_ROWS)
        value = parse_json(json.dumps(state.as_json()), "", "")
        if EncoderState.from_json(value) == state:
            return
        fault = "a value is no value of JSON"
    except (TypeError, ValueError) as error:  # InputError too
        fault = one_line(error).strip(": ;")
    raise StoreError(
        f"{one_line(record.model, 100)}: a store cannot hold this encoder's record ({fault}); "
        "report this to the encoder's author"
    )


def load_state(path: Path) -> StoreState:
    """Return the committed state of a local store; raise StoreError if it is not a store."""
    return StoreState.parse(load_root(path)["attributes"], str(path))
