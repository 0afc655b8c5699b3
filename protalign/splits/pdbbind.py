"""PDBbind's INDEX files: which complexes are in the general, the refined and the core set.

A line is a complex: its PDB code first, then resolution, year, affinity; comments begin with #.
General and refined sets come as ``INDEX_general_PL_data.2020`` and ``INDEX_refined_data.2020`` (or
of another year, or without ``_data``); the core set, CASF, as ``INDEX_core_data.2016`` up to v2016
and as ``CoreSet.dat`` in the CASF-2016 package; each may be compressed
(.gz). PDBbind: Wang et al., J Med Chem 47, 2977 (2004); CASF-2016: Su et al., J Chem Inf Model 59,
895 (2019).
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from protalign.core.errors import InputError

_FILE = re.compile(r"INDEX_(general_PL|refined|core)(?:_(data|set|name))?\.(\d{4})\w*(?:\.\w+)?")
_CORE_SET = "CoreSet.dat"
#: Ways that a file may end that begins as an index does, and is none.
_NO_TEXT = (".pdf", ".zip", ".tgz", ".tar", ".xlsx", ".xls", ".html")
_CODE = re.compile(r"[0-9][A-Za-z0-9]{3}")
#: Of one set's several files; all of them name the same complexes.
_PREFERRED = ("data", "set", None, "name")


@dataclass(frozen=True, slots=True)
class PDBbindIndex:
    """Lower-case PDB codes, in the files' order.

    Attributes
    ----------
    general : the whole general set or what it has beside the refined one; either is found.
    refined : empty where no file of it is there.
    core : CASF.
    files : names of the files that were read.
    """

    general: tuple[str, ...]
    refined: tuple[str, ...]
    core: tuple[str, ...]
    files: tuple[str, ...]


def read_index(folder: str | os.PathLike[str], year: int | None = None) -> PDBbindIndex:
    """Read the INDEX files below a folder.

    Parameters
    ----------
    folder : searched with all folders in it.
    year : of the general and refined sets; default: the newest there is. The core set is that
        year's, else the newest (PDBbind has published none after 2016).

    Raises
    ------
    InputError : no general or core set, none of the year, or a line that begins with no PDB code.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder} is no folder", "name the one that holds PDBbind's INDEX files")
    found = _find(root)
    years = sorted({own for kind, own in found if kind == "general_PL"})
    if not years:
        raise InputError(
            f"{folder} holds no INDEX_general_PL_data file", "get PDBbind's index of the year"
        )
    if year is not None and year not in years:
        raise InputError(f"{folder} holds no general set of {year}", f"there are {years}")
    chosen = year or years[-1]
    core_years = sorted(own for kind, own in found if kind == "core")
    if not core_years:
        raise InputError(
            f"{folder} holds no core set",
            f"put INDEX_core_data.2016 or CASF-2016's {_CORE_SET} there",
        )
    core_year = chosen if chosen in core_years else core_years[-1]
    wanted = [("general_PL", chosen), ("refined", chosen), ("core", core_year)]
    paths = [found.get(key) for key in wanted]
    general, refined, core = (() if path is None else _codes(path) for path in paths)
    return PDBbindIndex(general, refined, core, tuple(p.name for p in paths if p is not None))


def _find(root: Path) -> dict[tuple[str, int], Path]:
    """(set, year) -> its file; CoreSet.dat, which bears no year, stands for the core of 2016."""
    found: dict[tuple[str, int], tuple[int, Path]] = {}
    for path in sorted(root.rglob("*")):
        match = _FILE.fullmatch(path.name)
        if match is not None:
            key, rank = (match[1], int(match[3])), _PREFERRED.index(match[2])
        elif path.name.removesuffix(".gz") == _CORE_SET:
            key, rank = ("core", 2016), len(_PREFERRED)
        else:
            continue
        if path.suffix in _NO_TEXT or not path.is_file():
            continue
        if key not in found or rank < found[key][0]:
            found[key] = (rank, path)
    return {key: path for key, (_, path) in found.items()}


def _codes(path: Path) -> tuple[str, ...]:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error})", "get it again") from None
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    codes: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        code = line.split()[0]
        if not _CODE.fullmatch(code):
            raise InputError(
                f"{path}, line {number}: {code[:20]!r} is no PDB code",
                "get the file from PDBbind again",
            )
        codes[code.lower()] = None
    if not codes:
        raise InputError(f"{path} names no complex", "get the file from PDBbind again")
    return tuple(codes)
