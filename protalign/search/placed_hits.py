"""A folder of hits superposed on their queries, with scripts that open them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.arrays import Float64
from protalign.core.errors import InputError
from protalign.core.files import check_replaceable, new_folder, write_json, write_text
from protalign.core.paths import file_stem, path_of
from protalign.core.protein import Protein
from protalign.core.words import counted
from protalign.reading.moved_structures import move_structure
from protalign.reading.structure_writer import ResidueKey, write_backbone, write_values
from protalign.search.comparison import Comparison
from protalign.search.hit import Hit
from protalign.search.residue_rows import ResidueRows
from protalign.search.superposition import Superposition
from protalign.search.viewer_scripts import chimerax_script, molstar_view, pymol_script

#: The name and the version of the schema of the folder's JSON document (docs/formats.md).
SCHEMA, SCHEMA_VERSION = "protalign superposed hits", 1
#: The folder's JSON document, and the scripts in each query's folder.
DOCUMENT, SCRIPTS = "superposed.json", ("view.pml", "view.cxc", "view.mvsj")


@dataclass(frozen=True, slots=True)
class PlacedHit:
    """A hit whose structure was written as it lies on its query, or why it was not.

    Attributes
    ----------
    query, target : str
        The ids.
    rank : int
        The hit's rank.
    file : str or None
        Its file, from the folder on; None if it could not be placed.
    atoms : "all", "backbone" or None
        All atoms of its source file, or the store's backbone.
    reason : str
        Why it could not be placed; "" if it was.
    superposition : Superposition or None
        Its motion onto the query.
    """

    query: str
    target: str
    rank: int
    file: str | None = None
    atoms: str | None = None
    reason: str = ""
    superposition: Superposition | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        found = self.superposition
        return {
            "query": self.query,
            "target": self.target,
            "rank": self.rank,
            "file": self.file,
            "atoms": self.atoms,
            "reason": self.reason,
            "qtmscore": None if found is None else found.score,
            "alntmscore": None if found is None else found.aligned_score,
            "rmsd": None if found is None else found.rmsd,
            "u": None if found is None else found.rotation.ravel().tolist(),
            "t": None if found is None else found.translation.tolist(),
        }


@dataclass(frozen=True, slots=True)
class PlacedHits:
    """What a folder of superposed hits holds.

    Attributes
    ----------
    folder : Path
        The folder.
    hits : tuple of PlacedHit
        All hits, those that could not be placed as well.
    """

    folder: Path
    hits: tuple[PlacedHit, ...]

    def sentence(self) -> str:
        """Return in one line how many were placed, with which atoms, and why others were not.

        Examples
        --------
        >>> hit = PlacedHit("q", "t", 1, reason="no coordinates")
        >>> PlacedHits(Path("out"), (hit,)).sentence()
        'out: 0 hits superposed; 1 not (no coordinates)'
        """
        placed = [hit for hit in self.hits if hit.file is not None]
        backbones = sum(hit.atoms == "backbone" for hit in placed)
        line = f"{self.folder}: {counted(len(placed), 'hit')} superposed"
        if backbones:
            line += f", {backbones:,} with the backbone only (the source file has other atoms)"
        if left := [hit.reason for hit in self.hits if hit.file is None]:
            line += f"; {len(left):,} not ({', '.join(dict.fromkeys(left))})"
        return line


def check_placed_folder(path: str | os.PathLike[str]) -> None:
    """Raise WriteError if something is at a path that ``place_hits`` must not replace."""
    check_replaceable(path, DOCUMENT, SCHEMA, "a folder of superposed hits")


def place_hits(
    hits: Sequence[tuple[Hit, int]], comparison: Comparison, path: str | os.PathLike[str]
) -> PlacedHits:
    """Write a folder of hits superposed on their queries; it appears whole or not at all.

    Parameters
    ----------
    hits : sequence of (Hit, int)
        The hits, and the places of their queries among those of the search.
    comparison : Comparison
        What superposes them.
    path : str or path
        The folder. One that this function wrote is replaced.

    Returns
    -------
    PlacedHits

    Raises
    ------
    InputError
        No hit can be placed.
    WriteError
        Something else is at the path, or it cannot be written.
    """
    check_placed_folder(path)
    of_query: dict[int, list[Hit]] = defaultdict(list)
    for hit, place in hits:
        of_query[place].append(hit)
    placed: list[PlacedHit] = []
    with new_folder(path) as folder:
        taken: set[str] = {DOCUMENT}
        for place, each in of_query.items():
            name = file_stem([comparison.queries.ids[place]], taken, plain=True)
            placed += _place(comparison, place, each, folder, name)
        if not any(hit.file for hit in placed):
            reasons = ", ".join(dict.fromkeys(hit.reason for hit in placed)) or "no hits"
            raise InputError(
                f"superpose: nothing can be superposed ({reasons})",
                "search with structure files or ids, among entries with structures",
            )
        write_json(
            folder / DOCUMENT,
            {
                "schema": SCHEMA,
                "version": SCHEMA_VERSION,
                "hits": [hit.as_dict() for hit in placed],
            },
        )
    return PlacedHits(Path(path), tuple(placed))


def _place(
    comparison: Comparison, place: int, hits: Sequence[Hit], folder: Path, name: str
) -> list[PlacedHit]:
    """Write the folder of one query."""
    query = comparison.query(place)
    if query is None or query.structure is None:
        return [_left_out(hit, "the query has no coordinates") for hit in hits]
    placed: list[PlacedHit] = []
    files: list[tuple[Path, Mapping[ResidueKey, float]]] = []
    best: dict[ResidueKey, float] = {}
    taken: set[str] = set()
    width = len(str(max(hit.rank for hit in hits)))
    for hit in hits:
        entry = comparison.entry(hit.id)
        if entry is None or entry.structure is None:
            placed.append(_left_out(hit, "no coordinates"))
            continue
        found = comparison.superposition(place, hit)
        if found is None:
            placed.append(_left_out(hit, "nothing comes to lie on the query"))
            continue
        (folder / name).mkdir(exist_ok=True)
        base = folder / name / file_stem([f"{hit.rank:0{width}}", hit.id], taken, plain=True)
        values = _values(entry, found.hit_rows, found)
        digest = comparison.entry_digest(hit.id)
        file, all_atoms = _write_moved(
            entry, digest, values, base, found.rotation, found.translation
        )
        for key, value in _values(query, found.query_rows, found).items():
            best[key] = max(best.get(key, 0.0), value)
        files.append((file, values))
        atoms = "all" if all_atoms else "backbone"
        placed.append(
            PlacedHit(hit.query, hit.id, hit.rank, f"{name}/{file.name}", atoms, "", found)
        )
    if files:
        file = _write_query(query, comparison.digest(place), best, folder / name / "query")
        names = [each.name for each, _ in files]
        scripts = (
            pymol_script(file.name, names),
            chimerax_script(file.name, names),
            molstar_view(file, files),
        )
        for script, text in zip(SCRIPTS, scripts, strict=True):
            write_text(folder / name / script, text)
    return placed


def _left_out(hit: Hit, reason: str) -> PlacedHit:
    return PlacedHit(hit.query, hit.id, hit.rank, reason=reason)


def _values(protein: Protein, rows: Any, found: Superposition) -> dict[ResidueKey, float]:
    """Return the fit of each residue that is superposed."""
    count = sum(len(chain.structure_rows) for chain in protein.chains)
    nothing = np.empty((count, 0), dtype=np.float32)
    residues = ResidueRows.of(protein.id, "structure", protein.chains, nothing).residues
    keys = [residues[row] for row in rows.tolist()]
    return {
        (chain, number, code or " "): value
        for (chain, number, code), value in zip(keys, found.fit.tolist(), strict=True)
        if number is not None
    }


def _write_query(
    protein: Protein, digest: bytes, values: Mapping[ResidueKey, float], base: Path
) -> Path:
    """Write a query where it is, in a file of the same form as the hits'."""
    return _write_moved(protein, digest, values, base, np.eye(3), np.zeros(3))[0]


def _write_moved(
    protein: Protein,
    digest: bytes,
    values: Mapping[ResidueKey, float],
    base: Path,
    rotation: Float64,
    translation: Float64,
) -> tuple[Path, bool]:
    """Write a protein, moved; return the file, and whether it holds all atoms of its source."""
    assert protein.structure is not None
    file, all_atoms = write_values(path_of(protein.source), digest, protein.structure, values, base)
    try:
        return move_structure(file, rotation, translation), all_atoms
    except InputError:  # atoms that our reader skips and that have no numbers
        file.unlink()
    file = write_backbone(protein.structure, values, base)
    return move_structure(file, rotation, translation), False
