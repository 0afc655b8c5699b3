"""The protein files below folders: PDBbind's layout is known, each file counts once."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protalign.core.errors import Failure
from protalign.core.paths import path_text
from protalign.reading.content import system_problem

Kind = Literal["pdb", "mmcif", "bcif", "fasta"]

_KINDS: dict[str, Kind] = {
    ".pdb": "pdb",
    ".ent": "pdb",
    ".cif": "mmcif",
    ".mmcif": "mmcif",
    ".bcif": "bcif",
    ".fasta": "fasta",
    ".fa": "fasta",
    ".faa": "fasta",
    ".fas": "fasta",
}
_READABLE = f"readable are {', '.join(_KINDS)}, each also with .gz"
#: Advice for a file that is not a structure by its name.
STRUCTURE_SUFFIXES = (
    f"readable are {', '.join(suffix for suffix, kind in _KINDS.items() if kind != 'fasta')}, "
    "each also with .gz"
)
_PDBBIND_SUFFIX = "_protein"
#: The wwPDB's own names of PDB files: pdb1abc.ent is the entry 1abc.
_WWPDB_NAME = re.compile(r"pdb([0-9][a-z0-9]{3})\.ent", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read.

    Attributes
    ----------
    path : Path
        As it was given, or found below a folder that was given.
    id : str
        The id of its entry: the file's name without its suffixes, 1abc for the wwPDB's
        pdb1abc.ent; in PDBbind's layout the folder's name. A FASTA file's records have ids of their
        own.
    kind : "pdb", "mmcif", "bcif" or "fasta"
        The format, by the file's name.

    Examples
    --------
    >>> SourceFile(Path("pdbbind/1a30/1a30_protein.pdb.gz"), id="1a30", kind="pdb").id
    '1a30'
    """

    path: Path
    id: str
    kind: Kind


def split_name(name: str) -> tuple[str, Kind | None]:
    """Return a file's name without its known suffixes, and the kind that they stand for.

    Examples
    --------
    >>> split_name("1abc.PDB.gz"), split_name("notes.txt")
    (('1abc', 'pdb'), ('notes.txt', None))
    """
    stem = name[:-3] if name.lower().endswith(".gz") else name
    if wwpdb := _WWPDB_NAME.fullmatch(stem):
        return wwpdb[1], "pdb"
    kind: Kind | None = None
    while (suffix := Path(stem).suffix.lower()) in _KINDS:
        kind = kind or _KINDS[suffix]
        stem = stem[: -len(suffix)]
    return stem, kind


def is_id(text: str) -> bool:
    """Return whether the text can be an entry's id: printable, not empty, without white space."""
    return text.isprintable() and text != "" and not any(map(str.isspace, text))


def find_sources(paths: Sequence[Path]) -> tuple[list[SourceFile], list[Failure]]:
    """Find the protein files among the paths and below the folders among them.

    Folders are searched recursively, each once, so that a loop of links ends. Hidden files and
    folders and files of other kinds are passed over. If a folder ``{id}`` holds
    ``{id}_protein.pdb``, as PDBbind's do, nothing else in it is taken. A file that is given
    twice counts once.

    Parameters
    ----------
    paths : sequence of Path
        Files and folders.

    Returns
    -------
    sources : list of SourceFile
        Sorted by path.
    failures : list of Failure
        A path that is missing, a file given by name with an unknown suffix, a folder with nothing
        to read, a name that cannot be an id, and a second structure file with the same id.

    Examples
    --------
    >>> sources, failures = find_sources([Path("examples/sample"), Path("missing.pdb")])
    >>> len(sources), sources[0].id, sources[0].kind
    (40, '107l_A', 'pdb')
    >>> failures[0].reason
    'it does not exist'
    """
    failures: list[Failure] = []
    files: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for path in sorted(map(Path, paths)):
        if problem := _problem_of(path):
            failures.append(problem)
        elif path.is_dir():
            before = len(visited)
            below = list(_search(path, visited, failures))
            if not below and len(visited) > before:
                failures.append(Failure("", path_text(path), "it holds no protein file", _READABLE))
            files += below
        else:
            files.append(path)
    return _unique_sources(files, failures), failures


def _problem_of(path: Path) -> Failure | None:
    file = path_text(path)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return Failure("", file, "it does not exist", "check the path")
    except (OSError, ValueError) as error:  # a loop of links, no permission, a null character
        return Failure("", file, f"it cannot be read: {system_problem(error)}", "check the path")
    if not is_folder and split_name(path.name)[1] is None:
        return Failure("", file, "its suffix is unknown", _READABLE)
    return None


def _search(root: Path, visited: set[tuple[int, int]], failures: list[Failure]) -> Iterator[Path]:
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            status = folder.stat()
            entries = list(os.scandir(folder))
        except OSError as error:
            reason = f"it cannot be read: {system_problem(error)}"
            failures.append(Failure("", path_text(folder), reason, "check its permissions"))
            continue
        inode = (status.st_dev, status.st_ino)
        if inode in visited:
            continue
        visited.add(inode)
        # "." and "" have a name only once they are made absolute.
        name = folder.name
        if name in ("", ".."):
            name = Path(os.path.realpath(folder)).name
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        protein = [
            entry
            for entry in visible
            if split_name(entry.name)[0] == name + _PDBBIND_SUFFIX and _takes(entry)
        ]
        for entry in protein or visible:
            if _is_folder(entry):
                pending.append(folder / entry.name)
            elif _takes(entry):
                yield folder / entry.name


def _takes(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a protein file by its name.

    A broken link and a loop of links are, so that reading them gives a line in the failures.
    """
    if split_name(entry.name)[1] is None:
        return False
    try:
        if entry.is_file():
            return True
        Path(entry.path).stat()
    except OSError:
        return True
    return False  # a folder, a pipe, a device


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _unique_sources(files: list[Path], failures: list[Failure]) -> list[SourceFile]:
    sources: list[SourceFile] = []
    seen: set[tuple[Path, str]] = set()
    first_of: dict[str, Path] = {}
    folders: dict[Path, Path] = {}
    for path in sorted(files):
        if path.parent not in folders:
            folders[path.parent] = Path(os.path.realpath(path.parent))
        folder = folders[path.parent]
        if (folder, path.name) in seen:
            continue
        seen.add((folder, path.name))
        id, kind = split_name(path.name)
        assert kind is not None
        if id == folder.name + _PDBBIND_SUFFIX:
            id = folder.name
        if kind != "fasta":
            if problem := _id_problem(id, path, first_of):
                failures.append(problem)
                continue
            first_of[id] = path
        sources.append(SourceFile(path, id, kind))
    return sources


def _id_problem(id: str, path: Path, first_of: dict[str, Path]) -> Failure | None:
    file = path_text(path)
    if not is_id(id):
        reason = (
            "its name cannot be an id: it is empty, or has white space or unprintable characters"
        )
        return Failure("", file, reason, "rename the file")
    return taken(id, file, path_text(first_of[id])) if id in first_of else None


def taken(id: str, file: str, first: str) -> Failure:
    """Return the failure of an entry that has the id of an earlier one."""
    return Failure(
        id, file, f"the id {id} is taken by {first}", "rename one of the two, or leave one out"
    )
