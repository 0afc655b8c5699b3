"""The forms of answers: JSON, TSV, m8, Arrow or a page, as the client accepts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from protalign.search.alignment_formats import M8_COLUMNS
from protalign.search.hit_files import table_bytes
from protalign.search.hit_list import Hits
from protalign.serve.errors import ApiError
from protalign.serve.intake import Input

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
#: Media type of hits -> its form.
HIT_FORMS: Mapping[str, str] = {
    JSON: "json",
    "text/tab-separated-values": "tsv",
    "text/x-m8": "m8",
    ARROW: "arrow",
    "text/html": "html",
}


def chosen(accept: str | None, types: Sequence[str]) -> str:
    """Return the media type that a client likes most; the first one if it does not care.

    Raises
    ------
    ApiError
        406: it accepts none of them.

    Examples
    --------
    >>> chosen("text/*;q=0.5, application/json;q=0.1", ["application/json", "text/html"])
    'text/html'
    """
    if not accept or not accept.strip():
        return types[0]
    best, best_weight = "", 0.0
    for each in types:
        weight = _weight(accept, each)
        if weight > best_weight:
            best, best_weight = each, weight
    if not best:
        raise ApiError(
            406, "Accept: it names no form of this answer", f"accept one of {', '.join(types)}"
        )
    return best


def _weight(accept: str, media_type: str) -> float:
    """Return how much a client likes a type, 0 to 1: by the part of Accept that fits it best."""
    main = media_type.split("/")[0]
    best = (-1, 0.0)
    for part in accept.split(",")[:100]:
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        fits = [pattern == name for pattern in ("*/*", f"{main}/*", media_type)]
        if not any(fits):
            continue
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = min(1.0, max(0.0, float(parameter[2:])))
                except ValueError:
                    weight = 0.0
        best = max(best, (fits.index(True), weight), key=lambda each: each[0])
    return best[1]


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON answer."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Response(text.encode(), status, headers, JSON)


def hits_response(hits: Hits, media_type: str, inputs: Sequence[Input]) -> Response:
    """Return an answer with hits in one of ``HIT_FORMS``; residues are aligned now.

    JSON says of each query which part of the request it came from.
    """
    form = HIT_FORMS[media_type]
    usual = (
        M8_COLUMNS if form == "m8" and hits.comparison and hits.comparison.has_residues else None
    )
    table = hits.table(hits.columns or usual)
    if form == "json":
        document = table.as_dict()
        for query, taken in zip(document["queries"], inputs, strict=True):
            query["input"] = {"field": taken.field, "index": taken.index}
        return json_response(document)
    headers = {}
    if form == "html":  # it is to be saved: scripts do not run in pages of this server
        headers["Content-Disposition"] = 'attachment; filename="hits.html"'
    return Response(table_bytes(table, form, view=hits.view), 200, headers, media_type)
