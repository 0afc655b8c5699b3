"""Files of hits: m8, TSV, CSV, JSON, Parquet and HTML by the suffix, each also gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from protalign.core.errors import InputError, WriteError
from protalign.core.files import json_text, write_bytes
from protalign.core.printing import printable, table_cell
from protalign.search.hit_columns import COLUMNS, SCHEMA, SCHEMA_VERSION, HitTable, Kind
from protalign.search.hit_page import page

#: Gives the document of the hit at a place of a table.
View = Callable[[int], dict[str, Any]]
#: The suffix of a compressed file, after that of its form.
_GZIPPED = ".gz"


def form_of(path: str | os.PathLike[str]) -> str:
    """Return the form of a file of hits by its suffix: "m8", "tsv", "csv", "json", ….

    Raises
    ------
    InputError
        No form has this suffix.

    Examples
    --------
    >>> form_of("hits.m8"), form_of("hits.CSV.gz")
    ('m8', 'csv')
    """
    name = Path(path).name.lower().removesuffix(_GZIPPED)
    form = Path(name).suffix.removeprefix(".")
    if form not in _FORMS or not Path(name).stem:
        raise InputError(
            f"{printable(path)}: no form of hits has this suffix",
            f"name it .{', .'.join(_FORMS)}, or one of these and {_GZIPPED}",
        )
    return form


def check_files(paths: Sequence[str | os.PathLike[str]], inputs: Iterable[object] = ()) -> None:
    """Raise an error if files of hits could not be written after the search, or must not be.

    Parameters
    ----------
    paths : sequence of str or path
        The files.
    inputs : iterable
        What the search reads; those that are paths must not be replaced.

    Raises
    ------
    InputError
        A suffix is unknown, a file is named twice, or it is one of the inputs.
    WriteError
        A folder is missing, or a folder has the file's name.
    """
    read = {os.path.realpath(each): each for each in inputs if isinstance(each, (str, os.PathLike))}
    seen: set[str] = set()
    for path in paths:
        form_of(path)
        real = os.path.realpath(path)
        if real in seen:
            raise InputError(f"{printable(path)}: the file is named twice", "name it once")
        if real in read:
            raise InputError(f"{printable(path)}: the search reads it", "name another file")
        seen.add(real)
        if Path(path).is_dir():
            raise WriteError(f"{printable(path)}: it is a folder; name a file")
        if not Path(real).parent.is_dir():
            raise WriteError(f"{printable(path)}: its folder is missing; make it first")


def write_table(
    table: HitTable,
    path: str | os.PathLike[str],
    *,
    header: bool = False,
    view: View | None = None,
) -> None:
    r"""Write hits to a file in the form that its suffix names; it appears whole or not at all.

    Parameters
    ----------
    table : HitTable
        The hits.
    path : str or path
        The file: .m8, .tsv, .csv, .json, .parquet or .html, or one of these and .gz. It is
        replaced if it exists.
    header : bool
        Whether .m8 begins with the names of the columns; .tsv and .csv always do.
    view : callable, optional
        Gives the document of the hit at a place (``Hits.view``), for hits that .html can open.

    Raises
    ------
    InputError
        No form has this suffix.
    WriteError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "hits.m8"
    >>> write_table(HitTable(("query", "cosine"), ({"query": "1a30", "cosine": 0.5},), ()), file)
    >>> file.read_text()
    '1a30\t0.5000\n'
    """
    form = form_of(path)
    data = table_bytes(table, form, header=header, view=view)
    if Path(path).name.lower().endswith(_GZIPPED):
        data = gzip.compress(data, mtime=0)  # the same hits give the same bytes
    write_bytes(path, data)


def table_bytes(
    table: HitTable, form: str, *, header: bool = False, view: View | None = None
) -> bytes:
    """Return hits in a form: those of files by their suffix, and "arrow", a stream.

    Parameters
    ----------
    table : HitTable
        The hits.
    form : str
        As ``form_of`` returns it, or "arrow".
    header, view
        As for ``write_table``.
    """
    if form == "arrow":
        return _arrow(table)
    return html_bytes(table, view) if form == "html" else _FORMS[form](table, header)


def cell(column: str, value: Any) -> str:
    """Return a value as text: "" for None, lists with commas, texts as the cell of a table.

    Examples
    --------
    >>> cell("evalue", 1.234e-10), cell("t", [1.0, -2.0, 0.5]), cell("query", "=1+1")
    ('1.23e-10', '1.0000,-2.0000,0.5000', "'=1+1")
    """
    if value is None:
        return ""
    described = COLUMNS[column]
    if described.kind == "texts":
        return table_cell(",".join(map(str, value)))
    if described.kind == "text":
        return table_cell(value)
    numbers = value if described.kind == "numbers" else [value]
    return ",".join(format(number, described.form) for number in numbers)


def _cells(table: HitTable) -> Iterable[list[str]]:
    for row in table.rows:
        yield [cell(name, row[name]) for name in table.columns]


def _delimited(table: HitTable, header: bool, delimiter: str) -> bytes:
    lines = io.StringIO()
    if delimiter == ",":
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(_cells(table))
    else:  # quotes mean nothing to the readers of m8; a cell has no tab
        rows = [table.columns] if header else []
        lines.writelines("\t".join(row) + "\n" for row in [*rows, *_cells(table)])
    return lines.getvalue().encode("utf-8", "backslashreplace")


def _m8(table: HitTable, header: bool) -> bytes:
    return _delimited(table, header, "\t")


def _tsv(table: HitTable, header: bool) -> bytes:
    return _delimited(table, True, "\t")


def _csv(table: HitTable, header: bool) -> bytes:
    return _delimited(table, True, ",")


def _json(table: HitTable, header: bool) -> bytes:
    return json_text(table.as_dict()).encode()


def html_bytes(table: HitTable, view: View | None = None) -> bytes:
    """Return the page of a table of hits; ``view`` is as for ``write_table``."""
    return page(table, view).encode("utf-8", "backslashreplace")


def _parquet(table: HitTable, header: bool) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(_arrow_table(table), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _arrow(table: HitTable) -> bytes:
    import pyarrow as pa

    sink, rows = pa.BufferOutputStream(), _arrow_table(table)
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _arrow_table(table: HitTable) -> Any:
    import pyarrow as pa

    types: dict[Kind, Any] = {
        "text": pa.string(),
        "whole": pa.int64(),
        "number": pa.float64(),
        "numbers": pa.list_(pa.float64()),
        "texts": pa.list_(pa.string()),
    }
    fields = [(name, types[COLUMNS[name].kind]) for name in table.columns]
    schema = pa.schema(fields, metadata={"schema": SCHEMA, "version": str(SCHEMA_VERSION)})
    columns = {name: [_plain(row[name]) for row in table.rows] for name in table.columns}
    return pa.table(columns, schema=schema)


def _plain(value: Any) -> Any:
    """Return a value whose texts UTF-8 can hold."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


_FORMS: Mapping[str, Callable[[HitTable, bool], bytes]] = {
    "m8": _m8,
    "tsv": _tsv,
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
    "html": lambda table, header: html_bytes(table),
}
