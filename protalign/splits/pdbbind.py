"""PDBbind's INDEX files: which complexes are in the general, the refined and the core set.

A line describes a complex: its PDB code first, then resolution, year and affinity; comments begin
with #. General and refined sets come as ``INDEX_general_PL_data.2020`` and
``INDEX_refined_data.2020`` (or of another year, or without ``_data``); the core set, CASF, as
``INDEX_core_data.2016`` up to v2016 and as ``CoreSet.dat`` in the CASF-2016 package; each may be
compressed (.gz). PDBbind: Wang et al., J Med Chem 47, 2977 (2004); CASF-2016: Su et al., J Chem Inf
Model 59, 895 (2019).
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from protalign.core.errors import InputError
from protalign.core.untrusted import read_bytes

_FILE = re.compile(r"INDEX_(general_PL|refined|core)(?:_(data|set|name))?\.(\d{4})\w*(?:\.\w+)?")
_CORE_SET = "CoreSet.dat"
#: Endings of files that are named like an index but are not text.
_NO_TEXT = (".pdf", ".zip", ".tgz", ".tar", ".xlsx", ".xls", ".html")
_CODE = re.compile(r"[0-9][A-Za-z0-9]{3}")
_AGAIN = "download it again"
#: Bytes of an index, at most; PDBbind's have three million.
_MOST_BYTES = 64 << 20
#: Preference among the several files of one set, which all name the same complexes.
_PREFERRED = ("data", "set", None, "name")


@dataclass(frozen=True, slots=True)
class PDBbindIndex:
    """Lower-case PDB codes, in the files' order.

    Attributes
    ----------
    general : tuple of str
        The general set, whole or without the refined set; both occur.
    refined : tuple of str
        The refined set; empty if its file is missing.
    core : tuple of str
        The core set (CASF).
    files : tuple of str
        Names of the files that were read.
    """

    general: tuple[str, ...]
    refined: tuple[str, ...]
    core: tuple[str, ...]
    files: tuple[str, ...]


def read_index(folder: str | os.PathLike[str], year: int | None = None) -> PDBbindIndex:
    r"""Read the INDEX files below a folder.

    Parameters
    ----------
    folder : str or path
        Searched with all folders in it.
    year : int, optional
        Release of the general and refined sets; default: the newest found. The core set is that
        year's, else the newest (PDBbind has published none after 2016).

    Returns
    -------
    PDBbindIndex

    Raises
    ------
    InputError
        The general or the core set is missing, or a line does not begin with a PDB code.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "INDEX_general_PL_data.2020").write_text("3ebp 2.0\n1a30 2.0\n")
    >>> _ = (folder / "CoreSet.dat").write_text("1a30 2.0\n")
    >>> read_index(folder).general
    ('3ebp', '1a30')
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder}: is not a folder", "name the one with PDBbind's INDEX files")
    files = _index_files(root)
    years = sorted(release for kind, release in files if kind == "general_PL")
    if not years:
        raise InputError(
            f"{folder}: has no INDEX_general_PL_data file", "download PDBbind's index files"
        )
    if year is not None and year not in years:
        raise InputError(
            f"{folder}: has no general set of {year}", f"it has {', '.join(map(str, years))}"
        )
    year = year or years[-1]
    core_years = sorted(release for kind, release in files if kind == "core")
    if not core_years:
        raise InputError(
            f"{folder}: has no core set",
            f"add INDEX_core_data.2016 or CASF-2016's {_CORE_SET}",
        )
    core_year = year if year in core_years else core_years[-1]
    wanted = [("general_PL", year), ("refined", year), ("core", core_year)]
    paths = [files.get(key) for key in wanted]
    general, refined, core = (() if path is None else _codes(path) for path in paths)
    return PDBbindIndex(general, refined, core, tuple(p.name for p in paths if p is not None))


def _index_files(root: Path) -> dict[tuple[str, int], Path]:
    """Return (set, year) -> file; CoreSet.dat, which has no year, counts as the core of 2016."""
    files: dict[tuple[str, int], tuple[int, Path]] = {}
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
        if key not in files or rank < files[key][0]:
            files[key] = (rank, path)
    return {key: path for key, (_, path) in files.items()}


def _codes(path: Path) -> tuple[str, ...]:
    content = read_bytes(path, _AGAIN, most=_MOST_BYTES)
    if path.suffix == ".gz":
        try:
            with gzip.open(BytesIO(content)) as file:
                content = file.read(_MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: cannot be read ({error})", _AGAIN) from None
        if len(content) > _MOST_BYTES:
            raise InputError(f"{path}: more than {_MOST_BYTES:,} bytes decompressed", _AGAIN)
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    codes: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        code = line.split()[0]
        if not _CODE.fullmatch(code):
            raise InputError(
                f"{path}, line {number}: {code[:20]!r} is not a PDB code",
                "download the file from PDBbind again",
            )
        codes[code.lower()] = None
    if not codes:
        raise InputError(f"{path}: contains no complexes", "download the file from PDBbind again")
    return tuple(codes)
