"""The zarr.json of arrays and groups: texts that follow from the format and a count of rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from protalign.core.errors import InputError
from protalign.core.untrusted import parse_json
from protalign.stores.format.layout import ArraySpec

#: Bytes of an array's or a group's zarr.json, at most.
METADATA_BYTES = 65536


def json_bytes(value: Any) -> bytes:
    """Return the text of a zarr.json, as Zarr writes it."""
    return json.dumps(value, indent=2).encode("ascii")


def group_json() -> bytes:
    """Return the zarr.json of a group below the root."""
    return json_bytes({"attributes": {}, "zarr_format": 3, "node_type": "group"})


def array_json(spec: ArraySpec, rows: int) -> bytes:
    """Return the zarr.json of an array."""
    return json_bytes(_described(spec, rows))


def _described(spec: ArraySpec, rows: int) -> dict[str, Any]:
    to_bytes: dict[str, Any] = {"name": "bytes"}
    if spec.dtype.itemsize > 1:
        to_bytes["configuration"] = {"endian": "little"}
    return {
        "shape": [rows, *spec.row_shape],
        "data_type": spec.dtype.name,
        "chunk_grid": _named("regular", chunk_shape=list(spec.chunk_shape)),
        "chunk_key_encoding": _named("default", separator="."),
        "fill_value": spec.dtype.type(0).item(),
        "codecs": [to_bytes, {"name": "crc32c"}],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def groups_of(arrays: Iterable[str]) -> list[str]:
    """Return the groups that arrays lie in, outer ones first."""
    groups: dict[str, None] = {}
    for name in arrays:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            groups["/".join(parts[:depth])] = None
    return list(groups)


def array_fault(text: bytes, spec: ArraySpec, rows: int) -> str:
    """Return the fault of an array's zarr.json, "" if it means what the format says.

    It may have more rows than are committed.
    """
    if text == array_json(spec, rows):
        return ""
    try:
        described = parse_json(text, "", "", most=METADATA_BYTES)
    except InputError:
        return "its zarr.json cannot be read"
    return described_fault(described, spec, rows)


def described_fault(described: Any, spec: ArraySpec, rows: int) -> str:
    """Return the fault of an array's zarr.json that was parsed; see ``array_fault``."""
    if not isinstance(described, dict):
        return "its zarr.json cannot be read"
    expected = _described(spec, rows)
    for key in ("attributes", "storage_transformers"):  # without meaning for a reader
        del expected[key]
    shape, codecs = expected.pop("shape"), expected.pop("codecs")
    wrong = [
        key
        for key, value in expected.items()
        if described.get(key) != value or isinstance(described[key], bool) != (value is False)
    ]
    if described.get("storage_transformers") not in (None, [], ()):
        wrong.append("storage_transformers")
    if not _same_codecs(described.get("codecs"), codecs):
        wrong.append("codecs")
    given = described.get("shape")
    if (
        not isinstance(given, (list, tuple))
        or list(given[1:]) != shape[1:]
        or not given
        or type(given[0]) is not int
        or given[0] < rows
    ):
        wrong.append("shape")
    return f"its zarr.json does not follow the format ({', '.join(wrong)})" if wrong else ""


def _same_codecs(given: Any, expected: list[dict[str, Any]]) -> bool:
    """Return whether the codecs are the same; the bytes of single-byte rows have no order."""
    if not isinstance(given, (list, tuple)) or not all(isinstance(codec, dict) for codec in given):
        return False
    without_order = [
        {key: value for key, value in codec.items() if value and value != {"endian": "little"}}
        for codec in given
    ]
    names = [{"name": codec["name"]} for codec in expected]
    return without_order == names


def rows_described(text: bytes) -> int:
    """Return the rows of an array by its zarr.json, -1 if it does not say."""
    try:
        rows = parse_json(text, "", "", most=METADATA_BYTES)["shape"][0]
    except (InputError, KeyError, TypeError, IndexError):
        return -1
    return rows if type(rows) is int else -1
