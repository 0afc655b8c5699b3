"""Hits as one file of HTML: tables that any browser shows, and an interactive view of them.

The file holds all that it needs and asks nothing of the network. Its scripts are the package's own,
named by their hashes, so that nothing out of a file of proteins can act as one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from protalign.core.printing import printable
from protalign.core.version import __version__
from protalign.core.words import counted
from protalign.search.hit_columns import COLUMNS, HitTable

#: Hits on a page, at most: browsers are slow on more.
ROWS_SHOWN = 5000
#: Hits of which a page holds the details, at most: each is aligned and superposed, which takes a
#: tenth of a second.
MOST_VIEWS = 200
#: Bytes that the tables and the details may take together, for details to be added: the file should
#: stay below 10 MB.
MOST_BYTES = 9_000_000
#: How much larger the tables and their JSON are together than the JSON.
_TABLES = 4
#: The folder of the view's files, and its scripts: the first hides the plain tables.
_VIEW = files("protalign.search") / "view"
_SCRIPTS = (
    *("early.js", "3Dmol-min.js", "files.js", "scene.js", "hit.js", "view.js"),
    "static.js",
)
_MINUS = "\N{MINUS SIGN}"
_VECTORS_ONLY = (
    "This search compared vectors only. Compare residues as well (--rerank 200) to see the "
    "alignment and the structure of a hit."
)


def page(table: HitTable, view: Callable[[int], dict[str, Any]] | None = None) -> str:
    """Return the page of a table of hits, with all text escaped.

    Parameters
    ----------
    table : HitTable
        The hits.
    view : callable, optional
        Gives the document of the hit at a place of the table (``Hits.view``). Without it, hits
        cannot be opened. A table without the columns "target" and "rank" is a page without
        scripts.

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
    queries, shown_queries = [], []
    for query in table.queries:
        hits = [row for _, row in zip(range(query["hits"]), rows, strict=False)]
        cells = [
            [(column, _shown(column.name, hit[column.name])) for column in columns] for hit in hits
        ]
        queries.append({**query, "rows": cells})
        shown_queries.append({**query, "hits": len(hits)})
    shown = table.rows[:ROWS_SHOWN]
    interactive = {"target", "rank"} <= set(table.columns)
    document = {**table.as_dict(), "queries": shown_queries, "hits": list(shown)}
    room = MOST_BYTES - _TABLES * len(_json(document))
    packed, reason = _packed(shown, view, room) if interactive else ([], "")
    style, scripts = view_text("view.css"), [view_text(name) for name in _SCRIPTS if interactive]
    return environment.get_template("hits.html.j2").render(
        version=__version__,
        title=_title(table),
        policy=_policy(style, scripts),
        columns=columns,
        unknown=unknown,
        queries=queries,
        failures=table.failures,
        order=table.order,
        total=len(table.rows),
        shown=len(shown),
        interactive=interactive,
        views=len(packed),
        reason=reason,
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        data=_json({"document": document, "reason": reason}),
        packed_views=packed,
    )


def _packed(
    rows: Iterable[dict[str, Any]], view: Callable[[int], dict[str, Any]] | None, room: int
) -> tuple[list[tuple[int, Markup]], str]:
    """Return the packed documents of hits, best ranks first, and why the others have none."""
    if view is None:
        return [], _VECTORS_ONLY
    ranked = sorted(enumerate(rows), key=lambda each: each[1].get("rank") or each[0])
    packed: list[tuple[int, Markup]] = []
    size = 0
    for index, _ in ranked:
        if len(packed) == MOST_VIEWS:
            return packed, _too_many(f"The page holds the details of {MOST_VIEWS} hits at most")
        document = view(index)
        if not document["target"]["chains"]:
            return packed, _VECTORS_ONLY
        text = json.dumps(document, separators=(",", ":"))
        data = Markup(b64encode(gzip.compress(text.encode(), mtime=0)).decode())
        size += len(data)
        if size > room:
            return packed, _too_many("The details of more would make the file too large")
        packed.append((index, data))
    return packed, ""


def _too_many(why: str) -> str:
    return f"{why}. Search with a smaller -k, or with fewer queries, to open the others."


def _title(table: HitTable) -> str:
    names = [query["id"] for query in table.queries]
    return f"Hits of {names[0]}" if len(names) == 1 else f"Hits of {len(names)} queries"


@cache
def view_text(name: str) -> str:
    """Return the text of a file of the view.

    Examples
    --------
    >>> view_text("map.css").splitlines()[0]
    '/* a map of points */'
    """
    return (_VIEW / name).read_text(encoding="utf-8")


def _policy(style: str, scripts: Iterable[str]) -> Markup:
    """Return the page's content security policy: its own style and scripts, by their hashes."""

    def hashed(texts: Iterable[str]) -> str:
        digests = (hashlib.sha256(text.encode()).digest() for text in texts)
        return " ".join(f"'sha256-{b64encode(digest).decode()}'" for digest in digests)

    none = "'none'"
    return Markup(  # no letter of it can end an attribute
        f"default-src 'none'; script-src {hashed(scripts) or none}; style-src {hashed([style])}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> Markup:
    """Return JSON that may stand in a script element: no text of it can end the element."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _shown(name: str, value: Any) -> list[str]:
    """Return a value as text that may break between its parts."""
    column = COLUMNS[name]
    if value is None:
        return []
    if column.kind in ("text", "texts"):
        return [printable(each) for each in (value if column.kind == "texts" else [value])]
    numbers = value if column.kind == "numbers" else [value]
    return [format(number, column.form).replace("-", _MINUS) for number in numbers]
