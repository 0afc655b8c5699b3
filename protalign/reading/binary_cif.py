"""BinaryCIF: MessagePack with encoded columns, decoded by biotite after their sizes are checked.

A few bytes can stand for billions of values: run lengths, sizes of arrays, long texts that are
repeated. So every size is compared with the size of the file before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool
from protalign.core.errors import InputError
from protalign.reading.content import FETCH_AGAIN

#: A column's values, of any dtype.
Values = npt.NDArray[Any]
#: Lists and objects of a file, and elements of one: the archive's files have some ten thousand.
_MOST_OBJECTS, _LONGEST_LIST = 200_000, 10_000
#: Encodings of a column that stand one behind the other.
_MOST_STEPS = 8
#: Bytes that the texts of a column may take for each byte of the file, and in a small file.
_TEXT_RATIO, _TEXT_FLOOR = 8, 1 << 24
#: Fewest bytes of a file for each atom: its three coordinates take one each at least.
_BYTES_PER_ATOM = 3


@dataclass(frozen=True, slots=True)
class Category:
    """A table of a BinaryCIF file, not decoded: its rows, and column name -> column."""

    rows: int
    columns: Mapping[str, Mapping[str, Any]]


def unpacked_blocks(data: bytes) -> list[tuple[str, dict[str, Category]]]:
    """Return the name of each data block and its categories, without the leading underscore.

    Raises InputError if a category claims more rows than the file has bytes; any other exception
    if the data are damaged.
    """
    content = _unpacked(data)
    blocks = []
    for block in content["dataBlocks"]:
        categories = {}
        for category in block["categories"]:
            rows = category["rowCount"]
            if not isinstance(rows, int) or rows < 0:
                raise ValueError("rowCount")
            least = _BYTES_PER_ATOM if category["name"] == "_atom_site" else 1
            if least * rows > len(data):
                raise InputError(
                    f"it is damaged: it claims {rows:,} rows in {len(data):,} bytes", FETCH_AGAIN
                )
            columns = {column["name"]: column for column in category["columns"]}
            categories[category["name"].lstrip("_")] = Category(rows, columns)
        blocks.append((block["header"], categories))
    return blocks


def _unpacked(data: bytes) -> Any:
    """Return the content of MessagePack; raise ValueError if it has too many lists or objects.

    Each takes one byte of the file at least, and seventy of memory.
    """
    count = 0

    def counted(each: Any) -> Any:
        nonlocal count
        count += 1
        if count > _MOST_OBJECTS:
            raise ValueError("objects")
        return each

    return msgpack.unpackb(
        data,
        raw=False,
        max_array_len=_LONGEST_LIST,
        max_map_len=_LONGEST_LIST,
        object_hook=counted,
        list_hook=counted,
    )


def decoded_columns(
    category: Category,
    size: int,
    names: Iterable[str] | None = None,
    wanted_rows: Callable[[Callable[[str], Values | None]], Bool] | None = None,
) -> dict[str, list[str]]:
    """Decode columns to texts, "." and "?" for missing values.

    Parameters
    ----------
    category : Category
    size : int
        Bytes of the file, which bound the size of the columns.
    names : iterable of str, optional
        The columns, of those that exist; None for all.
    wanted_rows : callable, optional
        It is given a function from a column's name to its values (None if it is missing), and
        returns a mask of the rows to keep.
    """
    from biotite.structure.io.pdbx import BinaryCIFColumn  # 0.8 s to import

    decoded: dict[str, BinaryCIFColumn] = {}

    def column(name: str) -> BinaryCIFColumn | None:
        if name in category.columns and name not in decoded:
            raw = category.columns[name]
            for part in ("data", "mask"):
                if raw[part] is not None:
                    _check_part(raw[part], category.rows, size)
            decoded[name] = BinaryCIFColumn.deserialize(raw)
            if len(decoded[name]) != category.rows:
                raise ValueError(name)
        return decoded.get(name)

    def values(name: str) -> Values | None:
        found = column(name)
        return None if found is None else found.data.array

    keep: Bool | slice = slice(None) if wanted_rows is None else wanted_rows(values)
    texts = {}
    for name in category.columns if names is None else names:
        found = column(name)
        if found is not None:
            mask = None if found.mask is None else found.mask.array[keep]
            part = BinaryCIFColumn(found.data.array[keep], mask)
            texts[name] = part.as_array(str).tolist()
            del decoded[name]
    return texts


def _check_part(part: Mapping[str, Any], rows: int, size: int) -> None:
    """Raise InputError if an encoded array would become larger than its rows."""
    _check_steps(part["encoding"], rows)
    _check_runs(part["data"], part["encoding"])
    for step in part["encoding"]:
        if step["kind"] == "StringArray":
            _check_texts(step, rows, size)
            _check_runs(part["data"], step["dataEncoding"])


def _check_steps(steps: list[Mapping[str, Any]], length: int) -> None:
    """Raise InputError if a step claims more values than ``length``, or twice as many in pairs."""
    if len(steps) > _MOST_STEPS:
        raise ValueError("encoding")
    for step in steps:
        if step["kind"] in ("RunLength", "IntegerPacking"):
            claimed = step["srcSize"]
            if not isinstance(claimed, int) or not 0 <= claimed <= 2 * length + 2:
                raise InputError(
                    f"it is damaged: a column of {length:,} rows claims {claimed!r} values",
                    FETCH_AGAIN,
                )


def _check_runs(data: bytes, steps: list[Mapping[str, Any]]) -> None:
    """Raise ValueError unless runs are as long together as they should be.

    The decoder fills what is missing with zeros, and forgets what is too much.
    """
    from biotite.structure.io.pdbx.encoding import decode_stepwise, deserialize_encoding

    for place, step in enumerate(steps):
        if step["kind"] == "RunLength":
            behind = [deserialize_encoding(one) for one in steps[place + 1 :]]
            runs = decode_stepwise(data, behind)[1::2].astype(np.int64)
            if (runs < 0).any() or runs.sum() != step["srcSize"]:
                raise ValueError("runs")


def _check_texts(step: Mapping[str, Any], rows: int, size: int) -> None:
    """Raise InputError if an array of texts would take too much memory for such a file."""
    from biotite.structure.io.pdbx.encoding import decode_stepwise, deserialize_encoding

    _check_steps(step["dataEncoding"], rows)
    _check_steps(step["offsetEncoding"], size)
    steps = [deserialize_encoding(one) for one in step["offsetEncoding"]]
    offsets = decode_stepwise(step["offsets"], steps).astype(np.int64)
    longest = int(np.diff(offsets).max(initial=0))
    if (np.diff(offsets) < 0).any() or longest > len(step["stringData"]):
        raise ValueError("offsets")
    if 4 * longest * max(rows, len(offsets)) > max(_TEXT_FLOOR, _TEXT_RATIO * size):
        raise InputError(
            f"it is damaged: a column of {rows:,} rows has a text of {longest:,} letters",
            FETCH_AGAIN,
        )
