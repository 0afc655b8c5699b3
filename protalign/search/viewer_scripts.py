"""Scripts that open superposed structures in PyMOL, ChimeraX and Mol*, coloured by fit.

Names of files are put into commands: they must be plain (``is_plain``), so that none can act.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protalign.core.files import json_text
from protalign.reading.structure_writer import ResidueKey

#: Colours of a fit of 0, 50 and 100.
_COLOURS = ("#d7191c", "#f7f7f7", "#2c7bb6")
#: Colours of Mol*, each from this fit on.
_STEPS = ((0, "#d7191c"), (20, "#ef8a62"), (40, "#fddbc7"), (60, "#d1e5f0"), (80, "#2c7bb6"))
_QUERY_COLOUR = "#8c8c8c"
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def is_plain(name: str) -> bool:
    """Return whether a file's name has only letters, digits, points, hyphens and underlines.

    Examples
    --------
    >>> is_plain("001_1a30.pdb"), is_plain("a=b.pdb"), is_plain("x.pdb; quit")
    (True, False, False)
    """
    return _PLAIN.fullmatch(name) is not None


def pymol_script(query: str, hits: Sequence[str]) -> str:
    r"""Return a PyMOL script (.pml) that opens files of its folder.

    Examples
    --------
    >>> print(pymol_script("query.pdb", ["1_1a30.pdb"]).splitlines()[2])
    load 1_1a30.pdb, hit_1
    """
    _check_plain([query, *hits])
    names = [f"hit_{place}" for place in range(1, len(hits) + 1)]
    return "\n".join(
        [
            "# Blue lies on the query, white half as well, red does not. Run it in its folder.",
            f"load {query}, query",
            *(f"load {file}, {name}" for file, name in zip(hits, names, strict=True)),
            "hide everything",
            "show cartoon",
            "color grey70, query",
            "spectrum b, red_white_blue, hit_*, minimum=0, maximum=100",
            "orient query",
            "",
        ]
    )


def chimerax_script(query: str, hits: Sequence[str]) -> str:
    """Return a ChimeraX script (.cxc) that opens files of its folder."""
    _check_plain([query, *hits])
    palette = ":".join(f"{50 * step},{colour}" for step, colour in enumerate(_COLOURS))
    return "\n".join(
        [
            "# Blue lies on the query, white half as well, red does not. Run it in its folder.",
            f"open {query} name query",
            *(f"open {file} name hit_{place}" for place, file in enumerate(hits, start=1)),
            "hide atoms",
            "show cartoons",
            "color #1 gray",
            f"color byattribute bfactor #2-{len(hits) + 1} palette {palette}",
            "view",
            "",
        ]
    )


def molstar_view(query: Path, hits: Sequence[tuple[Path, Mapping[ResidueKey, float]]]) -> str:
    """Return a MolViewSpec state (.mvsj), which Mol* and its kin open, with the files inside it.

    A browser does not let a page read the files beside the one that was dropped on it.

    Parameters
    ----------
    query : Path
        The query's file.
    hits : sequence of (Path, mapping)
        The hits' files, and the fit of their residues.
    """
    grey = [{"kind": "color", "params": {"color": _QUERY_COLOUR}}]
    children = [_structure(query, grey)]
    children += [_structure(file, _coloured(fit)) for file, fit in hits]
    return json_text(
        {
            "metadata": {"version": "1", "title": "Hits superposed on their query"},
            "root": {"kind": "root", "children": children},
        }
    )


def _structure(file: Path, colours: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the nodes of one file: download, parse, structure, component, representation."""
    form, media = ("pdb", "x-pdb") if file.suffix == ".pdb" else ("mmcif", "x-cif")
    url = f"data:chemical/{media};base64,{b64encode(file.read_bytes()).decode()}"
    chain: list[tuple[str, dict[str, Any]]] = [
        ("download", {"url": url}),
        ("parse", {"format": form}),
        ("structure", {"type": "model"}),
        ("component", {"selector": "polymer"}),
        ("representation", {"type": "cartoon"}),
    ]
    nodes: list[Mapping[str, Any]] = list(colours)
    for kind, params in reversed(chain):
        nodes = [{"kind": kind, "params": params, "children": nodes}]
    return dict(nodes[0])


def _coloured(fit: Mapping[ResidueKey, float]) -> list[dict[str, Any]]:
    """Return nodes that colour residues by steps; those without a fit have the first colour."""
    nodes = [{"kind": "color", "params": {"color": _STEPS[0][1]}}]
    # A residue without an insertion code is meant by its number, which those with one share: these
    # come later, and so count.
    for coded in (False, True):
        for step, (least, colour) in enumerate(_STEPS):
            most = _STEPS[step + 1][0] if step + 1 < len(_STEPS) else float("inf")
            chosen = [
                {
                    "auth_asym_id": chain,
                    "auth_seq_id": number,
                    **({"pdbx_PDB_ins_code": code} if coded else {}),
                }
                for (chain, number, code), value in fit.items()
                if least <= value < most and (code != " ") == coded
            ]
            if chosen:
                nodes.append({"kind": "color", "params": {"selector": chosen, "color": colour}})
    return nodes


def _check_plain(names: Sequence[str]) -> None:
    for name in names:
        if not is_plain(name):
            raise ValueError(f"{name!r}: not a plain name of a file")
