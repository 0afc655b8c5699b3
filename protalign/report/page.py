"""The report as one HTML file that needs nothing else: tables, pictures and the map inside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from protalign.report.alignment_view import alignment_blocks
from protalign.report.pictures import Shown
from protalign.report.runs import write_text

_MINUS = "\N{MINUS SIGN}"
_NONE = "\N{EN DASH}"

#: What the page calls the tasks of ``protalign.evaluation.evaluate``.
_TASKS = {
    "protein": "its own partner",
    "family": "any of its family",
    "within_family": "its own, within its family",
    "scop_fold": "same SCOPe fold",
    "scop_superfamily": "same SCOPe superfamily",
    "scop_family": "same SCOPe family",
    "clean_95": "its own; clean at 95 %",
    "clean_30": "its own; clean at 30 %",
}

_BASELINES = {
    "family_and_length": "family and length",
    "kmers": "k-mers",
    "cca": "CCA of means",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What the page is made from: config.json, results.json and the pictures."""

    config: Mapping[str, Any]
    results: Mapping[str, Any]
    shown: Shown


def write_page(path: Path, report: Report) -> Path:
    """Write the page; it appears whole or not at all."""
    environment = Environment(
        loader=PackageLoader("protalign.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "spread": spread,
        "size": size,
        "count": count,
    }
    loader = environment.loader
    assert loader is not None

    def own(name: str) -> Markup:
        return Markup(loader.get_source(environment, name)[0])  # our own file, not the user's

    text = environment.get_template("page.html.j2").render(
        config=report.config,
        results=report.results,
        tables={table["key"]: table for table in report.results["tables"]},
        pictures={p.name: _data_uri(p.png) for p in report.shown.pictures},
        shown=report.shown,
        blocks=alignment_blocks(report.results["cluster"]),
        style=own("style.css"),
        map_script=own("map.js"),
        plotly=Markup(get_plotlyjs()),
        task_names=_TASKS,
        baseline_names=_BASELINES,
    )
    write_text(path, text)
    return path


def percent(summary: Mapping[str, Any] | float | None) -> Markup | str:
    """A fraction, or a summary of fractions over the seeds, as "17.8 ± 1.0"."""
    return _shown(summary, 100.0, 1)


def number(summary: Mapping[str, Any] | float | None, digits: int = 3) -> Markup | str:
    """A figure, or a summary of figures over the seeds, with its standard deviation."""
    return _shown(summary, 1.0, digits)


def spread(figure: Mapping[str, float | None], scale: float, digits: int) -> Markup | str:
    """A figure of ``protalign.evaluation.evaluate`` with its interval, as "17.8 [12.1, 23.0]"."""
    text = _shown(figure["value"], scale, digits)
    low, high = (_shown(figure[end], scale, digits) for end in ("low", "high"))
    if low == high:  # none, or none that this many digits show
        return text
    return Markup('{} <span class="sd">[{}, {}]</span>').format(text, low, high)


def _shown(summary: Mapping[str, Any] | float | None, scale: float, digits: int) -> Markup | str:
    if summary is None:
        return _NONE
    if not isinstance(summary, Mapping):
        return _signed(f"{scale * summary:.{digits}f}")
    mean, sd = summary["mean"], summary["sd"]
    text = _signed(f"{scale * mean:.{digits}f}")
    if sd is None:
        return text
    return Markup('{} <span class="sd">± {}</span>').format(text, f"{scale * sd:.{digits}f}")


def _signed(text: str) -> str:
    return text.replace("-", _MINUS)


def count(value: int) -> str:
    """ "12,345"."""
    return f"{value:,}"


def size(value: int | None) -> str:
    """Bytes as "25.3 GB"; "unknown" for None."""
    return "unknown" if value is None else f"{value / 1e9:.1f} GB"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
