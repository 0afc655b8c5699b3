"""The report's page: one HTML file that holds its tables, pictures and map."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from protalign.core.files import write_text
from protalign.core.words import counted
from protalign.report.alignment import alignment_blocks
from protalign.report.pictures import Drawings
from protalign.search.hit_page import view_text

_MINUS = "\N{MINUS SIGN}"
_NONE = "\N{EN DASH}"

#: The page's names of the tasks, residue scores and baselines of ``protalign.evaluation.evaluate``.
_TASKS = {
    "protein": "own partner",
    "family": "family",
    "within_family": "own partner within family",
    "clean_95": "own partner, clean at 95 %",
    "clean_30": "own partner, clean at 30 %",
}
_BASELINES = {
    "family_and_length": "family and length",
    "kmers": "k-mers",
    "cca": "CCA of means",
    "mmseqs": "MMseqs2",
}
_SCORERS = {
    "residues_global": "residues, best diagonal",
    "residues_local": "residues, local alignment",
    "residues_excess": "residues, local alignment above chance",
    "residues_backed": "residues, above chance, with backing",
}
#: The page's names of the levels of relatives, and of what aligns them.
_RELATIVES = {
    "scop_family": "SCOPe family",
    "scop_superfamily": "SCOPe superfamily, another family",
    "scop_fold": "SCOPe fold, another superfamily",
    "cath_superfamily": "CATH superfamily",
    "cath_topology": "CATH topology, another superfamily",
}
_ALIGNERS = {"residues_local": "residues, local alignment", "blosum": "BLOSUM62"}


def write_page(
    path: Path, config: Mapping[str, Any], results: Mapping[str, Any], drawings: Drawings
) -> None:
    """Write the page; it appears whole or not at all.

    Parameters
    ----------
    path : path
        The file.
    config, results : mapping
        The contents of config.json and results.json.
    drawings : Drawings
        Pictures and map.
    """
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
        "counted": counted,
    }
    loader = environment.loader
    assert loader is not None

    def shipped(name: str) -> Markup:
        return Markup(loader.get_source(environment, name)[0])  # not the user's: not escaped

    text = environment.get_template("page.html.j2").render(
        config=config,
        results=results,
        tables={table["key"]: table for table in results["tables"]},
        pictures={p.name: _data_uri(p.png) for p in drawings.pictures},
        drawings=drawings,
        blocks=alignment_blocks(results["cluster"]),
        style=shipped("style.css"),
        map_style=Markup(view_text("map.css")),
        map_script=shipped("map.js"),
        point_map=Markup(view_text("map.js")),
        task_names=_TASKS,
        baseline_names=_BASELINES,
        scorer_names=_SCORERS,
        relative_names=_RELATIVES,
        aligner_names=_ALIGNERS,
    )
    write_text(path, text)


def percent(figure: Mapping[str, Any] | float | None) -> Markup | str:
    """Format a fraction, or a summary of fractions over the seeds, as "17.8 ± 1.0"."""
    return _formatted(figure, 100.0, 1)


def number(figure: Mapping[str, Any] | float | None, digits: int = 3) -> Markup | str:
    """Format a figure, or a summary of figures over the seeds with its standard deviation."""
    return _formatted(figure, 1.0, digits)


def spread(figure: Mapping[str, float | None], scale: float, digits: int) -> Markup | str:
    """Format a figure of ``evaluate`` with its interval, as "17.8 [12.1, 23.0]"."""
    text = _formatted(figure["value"], scale, digits)
    low, high = (_formatted(figure[end], scale, digits) for end in ("low", "high"))
    if low == high:  # no interval, or one that these digits do not show
        return text
    return Markup('{} <span class="sd">[{}, {}]</span>').format(text, low, high)


def _formatted(figure: Mapping[str, Any] | float | None, scale: float, digits: int) -> Markup | str:
    if figure is None:
        return _NONE
    if not isinstance(figure, Mapping):
        return _signed(f"{scale * figure:.{digits}f}")
    mean, sd = figure["mean"], figure["sd"]
    text = _signed(f"{scale * mean:.{digits}f}")
    if sd is None:
        return text
    return Markup('{} <span class="sd">± {}</span>').format(text, f"{scale * sd:.{digits}f}")


def _signed(text: str) -> str:
    return text.replace("-", _MINUS)


def count(value: int) -> str:
    """Format a number of things, as "12,345"."""
    return f"{value:,}"


def size(n_bytes: int) -> str:
    """Format bytes, as "25.3 GB"."""
    return f"{n_bytes / 1e9:.1f} GB"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
