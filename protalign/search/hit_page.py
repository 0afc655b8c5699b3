"""Hits as one page of HTML: a table for each query, without scripts."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from protalign.core.printing import printable
from protalign.core.version import __version__
from protalign.core.words import counted
from protalign.search.hit_columns import COLUMNS, HitTable

#: Hits on a page, at most: browsers are slow on more.
ROWS_SHOWN = 5000
_MINUS = "\N{MINUS SIGN}"


def page(table: HitTable) -> str:
    """Return the page of a table of hits, with all text escaped.

    Examples
    --------
    >>> query = {"id": "<b>", "length": 99, "modality": "sequence", "hits": 0}
    >>> "&lt;b&gt;" in page(HitTable(("query", "target"), (), (query,)))
    True
    """
    environment = Environment(
        loader=PackageLoader("protalign.search"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"counted": counted, "printable": printable}
    # A query's id stands above its table; the numbers of hits tell where each query's hits end.
    named = [COLUMNS[name] for name in table.columns if name != "query"]
    unknown = [
        column.name
        for column in named
        if table.rows and all(row[column.name] is None for row in table.rows)
    ]
    columns = [column for column in named if column.name not in unknown]
    rows = iter(table.rows[:ROWS_SHOWN])
    queries = []
    for query in table.queries:
        hits = [row for _, row in zip(range(query["hits"]), rows, strict=False)]
        shown = [
            [(column, _shown(column.name, hit[column.name])) for column in columns] for hit in hits
        ]
        queries.append({**query, "rows": shown})
    return environment.get_template("hits.html.j2").render(
        version=__version__,
        columns=columns,
        unknown=unknown,
        queries=queries,
        failures=table.failures,
        total=len(table.rows),
        shown=min(len(table.rows), ROWS_SHOWN),
    )


def _shown(name: str, value: Any) -> list[str]:
    """Return a value as text that may break between its parts."""
    column = COLUMNS[name]
    if value is None:
        return []
    if column.kind in ("text", "texts"):
        return [printable(each) for each in (value if column.kind == "texts" else [value])]
    numbers = value if column.kind == "numbers" else [value]
    return [format(number, column.form).replace("-", _MINUS) for number in numbers]
